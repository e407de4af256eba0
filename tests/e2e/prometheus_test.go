//go:build lab

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/wherry-kvm/wherry/tests/harness"
)

// toolsOf gives the folder of Debian's prometheus and promtool.
func (w *world) toolsOf() string {
	w.Helper()
	out, err := exec.CommandContext(w.ctx, "../lab/prometheus.sh").Output()
	w.must(err)
	return strings.TrimSpace(string(out))
}

// promtool runs promtool, which must be content.
func (w *world) promtool(input []byte, args ...string) {
	w.Helper()
	cmd := exec.CommandContext(w.ctx, filepath.Join(w.toolsOf(), "promtool"), args...)
	cmd.Stdin = bytes.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		w.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// prometheus is a Prometheus that runs on a host and scrapes both agents.
type prometheus struct {
	*world
	client *http.Client
}

const prometheusConfig = `
global: {scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 1s}
rule_files: [prometheus-rules.yaml]
scrape_configs:
  - job_name: wherry
    static_configs: [{targets: ["wherry-a:9470", "wherry-b:9470"]}]
`

// prometheus starts one on the host, with the rules that Wherry ships, until
// the test ends. Its folder lies in pool second, where the host sees it too.
func (w *world) prometheus(on *side) *prometheus {
	w.Helper()
	const name = "prometheus"
	folder := filepath.Join(on.Second(), name)
	w.must(os.MkdirAll(folder, 0o700))
	w.cleanup("removing Prometheus", func(context.Context) error { return os.RemoveAll(folder) })
	rules, err := os.ReadFile("../../configs/prometheus-rules.yaml")
	w.must(err)
	w.must(os.WriteFile(filepath.Join(folder, "prometheus-rules.yaml"), rules, 0o600))
	w.must(os.WriteFile(filepath.Join(folder, "prometheus.yml"), []byte(prometheusConfig), 0o600))
	w.must(exec.CommandContext(w.ctx, "cp", filepath.Join(w.toolsOf(), name), folder).Run())

	log, err := os.Create(filepath.Join(w.TempDir(), "prometheus.log"))
	w.must(err)
	there := harness.SecondPath + "/" + name
	ctx, stop := context.WithCancel(context.Background())
	cmd := on.Command(ctx, there+"/"+name, "--config.file="+there+"/prometheus.yml", "--storage.tsdb.path="+there+"/data", "--web.listen-address=127.0.0.1:9090")
	cmd.Stdout, cmd.Stderr = log, log
	w.must(cmd.Start())
	w.Cleanup(func() {
		stop()
		cmd.Wait() // killed: its status says no more
		if out, err := os.ReadFile(log.Name()); w.Failed() {
			w.Logf("prometheus: %s %v", out, err)
		}
	})
	return &prometheus{w, &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return on.Dial("tcp", "127.0.0.1:9090")
	}}}}
}

// query asks for an instant vector and gives its values, each under its label.
func (p *prometheus) query(ctx context.Context, label, expr string) (map[string]float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://prometheus/api/v1/query?query="+url.QueryEscape(expr), nil)
	if err != nil {
		return nil, err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("query %s: status %s: %s", expr, resp.Status, body), err)
	}
	var answer struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("query %s: %w", expr, err)
	}
	values := map[string]float64{}
	for _, r := range answer.Data.Result {
		text, _ := r.Value[1].(string)
		if values[r.Metric[label]], err = strconv.ParseFloat(text, 64); err != nil {
			return nil, fmt.Errorf("query %s: value %q: %w", expr, text, err)
		}
	}
	return values, nil
}

// wants waits until an expression gives exactly these values by label.
func (p *prometheus) wants(label, expr string, want map[string]float64) {
	p.Helper()
	p.must(harness.Until(p.ctx, fmt.Sprintf("%s to be %v", expr, want), func(ctx context.Context) error {
		got, err := p.query(ctx, label, expr)
		if err == nil && fmt.Sprint(got) != fmt.Sprint(want) {
			err = fmt.Errorf("it is %v", got)
		}
		return err
	}))
}

// value asks for the one value of an expression, 0 where it has none yet.
func (p *prometheus) value(expr string) float64 {
	p.Helper()
	got, err := p.query(p.ctx, "", fmt.Sprintf("sum(%s)", expr))
	p.must(err)
	return got[""]
}

// scraped reads a host's metrics as Prometheus would, and gives each series'
// value.
func (w *world) scraped(on *side) map[string]float64 {
	w.Helper()
	text, err := on.api.Metrics(w.ctx)
	w.must(err)
	series := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		at := strings.LastIndexByte(strings.TrimSpace(line), ' ')
		if strings.HasPrefix(line, "#") || at < 0 {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(line[at:]), 64)
		w.must(err)
		series[line[:at]] = v
	}
	return series
}
