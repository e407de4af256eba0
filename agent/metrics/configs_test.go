package metrics_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const configs = "../../configs"

// declared gives every metric of a scrape, histograms with their parts.
func declared(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for line := range strings.Lines(scrape(t, full(t))) {
		if fields := strings.Fields(line); len(fields) > 3 && fields[1] == "TYPE" {
			names[fields[2]] = true
			if fields[3] == "histogram" {
				for _, part := range []string{"_bucket", "_sum", "_count"} {
					names[fields[2]+part] = true
				}
			}
		}
	}
	return names
}

var metricName = regexp.MustCompile(`\bwherry_[a-z0-9_]+`)

// A rule or a panel on a metric that does not exist stays silent for ever.
func TestRulesAndDashboardsUseMetricsThatExist(t *testing.T) {
	names := declared(t)
	for _, file := range []string{"prometheus-rules.yaml", "grafana-dashboard.json"} {
		text, err := os.ReadFile(filepath.Join(configs, file))
		if err != nil {
			t.Fatal(err)
		}
		used := metricName.FindAllString(string(text), -1)
		if len(used) == 0 {
			t.Errorf("%s uses no metric", file)
		}
		for _, name := range used {
			if !names[name] {
				t.Errorf("%s uses %s, which the agent does not have", file, name)
			}
		}
	}
}

func TestDashboardIsSound(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(configs, "grafana-dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Title  string
		UID    string
		Panels []struct {
			ID      int
			Title   string
			Type    string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	if d.Title == "" || d.UID == "" || len(d.Panels) < 8 {
		t.Errorf("title %q, uid %q, %d panels", d.Title, d.UID, len(d.Panels))
	}
	ids := map[int]bool{}
	for _, p := range d.Panels {
		if ids[p.ID] {
			t.Errorf("panel %q: id %d is taken", p.Title, p.ID)
		}
		ids[p.ID] = true
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q asks nothing", p.Title)
		}
		if p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %q is wider than the screen", p.Title)
		}
	}
}
