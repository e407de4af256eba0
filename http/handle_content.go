package http

import (
	"net/http"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/extents"
)

// contentForm is how a caller wants a template's bytes.
type contentForm struct {
	extents bool
	offset  int64  // where extents begin
	digest  string // that the offset belongs to; "" for any
}

// templateContent streams an image: plain with ranges, or as extents, which
// leave the holes out. HEAD says what GET would send, and whether it would.
func (s *Server) templateContent(c *call) error {
	var f faults
	id := c.param("id")
	f.content("id", id)
	form := f.form(c.Request().Header)
	if err := f.problem(); err != nil {
		return err
	}
	file, t, err := s.opts.Templates.Open(c.ctx(), id)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // it was only read
	if c.Request().Method == http.MethodHead {
		err = s.senders.free()
	} else if err = s.senders.take(); err == nil {
		defer s.senders.release()
	}
	if err != nil {
		return err
	}
	h := c.Response().Header()
	h.Set("Vary", extents.Header)
	h.Set(api.HeaderFormat, t.Format)
	h.Set(api.HeaderChecksum, t.Checksum)
	if t.Digest != "" {
		h.Set("ETag", `"`+t.Digest+`"`)
	}
	if info, err := file.Stat(); err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			h.Set(api.HeaderAllocated, strconv.FormatInt(st.Blocks*512, 10))
		}
	}
	w := newDeadlineWriter(c.Response())
	w.stop, w.pace, w.sent = s.draining, s.pace, s.opts.Sent
	if s.opts.Share != nil && c.Request().Method == http.MethodGet && c.caller() != callerLocal {
		share := s.opts.Share(t.ID)
		defer share.Close()
		w.wait = func(n int) error { return share.Wait(c.ctx(), n) }
	}
	if form.extents {
		return s.sendExtents(c, w, file, form, t.Digest)
	}
	h.Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, c.Request(), "", time.Time{}, file)
	return nil
}

func (s *Server) sendExtents(c *call, w *deadlineWriter, file *os.File, form contentForm, digest string) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if form.digest != "" && form.digest != digest {
		form.offset = 0 // of other content: it comes from the beginning
	}
	if form.offset > info.Size() {
		c.Response().Header().Del("ETag")
		return api.NewProblem("bad-range", "the content has %d bytes; it cannot begin at %d", info.Size(), form.offset)
	}
	w.Header().Set("Content-Type", extents.MediaType)
	if c.Request().Method == http.MethodHead {
		w.WriteHeader(http.StatusOK)
		return nil
	}
	return extents.Encode(w, file, form.offset)
}

// content checks what names a content: a template, or the bytes themselves.
func (f *faults) content(field, v string) {
	f.match(contentPattern, field, v, "must be a template's id, or sha256: and 64 hex digits in lower case")
}

// form reads the headers that ask for extents.
func (f *faults) form(h http.Header) (out contentForm) {
	version, offset := h.Get(extents.Header), h.Get(extents.OffsetHeader)
	if out.extents = version != ""; out.extents && version != extents.Version {
		f.add(extents.Header, "has the version %q; this agent knows version %s", version, extents.Version)
	}
	if offset == "" {
		return out
	}
	var err error
	if out.offset, err = strconv.ParseInt(offset, 10, 64); err != nil || out.offset < 0 {
		f.add(extents.OffsetHeader, "must be a number of bytes")
	}
	if !out.extents {
		f.add(extents.OffsetHeader, "is for extents; plain bytes take Range")
	}
	out.digest = unquote(h.Get("If-Range"))
	return out
}

// unquote gives what an entity tag holds; a weak one, or a date, is no digest
// of ours and compares as different.
func unquote(tag string) string {
	if plain, err := strconv.Unquote(tag); err == nil {
		return plain
	}
	return tag
}
