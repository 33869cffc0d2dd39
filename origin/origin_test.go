package origin

// Valid Hosts belong here, and the requests that come from another origin.

import (
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHostIsParsedOrTheErrorIsOneLine(t *testing.T) {
	for s, want := range map[string]Host{
		"chat.example": "chat.example", "Chat.Example.": "chat.example",
		"chat.example:8080": "chat.example", "my_service": "my_service",
		"192.0.2.1": "192.0.2.1", "192.0.2.1:80": "192.0.2.1",
		"[2001:db8::1]": "2001:db8::1", "[2001:DB8::1]:80": "2001:db8::1",
		"xn--bcher-kva.example": "xn--bcher-kva.example",
	} {
		if got, err := ParseHost(s); got != want || err != nil {
			t.Errorf("ParseHost(%q) = %q, %v, want %q", s, got, err, want)
		}
	}
	for _, s := range []string{
		"", ".", "..", "*", "*.chat.example", "evil:abc", "evil:", "evil:99999", "evil:-1", "a@b",
		"[::1", "::1", "[1.2.3.4]", "[]", "http:x", "http://x", "x/", "a b", "bücher.example",
		"a..b", strings.Repeat("a", 64), ":80", "[::1]x",
	} {
		if got, err := ParseHost(s); err == nil {
			t.Errorf("ParseHost(%q) = %q, want an error", s, got)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("ParseHost(%q): the error %q is not one line", s, err)
		}
	}
}

func TestLoopbackHostsAreRecognized(t *testing.T) {
	for _, header := range []string{
		"localhost", "LOCALHOST:1", "localhost.", "localhost.:8080", "a.localhost",
		"2.localhost:80", "127.0.0.1", "127.255.0.1:80", "[::1]", "[::1]:8080",
	} {
		if !HostOf(header).IsLoopback() {
			t.Errorf("%q is not recognized as this machine", header)
		}
	}
	for _, header := range []string{
		"", ".", "localhost..", "localhost.evil.example", "evil-localhost", "128.0.0.1", "127.1",
		"[::]", "0.0.0.0", "[::ffff:127.0.0.1]",
	} {
		if HostOf(header).IsLoopback() {
			t.Errorf("%q is mistaken for this machine", header)
		}
	}
}

func TestRequestsOfOtherOriginsAreRecognized(t *testing.T) {
	for _, c := range []struct {
		host, site, origin string
		want               bool
	}{
		{host: "chat.example"},
		{host: "chat.example", site: "none"},
		{host: "chat.example", site: "same-origin", origin: "http://other.example"},
		{host: "chat.example", site: "same-site", want: true},
		{host: "chat.example", site: "cross-site", origin: "http://chat.example", want: true},
		{host: "chat.example", origin: "http://chat.example"},
		{host: "Chat.Example.", origin: "https://chat.example"},
		{host: "chat.example:443", origin: "https://chat.example"},
		{host: "chat.example:80", origin: "https://chat.example", want: true},
		{host: "chat.example:8080", origin: "http://chat.example:8080"},
		{host: "chat.example:8080", origin: "http://chat.example", want: true},
		{host: "chat.example", origin: "http://evil.example", want: true},
		{host: "chat.example", origin: "null", want: true},
		{host: ""},
		{host: "", site: "none"},
		{host: "", origin: "http://chat.example", want: true},
		{host: "", origin: "null", want: true},
		{host: "", origin: "http://.", want: true},
		{host: "", site: "same-origin", origin: "http://chat.example", want: true},
		{host: ":", origin: "null", want: true},
		{host: "chat.example", origin: "http://[::1", want: true},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = c.host
		if c.site != "" {
			r.Header.Set("Sec-Fetch-Site", c.site)
		}
		if c.origin != "" {
			r.Header.Set("Origin", c.origin)
		}
		if got := IsCrossOrigin(r); got != c.want {
			t.Errorf("%+v: got %v", c, got)
		}
	}
}
