package http_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	wherry "github.com/wherry-kvm/wherry/http"
	"github.com/wherry-kvm/wherry/http/api"
)

// What is well-formed registers, also where this host will not fetch it: that
// is for the copy to say.
func TestTemplatesThatRegister(t *testing.T) {
	sum := func(name string, digits int) string { return name + ":" + strings.Repeat("0f", digits/2) }
	for name, r := range map[string]api.TemplateRequest{
		"a scheme that nobody has": {URL: "httpsinvalid://images.example.org/a.qcow2"},
		"ftp":                      {URL: "ftp://images.example.org/a.qcow2"},
		"a host that cannot be":    {URL: "https://images.example.invalid/a.raw"},
		"an address of this host":  {URL: "http://127.0.0.1/a.qcow2"},
		"an IPv6 address":          {URL: "https://[2001:db8::1]:8443/a.qcow2?token=x"},
		"a file":                   {URL: "file:///srv/images/a.qcow2"},
		"a file of this very host": {URL: "file://localhost/srv/images/a.qcow2"},
		"a scheme in capitals":     {URL: "HTTPS://images.example.org/a.qcow2"},
		"md5":                      {Checksum: sum("md5", 32)},
		"sha1":                     {Checksum: sum("sha1", 40)},
		"sha512":                   {Checksum: sum("sha512", 128)},
		"digits in capitals":       {Checksum: strings.ToUpper(strings.Repeat("0f", 32))},
		"a list of mirrors":        {URL: "https://images.example.org/a.qcow2.meta4?x=y"},
		"a peer and no URL":        {URL: "-", SyncFrom: "https://host-b:8470"},
	} {
		t.Run(name, func(t *testing.T) {
			r.ID, r.Format = "rocky9", "qcow2"
			switch r.URL {
			case "":
				r.URL = "https://images.example.org/a.qcow2"
			case "-":
				r.URL = ""
			}
			switch {
			case r.Checksum == "":
				r.Checksum = sum("sha256", 64)
			case !strings.Contains(r.Checksum, ":"):
				r.Checksum = "sha256:" + r.Checksum
			}
			a := newAgent(t)
			var got api.TemplateRequest
			var key string
			a.templates.RegisterFn = func(_ context.Context, r api.TemplateRequest, k api.Idempotency) (api.Operation, error) {
				got, key = r, k.Key
				return anOp, nil
			}
			a.serve(t, wherry.Listeners{})
			if _, err := a.client(t).RegisterTemplate(t.Context(), r, "k"); err != nil {
				t.Fatal(err)
			}
			if got.URL != r.URL || got.Checksum != r.Checksum || key != "k" {
				t.Errorf("registered %+v with the key %q", got, key)
			}
		})
	}
}

// A password in an address is not repeated to whoever reads the answer.
func TestBadURLKeepsItsSecret(t *testing.T) {
	a := newAgent(t)
	a.serve(t, wherry.Listeners{})
	for _, address := range []string{"https://user:swordfish@h/a", "https://user:swordfish@h/%zz", "https://user:swordfish@h:port/"} {
		got := a.raw(t, http.MethodPost, "/v1/templates", templateBody("url", `"`+address+`"`))
		if got.StatusCode != http.StatusBadRequest || strings.Contains(string(got.body), "swordfish") {
			t.Errorf("%s: answered %s %s", address, got.Status, got.body)
		}
	}
}
