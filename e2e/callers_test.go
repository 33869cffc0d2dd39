// Here belongs who may call: the Hosts that the server answers to, and the pages
// whose requests it refuses.
package e2e

import (
	"net"
	"slices"
	"strings"
	"testing"
)

func TestOtherOriginsAreRefused(t *testing.T) {
	s := start(t, "-host", "chat.example")
	s.do(t, "POST", "/users/alice", "")
	_, port, _ := strings.Cut(s.addr, ":")
	for _, headers := range []h{
		{}, {"Sec-Fetch-Site", "same-origin"}, {"Sec-Fetch-Site", "none"},
		{"Sec-Fetch-Site", "same-origin", "Origin", "http://evil.example"},
		{"Origin", "http://" + s.addr},
		{"Host", "localhost:" + port, "Origin", "http://localhost:" + port},
		{"Host", "LOCALHOST", "Origin", "http://localhost"},
		{"Host", "[::1]:" + port, "Origin", "http://[::1]:" + port},
		{"Host", "Chat.Example", "Origin", "https://chat.example"},
		{"Host", "chat.example:443", "Origin", "https://chat.example"},
		{"Host", "chat.example", "Origin", "https://chat.example:443"},
	} {
		for _, request := range []string{
			"GET /users", "HEAD /users", "POST /users/alice", "OPTIONS /users", "GET /", "HEAD /",
		} {
			if r := s.send(t, request, "", headers...); r.status != 200 {
				t.Errorf("%s with %q: got %d %q, want 200", request, headers, r.status, r.body)
			}
		}
	}
	for _, headers := range []h{
		{"Sec-Fetch-Site", "same-site"}, {"Sec-Fetch-Site", "cross-site"},
		{"Sec-Fetch-Site", "cross-site", "Origin", "http://" + s.addr},
		{"Sec-Fetch-Site", ""}, {"Sec-Fetch-Site", "nonsense"},
		{"Origin", ""}, {"Origin", "null"}, {"Origin", "http://evil.example"},
		{"Origin", "http://127.0.0.1"}, {"Origin", "http://127.0.0.1:1"},
		{"Origin", "http://localhost:" + port},
		{"Origin", "http://" + s.addr + ".evil.example"},
		{"Origin", "http://" + s.addr + "@evil.example"},
		{"Host", "localhost", "Origin", "http://localhost:" + port},
		{"Host", "chat.example:80", "Origin", "https://chat.example"},
	} {
		s.mustNotChange(t, func() {
			for _, request := range []string{
				"GET /users", "POST /users/bob", "POST /users/alice", "DELETE /users/alice",
				"OPTIONS /users/alice", "GET /chat", "GET /chat/bob", "POST /chat/alice",
				"GET /nosuch", "POST /",
			} {
				s.mustRefuse(t, 403, request, "", headers...)
			}
			if r := s.send(t, "HEAD /users", "", headers...); r.status != 403 {
				t.Errorf("HEAD /users with %q: got %d, want 403", headers, r.status)
			}
			for _, request := range []string{"GET /", "HEAD /"} {
				if r := s.send(t, request, "", headers...); r.status != 200 {
					t.Errorf("%s with %q: got %d %q, want 200", request, headers, r.status, r.body)
				}
			}
		})
	}
}

func TestServerAnswersToItsHostsOnly(t *testing.T) {
	loopback := []string{
		"localhost", "LocalHost:1", "localhost.", "LOCALHOST.:80", "lobby.localhost",
		"a.b.localhost:80", "a.LOCALHOST:1", "lobby.localhost.", "127.0.0.1", "127.0.0.1.:80",
		"127.255.0.3:99", "[::1]", "[::1]:8080",
	}
	foreign := []string{
		"evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example",
		"evillocalhost", "localhost..", ".", "10.0.0.1", "0.0.0.0", "[::]", "[::ffff:10.0.0.1]",
		"[fe80::1]", "128.0.0.1", "2130706433", "127.1", ":8080",
	}
	for _, c := range []struct {
		args           []string
		allowed, other []string
	}{
		{allowed: loopback, other: foreign},
		{args: []string{"-addr", "localhost:0"}, allowed: loopback, other: foreign},
		{
			args:    []string{"-host", "chat.example", "-host", "Chat2.Example:8080"},
			allowed: append(loopback, "chat.example", "CHAT.example:123", "chat2.example"),
			other:   append(foreign, "a.chat.example", "chat3.example"),
		},
		{args: []string{"-addr", "0.0.0.0:0"}, allowed: slices.Concat(loopback, foreign)},
		{
			args:    []string{"-addr", "0.0.0.0:0", "-host", "192.0.2.1", "-host", "[2001:db8::1]"},
			allowed: append(loopback, "192.0.2.1:8080", "[2001:DB8::1]:8080", "[2001:db8::1]"),
			other:   append(foreign, "192.0.2.2", "[2001:db8::2]"),
		},
		{
			args:    []string{"-addr", ":0", "-host", "xn--bcher-kva.example:443"},
			allowed: append(loopback, "xn--bcher-kva.example"),
			other:   foreign,
		},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			s := start(t, c.args...)
			_, port, _ := net.SplitHostPort(s.addr)
			s.addr = "127.0.0.1:" + port
			s.url = "http://" + s.addr
			for _, host := range c.allowed {
				for _, request := range []string{"GET /", "GET /users"} {
					if r := s.send(t, request, "", "Host", host); r.status != 200 {
						t.Errorf("%s of %q: got %d %q, want 200", request, host, r.status, r.body)
					}
				}
			}
			s.mustNotChange(t, func() {
				for _, host := range c.other {
					for _, request := range []string{
						"GET /", "GET /users", "GET /chat/bob", "POST /users/bob", "OPTIONS /users",
						"GET /nosuch",
					} {
						s.mustRefuse(t, 421, request, "", "Host", host)
					}
				}
			})
			// As the health checks of proxies ask. No browser does.
			if r := s.exchange(t, "OPTIONS / HTTP/1.0\r\n\r\n"); r.status != 200 {
				t.Errorf("without a Host: got %d %q, want 200", r.status, r.body)
			}
		})
	}
}
