package intake_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/wherry-kvm/wherry/template/intake"
)

// client is one that says everything at once and then leaves.
type client struct {
	io.Reader
	bytes.Buffer // what it was told
}

func (c *client) Read(b []byte) (int, error) { return c.Reader.Read(b) }

func option(kind uint32, data string) []byte {
	b := binary.BigEndian.AppendUint32([]byte("IHAVEOPT"), kind)
	return append(binary.BigEndian.AppendUint32(b, uint32(len(data))), data...)
}

func request(command uint16, offset uint64, length uint32) []byte {
	b := binary.BigEndian.AppendUint32(nil, 0x25609513)
	b = binary.BigEndian.AppendUint16(b, 0)
	b = binary.BigEndian.AppendUint16(b, command)
	b = binary.BigEndian.AppendUint64(b, 0xc00c1e)
	b = binary.BigEndian.AppendUint64(b, offset)
	return binary.BigEndian.AppendUint32(b, length)
}

const (
	greeting = 18 + 20 + 12 + 20 // to a client that asks with NBD_OPT_GO at once
	optGo    = 7
	optAbort = 2
	optTLS   = 5
	cmdRead  = 0
	cmdDisc  = 2
	cmdTrim  = 4
)

// talk serves what a client says after its flags; it returns what it was
// answered after the greeting.
func talk(image io.ReaderAt, size, budget int64, parts ...[]byte) (answer []byte, err error) {
	c := &client{Reader: bytes.NewReader(append([]byte{0, 0, 0, 3}, bytes.Join(parts, nil)...))}
	err = intake.Serve(c, image, size, budget)
	return c.Bytes(), err
}

func TestServe(t *testing.T) {
	image := []byte("0123456789abcdef")
	size := int64(len(image))
	ask := option(optGo, "\x00\x00\x00\x00\x00\x00")
	ok, invalid, denied := uint32(0), uint32(22), uint32(1)
	for name, tt := range map[string]struct {
		parts  [][]byte
		number *uint32
		data   string
		err    error
	}{
		"nothing":                {nil, nil, "", nil},
		"leaves":                 {[][]byte{ask, request(cmdDisc, 0, 0)}, nil, "", nil},
		"aborts":                 {[][]byte{option(optAbort, "")}, nil, "", nil},
		"reads":                  {[][]byte{ask, request(cmdRead, 3, 4)}, &ok, "3456", nil},
		"reads all":              {[][]byte{ask, request(cmdRead, 0, 16)}, &ok, "0123456789abcdef", nil},
		"reads nothing":          {[][]byte{ask, request(cmdRead, 16, 0)}, &ok, "", nil},
		"reads past the end":     {[][]byte{ask, request(cmdRead, 15, 2)}, &invalid, "", nil},
		"reads behind the end":   {[][]byte{ask, request(cmdRead, 17, 0)}, &invalid, "", nil},
		"reads below zero":       {[][]byte{ask, request(cmdRead, 1<<63, 1)}, &invalid, "", nil},
		"reads over everything":  {[][]byte{ask, request(cmdRead, 1<<64-1, 0xffffffff)}, &invalid, "", nil},
		"trims":                  {[][]byte{ask, request(cmdTrim, 0, 4)}, &denied, "", nil},
		"writes":                 {[][]byte{ask, request(1, 0, 4), []byte("evil")}, nil, "", intake.ErrProtocol},
		"reads too much":         {[][]byte{ask, bytes.Repeat(request(cmdRead, 0, 16), 5)}, nil, "", intake.ErrGreedy},
		"reads too often":        {[][]byte{ask, bytes.Repeat(request(cmdRead, 0, 0), 1<<16+1)}, nil, "", intake.ErrGreedy},
		"an option of gigabytes": {[][]byte{append(option(optTLS, "")[:12], 0xff, 0xff, 0xff, 0xff)}, nil, "", intake.ErrProtocol},
		"options without end":    {[][]byte{bytes.Repeat(option(optTLS, "x"), 65)}, nil, "", intake.ErrProtocol},
		"no option":              {[][]byte{[]byte("GET / HTTP/1.1\r\n\r\n")}, nil, "", intake.ErrProtocol},
		"no request":             {[][]byte{ask, bytes.Repeat([]byte("x"), 28)}, nil, "", intake.ErrProtocol},
		"half a request":         {[][]byte{ask, request(cmdRead, 0, 1)[:27]}, nil, "", io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := talk(bytes.NewReader(image), size, 64, tt.parts...)
			if !errors.Is(err, tt.err) {
				t.Fatalf("%v; want %v", err, tt.err)
			}
			if tt.number == nil {
				return
			}
			want := binary.BigEndian.AppendUint32(nil, 0x67446698)
			want = binary.BigEndian.AppendUint32(want, *tt.number)
			want = append(binary.BigEndian.AppendUint64(want, 0xc00c1e), tt.data...)
			if !bytes.Equal(got[greeting:], want) {
				t.Errorf("answered %q; want %q", got[greeting:], want)
			}
		})
	}
}

// The client is told the size, and that there is nothing to write.
func TestServeAnnounces(t *testing.T) {
	got, err := talk(bytes.NewReader(nil), 1<<40, 0, option(optTLS, ""), option(optGo, ""))
	if err != nil {
		t.Fatal(err)
	}
	unsupported := append(binary.BigEndian.AppendUint64(nil, 0x3e889045565a9), 0, 0, 0, optTLS, 0x80, 0, 0, 1, 0, 0, 0, 0)
	if !bytes.HasPrefix(got, append([]byte("NBDMAGICIHAVEOPT\x00\x03"), unsupported...)) {
		t.Errorf("greeted with %q", got)
	}
	info := []byte{0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3} // type 0, 1 TiB, read only
	if !bytes.Contains(got, info) {
		t.Errorf("announced %q", got)
	}
}

// An image that became shorter, or a broken disk, is nobody's refusal.
func TestServeUnreadable(t *testing.T) {
	ask := option(optGo, "")
	for _, image := range []io.ReaderAt{bytes.NewReader([]byte("short")), broken{}} {
		if _, err := talk(image, 100, 100, ask, request(cmdRead, 0, 100)); !errors.Is(err, intake.ErrUnreadable) || errors.Is(err, io.EOF) {
			t.Errorf("got %v", err)
		}
	}
}

// within refuses to be read outside of its size.
type bounded struct {
	t    *testing.T
	size int64
}

func (b bounded) ReadAt(p []byte, offset int64) (int, error) {
	if offset < 0 || offset+int64(len(p)) > b.size {
		b.t.Errorf("read of %d bytes at %d", len(p), offset)
	}
	return len(p), nil
}

func FuzzServe(f *testing.F) {
	ask := option(optGo, "")
	f.Add(append(ask, request(cmdRead, 0, 512)...))
	f.Add(append(option(optTLS, "data"), append(ask, request(cmdTrim, 7, 9)...)...))
	f.Add(append(ask, request(cmdRead, 1<<63, 1<<31)...))
	f.Fuzz(func(t *testing.T, said []byte) {
		got, err := talk(bounded{t, 4096}, 4096, 1<<20, said)
		if len(got) > 2<<20+len(said)*8 {
			t.Errorf("%d bytes in answer to %d, %v", len(got), len(said), err)
		}
	})
}
