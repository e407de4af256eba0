package fault_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/template/fault"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func number(op string, n syscall.Errno) error {
	return &net.OpError{
		Op: op, Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 80},
		Err: os.NewSyscallError("connect", n),
	}
}

func path(op string, n syscall.Errno) error {
	return &fs.PathError{Op: op, Path: "/pool/image", Err: n}
}

type late struct{}

func (late) Error() string { return "late" }
func (late) Timeout() bool { return true }

func TestOf(t *testing.T) {
	for name, tt := range map[string]struct {
		err         error
		code, words string
	}{
		"no such host":   {&net.DNSError{Err: "no such host", Name: "x.invalid", Server: "192.0.2.53:53", IsNotFound: true}, fault.Unresolvable, `cannot resolve "x.invalid": no such host`},
		"mute resolver":  {&net.DNSError{Err: "i/o timeout", Name: "x", Server: "192.0.2.53:53", IsTimeout: true}, fault.Unresolvable, `cannot resolve "x": no answer from the name server 192.0.2.53:53`},
		"sick resolver":  {&net.DNSError{Err: "server misbehaving", Name: "x", Server: "192.0.2.53:53", IsTemporary: true}, fault.Unresolvable, `cannot resolve "x": server misbehaving (name server 192.0.2.53:53)`},
		"bad name":       {&net.DNSError{Err: "name is too long", Name: "x"}, fault.Unresolvable, `cannot resolve "x": name is too long`},
		"dns in a dial":  {&net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "x", IsNotFound: true}}, fault.Unresolvable, `cannot resolve "x": no such host`},
		"refused":        {number("dial", syscall.ECONNREFUSED), fault.ConnectionRefused, "connection refused by 192.0.2.1:80"},
		"no route":       {number("dial", syscall.EHOSTUNREACH), fault.Unreachable, "no route to 192.0.2.1:80: host is unreachable"},
		"no network":     {number("dial", syscall.ENETUNREACH), fault.Unreachable, "no route to 192.0.2.1:80: network is unreachable"},
		"no address":     {number("dial", syscall.EADDRNOTAVAIL), fault.Unreachable, "no route to 192.0.2.1:80: cannot assign requested address"},
		"host down":      {number("dial", syscall.EHOSTDOWN), fault.Unreachable, "192.0.2.1:80 is unreachable: host is down"},
		"kernel timeout": {number("dial", syscall.ETIMEDOUT), fault.Unreachable, "no answer from 192.0.2.1:80: connection timed out"},
		"dial timeout":   {&net.OpError{Op: "dial", Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 80}, Err: late{}}, fault.Unreachable, "no connection to 192.0.2.1:80 in time"},
		"read timeout":   {&net.OpError{Op: "read", Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 80}, Err: late{}}, fault.Idle, "no data from 192.0.2.1:80 in time"},
		"late somewhere": {late{}, fault.Idle, "no data from the server in time"},
		"filtered":       {number("dial", syscall.EACCES), fault.Unreachable, "connection to 192.0.2.1:80: permission denied (a packet filter?)"},
		"filtered out":   {number("write", syscall.EPERM), fault.Unreachable, "connection to 192.0.2.1:80: operation not permitted (a packet filter?)"},
		"descriptors":    {number("dial", syscall.EMFILE), fault.Internal, "this host is out of resources for a connection to 192.0.2.1:80: too many open files"},
		"reset":          {number("read", syscall.ECONNRESET), fault.ConnectionLost, "connection reset by 192.0.2.1:80"},
		"bare reset":     {syscall.ECONNRESET, fault.ConnectionLost, "connection reset by the server"},
		"broken pipe":    {number("write", syscall.EPIPE), fault.ConnectionLost, "connection to 192.0.2.1:80 lost: broken pipe"},
		"proxy refused": {
			&net.OpError{Op: "proxyconnect", Net: "tcp", Err: number("dial", syscall.ECONNREFUSED)},
			fault.ConnectionRefused, "connection refused by the proxy 192.0.2.1:80",
		},
		"odd dial":        {&net.OpError{Op: "dial", Err: errors.New("missing port")}, fault.Unreachable, "cannot connect to the server: missing port"},
		"odd read":        {&net.OpError{Op: "read", Err: errors.New("odd")}, fault.ConnectionLost, "connection to the server lost: odd"},
		"closed":          {net.ErrClosed, fault.ConnectionLost, "connection closed"},
		"mute":            {io.EOF, fault.ConnectionLost, "the server closed the connection without an answer"},
		"cut":             {io.ErrUnexpectedEOF, fault.Truncated, "the content ended early"},
		"full":            {path("write", syscall.ENOSPC), fault.NoSpace, "write /pool/image: no space left on device"},
		"quota":           {path("write", syscall.EDQUOT), fault.NoSpace, "write /pool/image: disk quota exceeded"},
		"read-only":       {path("open", syscall.EROFS), fault.ReadOnly, "open /pool/image: read-only file system"},
		"immutable":       {path("mkdir", syscall.EPERM), fault.NotPermitted, "mkdir /pool/image: operation not permitted"},
		"denied":          {path("open", syscall.EACCES), fault.NotPermitted, "open /pool/image: permission denied"},
		"broken disk":     {path("fsync", syscall.EIO), fault.IO, "fsync /pool/image: input/output error"},
		"gone":            {path("open", syscall.ENOENT), fault.IO, "open /pool/image: no such file or directory"},
		"bare full":       {syscall.ENOSPC, fault.NoSpace, "no space left on device"},
		"out of memory":   {path("open", syscall.ENOMEM), fault.Internal, "open /pool/image: cannot allocate memory"},
		"rename":          {&os.LinkError{Op: "rename", Old: "/a", New: "/b", Err: syscall.EPERM}, fault.Rename, "rename /a to /b: operation not permitted"},
		"rename occupied": {&os.LinkError{Op: "rename", Old: "/a", New: "/b", Err: syscall.EEXIST}, fault.Rename, "rename /a to /b: file exists"},
		"rename full":     {&os.LinkError{Op: "rename", Old: "/a", New: "/b", Err: syscall.ENOSPC}, fault.NoSpace, "rename /a to /b: no space left on device"},
		"rename fixed":    {&os.LinkError{Op: "rename", Old: "/a", New: "/b", Err: syscall.EROFS}, fault.ReadOnly, "rename /a to /b: read-only file system"},
		"cancelled":       {context.Canceled, fault.Interrupted, "interrupted"},
		"late as a whole": {context.DeadlineExceeded, fault.Interrupted, "interrupted: it took longer than is allowed"},
		"URL with secret": {&url.Error{Op: "Get", URL: "http://h/?token=s3cret", Err: errors.New("odd")}, fault.Internal, "odd"},
		"unknown":         {errors.New("odd"), fault.Internal, "odd"},
	} {
		t.Run(name, func(t *testing.T) {
			wrapped := fmt.Errorf("template %q on pool %q: %w", "rocky9", "default", &url.Error{Op: "Get", URL: "http://h/?token=s3cret", Err: tt.err})
			if got := fault.Message(tt.err); got != tt.words {
				t.Errorf("%q; want %q", got, tt.words)
			}
			for _, err := range []error{tt.err, wrapped} {
				f := fault.Of(err)
				if f.Code != tt.code || f.Class != fault.ClassOf(tt.code) || f.Permanent {
					t.Errorf("%v: code %s, class %s, permanent %t; want code %s", err, f.Code, f.Class, f.Permanent, tt.code)
				}
				if !errors.Is(f, tt.err) {
					t.Errorf("%v: the cause is lost", err)
				}
				if got := fault.Message(err); strings.Contains(got, "s3cret") {
					t.Errorf("a secret is told: %q", got)
				}
			}
		})
	}
}

func TestNothingIsNoFault(t *testing.T) {
	if f := fault.Of(nil); f != nil {
		t.Errorf("fault %v", f)
	}
	if f := fault.Join(); f != nil {
		t.Errorf("fault %v of none", f)
	}
	if f := fault.Join(fault.Named{Name: "a"}); f != nil {
		t.Errorf("fault %v of a success", f)
	}
}

func TestAFaultKeepsItsWords(t *testing.T) {
	cause := errors.New("cause")
	f := fault.New(fault.Checksum, "expected %s: %w", "sha256:00", cause)
	err := fmt.Errorf("template %q: %w", "rocky9", f)
	if got := fault.Of(err); got != f || !errors.Is(got, cause) || got.Class != fault.Source || got.Permanent {
		t.Errorf("fault %+v", got)
	}
	if got := fault.Message(err); got != "expected sha256:00: cause" {
		t.Errorf("message %q", got)
	}
	if !fault.New(fault.Image, "refused").Permanent {
		t.Error("a refused image would be asked for again")
	}
}

func TestMessageIsNeverEmptyNorLong(t *testing.T) {
	for name, err := range map[string]error{
		"nothing said": errors.New(""),
		"blanks":       fault.New(fault.Checksum, "\x00 \n\t"),
		"half a fault": &fault.Fault{Code: fault.IO},
		"long":         errors.New(strings.Repeat("é", 10_000)),
		"coloured":     errors.New("a\x1b[31mb\r\nc\u202ed"),
		"nil":          nil,
	} {
		t.Run(name, func(t *testing.T) {
			got := fault.Message(err)
			if got == "" || len(got) > fault.MaxMessage || strings.ContainsAny(got, "\x00\x1b\r\n\u202e\ufffd") {
				t.Errorf("%d bytes: %q", len(got), got)
			}
		})
	}
}

func TestJoinNamesEachOrigin(t *testing.T) {
	peer := fault.Named{Name: "https://b:8470", Err: number("dial", syscall.ECONNREFUSED)}
	site := fault.Named{Name: "http://h/x", Err: fault.New(fault.HTTPStatus, "404 Not Found")}
	full := fault.Named{Name: "http://h/y", Err: path("write", syscall.ENOSPC)}
	final := fault.Named{Name: "http://h/z", Err: fault.New(fault.Image, "a backing file")}
	for name, tt := range map[string]struct {
		all       []fault.Named
		code      string
		permanent bool
		words     string
	}{
		"one":         {[]fault.Named{{Name: "a"}, site}, fault.HTTPStatus, false, "404 Not Found"},
		"the last":    {[]fault.Named{peer, site}, fault.HTTPStatus, false, "https://b:8470: connection refused by 192.0.2.1:80; http://h/x: 404 Not Found"},
		"local first": {[]fault.Named{full, site}, fault.NoSpace, false, "http://h/y: write /pool/image: no space left on device; http://h/x: 404 Not Found"},
		"not all permanent": {
			[]fault.Named{peer, final}, fault.Image, false,
			"https://b:8470: connection refused by 192.0.2.1:80; http://h/z: a backing file",
		},
		"all permanent": {[]fault.Named{final, final}, fault.Image, true, "http://h/z: a backing file; http://h/z: a backing file"},
	} {
		t.Run(name, func(t *testing.T) {
			f := fault.Join(tt.all...)
			if f.Code != tt.code || f.Class != fault.ClassOf(tt.code) || f.Permanent != tt.permanent || fault.Message(f) != tt.words {
				t.Errorf("%s, %s, %t: %q", f.Code, f.Class, f.Permanent, fault.Message(f))
			}
			for _, n := range tt.all {
				if n.Err != nil && !errors.Is(f, n.Err) {
					t.Errorf("the cause of %s is lost", n.Name)
				}
			}
		})
	}
}

func TestJoinLeavesRoomForAll(t *testing.T) {
	var all []fault.Named
	for i := range 20 {
		all = append(all, fault.Named{Name: fmt.Sprintf("origin-%02d", i), Err: errors.New(strings.Repeat("x", 2000))})
	}
	got := fault.Message(fault.Join(all...))
	if len(got) > fault.MaxMessage {
		t.Errorf("%d bytes", len(got))
	}
	for _, n := range all {
		if !strings.Contains(got, n.Name+": ") {
			t.Errorf("%s is not named in %q", n.Name, got)
		}
	}
}

// What the kernel and the libraries really return, not what we think they do.
func TestRealErrors(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	must(t, listener.Close())
	dial := func(ctx context.Context, address string) error {
		c, err := (&net.Dialer{Timeout: 20 * time.Second}).DialContext(ctx, "tcp", address)
		if err == nil {
			must(t, c.Close())
		}
		return err
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	_, fullErr := full.Write([]byte("x"))
	dir := t.TempDir()
	for name, tt := range map[string]struct {
		err         error
		code, words string
	}{
		"refused":   {dial(t.Context(), address), fault.ConnectionRefused, "connection refused by " + address},
		"cancelled": {dial(cancelled, address), fault.Interrupted, "interrupted"},
		"full":      {fullErr, fault.NoSpace, "write /dev/full: no space left on device"},
		"rename":    {os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "b")), fault.Rename, "no such file or directory"},
		"exists":    {os.Mkdir(dir, 0o700), fault.IO, "mkdir " + dir + ": file exists"},
	} {
		t.Run(name, func(t *testing.T) {
			if f := fault.Of(tt.err); f == nil || f.Code != tt.code || !strings.HasSuffix(fault.Message(f), tt.words) {
				t.Errorf("%v; want %s, %q", f, tt.code, tt.words)
			}
		})
	}
}

func TestCodesHaveOneClass(t *testing.T) {
	all := fault.Codes()
	if !slices.IsSorted(all) || len(slices.Compact(slices.Clone(all))) != len(all) {
		t.Errorf("codes %v", all)
	}
	for code, class := range map[string]fault.Class{
		fault.Idle: fault.Source, fault.NotAnImage: fault.Source, fault.Image: fault.Policy, fault.Redirect: fault.Policy,
		fault.NoSpace: fault.Local, fault.Interrupted: fault.Local, "unheard of": fault.Local,
	} {
		if got := fault.ClassOf(code); got != class {
			t.Errorf("%s is %s", code, got)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("plain", 10)
	f.Add("a\x1b[31m\xff\u2028é", 3)
	f.Add("", 0)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		got := fault.Clean(text, limit)
		if len(got) > max(limit, 0) {
			t.Errorf("%d bytes of %d", len(got), limit)
		}
		if again := fault.Clean(got, limit); again != got {
			t.Errorf("%q, then %q", got, again)
		}
		if strings.ContainsFunc(got, func(c rune) bool { return c < ' ' || c == 0x7f || c == '\ufffd' }) {
			t.Errorf("unclean %q", got)
		}
	})
}
