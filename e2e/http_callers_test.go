// Tests who may call: the Hosts that the server answers to, and the pages whose requests it
// rejects. The rules for single headers are tested beside package origin.
package e2e

import (
	"net"
	"slices"
	"strings"
	"testing"
)

// The page and its files are open to everyone, because other sites may link to the page.
func TestRequestsFromOtherOriginsAreRejected(t *testing.T) {
	s := start(t, "-host", "chat.example")
	s.do(t, "POST", "/users/alice", "")
	_, port, _ := strings.Cut(s.addr, ":")
	for _, headers := range []h{
		{},
		{"Origin", "http://" + s.addr},
		{"Host", "[::1]:" + port, "Origin", "http://[::1]:" + port},
		{"Host", "Chat.Example", "Origin", "https://chat.example:443"},
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
		{"Sec-Fetch-Site", "same-site"}, {"Sec-Fetch-Site", ""}, {"Origin", ""},
		{"Origin", "http://127.0.0.1:1"}, {"Origin", "http://localhost:" + port},
		{"Origin", "http://" + s.addr + "@evil.example"},
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
			for _, request := range []string{"GET /", "HEAD /", "GET /lobby.js", "HEAD /lobby.js"} {
				r := s.send(t, request, "", headers...)
				r.mustHave(t, request, "X-Content-Type-Options", "nosniff", "Last-Event-ID", "")
				if r.status != 200 {
					t.Errorf("%s with %q: got %d, want 200", request, headers, r.status)
				}
			}
		})
	}
}

func TestServerAnswersOnlyToItsHosts(t *testing.T) {
	loopback := []string{
		"LocalHost:1", "LOCALHOST.:80", "a.b.localhost:80", "127.255.0.3:99", "[::1]:8080",
	}
	names := []string{"evil.example:80", "localhost.evil.example", "127.1", ":8080"}
	addresses := []string{"10.0.0.1", "[::]", "[fe80::1]"}
	for _, c := range []struct {
		args           []string
		allowed, other []string
	}{
		{allowed: loopback, other: slices.Concat(names, addresses)},
		{args: []string{"-addr", "localhost:0"}, allowed: loopback, other: names},
		{
			args:    []string{"-host", "chat.example", "-host", "Chat2.Example:8080"},
			allowed: append(loopback, "CHAT.example:123", "chat2.example"),
			other:   append(names, "a.chat.example", "chat3.example"),
		},
		{args: []string{"-addr", "0.0.0.0:0"}, allowed: slices.Concat(loopback, names, addresses)},
		{
			// Load balancers check the health of an address, which DNS cannot rebind.
			args:    []string{"-addr", "0.0.0.0:0", "-host", "chat.example"},
			allowed: slices.Concat(loopback, addresses, []string{"chat.example"}),
			other:   names,
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
			// Proxies' health checks have no Host. No browser sends such a request.
			if r := s.exchange(t, "OPTIONS / HTTP/1.0\r\n\r\n"); r.status != 200 {
				t.Errorf("without a Host: got %d %q, want 200", r.status, r.body)
			}
		})
	}
}
