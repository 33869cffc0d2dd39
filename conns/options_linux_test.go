package conns

import (
	"math"
	"net"
	"syscall"
	"testing"
	"time"
)

// A connection's options in the kernel belong here. That the connection of a vanished peer ends in
// time is tested in e2e, between two network namespaces.

func TestUserTimeoutIsSetInTheKernel(t *testing.T) {
	conn := dial(t, listen(t, 1, nil))
	for _, test := range []struct {
		d            time.Duration
		milliseconds int
	}{
		{20 * time.Second, 20_000},
		{time.Millisecond, 1},
		{time.Millisecond + 1, 2}, // rounded up
		{1, 1},                    // 0 would be the kernel's default
		{math.MaxInt64, math.MaxInt32},
		{0, 0},
	} {
		if err := SetUserTimeout(conn, test.d); err != nil {
			t.Fatalf("SetUserTimeout(%v): %v", test.d, err)
		}
		if got := option(t, conn, syscall.IPPROTO_TCP, timeoutOption); got != test.milliseconds {
			t.Errorf("SetUserTimeout(%v): the option is %d, want %d", test.d, got, test.milliseconds)
		}
	}
	if err := SetUserTimeout(conn, -time.Second); err == nil {
		t.Error("SetUserTimeout accepted a negative duration")
	}
}

// The client accepts a few KiB. Without the limit, the kernel would accept megabytes for it.
func TestUnsentLimitBoundsWhatTheKernelAcceptsForAStalledClient(t *testing.T) {
	const limit, most = 64 << 10, 256 << 10 // the kernel accepts the last piece as a whole
	client, conn := connect(t, listen(t, 1, nil))
	if err := client.SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	if err := SetUnsentLimit(conn.TCPConn, limit); err != nil {
		t.Fatal(err)
	}
	conn.SetWriteDeadline(time.Now().Add(time.Second / 4))
	accepted, piece := 0, make([]byte, 16<<10)
	for accepted < 8<<20 {
		n, err := conn.Write(piece)
		accepted += n
		if err != nil {
			break
		}
	}
	if accepted > most {
		t.Errorf("the kernel accepted %d bytes, want at most %d", accepted, most)
	}
	conn.Close()
	if err := SetUnsentLimit(conn.TCPConn, limit); err == nil {
		t.Error("SetUnsentLimit accepted a closed connection")
	}
}

func TestUserTimeoutCanBeDisabledAndEnabled(t *testing.T) {
	_, conn := connect(t, listen(t, 1, nil))
	conn.SetUserTimeout(20 * time.Second)
	for _, test := range []struct {
		on           bool
		milliseconds int
	}{{false, 0}, {true, 20_000}} {
		err := conn.EnableUserTimeout(test.on)
		got := option(t, conn.TCPConn, syscall.IPPROTO_TCP, timeoutOption)
		if err != nil || got != test.milliseconds {
			t.Errorf("EnableUserTimeout(%t): %v, and the option is %d", test.on, err, got)
		}
	}
	conn.Close()
	for _, on := range []bool{false, true} {
		if err := conn.EnableUserTimeout(on); err == nil {
			t.Errorf("EnableUserTimeout(%t) accepted a closed connection", on)
		}
	}
}

func TestConnectionsAreProbed(t *testing.T) {
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	limited := Limit(l, 1, nil)
	defer limited.Close()
	_, conn := connect(t, limited)
	for _, test := range []struct {
		name                string
		level, option, want int
	}{
		{"SO_KEEPALIVE", syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
		{"TCP_KEEPIDLE", syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, 10},
		{"TCP_KEEPINTVL", syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, 2},
		{"TCP_KEEPCNT", syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, 10},
	} {
		if got := option(t, conn.TCPConn, test.level, test.option); got != test.want {
			t.Errorf("%s is %d, want %d", test.name, got, test.want)
		}
	}
}

// option returns an option of conn's socket.
func option(t *testing.T, conn *net.TCPConn, level, name int) int {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var value int
	var getErr error
	err = raw.Control(func(fd uintptr) {
		value, getErr = syscall.GetsockoptInt(int(fd), level, name)
	})
	if err != nil || getErr != nil {
		t.Fatalf("getsockopt: %v, %v", err, getErr)
	}
	return value
}
