//go:build lab

package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"testing"
	"time"
)

// proxy stands on a host between its agent and the peers, with the host's own
// certificate, so that a test can answer in the agent's place. It gives the URL
// by which peers reach it. meddle tells whether it has answered; what it leaves
// goes to the agent.
func (w *world) proxy(before *side, meddle func(http.ResponseWriter, *http.Request) bool) string {
	w.Helper()
	return w.proxyTelling(before, meddle, func(*http.Response) {})
}

// proxyTelling tells of each of the agent's answers, too, before the peer has it.
func (w *world) proxyTelling(before *side, meddle func(http.ResponseWriter, *http.Request) bool, tell func(*http.Response)) string {
	w.Helper()
	cert, err := tls.X509KeyPair([]byte(w.exec(before, "cat", "/etc/wherry/pki/host.pem")), []byte(w.exec(before, "cat", "/etc/wherry/pki/host-key.pem")))
	w.must(err)
	authority := x509.NewCertPool()
	if !authority.AppendCertsFromPEM([]byte(w.exec(before, "cat", "/etc/wherry/pki/ca.pem"))) {
		w.Fatal("the lab's authority cannot be read")
	}
	agent := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "https", Host: before.Hostname() + ":8470"})
		},
		Transport: &http.Transport{
			DialContext: func(context.Context, string, string) (net.Conn, error) {
				return before.Dial("tcp", "127.0.0.1:8470")
			},
			TLSClientConfig: &tls.Config{RootCAs: authority, Certificates: []tls.Certificate{cert}, ServerName: before.Hostname()},
			// The agent is killed and started again behind it.
			DisableKeepAlives: true,
		},
		ModifyResponse: func(r *http.Response) error { tell(r); return nil },
		ErrorLog:       log.New(testLog{w}, "", 0),
	}
	listener, err := before.Listen("tcp", ":0")
	w.must(err)
	server := &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          log.New(testLog{w}, "", 0),
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: authority, ClientAuth: tls.RequireAndVerifyClientCert},
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if meddle == nil || !meddle(rw, r) {
				agent.ServeHTTP(rw, r)
			}
		}),
	}
	go server.ServeTLS(listener, "", "")
	w.Cleanup(func() { server.Close() })
	_, port, err := net.SplitHostPort(listener.Addr().String())
	w.must(err)
	return fmt.Sprintf("https://%s:%s", before.Hostname(), port)
}

// testLog sends what a server complains about to the test's log.
type testLog struct{ testing.TB }

func (t testLog) Write(p []byte) (int, error) { t.Logf("proxy: %s", p); return len(p), nil }
