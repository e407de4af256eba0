package main

import (
	"fmt"

	"github.com/wherry-kvm/wherry/tests/lab/guest/block"
)

// verify reads back everything the disk must hold and says in words what it found.
func (d *disk) verify() string {
	if d.broken != "" {
		return "BAD when opened: " + d.broken
	}
	if err := d.verifyData(); err != nil {
		return "BAD " + err.Error()
	}
	if err := d.verifyTemplate(); err != nil {
		return "BAD " + err.Error()
	}
	blocks, label, seed := uint64(0), "-", "-"
	if d.template != nil {
		blocks, label, seed = d.template.Total, d.template.Name, d.template.Mark
	}
	return fmt.Sprintf("ok blocks=%d last=%d template=%d label=%s seed=%s",
		min(d.next, d.slots), int64(d.next)-1, blocks, label, seed)
}

func (d *disk) verifyData() error {
	if d.next == 0 {
		return nil
	}
	return d.each(d.first, min(d.next, d.slots), func(slot uint64, got block.Block, err error) error {
		want, _ := block.Newest(d.next-1, slot, d.slots)
		switch {
		case err != nil:
			return fmt.Errorf("seq=%d %w", want, err)
		case got.Kind != block.Data || got.Seq != want || got.Name != d.name:
			return fmt.Errorf("seq=%d holds %s %d of %s instead", want, got.Kind, got.Seq, got.Name)
		}
		return nil
	})
}

// verifyTemplate expects what was there when the guest booted: a base that was exchanged meanwhile carries another
// label or seed, one that was lost carries none.
func (d *disk) verifyTemplate() error {
	if d.template == nil {
		return nil
	}
	want := *d.template
	return d.each(0, want.Total, func(seq uint64, got block.Block, err error) error {
		want.Seq = seq
		switch {
		case err != nil:
			return fmt.Errorf("template=%d %w", seq, err)
		case got != want:
			return fmt.Errorf("template=%d holds %s %d of %s seed %s instead", seq, got.Kind, got.Seq, got.Name, got.Mark)
		}
		return nil
	})
}
