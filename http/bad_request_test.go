package http_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3filter"

	wherry "github.com/wherry-kvm/wherry/http"
	"github.com/wherry-kvm/wherry/http/api"
)

// long is a name that no file could have.
var long = strings.Repeat("x", 201)

// badRequests are requests of which nothing may come. Field is what the answer
// names. Loose marks those that OpenAPI has no words for.
var badRequests = []struct {
	name, method, path, body string
	field                    string
	loose                    bool
}{
	{name: "no body", method: "POST", path: "/v1/instances"},
	{name: "no JSON", method: "POST", path: "/v1/instances", body: `{"name":`},
	{name: "a list", method: "POST", path: "/v1/instances", body: `[]`},
	{name: "null", method: "POST", path: "/v1/instances", body: `null`},
	{name: "two values", method: "POST", path: "/v1/instances", body: `{"name":"a"} {}`, loose: true},
	{name: "unknown field", method: "POST", path: "/v1/instances", body: `{"name":"a","nmae":"b"}`, field: "nmae"},
	{name: "unknown field below", method: "POST", path: "/v1/instances/vm1/migrate", body: `{"destination":"https://b","disks":[{"target":"vda"},{"targt":"vdb"}]}`, field: "disks[1].targt"},
	{name: "field in another case", method: "POST", path: "/v1/instances", body: `{"Name":"a"}`, field: "Name"},
	{name: "field given twice", method: "POST", path: "/v1/instances", body: `{"name":"a","name":"b"}`, field: "name", loose: true},
	{name: "null for a string", method: "POST", path: "/v1/instances", body: `{"name":null}`, field: "name"},
	{name: "number for a string", method: "POST", path: "/v1/instances", body: `{"name":1}`, field: "name"},
	{name: "string for a number", method: "POST", path: "/v1/instances", body: `{"name":"a","memory":"1G"}`, field: "memory"},
	{name: "fraction for a whole number", method: "POST", path: "/v1/instances", body: `{"name":"a","vcpus":1.5}`, field: "vcpus"},
	{name: "number too large", method: "POST", path: "/v1/instances", body: `{"name":"a","memory":1e30}`, field: "memory", loose: true},
	{name: "number for a duration", method: "POST", path: "/v1/instances/vm1/stop", body: `{"timeout":90}`, field: "timeout"},
	{name: "duration without a unit", method: "POST", path: "/v1/instances/vm1/stop", body: `{"timeout":"90"}`, field: "timeout"},
	{name: "negative duration", method: "POST", path: "/v1/instances/vm1/stop", body: `{"timeout":"-1s"}`, field: "timeout"},
	{name: "unknown word", method: "POST", path: "/v1/instances/vm1/stop", body: `{"on_timeout":"kill"}`, field: "on_timeout"},
	{name: "body where none is due", method: "POST", path: "/v1/instances/vm1/start", body: `{"force":true}`, field: "force"},
	{name: "body where none is due, incoming", method: "DELETE", path: "/v1/incoming/in1", body: `{"force":true}`, field: "force", loose: true},
	{name: "body where none is due, cancel", method: "DELETE", path: "/v1/operations/op1", body: `{"force":true}`, field: "force", loose: true},

	{name: "no name", method: "POST", path: "/v1/instances", body: `{}`, field: "name"},
	{name: "name with a slash", method: "POST", path: "/v1/instances", body: `{"name":"a/b"}`, field: "name"},
	{name: "name with a line break", method: "POST", path: "/v1/instances", body: `{"name":"a\nb"}`, field: "name"},
	{name: "name with a space", method: "POST", path: "/v1/instances", body: `{"name":"a b"}`, field: "name"},
	{name: "hidden name", method: "POST", path: "/v1/instances", body: `{"name":".a"}`, field: "name"},
	{name: "name like a flag", method: "POST", path: "/v1/instances", body: `{"name":"-a"}`, field: "name"},
	{name: "long name", method: "POST", path: "/v1/instances", body: `{"name":"` + long + `"}`, field: "name"},
	{name: "negative size", method: "POST", path: "/v1/instances", body: `{"name":"a","disk_size":-1}`, field: "disk_size"},
	{name: "negative memory", method: "POST", path: "/v1/instances", body: `{"name":"a","memory":-1}`, field: "memory"},
	{name: "negative vcpus", method: "POST", path: "/v1/instances", body: `{"name":"a","vcpus":-1}`, field: "vcpus"},
	{name: "unknown clone", method: "POST", path: "/v1/instances", body: `{"name":"a","clone":"thin"}`, field: "clone"},
	{name: "kernel that is no path", method: "POST", path: "/v1/instances", body: `{"name":"a","boot":{"kernel":"vmlinuz"}}`, field: "boot.kernel"},
	{name: "pool with a slash", method: "POST", path: "/v1/instances", body: `{"name":"a","pool":"../x"}`, field: "pool", loose: true},

	{name: "rebuild from nothing said", method: "POST", path: "/v1/instances/vm1/rebuild", body: `{}`, field: "source.type"},
	{name: "rebuild without a body", method: "POST", path: "/v1/instances/vm1/rebuild"},
	{name: "rebuild from an unknown word", method: "POST", path: "/v1/instances/vm1/rebuild", body: `{"source":{"type":"image"}}`, field: "source.type"},
	{name: "rebuild from no template", method: "POST", path: "/v1/instances/vm1/rebuild", body: `{"source":{"type":"template"}}`, field: "source.template", loose: true},
	{name: "rebuild as empty from a template", method: "POST", path: "/v1/instances/vm1/rebuild/plan", body: `{"source":{"type":"empty","template":"rocky9"}}`, field: "source.template", loose: true},
	{name: "rebuild from a template with a slash", method: "POST", path: "/v1/instances/vm1/rebuild", body: `{"source":{"type":"template","template":"a/b"}}`, field: "source.template"},
	{name: "rebuild to a negative size", method: "POST", path: "/v1/instances/vm1/rebuild", body: `{"source":{"type":"empty"},"disk_size":-512}`, field: "disk_size"},
	{name: "rebuild to half a sector", method: "POST", path: "/v1/instances/vm1/rebuild", body: `{"source":{"type":"empty"},"disk_size":1000}`, field: "disk_size"},
	{name: "rebuild with time for no stop", method: "POST", path: "/v1/instances/vm1/rebuild", body: `{"source":{"type":"original"},"timeout":"1m"}`, field: "timeout", loose: true},
	{name: "rebuild with an unknown field", method: "POST", path: "/v1/instances/vm1/rebuild", body: `{"source":{"type":"original","image":"a"}}`, field: "source.image"},

	{name: "slash in the path", method: "GET", path: "/v1/instances/a%2Fb", field: "name"},
	{name: "parent in the path", method: "GET", path: "/v1/instances/%2E%2E", field: "name", loose: true},
	{name: "zero byte in the path", method: "GET", path: "/v1/instances/a%00b", field: "name"},
	{name: "no UTF-8 in the path", method: "GET", path: "/v1/instances/a%ffb", field: "name", loose: true},
	{name: "long name in the path", method: "GET", path: "/v1/instances/" + long, field: "name"},
	{name: "id with a space", method: "GET", path: "/v1/operations/a%20b", field: "id"},
	{name: "id like a flag", method: "GET", path: "/v1/templates/-x", field: "id"},
	{name: "project with a slash", method: "GET", path: "/v1/instances?project=a%2Fb", field: "project"},
	{name: "project that is a folder", method: "GET", path: "/v1/instances/vm1?project=..", field: "project"},
	{name: "all projects of one instance", method: "GET", path: "/v1/instances/vm1?project=*", field: "project"},
	{name: "unknown parameter", method: "GET", path: "/v1/instances?projct=blue", field: "projct", loose: true},
	{name: "parameter twice", method: "GET", path: "/v1/instances?project=a&project=b", field: "project", loose: true},
	{name: "unknown status", method: "GET", path: "/v1/operations?status=done", field: "status"},
	{name: "wait without a unit", method: "GET", path: "/v1/operations/op1?wait=30", field: "wait"},
	{name: "negative wait", method: "GET", path: "/v1/operations/op1?wait=-1s", field: "wait"},

	{name: "no destination", method: "POST", path: "/v1/instances/vm1/migrate", body: `{}`, field: "destination"},
	{name: "destination without https", method: "POST", path: "/v1/instances/vm1/migrate/plan", body: `{"destination":"http://b:8470"}`, field: "destination"},
	{name: "destination without a host", method: "POST", path: "/v1/instances/vm1/migrate", body: `{"destination":"https://"}`, field: "destination"},
	{name: "destination with a path", method: "POST", path: "/v1/instances/vm1/migrate", body: `{"destination":"https://b/v1"}`, field: "destination"},
	{name: "destination with a user", method: "POST", path: "/v1/instances/vm1/migrate", body: `{"destination":"https://u:p@b"}`, field: "destination", loose: true},
	{name: "unknown mode", method: "POST", path: "/v1/instances/vm1/migrate", body: `{"destination":"https://b","mode":"thin"}`, field: "mode"},
	{name: "no bandwidth", method: "PUT", path: "/v1/host/bandwidth", body: `{}`, field: "bandwidth"},
	{name: "negative bandwidth of all", method: "PUT", path: "/v1/host/bandwidth", body: `{"bandwidth":-1}`, field: "bandwidth"},
	{name: "unknown policy of convergence", method: "POST", path: "/v1/instances/vm1/migrate", body: `{"destination":"https://b","on_not_converging":"wait"}`, field: "on_not_converging"},
	{name: "unknown seed", method: "POST", path: "/v1/instances/vm1/migrate", body: `{"destination":"https://b","seed":"on"}`, field: "seed"},
	{name: "negative bandwidth", method: "POST", path: "/v1/instances/vm1/migrate", body: `{"destination":"https://b","bandwidth":-1}`, field: "bandwidth"},
	{name: "disk twice", method: "POST", path: "/v1/instances/vm1/migrate", body: `{"destination":"https://b","disks":[{"target":"vda"},{"target":"vda"}]}`, field: "disks[1].target", loose: true},
	{name: "disk without a target", method: "POST", path: "/v1/instances/vm1/migrate", body: `{"destination":"https://b","disks":[{}]}`, field: "disks[0].target"},
	{name: "unknown format", method: "POST", path: "/v1/instances/vm1/migrate", body: `{"destination":"https://b","disks":[{"target":"vda","format":"vmdk"}]}`, field: "disks[0].format"},
	{name: "connect of no type", method: "POST", path: "/v1/instances/vm1/migrate", body: `{"destination":"https://b","disks":[{"target":"vda","connect":{}}]}`, field: "disks[0].connect.type"},

	{name: "no targets", method: "POST", path: "/v1/targets", body: `{"add":true,"targets":[]}`, field: "targets"},
	{name: "add left out", method: "POST", path: "/v1/targets", body: `{"targets":[{"type":"file","path":"/srv"}]}`, field: "add"},
	{name: "unknown type", method: "POST", path: "/v1/targets", body: `{"add":true,"targets":[{"type":"nfs"}]}`, field: "targets[0].type"},
	{name: "relative path", method: "POST", path: "/v1/targets", body: `{"add":true,"targets":[{"type":"file","path":"srv"}]}`, field: "targets[0].path", loose: true},
	{name: "path with a detour", method: "POST", path: "/v1/targets", body: `{"add":true,"targets":[{"type":"file","path":"/srv/../etc"}]}`, field: "targets[0].path", loose: true},
	{name: "no portal", method: "POST", path: "/v1/targets", body: `{"add":true,"targets":[{"type":"iscsi","iqn":"iqn.2026-01.org.example:s"}]}`, field: "targets[0].portal", loose: true},
	{name: "portal with a path", method: "POST", path: "/v1/targets", body: `{"add":true,"targets":[{"type":"iscsi","portal":"h/x","iqn":"iqn.2026-01.org.example:s"}]}`, field: "targets[0].portal", loose: true},
	{name: "no iqn", method: "POST", path: "/v1/targets", body: `{"add":true,"targets":[{"type":"iscsi","portal":"h"}]}`, field: "targets[0].iqn", loose: true},
	{name: "negative lun", method: "POST", path: "/v1/targets", body: `{"add":true,"targets":[{"type":"iscsi","portal":"h","iqn":"iqn.2026-01.org.example:s","lun":-1}]}`, field: "targets[0].lun"},
	{name: "half a login", method: "POST", path: "/v1/targets", body: `{"add":true,"targets":[{"type":"iscsi","portal":"h","iqn":"iqn.2026-01.org.example:s","chap":{"user":"u","secret":""}}]}`, field: "targets[0].chap.secret"},
	{name: "system that is no number", method: "POST", path: "/v1/targets", body: `{"add":true,"targets":[{"type":"powerflex","system_id":"x/y","volume_id":"1"}]}`, field: "targets[0].system_id", loose: true},
	{name: "no image", method: "POST", path: "/v1/targets", body: `{"add":true,"targets":[{"type":"rbd","pool":"p"}]}`, field: "targets[0].image", loose: true},
	{name: "empty monitor", method: "POST", path: "/v1/targets", body: `{"add":true,"targets":[{"type":"rbd","pool":"p","image":"i","monitors":[""]}]}`, field: "targets[0].monitors[0]", loose: true},

	{name: "template without an id", method: "POST", path: "/v1/templates", body: templateBody("id", `""`), field: "id"},
	{name: "template id with a slash", method: "POST", path: "/v1/templates", body: templateBody("id", `"a/b"`), field: "id"},
	{name: "template from nowhere", method: "POST", path: "/v1/templates", body: templateBody("url", `""`), field: "url", loose: true},
	{name: "template without a scheme", method: "POST", path: "/v1/templates", body: templateBody("url", `"images.example.org/a.qcow2"`), field: "url"},
	{name: "template with a port and no scheme", method: "POST", path: "/v1/templates", body: templateBody("url", `"images.example.org:8080/a.qcow2"`), field: "url"},
	{name: "template from a path", method: "POST", path: "/v1/templates", body: templateBody("url", `"/srv/images/a.qcow2"`), field: "url"},
	{name: "template from no URL", method: "POST", path: "/v1/templates", body: templateBody("url", `"://"`), field: "url"},
	{name: "template with a broken escape", method: "POST", path: "/v1/templates", body: templateBody("url", `"https://h/%zz"`), field: "url", loose: true},
	{name: "template with a line break", method: "POST", path: "/v1/templates", body: templateBody("url", `"https://h/a\nb"`), field: "url"},
	{name: "template with a password", method: "POST", path: "/v1/templates", body: templateBody("url", `"https://u:p@h/a"`), field: "url", loose: true},
	{name: "template without a host", method: "POST", path: "/v1/templates", body: templateBody("url", `"http://"`), field: "url"},
	{name: "template of a path without a host", method: "POST", path: "/v1/templates", body: templateBody("url", `"https:///a.qcow2"`), field: "url", loose: true},
	{name: "template from a file of another host", method: "POST", path: "/v1/templates", body: templateBody("url", `"file://nas/a.qcow2"`), field: "url", loose: true},
	{name: "template from a long URL", method: "POST", path: "/v1/templates", body: templateBody("url", `"https://h/`+strings.Repeat("x", 8192)+`"`), field: "url"},
	{name: "no checksum", method: "POST", path: "/v1/templates", body: templateBody("checksum", `""`), field: "checksum"},
	{name: "checksum of no algorithm", method: "POST", path: "/v1/templates", body: templateBody("checksum", `"crc32:d41d8cd9"`), field: "checksum"},
	{name: "md5 as long as another", method: "POST", path: "/v1/templates", body: templateBody("checksum", `"md5:da39a3ee5e6b4b0d3255bfef95601890afd80709"`), field: "checksum"},
	{name: "short checksum", method: "POST", path: "/v1/templates", body: templateBody("checksum", `"sha256:abcd"`), field: "checksum"},
	{name: "no format", method: "POST", path: "/v1/templates", body: templateBody("format", `""`), field: "format"},
	{name: "format that is guessed", method: "POST", path: "/v1/templates", body: templateBody("format", `"auto"`), field: "format"},
	{name: "header with a line break", method: "POST", path: "/v1/templates", body: templateBody("headers", `{"X":"a\r\nHost: b"}`), field: "headers.X", loose: true},
	{name: "header with a space", method: "POST", path: "/v1/templates", body: templateBody("headers", `{"X Y":"a"}`), field: "headers.X Y", loose: true},
	{name: "sync from anywhere", method: "POST", path: "/v1/templates", body: templateBody("sync_from", `"http://b"`), field: "sync_from"},

	{name: "facts of no uuid", method: "POST", path: "/v1/incoming/facts", body: jsonWith(aFactsRequest, "uuid", `"x"`), field: "uuid"},
	{name: "facts without XML", method: "POST", path: "/v1/incoming/facts", body: jsonWith(aFactsRequest, "domain_xml", `""`), field: "domain_xml"},
	{name: "probe with a path", method: "POST", path: "/v1/incoming/facts", body: jsonWith(aFactsRequest, "disks", `[{"target":"vda","probe":{"name":"../x","token":"t"}}]`), field: "disks[0].probe.name", loose: true},
	{name: "reservation without an operation", method: "POST", path: "/v1/incoming", body: jsonWith(aReservation, "operation", `""`), field: "operation"},
	{name: "reservation with a disk twice", method: "POST", path: "/v1/incoming", body: jsonWith(aReservation, "disks", `[{"target":"vda","place":{"path":"/a"}},{"target":"vda","place":{"path":"/b"}}]`), field: "disks[1].target", loose: true},
	{name: "reservation of a negative size", method: "POST", path: "/v1/incoming", body: jsonWith(aReservation, "disks", `[{"target":"vda","place":{"path":"/a"},"virtual_size":-1}]`), field: "disks[0].virtual_size"},
	{name: "leftovers, all of them", method: "DELETE", path: "/v1/leftovers", body: `{"paths":[]}`, field: "paths"},
	{name: "leftover of no whole path", method: "DELETE", path: "/v1/leftovers", body: `{"paths":["/a","b"]}`, field: "paths[1]"},
	{name: "leftover of no name", method: "DELETE", path: "/v1/leftovers", body: `{"paths":["secret:"]}`, field: "paths[0]", loose: true},
	{name: "leftover of no kind", method: "DELETE", path: "/v1/leftovers", body: `{"paths":["thing:x"]}`, field: "paths[0]"},
	{name: "leftover by a detour", method: "DELETE", path: "/v1/leftovers", body: `{"paths":["/a/../b"]}`, field: "paths[0]", loose: true},
	{name: "decision for nobody", method: "POST", path: "/v1/operations/op1/resolve", body: `{}`, field: "keep"},
	{name: "decision for a third", method: "POST", path: "/v1/operations/op1/resolve", body: `{"keep":"both"}`, field: "keep"},
	{name: "decision on hearsay", method: "POST", path: "/v1/operations/op1/resolve", body: `{"keep":"source","other_host":"perhaps"}`, field: "other_host"},
	{name: "decision with a flag", method: "POST", path: "/v1/operations/op1/resolve", body: `{"keep":"source","force":true}`, field: "force"},
	{name: "copy to be done nothing to", method: "POST", path: "/v1/incoming/in1/settle", body: `{"act":"remove"}`, field: "act"},
	{name: "record of another form", method: "POST", path: "/v1/incoming/in1/commit", body: `{"record":{"project":"default","name":"a/b","uuid":"x","domain_xml":"<domain/>","disks":[],"power_state":"","updated_at":"2026-11-21T10:00:00Z"}}`, field: "record.name", loose: true},
	{name: "record of no time", method: "POST", path: "/v1/incoming/in1/commit", body: `{"record":{"updated_at":"yesterday"}}`, field: "record.updated_at"},
}

func templateBody(field, value string) string { return jsonWith(aTemplateRequest, field, value) }

// jsonWith gives v as JSON with one field replaced.
func jsonWith(v any, field, value string) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil {
		panic(err)
	}
	fields[field] = json.RawMessage(value)
	if b, err = json.Marshal(fields); err != nil {
		panic(err)
	}
	return string(b)
}

// TestBadRequestsDoNothing has services without functions: one that is called
// panics, and the answer is 500.
func TestBadRequestsDoNothing(t *testing.T) {
	a := newAgent(t)
	a.serve(t, wherry.Listeners{})
	for _, row := range badRequests {
		t.Run(row.name, func(t *testing.T) {
			got := a.raw(t, row.method, row.path, row.body)
			p := got.problem(t)
			if got.StatusCode != http.StatusBadRequest || p.Code != "bad-request" {
				t.Fatalf("answered %s %s", got.Status, got.body)
			}
			var fields []string
			for _, f := range p.Fields {
				fields = append(fields, f.Field)
			}
			if row.field != "" && (len(fields) == 0 || fields[0] != row.field) {
				t.Errorf("names %q, not %q: %s", fields, row.field, p.Detail)
			}
			if !row.loose && inContract(t, row.method, row.path, row.body) {
				t.Error("the contract allows it")
			}
		})
	}
}

// inContract tells whether openapi.yaml allows a request.
func inContract(t *testing.T, method, path, body string) bool {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, "http://localhost"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	route, params, err := theContract(t).router.FindRoute(req)
	if err != nil {
		return false
	}
	return openapi3filter.ValidateRequest(t.Context(), &openapi3filter.RequestValidationInput{Request: req, PathParams: params, Route: route}) == nil
}

func TestAllFaultsAreNamedAtOnce(t *testing.T) {
	a := newAgent(t)
	a.serve(t, wherry.Listeners{})
	p := a.raw(t, "POST", "/v1/instances/vm1/migrate", `{"destination":"ftp://b","mode":"thin","bandwidth":-1}`).problem(t)
	if len(p.Fields) != 3 {
		t.Errorf("%d fields, not 3: %v", len(p.Fields), p.Fields)
	}
}

func TestBodyOverOneMebibyte(t *testing.T) {
	a := newAgent(t)
	a.serve(t, wherry.Listeners{})
	body := `{"name":"a","domain_xml":"` + strings.Repeat("x", 1<<20) + `"}`
	if got := a.raw(t, "POST", "/v1/instances", body); got.StatusCode != http.StatusBadRequest || got.problem(t).Code != "payload-too-large" {
		t.Errorf("answered %s", got.Status)
	}
}

func TestEmptyBodyWhereAllIsOptional(t *testing.T) {
	a := newAgent(t)
	var got api.StopRequest
	a.actions.StopFn = func(_ context.Context, _ api.Ref, r api.StopRequest, _ api.Idempotency) (api.Operation, error) {
		got = r
		return anOp, nil
	}
	a.serve(t, wherry.Listeners{})
	if resp := a.raw(t, "POST", "/v1/instances/vm1/stop", ""); resp.StatusCode != http.StatusAccepted || got != (api.StopRequest{}) {
		t.Errorf("answered %s, called with %+v", resp.Status, got)
	}
}
