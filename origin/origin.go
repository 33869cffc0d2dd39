// Package origin decides whether a page in a browser may make a request.
//
// Any web page can have a browser send requests to any server, and a page whose own name its owner
// points at 127.0.0.1 (DNS rebinding) can even read the answers. Two checks stop both: the request
// must be for a [Host] that is the server's, and if a page makes it, that must be the server's own
// page ([IsCross]). Programs other than browsers send neither Sec-Fetch-Site nor Origin, and are let
// in.
package origin

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// Host is the name or the address that a Host header has, in lower case, without a port, without
// brackets, and without a final dot.
type Host string

// HostOf returns what a Host header says.
func HostOf(header string) Host {
	return Host(strings.ToLower(strings.TrimSuffix((&url.URL{Host: header}).Hostname(), ".")))
}

// IsLoopback reports whether the host can be nothing but this machine.
func (h Host) IsLoopback() bool {
	ip, _ := netip.ParseAddr(string(h))
	return h == "localhost" || strings.HasSuffix(string(h), ".localhost") ||
		ip.Is4() && ip.IsLoopback() || ip == netip.IPv6Loopback()
}

// ParseHost returns s, a name or an address with or without a port, as a Host. The error says why no
// Host header can be s, and what to write instead.
func ParseHost(s string) (Host, error) {
	name, port := s, "0"
	if colon := strings.LastIndexByte(s, ':'); colon > strings.LastIndexByte(s, ']') {
		name, port = s[:colon], s[colon+1:]
	}
	isDigit := func(c rune) bool { return '0' <= c && c <= '9' }
	isLabel := func(c rune) bool {
		return isDigit(c) || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '-' || c == '_'
	}
	switch {
	case strings.Contains(s, "*"):
		return "", errors.New("there are no wildcards; give each name with a flag of its own")
	case strings.ContainsFunc(s, func(c rune) bool { return c > '~' }):
		return "", errors.New("it is not ASCII; write the name as browsers send it, which begins with xn--")
	case !isPort(port):
		return "", fmt.Errorf("%q is not a port; write a name such as chat.example, or an IPv6 address in brackets", port)
	case strings.HasPrefix(name, "["):
		if ip, err := netip.ParseAddr(strings.TrimSuffix(name[1:], "]")); !ip.Is6() || err != nil || !strings.HasSuffix(name, "]") {
			return "", errors.New("it is not an IPv6 address in brackets; write one such as [2001:db8::1]")
		}
		return HostOf(s), nil
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		if label == "" || len(label) > 63 || strings.TrimFunc(label, isLabel) != "" {
			return "", errors.New("it is not a host name; write a name such as chat.example, without http:// and paths")
		}
	}
	return HostOf(s), nil
}

func isPort(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}

// IsCross reports whether a browser makes the request for a page of another origin, which is a
// scheme, a host and a port.
//
// http.CrossOriginProtection would not do: it lets every GET through, and in a chat a GET opens a
// stream and makes its user present.
func IsCross(r *http.Request) bool {
	if site := r.Header.Values("Sec-Fetch-Site"); len(site) > 0 {
		return site[0] != "same-origin" && site[0] != "none"
	}
	origin := r.Header.Values("Origin")
	if len(origin) == 0 {
		return false
	}
	u, err := url.Parse(origin[0])
	return err != nil || HostOf(u.Host) != HostOf(r.Host) || port(u.Host, u.Scheme) != port(r.Host, u.Scheme)
}

// port returns host's port or, if it has none, the scheme's own.
func port(host, scheme string) string {
	return cmp.Or((&url.URL{Host: host}).Port(), map[string]string{"http": "80", "https": "443"}[scheme])
}
