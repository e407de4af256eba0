package source_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/template/fault"
	"github.com/wherry-kvm/wherry/template/source"
)

func instantly(context.Context, time.Duration) error { return nil }

var (
	lost    = fault.New(fault.ConnectionLost, "reset")
	cut     = fault.New(fault.Truncated, "cut")
	idle    = fault.New(fault.Idle, "nothing for 30s")
	refused = fault.New(fault.ConnectionRefused, "nobody there")
	known   = source.Validator{ETag: `"v1"`, Total: 10}
)

// script builds what an origin does in turn.
type script struct {
	scripted
	closed, opened int
}

// gives a stream from offset with these bytes and then the error (nil: EOF).
func (s *script) gives(offset int64, v source.Validator, bytes string, err error) *script {
	s.next = append(s.next, func(source.At) (source.Stream, error) {
		s.opened++
		if err == nil {
			err = io.EOF
		}
		return source.Stream{ReadCloser: failing{strings.NewReader(bytes), err, &s.closed}, Offset: offset, Validator: v}, nil
	})
	return s
}

func (s *script) refuses(err error) *script {
	s.next = append(s.next, func(source.At) (source.Stream, error) { return source.Stream{}, err })
	return s
}

// play reads all that a reader gives; "|" stands for a restart.
func play(t *testing.T, o source.Origin, at source.At) (got string, pauses []time.Duration, err error) {
	t.Helper()
	r, err := source.NewReader(t.Context(), o, at, source.ReaderOptions{Pause: func(_ context.Context, d time.Duration) error {
		pauses = append(pauses, d)
		return nil
	}})
	if err != nil {
		return "", pauses, err
	}
	defer func() { must(t, r.Close()) }()
	got = strconv.FormatInt(r.Start(), 10) + ":"
	for {
		b, err := io.ReadAll(r)
		got += string(b)
		if !errors.Is(err, source.ErrRestart) {
			return got, pauses, err
		}
		if r.At().Offset != 0 {
			t.Errorf("starts over at %d", r.At().Offset)
		}
		got += "|"
	}
}

func TestReader(t *testing.T) {
	unknown := source.Validator{ETag: `"v1"`, Total: -1}
	mega := source.Validator{ETag: `"v1"`, Total: 2 << 20}
	half := strings.Repeat("x", 1<<20)
	for name, tt := range map[string]struct {
		s      *script
		at     int64
		got    string
		asked  []int64
		pauses []time.Duration
		code   string // "" for a good end
	}{
		"whole":            {s: new(script).gives(0, known, content, nil), got: "0:" + content, asked: []int64{0}},
		"unknown length":   {s: new(script).gives(0, unknown, content, nil), got: "0:" + content, asked: []int64{0}},
		"resumed":          {s: new(script).gives(4, known, content[4:], nil), at: 4, got: "4:" + content[4:], asked: []int64{4}},
		"not resumed":      {s: new(script).gives(0, known, content, nil), at: 4, got: "0:" + content, asked: []int64{4}},
		"not opened":       {s: new(script).refuses(refused), code: fault.ConnectionRefused, asked: []int64{0}},
		"opened by no one": {s: new(script).refuses(errors.New("odd")), code: fault.Internal, asked: []int64{0}},
		"cut twice": {
			s: new(script).gives(0, known, "012", lost).gives(3, known, "345", cut).gives(6, known, "6789", nil), got: "0:" + content,
			asked: []int64{0, 3, 6}, pauses: []time.Duration{time.Second, time.Second},
		},
		"ends early": {
			s: new(script).gives(0, known, "012", nil).gives(3, known, content[3:], nil), got: "0:" + content,
			asked: []int64{0, 3}, pauses: []time.Duration{time.Second},
		},
		"cut with nothing new": {
			s: new(script).gives(0, known, "012", cut).gives(3, known, "", lost), got: "0:012",
			asked: []int64{0, 3}, pauses: []time.Duration{time.Second}, code: fault.ConnectionLost,
		},
		"cut at once": {s: new(script).gives(0, known, "", cut), got: "0:", asked: []int64{0}, code: fault.Truncated},
		"starts over": {
			s: new(script).gives(0, known, "012", lost).gives(0, known, content, nil), got: "0:012|" + content,
			asked: []int64{0, 3}, pauses: []time.Duration{time.Second},
		},
		"starts over and over": {
			s: new(script).gives(0, known, "012", lost).gives(0, known, "0123", lost).gives(0, known, content, nil), got: "0:012|0123",
			asked: []int64{0, 3, 4}, pauses: []time.Duration{time.Second, time.Second}, code: fault.ConnectionLost,
		},
		"server restarts": {
			s:     new(script).gives(0, known, "012", lost).refuses(refused).refuses(fault.New(fault.Peer, "busy")).gives(3, known, content[3:], nil),
			got:   "0:" + content,
			asked: []int64{0, 3, 3, 3}, pauses: []time.Duration{time.Second, 2 * time.Second, 4 * time.Second},
		},
		"server is gone": {
			s:   new(script).gives(0, known, "012", lost).refuses(refused).refuses(refused).refuses(refused),
			got: "0:012", asked: []int64{0, 3, 3, 3}, code: fault.ConnectionLost,
			pauses: []time.Duration{time.Second, 2 * time.Second, 4 * time.Second},
		},
		"server changed its mind": {
			s:   new(script).gives(0, known, "012", lost).refuses(fault.New(fault.HTTPStatus, "403 Forbidden")),
			got: "0:012", asked: []int64{0, 3}, code: fault.HTTPStatus, pauses: []time.Duration{time.Second},
		},
		"stands still": {s: new(script).gives(0, known, "012", idle), got: "0:012", asked: []int64{0}, code: fault.Idle},
		"stands still far in": {
			s: new(script).gives(0, mega, half, idle).gives(1<<20, mega, half, nil), got: "0:" + half + half,
			asked: []int64{0, 1 << 20}, pauses: []time.Duration{time.Second},
		},
		"stands still again": {
			s: new(script).gives(0, mega, half, idle).gives(1<<20, mega, "x", idle), got: "0:" + half + "x",
			asked: []int64{0, 1 << 20}, pauses: []time.Duration{time.Second}, code: fault.Idle,
		},
		"another fault": {
			s: new(script).gives(0, known, "012", fault.New(fault.Protocol, "nonsense")), got: "0:012", asked: []int64{0}, code: fault.Protocol,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, pauses, err := play(t, tt.s, source.At{Offset: tt.at, Validator: known})
			if got != tt.got {
				t.Errorf("read %.40q; want %.40q", got, tt.got)
			}
			var asked []int64
			for _, at := range tt.s.asked {
				asked = append(asked, at.Offset)
			}
			if diff := cmp.Diff(tt.asked, asked); diff != "" {
				t.Errorf("asked at: %s", diff)
			}
			if diff := cmp.Diff(tt.pauses, pauses); diff != "" {
				t.Errorf("pauses: %s", diff)
			}
			if tt.code != "" {
				wantFault(t, err, tt.code)
			} else if err != nil {
				t.Errorf("error %v", err)
			}
			if tt.s.closed != tt.s.opened {
				t.Errorf("%d streams opened, %d closed", tt.s.opened, tt.s.closed)
			}
		})
	}
}

// Where the reader is can be stored and gone on from.
func TestReaderTellsWhereItIs(t *testing.T) {
	s := new(script).gives(4, known, content[4:], nil)
	r, err := source.NewReader(t.Context(), s, source.At{Offset: 4}, source.ReaderOptions{})
	must(t, err)
	defer func() { must(t, r.Close()) }()
	b := make([]byte, 3)
	_, err = io.ReadFull(r, b)
	must(t, err)
	if got := r.At(); got != (source.At{Offset: 7, Validator: known}) || r.Total() != 10 || r.Start() != 4 {
		t.Errorf("at %+v of %d from %d", got, r.Total(), r.Start())
	}
}

func TestReaderIsInterruptedWhileItWaits(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	s := new(script).gives(0, known, "012", lost)
	r, err := source.NewReader(ctx, s, source.At{}, source.ReaderOptions{Pause: func(ctx context.Context, _ time.Duration) error {
		cancel(errors.New("the agent stops"))
		return context.Cause(ctx)
	}})
	must(t, err)
	defer func() { must(t, r.Close()) }()
	got, err := io.ReadAll(r)
	if string(got) != "012" || err == nil || !strings.Contains(err.Error(), "the agent stops") {
		t.Errorf("%q, %v", got, err)
	}
	// The same with the real clock, which is told to stop before it began.
	r2, err := source.NewReader(ctx, new(script).gives(0, known, "012", lost), source.At{}, source.ReaderOptions{})
	must(t, err)
	defer func() { must(t, r2.Close()) }()
	if _, err := io.ReadAll(r2); err == nil || !strings.Contains(err.Error(), "the agent stops") {
		t.Errorf("error %v", err)
	}
}

func TestReaderIsAReader(t *testing.T) {
	s := new(script).gives(0, known, "012", lost).gives(3, known, content[3:], nil)
	r, err := source.NewReader(t.Context(), s, source.At{}, source.ReaderOptions{Pause: instantly})
	must(t, err)
	must(t, iotest.TestReader(r, []byte(content)))
	must(t, r.Close())
	_, err = r.Read(make([]byte, 1))
	wantFault(t, err, fault.Interrupted)
}

// Real parts: a server that cuts each connection after a few bytes.
func TestFlakyServer(t *testing.T) {
	image := string(random(1, 1<<20))
	s := raw(t, func(n int, r *http.Request) string {
		from := 0
		if v := r.Header.Get("Range"); v != "" {
			if _, err := fmt.Sscanf(v, "bytes=%d-", &from); err != nil {
				t.Error(err)
			}
		}
		status, fields := "200 OK", ""
		if from > 0 {
			status, fields = "206 Partial Content", fmt.Sprintf("Content-Range: bytes %d-%d/%d\r\n", from, len(image)-1, len(image))
			if got := r.Header.Get("If-Range"); got != `"v1"` {
				t.Errorf("If-Range %q", got)
			}
		}
		if n%3 == 2 {
			return header("503 Service Unavailable", "Content-Length: 0\r\n", "")
		}
		fields += fmt.Sprintf("ETag: \"v1\"\r\nContent-Length: %d\r\n", len(image)-from)
		return header(status, fields, image[from:min(len(image), from+300_000)])
	})
	got, _, err := play(t, origin(t, download(source.Options{}), s.URL, nil), source.At{})
	if err != nil || got != "0:"+image {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// A server whose content changes between two connections.
func TestContentThatChangesUnderway(t *testing.T) {
	s := raw(t, func(n int, _ *http.Request) string {
		switch n {
		case 1:
			return header("200 OK", "ETag: \"v1\"\r\nContent-Length: 10\r\n", content[:4])
		case 2:
			// It ignores If-Range: the ETag gives it away.
			return header("206 Partial Content", "ETag: \"v2\"\r\nContent-Range: bytes 4-9/10\r\nContent-Length: 6\r\n", "efghij")
		}
		return header("200 OK", "ETag: \"v2\"\r\nContent-Length: 10\r\n", "abcdefghij")
	})
	got, _, err := play(t, origin(t, download(source.Options{}), s.URL, nil), source.At{})
	if err != nil || got != "0:0123|abcdefghij" {
		t.Errorf("%q, %v", got, err)
	}
}

// A server that cuts its content and lies about the rest has broken the rules:
// that it was cut is not what keeps the image from coming.
func TestServerThatCutsAndLies(t *testing.T) {
	for name, tt := range map[string]struct{ known, answer, words string }{
		"another start": {
			"ETag: \"v1\"\r\n", header("206 Partial Content", "ETag: \"v1\"\r\nContent-Range: bytes 3-8/10\r\nContent-Length: 6\r\n", content[3:9]),
			`was asked for bytes from 4 on and answered 206 Partial Content with Content-Range "bytes 3-8/10"`,
		},
		"none": {
			"", header("206 Partial Content", "Content-Length: 6\r\n", content[4:]),
			"was asked for bytes from 4 on and answered 206 Partial Content without Content-Range",
		},
		"another total": {
			"ETag: \"v1\"\r\n", header("206 Partial Content", "Content-Range: bytes 4-9/11\r\nContent-Length: 6\r\n", content[4:]),
			`with Content-Range "bytes 4-9/11" where the content has 10 bytes`,
		},
		"another length": {
			"ETag: \"v1\"\r\n", header("206 Partial Content", "Content-Range: bytes 4-9/10\r\nContent-Length: 2\r\n", content[4:6]),
			`with Content-Range "bytes 4-9/10" and Content-Length 2`,
		},
		"another ETag": {
			"ETag: \"v1\"\r\n", header("206 Partial Content", "ETag: \"v2\"\r\nContent-Range: bytes 4-9/10\r\nContent-Length: 6\r\n", content[4:]),
			`ETag "\"v2\"" though If-Range was "\"v1\""`,
		},
		"nothing left": {
			"ETag: \"v1\"\r\n", header("416 Range Not Satisfiable", "Content-Range: bytes */4\r\nContent-Length: 0\r\n", ""),
			`answered 416 Range Not Satisfiable with Content-Range "bytes */4" where the content has 10 bytes`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := raw(t, func(_ int, r *http.Request) string {
				if r.Header.Get("Range") != "" {
					return tt.answer
				}
				return header("200 OK", tt.known+"Content-Length: 10\r\n", content[:4])
			})
			got, _, err := play(t, origin(t, download(source.Options{}), s.URL, nil), source.At{})
			if got != "0:0123|0123" {
				t.Errorf("read %q", got)
			}
			wantFault(t, err, fault.Protocol, s.Listener.Addr().String(), tt.words, "ended the content after 4 of 10 bytes")
		})
	}
}

// Where nothing could hold a server to its content, another one is no lie.
func TestServerWhoseContentGrows(t *testing.T) {
	s := raw(t, func(_ int, r *http.Request) string {
		if r.Header.Get("Range") != "" {
			return header("206 Partial Content", "Content-Range: bytes 4-11/12\r\nContent-Length: 8\r\n", "456789ab")
		}
		return header("200 OK", "Content-Length: 10\r\n", content[:4])
	})
	_, _, err := play(t, origin(t, download(source.Options{}), s.URL, nil), source.At{})
	wantFault(t, err, fault.Truncated, "after 4 of 10 bytes")
}
