package main_test

import (
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/wherry-kvm/wherry"

type pkg struct {
	ImportPath, Name, Dir string
	Standard              bool
	GoFiles, CgoFiles     []string
	Imports, Deps         []string
}

// list asks the go command about packages.
func list(t *testing.T, args ...string) (out []pkg) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-tags", "lab", "-json=ImportPath,Name,Dir,Standard,GoFiles,CgoFiles,Imports,Deps"}, args...)...)
	b, err := cmd.Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			err = errors.New(string(exit.Stderr))
		}
		t.Fatalf("go list %v: %v", args, err)
	}
	for d := json.NewDecoder(strings.NewReader(string(b))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
}

func within(path, folder string) bool { return path == folder || strings.HasPrefix(path, folder+"/") }

// borrowed are the leaves' packages that stand on another leaf, and why that is
// better than the rule.
var borrowed = map[string]string{
	// Outside bytes have one reader, which is fuzzed: an image is judged by the
	// one that reads chains later.
	module + "/template/intake": module + "/volume",
}

// Dependencies point one way: the leaves know neither the agent nor the wire
// nor each other, by whatever detour. (The linter sees direct imports only.)
func TestLeavesImportNoAgent(t *testing.T) {
	leaves := []string{module + "/hypervisor", module + "/volume", module + "/template"}
	seen := map[string]bool{}
	for _, p := range list(t, "./hypervisor/...", "./volume/...", "./template/...") {
		i := slices.IndexFunc(leaves, func(l string) bool { return within(p.ImportPath, l) })
		seen[leaves[i]] = true
		for _, d := range p.Deps {
			other := slices.ContainsFunc(leaves, func(l string) bool {
				return l != leaves[i] && within(d, l) && l != borrowed[p.ImportPath]
			})
			if other || within(d, module+"/agent") || within(d, module+"/http") {
				t.Errorf("%s stands on %s", p.ImportPath, d)
			}
		}
	}
	if len(seen) != len(leaves) {
		t.Errorf("looked at %v; want all of %v", seen, leaves)
	}
}

// below says on which packages of ours each part of template may stand. The
// registry knows the parts and none knows the registry, but for intake, whose
// interface is the registry's.
var below = map[string][]string{
	"template":                {"template/digest", "template/fault", "template/partial", "template/sniff", "template/source"},
	"template/fault":          {},
	"template/digest":         {},
	"template/sniff":          {},
	"template/source":         {"template/digest", "template/fault", "template/sniff"},
	"template/partial":        {"template/digest", "template/fault", "template/source"},
	"template/intake":         {"template", "template/fault", "template/sniff", "volume"},
	"template/intake/hostile": {"template/fault"},
}

func TestPartsOfTemplateStandOnEachOtherInOrder(t *testing.T) {
	packages := list(t, "./template/...")
	for _, p := range packages {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		allowed, known := below[name]
		if !known {
			t.Errorf("%s has no place in the order", name)
		}
		for _, i := range p.Imports {
			if on, ours := strings.CutPrefix(i, module+"/"); ours && !slices.Contains(allowed, on) {
				t.Errorf("%s stands on %s", name, on)
			}
		}
	}
	if len(packages) != len(below) {
		t.Errorf("%d packages; want all %d of the order", len(packages), len(below))
	}
}

// The types of the wire may be used by everybody, so they stand on nothing.
func TestWireTypesStandOnTheStandardLibrary(t *testing.T) {
	types := list(t, "./http/api")
	if len(types) != 1 {
		t.Fatalf("packages %v", types)
	}
	for _, p := range list(t, "-deps", "./http/api") {
		if !p.Standard && p.ImportPath != module+"/http/api" {
			t.Errorf("http/api stands on %s", p.ImportPath)
		}
	}
}

// One doc comment for each package: two are shown joined, in the order of the
// files' names, and none is none.
func TestPackagesHaveOneDocComment(t *testing.T) {
	packages := list(t, "./...")
	if len(packages) < 20 {
		t.Fatalf("%d packages", len(packages))
	}
	for _, p := range packages {
		var docs []string
		files := slices.Concat(p.GoFiles, p.CgoFiles)
		for _, name := range files {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Fatal(err)
			}
			if f.Doc == nil {
				continue
			}
			docs = append(docs, name)
			if text := f.Doc.Text(); p.Name != "main" && !strings.HasPrefix(text, "Package "+p.Name+" ") {
				t.Errorf("%s: the doc comment in %s begins with %.30q", p.ImportPath, name, text)
			}
		}
		if len(docs) != 1 && len(files) > 0 {
			t.Errorf("%s has %d doc comments: %v", p.ImportPath, len(docs), docs)
		}
	}
}

// stopPath is what works with nothing but the host itself, and on what it may
// stand of what could reach further. Libvirt waits for its hook, so that one
// may not speak to it either.
var stopPath = []string{"agent/power", "agent/cleanup", "agent/shutdown", "agent/offline", "agent/hook", "agent/record", "agent/durable",
	"hypervisor/process", "hypervisor/monitor"}

// dialers are the packages of the standard library, and of others, that reach
// another host, or the store.
var dialers = []string{"net/http", "net/rpc", "net/smtp", "crypto/tls", "google.golang.org/grpc", "go.etcd.io/bbolt", "github.com/labstack/echo/v4",
	module + "/http/client", module + "/http", module + "/agent/store", module + "/agent/operation", module + "/agent/daemon", module + "/template"}

// looksAtAddresses are those of ours that import package net, and what for.
var looksAtAddresses = map[string]string{
	"http/api":             "a portal's form",
	"volume/target":        "a portal's form",
	"hypervisor":           "a migration's address",
	"hypervisor/domainxml": "the form of a disk's source",
	"hypervisor/monitor":   "dials QEMU's socket on this host",
}

// Nothing on the way down waits for a network, by whatever detour.
func TestStopPathReachesNoNetwork(t *testing.T) {
	seen := 0
	for _, p := range list(t, "-deps", "./agent/...", "./hypervisor/...") {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		if !slices.Contains(stopPath, name) {
			continue
		}
		seen++
		for _, d := range p.Deps {
			if slices.ContainsFunc(dialers, func(x string) bool {
				return d == x || within(d, x) && x != module+"/http" && x != module+"/template"
			}) {
				t.Errorf("%s stands on %s", name, d)
			}
			if name == "agent/hook" && (within(d, "libvirt.org/go/libvirt") || d == module+"/hypervisor") {
				t.Errorf("%s stands on %s: libvirt waits for it", name, d)
			}
		}
	}
	if seen != len(stopPath) {
		t.Errorf("looked at %d packages; want all of %q", seen, stopPath)
	}
}

// What of the stop path can open a socket at all is known by name.
func TestStopPathOpensNoSocketsButKnownOnes(t *testing.T) {
	ours := map[string]pkg{}
	for _, p := range list(t, "-deps", "./agent/offline", "./agent/hook") {
		if within(p.ImportPath, module) {
			ours[strings.TrimPrefix(p.ImportPath, module+"/")] = p
		}
	}
	if len(ours) < 10 {
		t.Fatalf("%d packages", len(ours))
	}
	for name, p := range ours {
		if slices.Contains(p.Imports, "net") && looksAtAddresses[name] == "" {
			t.Errorf("%s imports net: say what for", name)
		}
	}
}
