//go:build !linux && !darwin

package conns

import (
	"net"
	"time"
)

// GiveUpAfter makes the kernel end conn once data that was sent has not been acknowledged for d.
// This system has no option for that, so GiveUpAfter does nothing.
func GiveUpAfter(conn *net.TCPConn, d time.Duration) error {
	return nil
}
