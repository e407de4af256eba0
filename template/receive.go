package template

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"path/filepath"
	"strings"

	"github.com/wherry-kvm/wherry/template/digest"
	"github.com/wherry-kvm/wherry/template/fault"
	"github.com/wherry-kvm/wherry/template/partial"
	"github.com/wherry-kvm/wherry/template/source"
)

// received says what came.
type received struct {
	// served are the sums of the bytes as they were sent.
	served *digest.Sums
	// pieced: the bytes are of several connections, which may have brought
	// pieces of different contents.
	pieced bool
}

// receive writes what an origin has to the partial file. With resume, it goes
// on from what is saved of the same bytes, wherever they came from.
func (a *attempt) receive(c *candidate, resume bool) (got received, err error) {
	at, err := a.begin(c, resume)
	if err != nil {
		return got, a.ours(fault.IO, err)
	}
	err = a.change(func(to *Copy) {
		to.State, to.Message, to.Origin, to.Progress = c.state(), "", c.Name(), 0
		to.clearFault()
	})
	if err != nil {
		return got, a.ours(fault.Internal, err)
	}
	r, err := source.NewReader(a.ctx, &watched{Origin: c.Origin, pieced: &got.pieced}, at, source.ReaderOptions{})
	if err != nil {
		return got, err
	}
	defer func() { _ = r.Close() }() // it was only read
	if len(c.want) == 0 {
		if c.want, err = vouched(r.At().Validator); err != nil {
			return got, err
		}
	}
	if err := a.room(r.Total(), r.Allocated()); err != nil {
		return got, err
	}
	if at.Offset > 0 && r.Start() == 0 {
		err = source.ErrRestart
	}
	for {
		if err == nil {
			got.served, err = a.fill(c, r)
		}
		if !errors.Is(err, source.ErrRestart) {
			return got, err
		}
		got.pieced = false
		if err = a.restart(c); err != nil {
			return got, a.ours(fault.IO, err)
		}
	}
}

// begin opens the partial file, and says where the origin is to begin.
func (a *attempt) begin(c *candidate, resume bool) (source.At, error) {
	if err := a.open(); err != nil {
		return source.At{}, err
	}
	// The checksum alone is over what the URL serves, which may be packed.
	a.key = partial.Key{Origin: c.Name(), Want: cmp.Or(strings.Join(c.want, " "), "unpacked "+a.t.Checksum)}
	s, ok := a.part.Saved()
	if !resume || !ok || s.Want != a.key.Want || a.part.Resume(s, digest.For(c.want...)) != nil {
		return source.At{}, a.restart(c)
	}
	if s.Origin != a.key.Origin {
		// What another origin calls its content means nothing to this one. Its
		// length does, and in the end the checksum judges.
		s.Validator = source.Validator{Total: s.Validator.Total}
	}
	return source.At{Offset: s.Offset, Validator: s.Validator}, nil
}

func (a *attempt) restart(c *candidate) error { return a.part.Begin(digest.For(c.want...)) }

// open opens the partial file that an earlier process left, or makes one.
func (a *attempt) open() error {
	if a.part != nil {
		return nil
	}
	var err error
	if left := a.t.copyOn(a.pool); left.Partial != "" {
		// A pool may have another folder by now, on another disk.
		if filepath.Dir(left.Partial) == a.dir {
			if a.part, err = partial.Open(left.Partial, left.PartialInode); err == nil {
				return nil
			}
		}
		if err := partial.Remove(left.Partial, left.PartialInode); err != nil {
			return err
		}
	}
	path := filepath.Join(a.dir, partialPrefix+rand.Text()+partialSuffix)
	// The name is journalled before the folder appears, and the inode as soon
	// as there is one: after a crash exactly this folder is found again.
	if err := a.change(func(c *Copy) { c.Partial, c.PartialInode = path, 0 }); err != nil {
		return err
	}
	if a.part, err = partial.Make(path); err != nil {
		return err
	}
	return a.change(func(c *Copy) { c.PartialInode = a.part.Inode() })
}

// fill writes the content of r, and gives the sums of what was served.
func (a *attempt) fill(c *candidate, r *source.Reader) (*digest.Sums, error) {
	start := r.At()
	in := &inflow{a: a, from: c.from, r: r, done: start.Offset, total: r.Total()}
	if c.from != FromHost {
		in.r = source.Limit(a.ctx, r, a.limiter)
	}
	a.key.Validator = start.Validator
	o, body := partial.Fill{Key: a.key, Limit: a.maxSize, Now: a.now}, io.Reader(in)
	if c.from == FromURL && start.Offset == 0 {
		in.served = digest.For(c.want...)
		unpacked, kind, err := source.Unpack(in, a.maxSize)
		if err != nil {
			return nil, a.broken(c, in, err)
		}
		body = unpacked
		if kind == "" {
			in.served = nil // the file's own sums are those of what is served
		} else {
			o.Key.Want = "" // nobody can be asked for it from the middle on
			a.key.Want = ""
		}
	}
	err := a.part.Fill(a.ctx, body, o)
	if _, disk := errors.AsType[*partial.DiskError](err); disk {
		return nil, a.ours(fault.IO, err)
	}
	switch {
	case errors.Is(err, partial.ErrLimit):
		return nil, fault.New(fault.TooLarge, "the image is over %d bytes", a.maxSize)
	case err != nil:
		return nil, a.broken(c, in, err)
	case in.served != nil:
		return in.served, nil
	}
	return a.part.Sums(), nil
}

// broken judges an archive that could not be unpacked: if its bytes are the
// wrong ones, that is what is wrong with them, and if they are the right ones,
// they will be no better another time.
func (a *attempt) broken(c *candidate, in *inflow, err error) error {
	f := fault.Of(err)
	if f.Code != fault.Packed || in.served == nil || in.err != nil {
		return err
	}
	if mismatch := in.served.Match(c.want...); mismatch != nil {
		return &fault.Fault{Code: fault.Checksum, Class: fault.Source, Err: errors.Join(mismatch, err)}
	}
	return &fault.Fault{Code: f.Code, Class: f.Class, Permanent: true, Err: f.Err}
}

// room refuses what cannot fit before it fills the file system under running
// instances. taken is what the image takes where it lies, holes left out; 0
// where that is not known, as of a URL: then there must be room for what an
// earlier copy of it took, or else for all its bytes. One that takes more than
// was said ends in the middle.
func (a *attempt) room(size, taken int64) error {
	if size > a.maxSize {
		return fault.New(fault.TooLarge, "the image has %d bytes, %d are allowed", size, a.maxSize)
	}
	space, err := a.tending.Space(a.dir)
	if err != nil {
		return a.ours(fault.IO, err)
	}
	need := size - a.part.Size()
	if taken == 0 && size == a.t.Size {
		taken = a.t.Allocated
	}
	if info, err := a.part.Image().Stat(); err == nil && taken > 0 {
		need = min(need, taken-allocated(info))
	}
	if need > space.Free {
		return a.ours(fault.NoSpace, fault.New(fault.NoSpace, "%d bytes needed, %d free in %q", need, space.Free, a.dir))
	}
	return nil
}

// inflow counts what comes, as it was served.
type inflow struct {
	a           *attempt
	from        string
	r           io.Reader
	served      *digest.Sums // nil: not wanted
	done, total int64
	err         error
}

func (in *inflow) Read(p []byte) (int, error) {
	n, err := in.r.Read(p)
	if n > 0 {
		in.done += int64(n)
		if in.served != nil {
			_, _ = in.served.Write(p[:n]) // never fails
		}
		in.a.received(in.from, int64(n))
		in.a.report(in.a.f, in.done, in.total)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		in.err = err
	}
	return n, err
}

// watched sees whether the bytes of an origin come in one piece.
type watched struct {
	source.Origin
	pieced *bool
}

func (w *watched) Open(ctx context.Context, at source.At) (source.Stream, error) {
	s, err := w.Origin.Open(ctx, at)
	if err == nil {
		*w.pieced = s.Offset > 0
	}
	return s, err
}
