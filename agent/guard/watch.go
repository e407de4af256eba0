package guard

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/wherry-kvm/wherry/volume"
)

// Spec says what is to be guarded.
type Spec struct {
	Operation string         `json:"operation"`
	Name      string         `json:"name"` // the domain's
	UUID      string         `json:"uuid"`
	URI       string         `json:"uri"`   // of this host's libvirt
	Files     []volume.Owned `json:"files"` // the source's volumes
	// Underway: it may have been handed over before anybody listened.
	Underway bool `json:"underway,omitempty"`
	// Before is the mark of a handover before this migration, "" = none.
	Before string `json:"before,omitempty"`
}

// Host is what a guard sees of this host's libvirt.
type Host interface {
	// SentMark gives the mark of the last time that QEMU has handed the guest over
	// to another host whole; "" = it has not.
	SentMark(ctx context.Context, name string) (string, error)
	// HandedOver gives one value: nil when it does so, an error when there is
	// nobody to hear it from any more.
	HandedOver(ctx context.Context, name string) (<-chan error, error)
}

// Hold is what a guard has of the volumes.
type Hold string

// What it has. The words are also what it answers, see [Serve].
const (
	Free Hold = "free" // nothing
	// Held: since the handover. The copy here has not run after it.
	Held Hold = "held"
	// HeldLate: since some time after it, in which libvirt may have started it.
	HeldLate Hold = "late"
)

const (
	listenAgain = 500 * time.Millisecond // after libvirt went away
	askDeadline = 5 * time.Second        // for one answer of libvirt
)

// Watch is the guarding itself, in this process.
type Watch struct {
	spec  Spec
	host  Host
	log   *slog.Logger
	ready chan struct{} // closed when libvirt would be heard
	stop  context.CancelFunc
	over  chan struct{} // closed when nobody listens any more
	bar   *volume.Bar   // read when over
	heard bool          // the handover, as it happened; read when over
	once  sync.Once
}

// Begin listens, and holds from the handover on, until Lift or ctx's end. A
// libvirt that is away is waited for.
func Begin(ctx context.Context, h Host, s Spec, log *slog.Logger) *Watch {
	ctx, stop := context.WithCancel(ctx)
	w := &Watch{spec: s, host: h, log: log.With("operation", s.Operation, "instance", s.Name),
		ready: make(chan struct{}), over: make(chan struct{}), stop: stop}
	go func() {
		defer close(w.over)
		defer stop()
		if w.handedOver(ctx) {
			w.hold()
		}
	}()
	return w
}

// Ready is closed once the handover would be heard.
func (w *Watch) Ready() <-chan struct{} { return w.ready }

// Rest ends the listening, once libvirt's own call has returned: what is held is
// held on.
func (w *Watch) Rest() Hold {
	w.stop()
	<-w.over
	switch {
	case w.bar == nil:
		return Free
	case w.heard:
		return Held
	}
	return HeldLate
}

// Lift lets go.
func (w *Watch) Lift() {
	w.Rest()
	w.bar.Lift()
}

// handedOver returns true when the guest was handed over, false when ctx ended.
func (w *Watch) handedOver(ctx context.Context) bool {
	underway := w.spec.Underway
	for ctx.Err() == nil {
		handed, err := w.host.HandedOver(ctx, w.spec.Name)
		if err == nil {
			w.once.Do(func() { close(w.ready) })
			if underway && w.sent(ctx) {
				return true
			}
			select {
			case err = <-handed:
			case <-ctx.Done():
				select {
				case err = <-handed: // both may be there
				default:
					return false
				}
			}
			if err == nil {
				w.heard = true
				return true
			}
		}
		underway = true // whatever happened while nobody listened
		select {
		case <-time.After(listenAgain):
		case <-ctx.Done():
		}
	}
	return false
}

func (w *Watch) sent(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, askDeadline)
	defer cancel()
	mark, err := w.host.SentMark(ctx, w.spec.Name)
	return mark != "" && mark != w.spec.Before && err == nil
}

// hold bars the volumes. Every millisecond counts: libvirt may hear that the
// answer is lost.
func (w *Watch) hold() {
	bar, err := volume.NewBar(w.spec.Files)
	if err != nil {
		w.log.Warn("the source's volumes are not held", "error", err)
		return
	}
	w.bar = bar
}
