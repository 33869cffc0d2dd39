// Package origin protects against cross-site requests and DNS rebinding.
//
// Any web page can make a browser send requests to any server, and a page whose domain resolves to
// 127.0.0.1 (DNS rebinding) can even read the responses. Two checks prevent both: the request's
// [Host] must be the server's ([Check]), and if a page makes the request, it must be the server's
// own page ([IsCrossOrigin]). Programs other than browsers send neither Sec-Fetch-Site nor Origin,
// and are accepted. A server at an address that is not a loopback one must also know its Hosts, and
// use TLS: otherwise Check accepts every Host, and browsers do not say where a GET comes from.
package origin

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Host is the host name or address in a Host header, in lower case, without a port, brackets, or a
// final dot.
type Host string

// HostOf returns the Host in a Host header.
func HostOf(header string) Host {
	return Host(strings.ToLower(strings.TrimSuffix((&url.URL{Host: header}).Hostname(), ".")))
}

// IsLoopback reports whether h is certainly this machine.
func (h Host) IsLoopback() bool {
	ip, _ := netip.ParseAddr(string(h))
	return h == "localhost" || strings.HasSuffix(string(h), ".localhost") ||
		ip.Is4() && ip.IsLoopback() || ip == netip.IPv6Loopback()
}

// ParseHost parses a host name or address, with or without a port. Errors say what to write
// instead.
func ParseHost(s string) (Host, error) {
	name, port := s, "0"
	if colon := strings.LastIndexByte(s, ':'); colon > strings.LastIndexByte(s, ']') {
		name, port = s[:colon], s[colon+1:]
	}
	_, portErr := strconv.ParseUint(port, 10, 16)
	isLabel := func(c rune) bool {
		return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
			c == '-' || c == '_'
	}
	switch {
	case strings.Contains(s, "*"):
		return "", errors.New("wildcards are not supported; give each name its own flag")
	case strings.ContainsFunc(s, func(c rune) bool { return c > '~' }):
		return "", errors.New("it is not ASCII; use the punycode form, which starts with xn--")
	case portErr != nil:
		return "", fmt.Errorf("%q is not a port; "+
			"write a name such as chat.example, or an IPv6 address in brackets", port)
	case strings.HasPrefix(name, "["):
		inside, closed := strings.CutSuffix(name[1:], "]")
		if ip, err := netip.ParseAddr(inside); err != nil || !ip.Is6() || !closed {
			return "", errors.New("it is not an IPv6 address in brackets, such as [2001:db8::1]")
		}
		return HostOf(s), nil
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		if label == "" || len(label) > 63 || strings.TrimFunc(label, isLabel) != "" {
			return "", errors.New("it is not a host name; " +
				"write a name such as chat.example, without http:// and without a path")
		}
	}
	return HostOf(s), nil
}

// Check returns a function that reports whether a server that listens at addr answers to a Host:
// loopback Hosts and those that are allowed. If addr is not a loopback address, it also answers to
// IP addresses and, if allowed is empty, to every Host.
func Check(addr net.Addr, allowed []Host) func(Host) bool {
	isLocal := HostOf(addr.String()).IsLoopback()
	return func(host Host) bool {
		_, err := netip.ParseAddr(string(host))
		return host.IsLoopback() || slices.Contains(allowed, host) ||
			// DNS cannot rebind an IP address.
			!isLocal && (len(allowed) == 0 || err == nil)
	}
}

// IsCrossOrigin reports whether the request comes from a page of another origin (scheme, host and
// port). A request with an Origin but no Host does not come from the server's own page either.
//
// http.CrossOriginProtection would not do: it accepts every GET, and in a chat a GET opens a stream
// and makes its user present.
func IsCrossOrigin(r *http.Request) bool {
	host, origin := HostOf(r.Host), r.Header.Values("Origin")
	if host == "" && len(origin) > 0 {
		return true
	}
	if site := r.Header.Values("Sec-Fetch-Site"); len(site) > 0 {
		return site[0] != "same-origin" && site[0] != "none"
	}
	if len(origin) == 0 {
		return false
	}
	u, err := url.Parse(origin[0])
	return err != nil || HostOf(u.Host) != host || port(u.Host, u.Scheme) != port(r.Host, u.Scheme)
}

// port returns the port of host or, if it has none, the scheme's default port.
func port(host, scheme string) string {
	defaults := map[string]string{"http": "80", "https": "443"}
	return cmp.Or((&url.URL{Host: host}).Port(), defaults[scheme])
}
