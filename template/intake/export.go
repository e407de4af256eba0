package intake

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Numbers of the NBD protocol (NetworkBlockDevice/nbd, doc/proto.md).
const (
	nbdMagic        = "NBDMAGIC"
	nbdOptionMagic  = "IHAVEOPT"
	nbdReplyMagic   = 0x3e889045565a9
	nbdRequestMagic = 0x25609513
	nbdAnswerMagic  = 0x67446698

	nbdFixedNewstyle = 1 << 0
	nbdNoZeroes      = 1 << 1

	nbdOptAbort = 2
	nbdOptGo    = 7

	nbdRepAck         = 1
	nbdRepInfo        = 3
	nbdRepUnsupported = 1<<31 | 1
	nbdInfoExport     = 0

	nbdHasFlags = 1 << 0
	nbdReadOnly = 1 << 1

	nbdCmdRead  = 0
	nbdCmdWrite = 1
	nbdCmdDisc  = 2

	nbdPermission = 1
	nbdInvalid    = 22
)

// Bounds on what the other side may ask for. An L1 table has 32 MiB at most,
// which QEMU reads at once.
const (
	maxOption   = 4 << 10
	maxOptions  = 64
	maxRequest  = 32 << 20
	maxRequests = 1 << 16
)

// errGreedy says that more was asked for than the examination of a header and
// its tables can need.
var errGreedy = errors.New("too many reads")

// errProtocol says that the other side does not speak NBD as a client does.
var errProtocol = errors.New("not the NBD protocol")

// errUnreadable says that the file system did not give what it has of the image.
var errUnreadable = errors.New("cannot read the image")

// export is an image as the other end of a connection may see it: read only,
// and not more of it than budget bytes in all.
type export struct {
	image  io.ReaderAt
	size   int64
	budget int64
	// opened is set once the client has asked for the image: until then
	// nothing of it can have had an influence.
	opened bool
	buf    []byte
}

// serve answers one client until it leaves, or breaks a rule. It returns nil
// for a client that left, errGreedy, errProtocol, errUnreadable, or an error of
// the connection.
func (e *export) serve(conn io.ReadWriter) error {
	err := e.negotiate(conn)
	if err == nil && e.opened {
		err = e.answer(conn)
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// negotiate greets in the fixed newstyle and knows one option, NBD_OPT_GO, as
// the specification allows a server to.
func (e *export) negotiate(conn io.ReadWriter) error {
	hello := append([]byte(nbdMagic+nbdOptionMagic), 0, nbdFixedNewstyle|nbdNoZeroes)
	if _, err := conn.Write(hello); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, make([]byte, 4)); err != nil { // the client's flags
		return err
	}
	for range maxOptions {
		head := make([]byte, 16)
		if _, err := io.ReadFull(conn, head); err != nil {
			return err
		}
		option, length := binary.BigEndian.Uint32(head[8:]), binary.BigEndian.Uint32(head[12:])
		if string(head[:8]) != nbdOptionMagic || length > maxOption {
			return fmt.Errorf("%w: option of %d bytes", errProtocol, length)
		}
		if _, err := io.CopyN(io.Discard, conn, int64(length)); err != nil {
			return err
		}
		done, err := e.option(conn, option)
		if done || err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: more than %d options", errProtocol, maxOptions)
}

func (e *export) option(conn io.Writer, option uint32) (done bool, err error) {
	switch option {
	case nbdOptAbort:
		return true, reply(conn, option, nbdRepAck, nil)
	case nbdOptGo:
		info := binary.BigEndian.AppendUint16(nil, nbdInfoExport)
		info = binary.BigEndian.AppendUint64(info, uint64(e.size))
		info = binary.BigEndian.AppendUint16(info, nbdHasFlags|nbdReadOnly)
		if err := reply(conn, option, nbdRepInfo, info); err != nil {
			return true, err
		}
		e.opened = true
		return true, reply(conn, option, nbdRepAck, nil)
	}
	return false, reply(conn, option, nbdRepUnsupported, nil)
}

func reply(conn io.Writer, option, kind uint32, data []byte) error {
	b := binary.BigEndian.AppendUint64(nil, nbdReplyMagic)
	b = binary.BigEndian.AppendUint32(b, option)
	b = binary.BigEndian.AppendUint32(b, kind)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	_, err := conn.Write(append(b, data...))
	return err
}

// answer serves reads with simple replies, one after the other.
func (e *export) answer(conn io.ReadWriter) error {
	head := make([]byte, 28)
	for range maxRequests {
		if _, err := io.ReadFull(conn, head); err != nil {
			return err
		}
		if binary.BigEndian.Uint32(head) != nbdRequestMagic {
			return fmt.Errorf("%w: no request", errProtocol)
		}
		command, cookie := binary.BigEndian.Uint16(head[6:]), binary.BigEndian.Uint64(head[8:])
		offset, length := binary.BigEndian.Uint64(head[16:]), binary.BigEndian.Uint32(head[24:])
		var data []byte
		number := uint32(0)
		switch {
		case command == nbdCmdDisc:
			return nil
		case command == nbdCmdWrite:
			// Its payload would follow: there is nothing to go on with.
			return fmt.Errorf("%w: a write", errProtocol)
		case command != nbdCmdRead:
			number = nbdPermission
		case length > maxRequest || offset > uint64(e.size) || uint64(length) > uint64(e.size)-offset:
			number = nbdInvalid
		default:
			var err error
			if data, err = e.read(int64(offset), int(length)); err != nil {
				return err
			}
		}
		b := binary.BigEndian.AppendUint32(nil, nbdAnswerMagic)
		b = binary.BigEndian.AppendUint32(b, number)
		b = binary.BigEndian.AppendUint64(b, cookie)
		if _, err := conn.Write(append(b, data...)); err != nil {
			return err
		}
	}
	return errGreedy
}

// read gives bytes of the image, within the budget. The end of a file that
// became shorter is an error of the image.
func (e *export) read(offset int64, length int) ([]byte, error) {
	if e.budget -= int64(length); e.budget < 0 {
		return nil, errGreedy
	}
	if length > cap(e.buf) {
		e.buf = make([]byte, length)
	}
	b := e.buf[:length]
	n, err := e.image.ReadAt(b, offset)
	switch {
	case n == length:
		return b, nil
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return nil, fmt.Errorf("%w: %d bytes at %d: %w", errUnreadable, length, offset, err)
}
