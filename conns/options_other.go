//go:build !linux && !darwin

package conns

import (
	"net"
	"time"
)

// SetUserTimeout makes the kernel end conn once sent data has been unacknowledged for d. This
// system has no option for that, so SetUserTimeout does nothing.
func SetUserTimeout(conn *net.TCPConn, d time.Duration) error {
	return nil
}

// SetUnsentLimit makes writes to conn wait while the kernel has n bytes or more that it has not sent
// yet. It does nothing on this system.
func SetUnsentLimit(conn *net.TCPConn, n int) error {
	return nil
}
