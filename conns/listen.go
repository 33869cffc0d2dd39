package conns

import (
	"context"
	"net"
	"strings"
	"time"
)

// With these probes, a vanished client is noticed after 30 s during which nothing is sent: on Linux
// with a user timeout of 30 s, elsewhere because the last probe was not answered. A client that is
// back after 15 s answers one of the later probes.
const (
	probeIdle     = 10 * time.Second
	probeInterval = 2 * time.Second
	probeCount    = 10
)

// Listen listens at addr, HOST:PORT. 0.0.0.0 is every address of IPv4, [::] is every one of IPv6,
// and an empty host is both. If addr is invalid, the error wraps a *net.AddrError.
func Listen(addr string) (*net.TCPListener, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if port == "" {
		return nil, &net.AddrError{Err: "the port is missing", Addr: addr}
	}
	network := "tcp"
	if ip := net.ParseIP(host); ip.IsUnspecified() {
		network = "tcp6"
		if ip.To4() != nil {
			network = "tcp4"
		}
	}
	config := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: probeIdle, Interval: probeInterval, Count: probeCount,
	}}
	config.SetMultipathTCP(false) // SetUserTimeout and SetUnsentLimit fail over Multipath TCP.
	listener, err := config.Listen(context.Background(), network, addr)
	if err != nil {
		return nil, err
	}
	return listener.(*net.TCPListener), nil
}

// URLHost returns the HOST:PORT of a URL that a browser on this machine can open. The server was
// told to listen at wanted and listens at actual. The result is actual, with three exceptions: an
// empty host becomes localhost; [::], which browsers do not open, becomes [::1]; and a zone is
// kept, escaped.
func URLHost(wanted, actual string) string {
	_, port, _ := net.SplitHostPort(actual)
	host, _, _ := net.SplitHostPort(wanted)
	address, zone, hasZone := strings.Cut(host, "%")
	switch {
	case host == "":
		return net.JoinHostPort("localhost", port)
	case hasZone:
		return net.JoinHostPort(address+"%25"+zone, port) // RFC 6874
	case net.ParseIP(host).Equal(net.IPv6unspecified):
		return net.JoinHostPort("::1", port)
	}
	return actual
}
