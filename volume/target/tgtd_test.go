package target_test

import (
	"bytes"
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
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	portal := listener.Addr().String()
	listener.Close()
	dir := tempDir(t)
	s := &tgtd{dir: dir, portal: portal, control: strconv.Itoa(os.Getpid()%20000 + 1), env: append(os.Environ(), "TGT_IPC_SOCKET="+dir+"/control")}
	cmd := exec.Command("tgtd", "-f", "-C", s.control, "--iscsi", "portal="+portal)
	cmd.Env = s.env
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	// Ready when it answers on its portal.
	deadline := time.Now().Add(10 * time.Second)
	for {
		conn, err := net.Dial("tcp", portal)
		if err == nil {
			conn.Close()
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("tgtd does not listen on %s:\n%s", portal, log.String())
		}
	}
}

func (s *tgtd) admin(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command("tgtadm", append([]string{"-C", s.control, "--lld", "iscsi"}, args...)...)
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
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}
