// Tests that the server works behind each proxy of docs/proxies.md.
package e2e

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// Nothing follows here that could push an event through a buffer. HAProxy would wait 200 ms for
// more. Because a loaded machine may be slow for a while, the lowest of several medians counts.
func TestProxyHoldsNothingBack(t *testing.T) {
	behindEach(t, holdsNothingBack)
}

// Over HTTP/1.0, nginx would hold everything back if the server did not ask it not to.
func TestNginxHoldsNothingBackOverHTTP10(t *testing.T) {
	t.Parallel()
	holdsNothingBack(t, nginx.with("proxy_http_version 1.1", "proxy_http_version 1.0"))
}

func holdsNothingBack(t *testing.T, p proxy) {
	s := start(t, "-keepalive", "1h")
	proxy := p.before(t, s)
	bob := proxy.subscribe(t, "/chat/bob")
	bob.expect(t, arrives("bob"))

	again := proxy.subscribe(t, "/chat/bob") // Bob is present, so only an opening block arrives.
	for _, want := range []string{"retry: ", "id: ", ""} {
		if line, err := again.line(); err != nil || !strings.HasPrefix(line, want) {
			t.Fatalf("the opening block has %q, %v; want %q", line, err, want)
		}
	}
	const limit, attempts = 100 * time.Millisecond, 5
	median := limit + 1
	for attempt := 0; attempt < attempts && median > limit; attempt++ {
		var delays []time.Duration
		for range 21 {
			begin := time.Now()
			data := s.says(t, "bob", "hello").data
			bob.expect(t, data)
			again.expect(t, data)
			delays = append(delays, time.Since(begin))
		}
		slices.Sort(delays)
		median = delays[len(delays)/2]
	}
	if median > limit {
		t.Errorf("half of the events took more than %v, %d times over", median, attempts)
	}
}

// The server's comments keep the proxy from ending a stream on which nobody speaks.
func TestProxyKeepsIdleStreamsOpen(t *testing.T) {
	const idle = 2 * time.Second
	behindEach(t, func(t *testing.T, p proxy) {
		if p.silence != "" {
			p = p.with(p.silence, strings.TrimSuffix(p.silence, "60")+"2")
		}
		t.Run("with comments", func(t *testing.T) {
			t.Parallel()
			s := start(t, "-keepalive", "200ms")
			bob := p.before(t, s).subscribe(t, "/chat/bob")
			bob.expect(t, arrives("bob"))
			for begin := time.Now(); time.Since(begin) < 2*idle; {
				if _, err := bob.line(); err != nil {
					t.Fatalf("the stream ended after %v: %v", time.Since(begin), err)
				}
			}
			bob.expect(t, s.says(t, "bob", "still present").data)
		})
		if p.silence == "" {
			return
		}
		t.Run("without comments", func(t *testing.T) {
			t.Parallel()
			bob := p.before(t, start(t, "-keepalive", "1h")).subscribe(t, "/chat/bob")
			bob.expect(t, arrives("bob"))
			if e, err := bob.next(); err == nil {
				t.Fatalf("got %+v, want the proxy to have ended the stream", e)
			}
		})
	})
}

// backWithin is how long a proxy may take to notice that a server is back.
const backWithin = 10 * time.Second

// Streams resume through the proxy, the server notices those that close, and clients see a proper
// end exactly when the server stops properly.
func TestProxyPassesOnHowStreamsEnd(t *testing.T) {
	behindEach(t, func(t *testing.T, p proxy) {
		flags := []string{"-grace", "0", "-keepalive", "1h"}
		if p.noticesLate {
			flags = []string{"-grace", "0", "-keepalive", "200ms"}
		}
		s := start(t, flags...)
		proxy := p.before(t, s)
		alice := s.subscribe(t, "/chat/alice")
		alice.expect(t, arrives("alice"))

		bob := proxy.subscribe(t, "/chat/bob")
		last := bob.expect(t, arrives("bob")).id
		alice.expect(t, arrives("bob"))
		bob.body.Close()
		missed := []event{
			alice.expect(t, leaves("bob")),
			s.says(t, "alice", "has bob left?"),
		}
		for _, bob := range []*stream{
			proxy.subscribe(t, "/chat/bob", "Last-Event-ID", last),
			proxy.subscribe(t, "/chat/bob?lastEventId="+last),
		} {
			for _, want := range missed {
				if got := bob.expect(t, want.data); got != want {
					t.Errorf("the resumed stream has %+v, want %+v", got, want)
				}
			}
			last = bob.expect(t, arrives("bob")).id
		}

		killed := io.ErrUnexpectedEOF
		if p.hidesCrashes {
			killed = io.EOF
		}
		for _, end := range []struct {
			how  string
			end  func()
			want error
		}{
			{"SIGTERM", func() { s.stop(t) }, io.EOF},
			{"SIGKILL", func() { s.kill() }, killed},
		} {
			bob := proxy.subscribe(t, "/chat/bob")
			end.end()
			if e, err := bob.next(); err != end.want {
				t.Errorf("after %s got %+v, %v; want %v", end.how, e, err, end.want)
			}
			if r := proxy.do(t, "GET", "/users", ""); r.status != 502 && r.status != 503 {
				t.Errorf("after %s got %d, want 502 or 503", end.how, r.status)
			}
			s = start(t, append(flags, "-addr", s.addr)...)
			eventually(t, backWithin, p.name+" to notice that the server is back", func() bool {
				again, err := proxy.trySubscribe("/chat/bob", "Last-Event-ID", last)
				if err != nil {
					return false
				}
				t.Cleanup(func() { again.body.Close() })
				if e, err := again.next(); e.name != "gap" {
					t.Errorf("after %s got %+v, %v; want a gap", end.how, e, err)
				}
				return true
			})
		}
	})
}

// A request that the server rejects before it has read the body gets the server's response, not the
// proxy's own about a server that stopped reading.
func TestProxyChangesNeitherRequestsNorResponses(t *testing.T) {
	behindEach(t, func(t *testing.T, p proxy) {
		s := start(t, "-host", "chat.example")
		proxy := p.before(t, s)
		want := s.do(t, "POST", "/chat/alice", strings.Repeat("x", 5000))
		long := strings.Repeat("x", 200_000)
		for range 50 {
			if got := proxy.do(t, "POST", "/chat/alice", long); got.status != 413 || got.body != want.body {
				t.Fatalf("got %d %q, want 413 %q", got.status, got.body, want.body)
			}
		}
		for _, c := range []struct {
			host, origin string
			want         int
		}{
			{"chat.example:1", "http://chat.example:1", 200},
			{"chat.example:1", "http://chat.example", 403},
			{"evil.example:1", "", 421},
		} {
			headers := h{"Host", c.host, "Origin", c.origin}
			if r := proxy.send(t, "GET /users", "", headers...); r.status != c.want {
				t.Errorf("%q: got %d, want %d", headers, r.status, c.want)
			}
		}
		for _, c := range []struct{ method, path, body string }{
			{"GET", "/users", ""},
			{"POST", "/users/alice", ""},
			{"POST", "/users/100%25", ""},
			{"POST", "/users/%E2%98%83", ""},
			{"POST", "/users/a%2Fb", ""},
			{"POST", "/users/a%20b", ""},
			{"POST", "/users//", ""},
			{"POST", "/chat/100%25", "several\nlines: ☃\n"},
			{"POST", "/chat/alice", strings.Repeat("x", 4096)},
			{"POST", "/chat/nobody", "hello"},
			{"PUT", "/users", ""},
			{"OPTIONS", "/users", ""},
			{"GET", "/users", ""},
			{"GET", "/none", ""},
		} {
			want, got := s.do(t, c.method, c.path, c.body), proxy.do(t, c.method, c.path, c.body)
			if want.status == http.StatusCreated {
				want.status = http.StatusOK // The second request finds the user present.
			}
			if p.rewritesPaths && (c.path == "/users/a%2Fb" || c.path == "/users//") {
				if got.status != want.status {
					t.Errorf("%s %s: got %d, want %d", c.method, c.path, got.status, want.status)
				}
				continue
			}
			if got.status != want.status || got.body != want.body {
				t.Errorf("%s %s: got %d %q, want %d %q",
					c.method, c.path, got.status, got.body, want.status, want.body)
			}
			for _, name := range []string{
				"Content-Type", "X-Content-Type-Options", "Allow", "Vary", "Cache-Control",
			} {
				if got, want := got.header.Get(name), want.header.Get(name); got != want {
					t.Errorf("%s %s: got %s %q, want %q", c.method, c.path, name, got, want)
				}
			}
		}
	})
}
