package volume

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// The extent stream carries what a guest reads from a chain, without its holes:
//
//	magic "WHRYEXT1", virtual size (8 bytes, big endian)
//	any number of records: offset (8), length (4, at most maxRecord), data
//	the end: virtual size (8), 0 (4), SHA-256 of everything before (32)
//
// Offsets ascend and do not overlap. What no record covers is zero. The digest
// tells a whole stream from one that was cut or altered on its way.
const (
	streamMagic = "WHRYEXT1"
	maxRecord   = 1 << 20
)

// Flatten writes what a guest would read from the frozen chain src to w, as an
// extent stream for Apply. The rules for src are those of Fill. The chain is
// first put together in an unnamed file in the folder scratch, which needs room
// for what the chain allocates and vanishes with the call or the process. ctx
// is looked at between records; a writer that blocks is the caller's to free.
func Flatten(ctx context.Context, src Chain, w io.Writer, scratch string, r Runner, p Progress) error {
	if err := flatten(ctx, src, w, scratch, r, p); err != nil {
		return fmt.Errorf("flatten: %w", err)
	}
	return nil
}

func flatten(ctx context.Context, src Chain, w io.Writer, scratch string, r Runner, p Progress) error {
	if err := src.copyable(); err != nil {
		return err
	}
	if len(src) == 1 && src[0].Format == FormatRaw {
		f, err := openResolved(src[0].Real)
		if err != nil {
			return err
		}
		defer f.Close()
		return writeStream(ctx, f, src[0].FileSize, src[0].VirtualSize, w, p)
	}
	f, err := scratchFile(scratch, src[0].VirtualSize)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := convert(ctx, src, procPath(f), FormatRaw, r, nil); err != nil {
		return err
	}
	return writeStream(ctx, f, src[0].VirtualSize, src[0].VirtualSize, w, p)
}

// writeStream sends the first size bytes of f as an image of virtual bytes.
func writeStream(ctx context.Context, f *os.File, size, virtual int64, w io.Writer, p Progress) error {
	total, err := dataBytes(f, size)
	if err != nil {
		return err
	}
	sum := sha256.New()
	out := io.MultiWriter(w, sum)
	if _, err := out.Write(binary.BigEndian.AppendUint64([]byte(streamMagic), uint64(virtual))); err != nil {
		return err
	}
	buf := make([]byte, 12+maxRecord)
	var done int64
	for at := int64(0); at < size; {
		start, end, err := nextExtent(f, at, size)
		if err != nil {
			return err
		}
		for at = start; at < end; {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			n := min(end-at, maxRecord)
			if err := readFull(f, buf[12:12+n], at); err != nil {
				return err
			}
			if err := writeRecord(out, buf[:12+n], at); err != nil {
				return err
			}
			at += n
			done += n
			p.report(done, total)
		}
	}
	tail := recordHead(make([]byte, 12), virtual, 0)
	if _, err := out.Write(tail); err != nil {
		return err
	}
	_, err = w.Write(sum.Sum(nil))
	return err
}

// writeRecord sends a record whose data lies behind 12 bytes for its head.
// Blocks that hold only zeros are a hole that the file system did not know.
func writeRecord(w io.Writer, record []byte, offset int64) error {
	if isZero(record[12:]) {
		return nil
	}
	recordHead(record, offset, len(record)-12)
	_, err := w.Write(record)
	return err
}

func recordHead(b []byte, offset int64, length int) []byte {
	binary.BigEndian.PutUint64(b, uint64(offset))
	binary.BigEndian.PutUint32(b[8:], uint32(length))
	return b
}

func dataBytes(f *os.File, size int64) (int64, error) {
	var sum int64
	for at := int64(0); at < size; {
		start, end, err := nextExtent(f, at, size)
		if err != nil {
			return 0, err
		}
		sum += end - start
		at = end
	}
	return sum, nil
}

// Apply reads an extent stream from rd into the fresh standalone volume dst,
// as Fill would from the chain itself. A stream that is malformed, cut short or
// altered is ErrStream, one larger than the volume ErrTooSmall. A qcow2 volume
// needs room beside it for the stream's data, in an unnamed file. The bytes are
// on disk when Apply returns; on error the volume's content is undefined. ctx
// is looked at between records; a reader that blocks is the caller's to free.
func Apply(ctx context.Context, rd io.Reader, dst Owned, format Format, r Runner, p Progress) error {
	if err := apply(ctx, rd, dst, format, r, p); err != nil {
		return fmt.Errorf("apply to volume %q: %w", dst.Path, err)
	}
	return nil
}

func apply(ctx context.Context, rd io.Reader, dst Owned, format Format, r Runner, p Progress) error {
	layer, err := checkFresh(dst, format)
	if err != nil {
		return err
	}
	if format == FormatRaw {
		f, err := dst.open(unix.O_RDWR)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := readStream(ctx, rd, f, layer.VirtualSize, p); err != nil {
			return err
		}
		return settle(dst, layer)
	}
	f, err := scratchFile(filepath.Dir(dst.Path), layer.VirtualSize)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := readStream(ctx, rd, f, layer.VirtualSize, p); err != nil {
		return err
	}
	raw, err := readLayer(f, procPath(f), FormatRaw)
	if err != nil {
		return err
	}
	raw.Real = procPath(f)
	if err := convert(ctx, Chain{raw}, dst.Path, format, r, nil); err != nil {
		return err
	}
	return settle(dst, layer)
}

// readStream writes the records of a stream to f, which has room for limit
// bytes, and returns the virtual size that the stream tells.
func readStream(ctx context.Context, rd io.Reader, f io.WriterAt, limit int64, p Progress) (int64, error) {
	sum := sha256.New()
	in := io.TeeReader(rd, sum)
	head := make([]byte, len(streamMagic)+8)
	if err := streamRead(in, head); err != nil {
		return 0, err
	}
	size := int64(binary.BigEndian.Uint64(head[len(streamMagic):]))
	if string(head[:len(streamMagic)]) != streamMagic || size < 0 || size%sectorSize != 0 {
		return 0, fmt.Errorf("%w: bad head", ErrStream)
	}
	if size > limit {
		return 0, fmt.Errorf("%w: %d bytes, the stream has %d", ErrTooSmall, limit, size)
	}
	buf := make([]byte, maxRecord)
	var at, done int64
	for {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		offset, data, err := streamRecord(in, buf)
		if err != nil {
			return 0, err
		}
		if len(data) == 0 {
			if offset != size {
				return 0, fmt.Errorf("%w: ends at %d, not at %d", ErrStream, offset, size)
			}
			return size, checkSum(rd, sum)
		}
		if offset < at || offset > size || int64(len(data)) > size-offset {
			return 0, fmt.Errorf("%w: record of %d bytes at %d", ErrStream, len(data), offset)
		}
		if _, err := f.WriteAt(data, offset); err != nil {
			return 0, err
		}
		at = offset + int64(len(data))
		done += int64(len(data))
		p.report(done, size)
	}
}

func streamRecord(in io.Reader, buf []byte) (int64, []byte, error) {
	var head [12]byte
	if err := streamRead(in, head[:]); err != nil {
		return 0, nil, err
	}
	offset, length := int64(binary.BigEndian.Uint64(head[:])), binary.BigEndian.Uint32(head[8:])
	if offset < 0 || length > maxRecord {
		return 0, nil, fmt.Errorf("%w: record of %d bytes at %d", ErrStream, length, offset)
	}
	data := buf[:length]
	return offset, data, streamRead(in, data)
}

func checkSum(rd io.Reader, sum hash.Hash) error {
	got := make([]byte, sum.Size())
	if err := streamRead(rd, got); err != nil {
		return err
	}
	if string(got) != string(sum.Sum(nil)) {
		return fmt.Errorf("%w: digest differs", ErrStream)
	}
	return nil
}

// streamRead fills b; a stream that ends inside it was cut short.
func streamRead(in io.Reader, b []byte) error {
	_, err := io.ReadFull(in, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: cut short", ErrStream)
	}
	return err
}

// scratchFile makes an unnamed sparse file of size bytes in the folder dir: no
// crash can leave it behind.
func scratchFile(dir string, size int64) (*os.File, error) {
	f, err := os.OpenFile(dir, unix.O_TMPFILE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) {
		// Network file systems have no unnamed files; a name that is gone at
		// once comes close.
		if f, err = os.CreateTemp(dir, ".wherry-scratch-*"); err == nil {
			err = os.Remove(f.Name())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("scratch file: %w", err)
	}
	if err := f.Truncate(size); err != nil {
		f.Close()
		return nil, fmt.Errorf("scratch file: %w", err)
	}
	return f, nil
}

// procPath is a path by which a child process reaches a file that has no name.
func procPath(f *os.File) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()) }
