package http_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"

	"github.com/wherry-kvm/wherry/http/extents"
)

// contract is openapi.yaml, as a judge of what crosses.
type contract struct {
	doc    *openapi3.T
	router routers.Router
}

var loadContract = sync.OnceValues(func() (*contract, error) {
	b, err := os.ReadFile("openapi.yaml")
	if err != nil {
		return nil, err
	}
	doc, err := openapi3.NewLoader().LoadFromData(b)
	if err != nil {
		return nil, err
	}
	// Every example is held against its schema as well.
	if err := doc.Validate(context.Background()); err != nil {
		return nil, err
	}
	// The description's own host is not the test's.
	doc.Servers = nil
	router, err := legacy.NewRouter(doc)
	if err != nil {
		return nil, err
	}
	for _, mediaType := range []string{extents.MediaType, "text/event-stream"} {
		openapi3filter.RegisterBodyDecoder(mediaType, openapi3filter.FileBodyDecoder)
	}
	return &contract{doc, router}, nil
})

func theContract(t testing.TB) *contract {
	t.Helper()
	c, err := loadContract()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// strict is a transport that holds what goes through it against the contract.
type strict struct {
	next http.RoundTripper
	t    testing.TB
	*contract
	wild bool // the request may break the contract; its answer may not
}

func (s *strict) RoundTrip(r *http.Request) (*http.Response, error) {
	input, err := s.request(r)
	if err != nil && !s.wild {
		s.t.Errorf("request %s %s breaks the contract: %v", r.Method, r.URL, err)
	}
	resp, err2 := s.next.RoundTrip(r)
	if err2 != nil || input == nil {
		return resp, err2
	}
	if err := s.response(input, resp); err != nil {
		s.t.Errorf("answer %d to %s %s breaks the contract: %v", resp.StatusCode, r.Method, r.URL, err)
	}
	return resp, nil
}

// request validates r and leaves it as it was. The input is nil where the
// contract has no such path.
func (s *strict) request(r *http.Request) (*openapi3filter.RequestValidationInput, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	copied := r.Clone(r.Context())
	copied.Body = nil
	if len(body) > 0 {
		copied.Body = io.NopCloser(bytes.NewReader(body))
	}
	route, params, err := s.router.FindRoute(copied)
	if err != nil {
		return nil, err
	}
	input := &openapi3filter.RequestValidationInput{
		Request: copied, PathParams: params, Route: route,
		Options: &openapi3filter.Options{MultiError: true, IncludeResponseStatus: true},
	}
	return input, openapi3filter.ValidateRequest(r.Context(), input)
}

// response validates an answer and leaves it readable. A stream of events has
// no end; only its head is looked at here.
func (s *strict) response(input *openapi3filter.RequestValidationInput, resp *http.Response) error {
	mediaType, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil && resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("content type %q: %w", resp.Header.Get("Content-Type"), err)
	}
	var body []byte
	options := &openapi3filter.Options{MultiError: true, IncludeResponseStatus: true}
	if mediaType == "text/event-stream" || mediaType == extents.MediaType || strings.HasPrefix(mediaType, "multipart/") {
		options.ExcludeResponseBody = true
	} else {
		if body, err = io.ReadAll(resp.Body); err != nil {
			return err
		}
		_ = resp.Body.Close()
		resp.Body = io.NopCloser(bytes.NewReader(body))
	}
	if resp.StatusCode >= 400 && mediaType != "application/problem+json" {
		return fmt.Errorf("error as %q", mediaType)
	}
	return openapi3filter.ValidateResponse(input.Request.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input, Status: resp.StatusCode, Header: resp.Header,
		Body: io.NopCloser(bytes.NewReader(body)), Options: options,
	})
}
