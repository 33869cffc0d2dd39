//go:build linux || darwin

package conns

import (
	"math"
	"net"
	"os"
	"syscall"
	"time"
)

// GiveUpAfter makes the kernel end conn once data that was sent has not been acknowledged for d,
// rounded up to milliseconds on Linux and to seconds on macOS. With 0 the kernel decides again, as
// it does without GiveUpAfter. On other systems GiveUpAfter does nothing.
//
// On a connection where nothing is sent, keep-alive probes find out that the peer is gone; see
// [net.KeepAliveConfig]. On Linux, d takes the place of that config's Count: when a probe is due,
// the one before it is unanswered and the peer has been silent for d, the connection ends.
func GiveUpAfter(conn *net.TCPConn, d time.Duration) error {
	value := d / giveUpUnit
	if d%giveUpUnit > 0 {
		value++
	}
	value = min(value, math.MaxInt32)
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var setErr error
	err = raw.Control(func(fd uintptr) {
		setErr = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, giveUpOption, int(value))
	})
	if err != nil {
		return err
	}
	return os.NewSyscallError("setsockopt", setErr)
}
