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
	value = min(value, math.MaxInt32)
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var setErr error
	err = raw.Control(func(fd uintptr) {
		setErr = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, timeoutOption, int(value))
	})
	if err != nil {
		return err
	}
	return os.NewSyscallError("setsockopt", setErr)
}
