package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/wherry-kvm/wherry/tests/lab/guest/block"
)

// Blocks read at once where many are: fewer requests, each of which is slow under emulation.
const batch = 256

// storage is what a disk is read from and written to.
type storage interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
}

// disk is one disk that the guest writes to.
type disk struct {
	storage
	name     string // as its blocks call it
	first    uint64 // block where the data begins
	slots    uint64
	next     uint64       // number of the next block
	template *block.Block // the template's first block, nil where the disk has none
	clean    *block.Block // what the boot before left when it shut down, nil where it did not
	buf      []byte       // aligned, for direct I/O
	broken   string       // what was found wrong when the disk was opened
}

// openDevice opens a block device past every cache: a read then sees what the host would hand to another host, and a
// write returns when it is durable.
func openDevice(path string) (storage, int64, error) {
	file, err := os.OpenFile(path, os.O_RDWR|syscall.O_DIRECT|syscall.O_DSYNC, 0)
	if err != nil {
		return nil, 0, err
	}
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		file.Close()
		return nil, 0, err
	}
	return file, size, nil
}

// newDisk looks at what the disk holds: the template it stands on, and the blocks an earlier boot wrote, whose
// numbering it goes on with.
func newDisk(s storage, name string, size int64) (*disk, error) {
	buf, err := syscall.Mmap(-1, 0, batch*block.Size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	d := &disk{storage: s, name: name, buf: buf}
	d.first, d.slots = block.Slots(uint64(size) / block.Size)
	if d.slots == 0 {
		return nil, fmt.Errorf("size %d is too small", size)
	}
	if err := d.findTemplate(); err != nil {
		d.broken = err.Error()
	}
	if err := d.findLast(); err != nil {
		d.broken = err.Error()
	}
	if err := d.takeClean(); err != nil {
		d.broken = err.Error()
	}
	return d, nil
}

func (d *disk) close() {
	_ = d.Close() // every block was synced by itself
	_ = syscall.Munmap(d.buf)
}

func (d *disk) findTemplate() error {
	if _, err := d.ReadAt(d.buf[:block.Size], 0); err != nil {
		return err
	}
	b, err := block.Decode(d.buf[:block.Size])
	switch {
	case errors.Is(err, block.ErrEmpty):
		return nil
	case err != nil:
		return fmt.Errorf("template block 0: %w", err)
	case b.Kind != block.Template || b.Total > d.first:
		return fmt.Errorf("block 0 is no template block of this disk: %+v", b)
	}
	d.template = &b
	return nil
}

// roomForClean: a template may fill its half to the end.
func (d *disk) roomForClean() bool { return d.template == nil || d.template.Total < d.first }

// takeClean reads the clean block of the boot before, and removes it: this boot has yet to end in order.
func (d *disk) takeClean() error {
	at := int64(d.first-1) * block.Size
	buf := d.buf[:block.Size]
	if !d.roomForClean() {
		return nil
	}
	if _, err := d.ReadAt(buf, at); err != nil {
		return err
	}
	b, err := block.Decode(buf)
	switch {
	case errors.Is(err, block.ErrEmpty):
		return nil
	case err != nil:
		return fmt.Errorf("clean block: %w", err)
	case b.Kind != block.Clean || b.Seq != d.next:
		return fmt.Errorf("clean block: %+v before block %d", b, d.next)
	}
	d.clean = &b
	clear(buf)
	_, err = d.WriteAt(buf, at)
	return err
}

// writeClean is the last that is written to the disk: it is durable when this returns.
func (d *disk) writeClean(boot string) error {
	if !d.roomForClean() {
		return nil
	}
	buf := d.buf[:block.Size]
	block.Block{Kind: block.Clean, Seq: d.next, Name: d.name, Mark: boot}.Encode(buf)
	_, err := d.WriteAt(buf, int64(d.first-1)*block.Size)
	return err
}

// findLast reads the slots up to the first that was never written.
func (d *disk) findLast() error {
	var bad error
	err := d.each(d.first, d.slots, func(slot uint64, b block.Block, err error) error {
		switch {
		case errors.Is(err, block.ErrEmpty):
			return io.EOF
		case err != nil:
			bad = fmt.Errorf("slot %d: %w", slot, err)
		case b.Seq >= d.next:
			d.next, d.name = b.Seq+1, b.Name
		}
		return nil
	})
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return bad
}

// each calls see with count blocks from first on, numbered from 0, until it returns an error.
func (d *disk) each(first, count uint64, see func(uint64, block.Block, error) error) error {
	for at := uint64(0); at < count; at += batch {
		n := min(batch, count-at)
		buf := d.buf[:n*block.Size]
		if _, err := d.ReadAt(buf, int64(first+at)*block.Size); err != nil {
			return fmt.Errorf("reading block %d: %w", first+at, err)
		}
		for i := range n {
			b, err := block.Decode(buf[i*block.Size:][:block.Size])
			if err := see(at+i, b, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeNext writes the next block and returns its number once it is durable. After an error the same number is next.
func (d *disk) writeNext(boot string) (uint64, error) {
	seq := d.next
	buf := d.buf[:block.Size]
	block.Block{Kind: block.Data, Seq: seq, Name: d.name, Mark: boot}.Encode(buf)
	if _, err := d.WriteAt(buf, int64(d.first+seq%d.slots)*block.Size); err != nil {
		return seq, err
	}
	d.next++
	return seq, nil
}
