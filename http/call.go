package http

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/wire"
)

// maxBody bounds a request's body, in bytes (api.md).
const maxBody = 1 << 20

// maxDrain bounds how much of a body that is too large is taken and dropped.
const maxDrain = 16 << 20

// call is one request on its way through a handler, its body read.
type call struct {
	echo.Context
	body []byte
}

func (c *call) ctx() context.Context { return c.Request().Context() }

// readBody reads the whole body. It has a deadline while it reads (see
// record), and none after: net/http watches the connection meanwhile, and
// would take the deadline for a caller who left.
func readBody(c echo.Context) ([]byte, error) {
	r := c.Request()
	b, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return nil, api.NewProblem("bad-request", "the body did not arrive: %w", err)
	}
	if len(b) > maxBody {
		// A caller that still sends when the connection closes gets an error of
		// its own and never sees the answer; so take some more of it first.
		_, _ = io.CopyN(io.Discard, r.Body, maxDrain)
		return nil, api.NewProblem("payload-too-large", "the body has more than %d bytes", maxBody)
	}
	if err := http.NewResponseController(c.Response()).SetReadDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("clear the deadline for the body: %w", err)
	}
	return b, nil
}

// decode reads the body into a T and checks it; optional admits an empty one.
func decode[T any](c *call, optional bool, check func(T) faults) (T, error) {
	var v T
	if len(c.body) == 0 {
		if optional {
			return v, nil
		}
		return v, api.NewProblem("bad-request", "a JSON body is needed")
	}
	if err := wire.Unmarshal(c.body, &v); err != nil {
		p := api.NewProblem("bad-request", "%w", err)
		if e, ok := errors.AsType[*wire.FieldError](err); ok && e.Field != "" {
			p.WithField(e.Field, e.Detail)
		}
		return v, p
	}
	return v, check(v).problem()
}

// noBody admits nothing, or an object without fields.
func noBody(c *call) error {
	_, err := decode(c, true, func(struct{}) faults { return nil })
	return err
}

// knownQuery refuses a parameter that the route does not know: a misspelt
// project would otherwise act on the default one.
func knownQuery(given url.Values, known []string) error {
	var f faults
	for name, values := range given {
		if !slices.Contains(known, name) {
			f.add(name, "is no parameter of this call")
		} else if len(values) > 1 {
			f.add(name, "is given %d times", len(values))
		}
	}
	return f.problem()
}

// param gives a path parameter as it was meant: echo matches on the escaped
// path where escaping matters, and leaves the parameter escaped then.
func (c *call) param(name string) string {
	v := c.Param(name)
	if c.Request().URL.RawPath == "" {
		return v
	}
	if plain, err := url.PathUnescape(v); err == nil {
		return plain
	}
	return v
}

// ref gives the instance that the request is about.
func (c *call) ref() (api.Ref, error) {
	project, err := c.project()
	if err != nil {
		return api.Ref{}, err
	}
	var f faults
	name := c.param("name")
	f.name("name", name)
	return api.Ref{Project: project, Name: name}, f.problem()
}

// project gives the request's project, the default one where none is given.
func (c *call) project() (string, error) {
	project := c.QueryParam("project")
	if project == "" {
		return api.DefaultProject, nil
	}
	var f faults
	f.project("project", project)
	return project, f.problem()
}

// id gives the identifier in the path.
func (c *call) id() (string, error) {
	var f faults
	id := c.param("id")
	f.id("id", id)
	return id, f.problem()
}

// idempotency gives the request's key and what tells it from another request
// with that key. The body counts as decoded: white space and the order of
// fields do not make another request.
func (c *call) idempotency(project string, body any) (api.Idempotency, error) {
	key := c.Request().Header.Get("Idempotency-Key")
	var f faults
	f.key("Idempotency-Key", key)
	if err := f.problem(); err != nil || key == "" {
		return api.Idempotency{}, err
	}
	plain, err := wire.Marshal(body)
	if err != nil {
		return api.Idempotency{}, err
	}
	sum := sha256.New()
	for _, part := range []string{c.Request().Method, c.Request().URL.Path, project, string(plain)} {
		// With lengths, so that parts cannot run into each other.
		fmt.Fprintf(sum, "%d:%s\n", len(part), part)
	}
	return api.Idempotency{Key: key, Fingerprint: hex.EncodeToString(sum.Sum(nil))}, nil
}

// json answers with v.
func (c *call) json(status int, v any) error {
	b, err := wire.Marshal(v)
	if err != nil {
		return err
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.bytes(status, "application/json", b)
}

func (c *call) bytes(status int, mediaType string, b []byte) error {
	if err := http.NewResponseController(c.Response()).SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return fmt.Errorf("set the deadline for the answer: %w", err)
	}
	return c.Blob(status, mediaType, b)
}

// accepted answers with an operation that was started, or the error.
func (c *call) accepted(op api.Operation, err error) error {
	if err != nil {
		return err
	}
	c.Set(keyOperation, op.ID)
	c.Response().Header().Set("Location", "/v1/operations/"+op.ID)
	return c.json(http.StatusAccepted, op)
}

// answer answers 200 with what a service gave, or its error.
func answer[T any](c *call, v T, err error) error {
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, v)
}
