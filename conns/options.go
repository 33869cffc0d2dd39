//go:build linux || darwin

package conns

import (
	"math"
	"net"
	"os"
	"syscall"
	"time"
)

// SetUserTimeout makes the kernel end conn once sent data has been unacknowledged for d, rounded up
// to milliseconds on Linux and to seconds on macOS. 0 restores the kernel's default. On other
// systems SetUserTimeout does nothing.
//
// While nothing is sent, keep-alive probes detect a dead peer; see [net.KeepAliveConfig]. On Linux,
// d replaces that config's Count: the connection ends at the first probe that is due after d
// without an answer.
func SetUserTimeout(conn *net.TCPConn, d time.Duration) error {
	value := d / timeoutUnit
	if d%timeoutUnit > 0 {
		value++
	}
	return setOption(conn, timeoutOption, int(min(value, math.MaxInt32)))
}

// SetUnsentLimit makes writes to conn wait while the kernel holds n bytes or more that it has not
// sent. Sent bytes that are not acknowledged do not count, so that unlike a small send buffer, the
// limit does not slow down a client far away. On other systems SetUnsentLimit does nothing.
func SetUnsentLimit(conn *net.TCPConn, n int) error {
	return setOption(conn, unsentOption, n)
}

// setOption sets an option of TCP.
func setOption(conn *net.TCPConn, option, value int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var setErr error
	err = raw.Control(func(fd uintptr) {
		setErr = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, option, value)
	})
	if err != nil {
		return err
	}
	return os.NewSyscallError("setsockopt", setErr)
}
