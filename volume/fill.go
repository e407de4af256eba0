package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Progress hears how far a copy is, in bytes of the source's own data. It is
// called from another goroutine, never after the call that took it returned.
type Progress func(done, total int64)

func (p Progress) report(done, total int64) {
	if p != nil {
		p(done, total)
	}
}

// Fill copies what a guest would read from the frozen chain src into the fresh
// standalone volume dst, which Format has just made. A source smaller than the
// volume leaves the rest reading as zeros; a larger one is ErrTooSmall.
//
// src must come from Walk, so that exactly the layers that were looked at are
// opened, each in its told format; it must not change while it is read, and
// issues other than internal snapshots are ErrUnsafe. A volume that holds
// anything already is ErrNotFresh. Where both are single images alike on a file
// system that shares blocks, the copy is a reflink. The bytes are on disk when
// Fill returns, so that the source's copy may be given up.
//
// On error or when ctx ends the volume's content is undefined.
func Fill(ctx context.Context, src Chain, dst Owned, format Format, r Runner, p Progress) error {
	if err := fill(ctx, src, dst, format, r, p); err != nil {
		return fmt.Errorf("fill volume %q: %w", dst.Path, err)
	}
	return nil
}

func fill(ctx context.Context, src Chain, dst Owned, format Format, r Runner, p Progress) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if err := src.copyable(); err != nil {
		return err
	}
	layer, err := checkFresh(dst, format)
	if err != nil {
		return err
	}
	if layer.VirtualSize < src[0].VirtualSize {
		return fmt.Errorf("%w: %d bytes, the source has %d", ErrTooSmall, layer.VirtualSize, src[0].VirtualSize)
	}
	total := src.allocated()
	p.report(0, total)
	shared, err := reflink(ctx, src, dst, layer, r)
	if err != nil {
		return err
	}
	if !shared {
		if err := convert(ctx, src, dst.Path, format, r, p); err != nil {
			return err
		}
	}
	if err := settle(dst, layer); err != nil {
		return err
	}
	p.report(total, total)
	return nil
}

// settle verifies that the volume is still the same file and has the size it
// had, and waits for its bytes: qemu-img convert flushes nothing by itself.
func settle(dst Owned, before Layer) error {
	f, err := dst.open(unix.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	after, err := readLayer(f, dst.Path, before.Format)
	if err != nil {
		return err
	}
	if after.VirtualSize != before.VirtualSize || after.BackingFile != "" {
		return fmt.Errorf("%w: virtual size %d became %d, backing file %q", ErrSpec, before.VirtualSize, after.VirtualSize, after.BackingFile)
	}
	return f.Sync()
}

// copyable refuses a chain whose bytes cannot be had, or not be trusted. What
// internal snapshots hold is not what the guest sees, so they do no harm here.
func (c Chain) copyable() error {
	if len(c) == 0 {
		return fmt.Errorf("%w: no layers", ErrUnsafe)
	}
	var errs []error
	for _, issue := range c.Issues() {
		if issue.Code != IssueSnapshots {
			errs = append(errs, fmt.Errorf("%w: %s", ErrUnsafe, issue))
		}
	}
	return errors.Join(errs...)
}

// allocated estimates how many bytes a copy of the chain has to move.
func (c Chain) allocated() int64 {
	var sum int64
	for _, l := range c {
		if l.Ino == 0 {
			sum += l.FileSize // a block device does not tell
		} else {
			sum += l.Allocated
		}
	}
	return min(sum, c[0].VirtualSize)
}

// checkFresh reads the destination and makes sure that every byte of it reads
// as zero: convert is told so, and skips the zeros of the source.
func checkFresh(dst Owned, format Format) (Layer, error) {
	f, err := dst.open(unix.O_RDONLY)
	if err != nil {
		return Layer{}, err
	}
	defer f.Close()
	l, err := readLayer(f, dst.Path, format)
	if err != nil {
		return Layer{}, err
	}
	if format == FormatRaw {
		return l, freshRaw(f, l)
	}
	if l.BackingFile != "" || len(l.issues()) > 0 {
		return l, fmt.Errorf("%w: backing file %q, issues %v", ErrNotFresh, l.BackingFile, l.issues())
	}
	return l, freshQcow2(f, l)
}

func freshRaw(f *os.File, l Layer) error {
	if l.Allocated == 0 {
		return nil
	}
	if start, _, err := nextExtent(f, 0, l.FileSize); err != nil || start < l.FileSize {
		return errors.Join(ErrNotFresh, err)
	}
	return nil
}

// freshQcow2 looks at the L1 table: an image that maps no L2 table maps nothing.
func freshQcow2(f *os.File, l Layer) error {
	h, err := ReadHeader(f, l.FileSize)
	if err != nil {
		return err
	}
	table := make([]byte, h.l1Entries*8) // bounded by ReadHeader
	if _, err := readAtMost(f, table, h.l1Offset); err != nil {
		return err
	}
	if !isZero(table) {
		return ErrNotFresh
	}
	return nil
}

// convert runs qemu-img from an explicit block graph into an existing image.
// -W writes out of order, which the many small reads of a chain gain from.
func convert(ctx context.Context, src Chain, path string, format Format, r Runner, p Progress) error {
	graph, err := src.graph()
	if err != nil {
		return err
	}
	total := src.allocated()
	line := func(b []byte) {
		if part, ok := percent(b); ok {
			p.report(int64(part/100*float64(total)), total)
		}
	}
	return r.Stream(ctx, line, "qemu-img", "convert", "-p", "-n", "--target-is-zero", "-W", "-m", "8",
		graph, "-O", string(format), path)
}

// percent parses qemu-img's progress, "    (12.50/100%)".
func percent(line []byte) (float64, bool) {
	var part float64
	if _, err := fmt.Sscanf(strings.TrimSpace(string(line)), "(%f/100%%)", &part); err != nil || part < 0 || part > 100 {
		return 0, false
	}
	return part, true
}

// graph describes the chain to QEMU as a json: name. Every layer is named with
// its driver, and the last one is told to have no backing: QEMU is left
// nothing to find out by itself, and no name in a header is followed. Locks are
// off because a frozen layer may be the backing of a running instance.
func (c Chain) graph() (string, error) {
	var node map[string]any
	for i := len(c) - 1; i >= 0; i-- {
		file := map[string]any{"driver": "file", "filename": c[i].Real, "locking": "off"}
		if c[i].Ino == 0 {
			file["driver"] = "host_device"
		}
		next := map[string]any{"driver": string(c[i].Format), "file": file}
		if c[i].Format == FormatQcow2 {
			next["backing"] = nil
			if node != nil {
				next["backing"] = node
			}
		}
		node = next
	}
	b, err := json.Marshal(node)
	return "json:" + string(b), err
}
