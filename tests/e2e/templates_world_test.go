//go:build lab

package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
	"github.com/wherry-kvm/wherry/tests/lab/guest/image"
)

// quick is an agent whose waits are seconds, so that a test sees several of
// them: less the configuration does not allow.
var quick = []string{
	"WHERRY_TEMPLATES_RETRY_FIRST=1s", "WHERRY_TEMPLATES_RETRY_MAX=2s", "WHERRY_TEMPLATES_CHECK_INTERVAL=1s",
	"WHERRY_TEMPLATES_IDLE_TIMEOUT=2s",
}

// step runs a part of the test under a name of its own; where it fails, so does
// what follows from it.
func (w *world) step(name string, fn func(w *world)) {
	w.Helper()
	if !w.substep(name, fn) {
		w.FailNow()
	}
}

// substep is step for a part that nothing depends on.
func (w *world) substep(name string, fn func(w *world)) bool {
	w.Helper()
	return w.TB.(*testing.T).Run(name, func(t *testing.T) {
		part := *w
		part.TB = t
		fn(&part)
	})
}

// origin starts a web server on a host, "127.0.0.1" for its agent alone.
func (w *world) origin(on *side, address string) *harness.Origin {
	w.Helper()
	return on.Origin(w.TB.(*testing.T), address)
}

// trusts gives the setting by which a host's agent knows an origin's authority.
func (w *world) trusts(on *side, o *harness.Origin) string {
	w.Helper()
	const path = "/etc/wherry/origin.pem"
	_, err := on.Input(w.ctx, string(o.CA()), "sh", "-c", "cat >"+path)
	w.must(err)
	return "WHERRY_TEMPLATES_CA=" + path
}

// raw makes an image of that size of which data bytes are no hole, for a guest
// to verify.
func (w *world) raw(label string, size, data int64) string {
	w.Helper()
	file := filepath.Join(w.TempDir(), label+".raw")
	w.must(image.Make(file, label, fmt.Sprint(time.Now().UnixNano()), size, data))
	return file
}

// sourced serves a file under its own name, holes and all, and gives the name.
func (w *world) sourced(o *harness.Origin, file string) string {
	w.Helper()
	name := filepath.Base(file)
	w.must(exec.CommandContext(w.ctx, "cp", "--sparse=always", file, o.File(name)).Run())
	return name
}

// text serves bytes and gives their checksum.
func (w *world) text(o *harness.Origin, name, content string) (checksum string) {
	w.Helper()
	w.must(o.Put(name, []byte(content)))
	sum := sha256.Sum256([]byte(content))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// anyChecksum is well formed, and of nothing.
var anyChecksum = "sha256:" + strings.Repeat("5e", sha256.Size)

// registered begins a template and does not wait for its end.
func (w *world) registered(on *side, r api.TemplateRequest) api.Operation {
	w.Helper()
	if r.Format == "" {
		r.Format = "qcow2"
	}
	if r.Checksum == "" {
		r.Checksum = anyChecksum
	}
	op, err := on.api.RegisterTemplate(w.ctx, r, "")
	w.must(err)
	return op
}

// copyOf gives the one copy of a template: there is never another entry.
func (w *world) copyOf(on *side, id string) api.TemplateCopy {
	w.Helper()
	t, err := on.api.Template(w.ctx, id)
	w.must(err)
	if len(t.Copies) != 1 {
		w.Fatalf("template %q on host %s has copies %+v; want one", id, on.Name, t.Copies)
	}
	return t.Copies[0]
}

// untilCopy waits for a template's one copy to be so.
func (w *world) untilCopy(on *side, id, what string, so func(api.TemplateCopy) bool) (found api.TemplateCopy) {
	w.Helper()
	w.must(harness.Until(w.ctx, fmt.Sprintf("template %q on host %s %s", id, on.Name, what), func(ctx context.Context) error {
		t, err := on.api.Template(ctx, id)
		if err != nil {
			return err
		}
		if len(t.Copies) != 1 || !so(t.Copies[0]) {
			return fmt.Errorf("copies %+v", t.Copies)
		}
		found = t.Copies[0]
		return nil
	}))
	return found
}

func isReady(c api.TemplateCopy) bool  { return c.State == api.CopyReady }
func isFailed(c api.TemplateCopy) bool { return c.State == api.CopyFailed }

// readied waits for a template's one copy, and wants it to say so and nothing
// else, and its file to have the bytes.
func (w *world) readied(on *side, id, file string) api.TemplateCopy {
	w.Helper()
	c := w.untilCopy(on, id, "to be ready", isReady)
	if c.Code != "" || c.Class != "" || c.Message != "" || c.RetryAt != nil || c.FailedSince != nil {
		w.Errorf("ready copy %+v; want nothing left of a failure", c)
	}
	if got, want := strings.Fields(w.exec(on, "sha256sum", c.Path))[0], w.checksum(file); "sha256:"+got != want {
		w.Errorf("the copy of %q has digest %s; want %s", id, got, want)
	}
	if mode := w.exec(on, "stat", "-c", "%a", c.Path); mode != "444" {
		w.Errorf("the copy of %q has mode %s; want it read-only", id, mode)
	}
	return c
}

// blamed wants a copy to have failed with a code, of a class, and a message
// that has every one of the words, great or small.
func (w *world) blamed(c api.TemplateCopy, code, class string, words ...string) {
	w.Helper()
	if c.State != api.CopyFailed || c.Code != code || c.Class != class || c.FailedSince == nil || c.Attempts < 1 {
		w.Errorf("copy %+v; want it failed for %q (%s)", c, code, class)
	}
	if c.Message == "" || len(c.Message) > 1024 {
		w.Errorf("message of %d bytes: %q", len(c.Message), c.Message)
	}
	for _, word := range words {
		if !strings.Contains(strings.ToLower(c.Message), strings.ToLower(word)) {
			w.Errorf("message %q; want it to have %q", c.Message, word)
		}
	}
}

// hidden lists what agents have left in a folder that is not for others.
func (w *world) hidden(on *side, folder string) []string {
	w.Helper()
	return strings.Fields(w.exec(on, "find", folder, "-mindepth", "1", "-name", ".*", "!", "-name", ".wherry-lock"))
}

// pool gives a host a pool on a file system of its own until the test ends.
func (w *world) pool(on *side, name, kind string, size int64) (folder string) {
	w.Helper()
	w.cleanup("taking a file system away", func(ctx context.Context) error { return on.EndFileSystem(ctx, name) })
	folder, err := on.FileSystem(w.ctx, name, kind, size)
	w.must(err)
	return folder
}

// allocated is how many bytes a file takes on its disk.
func (w *world) allocated(on *side, path string) (size, allocated int64) {
	w.Helper()
	var blocks, unit int64
	if _, err := fmt.Sscan(w.exec(on, "stat", "-c", "%s %b %B", path), &size, &blocks, &unit); err != nil {
		w.Fatal(err)
	}
	return size, blocks * unit
}

// asked gives what an origin was asked for under a name, once the last answer
// has ended as far as the origin knows.
func (w *world) asked(o *harness.Origin, name string) (out []harness.OriginRequest) {
	w.Helper()
	all, err := o.Requests()
	w.must(err)
	for _, r := range all {
		if path, _, _ := strings.Cut(r.URI, "?"); filepath.Base(path) == name {
			out = append(out, r)
		}
	}
	return out
}

// health waits for an instance to be "ok" or "degraded", and gives the reasons.
func (w *world) health(on *side, name, want string) []string {
	w.Helper()
	var reasons []string
	w.must(harness.Until(w.ctx, fmt.Sprintf("instance %q to be %s", name, want), func(ctx context.Context) error {
		i, err := on.api.Instance(ctx, api.Ref{Name: name})
		if err == nil && i.Health != want {
			err = fmt.Errorf("it is %q: %q", i.Health, i.HealthReasons)
		}
		reasons = i.HealthReasons
		return err
	}))
	return reasons
}

// sentBytes is what a host has put on the wire so far.
func (w *world) sentBytes(on *side) (n int64) {
	w.Helper()
	if _, err := fmt.Sscan(w.exec(on, "cat", "/sys/class/net/eth0/statistics/tx_bytes"), &n); err != nil {
		w.Fatal(err)
	}
	return n
}

// forget removes every template of a host: what fails would be tried again
// while other tests run. Call it again when the host is empty: for an instance
// that was not deleted by the agent, it keeps the templates, and says that they
// are lost. Then it forgets everything.
func (s *side) forget(ctx context.Context, empty bool) error {
	list, err := s.api.Templates(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, t := range list {
		switch {
		case t.RemovedAt == nil:
			_, err := s.api.RemoveTemplate(ctx, t.ID)
			errs = append(errs, err)
		case empty && len(t.Refs)+len(t.Copies) > 0:
			if err := s.Agent(ctx, "stop"); err != nil {
				return err
			}
			_, err := s.Exec(ctx, "find", "/var/lib/wherry", "-mindepth", "1", "-delete")
			return errors.Join(err, s.Agent(ctx, "start"))
		}
	}
	return errors.Join(errs...)
}

// noise is an image that no packing makes smaller and that has no holes.
func (w *world) noise(name string, size int64) string {
	w.Helper()
	file := filepath.Join(w.TempDir(), name)
	in, err := os.Open("/dev/urandom")
	w.must(err)
	defer in.Close()
	out, err := os.Create(file)
	w.must(err)
	_, err = io.CopyN(out, in, size)
	w.must(errors.Join(err, out.Close()))
	return file
}
