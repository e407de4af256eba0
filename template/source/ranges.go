package source

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/wherry-kvm/wherry/template/fault"
)

// contentRange is the header of that name: bytes first to last, of total (-1
// where it is "*"). For an unsatisfied one first and last are -1.
type contentRange struct{ first, last, total int64 }

// parseContentRange reads "bytes 0-9/10", "bytes 0-9/*" and "bytes */10" (RFC
// 9110, 14.4), and refuses what contradicts itself.
func parseContentRange(s string) (contentRange, bool) {
	unit, rest, ok := strings.Cut(s, " ")
	span, total, ok2 := strings.Cut(rest, "/")
	if !ok || !ok2 || !strings.EqualFold(unit, "bytes") {
		return contentRange{}, false
	}
	r := contentRange{-1, -1, -1}
	if total != "*" {
		if r.total, ok = number(total); !ok {
			return contentRange{}, false
		}
	}
	if span == "*" {
		return r, r.total >= 0
	}
	first, last, ok := strings.Cut(span, "-")
	if !ok {
		return contentRange{}, false
	}
	r.first, ok = number(first)
	r.last, ok2 = number(last)
	if !ok || !ok2 || r.last < r.first || r.total >= 0 && r.last >= r.total {
		return contentRange{}, false
	}
	return r, true
}

// number reads digits only: no sign, no space.
func number(s string) (int64, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// known tells whether the total is.
func (v Validator) known() bool { return v.Total > 0 }

// header is the value of the header Range.
func (a At) header() string { return "bytes=" + strconv.FormatInt(a.Offset, 10) + "-" }

// condition is the header If-Range: the range counts only for the content that
// was begun. "" where nothing is known of it.
func (v Validator) condition() string {
	if v.ETag != "" {
		return v.ETag
	}
	return v.LastModified
}

// validator takes from an answer what can prove later that the content is the
// same. Weak ones prove nothing about bytes.
func validator(h http.Header, total int64) Validator {
	v := Validator{Total: total}
	if tag := h.Get("ETag"); len(tag) >= 2 && len(tag) <= 1024 && tag[0] == '"' && tag[len(tag)-1] == '"' {
		v.ETag = tag
	}
	modified, err := http.ParseTime(h.Get("Last-Modified"))
	date, err2 := http.ParseTime(h.Get("Date"))
	// RFC 9110, 8.8.2.2: within a second of it the content could change unseen.
	if err == nil && err2 == nil && date.Sub(modified) >= time.Second {
		v.LastModified = h.Get("Last-Modified")
	}
	return v
}

// updated is the validator after an answer with a part of the same content,
// which need not repeat what is known (RFC 9110, 15.3.7).
func (v Validator) updated(h http.Header, total int64) Validator {
	now := validator(h, total)
	if now.ETag == "" {
		now.ETag = v.ETag
	}
	if now.LastModified == "" {
		now.LastModified = v.LastModified
	}
	return now
}

// same tells whether an answer's validators contradict what is known.
func (v Validator) same(now http.Header) bool {
	if tag := now.Get("ETag"); v.ETag != "" && tag != "" {
		return tag == v.ETag
	}
	if modified := now.Get("Last-Modified"); v.LastModified != "" && modified != "" {
		return modified == v.LastModified
	}
	return true
}

// verdict is what an answer is to a request for the content from an offset on.
type verdict int

const (
	refused  verdict = iota // not the content
	whole                   // the content from its beginning
	resumed                 // the content from the offset on
	complete                // the offset is the content's end
	stale                   // the range is of something else: ask for the whole
)

// judge decides what an answer is, and how many bytes the content has as a
// whole (-1 where unknown). It takes nothing on trust: a range that does not begin
// at the offset, is of another total or of another length than the body, and a
// changed validator make it stale.
func judge(r *http.Response, at At) (v verdict, total int64) {
	given, ok := parseContentRange(r.Header.Get("Content-Range"))
	switch r.StatusCode {
	case http.StatusOK:
		return whole, r.ContentLength
	case http.StatusPartialContent:
		if at.Offset == 0 {
			return refused, 0
		}
		length := given.last - given.first + 1
		if !ok || given.first != at.Offset || given.total < 0 ||
			at.known() && given.total != at.Total ||
			r.ContentLength >= 0 && r.ContentLength != length || !at.same(r.Header) {
			return stale, 0
		}
		// A server may send less of the range than there is: the end of the
		// body is the content's end only at its total.
		return resumed, given.total
	case http.StatusRequestedRangeNotSatisfiable:
		if at.Offset == 0 {
			return refused, 0
		}
		if ok && given.first < 0 && given.total == at.Offset && at.condition() != "" && (!at.known() || at.Total == at.Offset) {
			return complete, at.Offset
		}
		return stale, 0
	}
	return refused, 0
}

// lie says what was asked for and what was answered, where a stale answer is
// one that no server may give (RFC 9110, 13.1.5 and 14.4); nil where it may be
// that of another content, and nothing was known of the first that would hold
// the server to it.
func lie(r *http.Response, at At) error {
	given, ok := parseContentRange(r.Header.Get("Content-Range"))
	if at.condition() == "" && ok && (given.first == at.Offset || given.first < 0) {
		return nil
	}
	words := fmt.Sprintf("%s was asked for bytes from %d on and answered %s ", r.Request.URL.Host, at.Offset, fault.Clean(r.Status, 80))
	if header := r.Header.Get("Content-Range"); header == "" {
		words += "without Content-Range"
	} else {
		words += fmt.Sprintf("with Content-Range %q", fault.Clean(header, 80))
	}
	switch {
	case at.known() && ok && given.total != at.Total:
		words += fmt.Sprintf(" where the content has %d bytes", at.Total)
	case r.ContentLength >= 0 && ok && given.first >= 0 && r.ContentLength != given.last-given.first+1:
		words += fmt.Sprintf(" and Content-Length %d", r.ContentLength)
	case !at.same(r.Header) && at.ETag != "":
		words += fmt.Sprintf(" and ETag %q though If-Range was %q", fault.Clean(r.Header.Get("ETag"), 80), fault.Clean(at.ETag, 80))
	case !at.same(r.Header):
		words += fmt.Sprintf(" and Last-Modified %q though If-Range was %q", fault.Clean(r.Header.Get("Last-Modified"), 80), at.LastModified)
	}
	return errors.New(words)
}
