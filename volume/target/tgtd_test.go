package target_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/volume/target"
)

// tgtd is an iSCSI target daemon of the test's own: own port, own control
// socket, own process.
type tgtd struct {
	dir, portal string
	control     string
	env         []string
}

func startTGTD(t *testing.T) *tgtd {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("tgtd needs root")
	}
	listener := listen(t)
	portal := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	dir := tempDir(t)
	s := &tgtd{dir: dir, portal: portal, control: strconv.Itoa(os.Getpid()%20000 + 1), env: append(os.Environ(), "TGT_IPC_SOCKET="+dir+"/control")}
	cmd := exec.CommandContext(t.Context(), "tgtd", "-f", "-C", s.control, "--iscsi", "portal="+portal)
	cmd.Env = s.env
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// The test's context kills it before the cleanups run.
	t.Cleanup(func() {
		if err := cmd.Wait(); err == nil {
			t.Errorf("tgtd ended by itself:\n%s", log.String())
		}
	})
	// Ready when it answers on its portal.
	deadline := time.Now().Add(10 * time.Second)
	for {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", portal)
		if err == nil {
			if err := conn.Close(); err != nil {
				t.Fatal(err)
			}
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("tgtd does not listen on %s:\n%s", portal, log.String())
		}
	}
}

func (s *tgtd) admin(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "tgtadm", append([]string{"-C", s.control, "--lld", "iscsi"}, args...)...)
	cmd.Env = s.env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tgtadm %q: %v\n%s", args, err, out)
	}
}

// add serves a file of size bytes as unit 1 of a new target, and returns its name.
func (s *tgtd) add(t *testing.T, id int, size int64) string {
	t.Helper()
	file := writeFile(t, fmt.Sprintf("%s/lun%d", s.dir, id), "")
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
	iqn, tid := fmt.Sprintf("iqn.2024-01.wherry.test:disk-%d", id), strconv.Itoa(id)
	s.admin(t, "--op", "new", "--mode", "target", "--tid", tid, "-T", iqn)
	s.admin(t, "--op", "new", "--mode", "logicalunit", "--tid", tid, "--lun", "1", "-b", file)
	s.admin(t, "--op", "bind", "--mode", "target", "--tid", tid, "-I", "ALL")
	return iqn
}

// protect admits only who logs in.
func (s *tgtd) protect(t *testing.T, id int, c target.CHAP) {
	t.Helper()
	s.admin(t, "--op", "new", "--mode", "account", "--user", c.User, "--password", c.Secret)
	s.admin(t, "--op", "bind", "--mode", "account", "--tid", strconv.Itoa(id), "--user", c.User)
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	// Cleanups run commands too, when the test's context has ended.
	out, err := exec.CommandContext(context.WithoutCancel(t.Context()), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}
