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

// SetUnsentLimit makes writes to conn wait while the kernel holds n bytes or more that it has not
// sent. This system has no option for that, so SetUnsentLimit does nothing.
func SetUnsentLimit(conn *net.TCPConn, n int) error {
	return nil
}
