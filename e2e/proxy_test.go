package e2e

import (
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// proxyPatience bounds a test behind a proxy, most of which do not wait at all.
const proxyPatience = time.Minute

// behindNginx puts nginx in front of s, with the location that the README
// recommends, and returns s as it is met through it. changes are strings in the
// configuration and what takes their place, in turn. The test ends nginx, at the
// latest after proxyPatience, so that none waits for ever for what nginx holds back.
func behindNginx(t *testing.T, s *server, changes ...string) *server {
	t.Helper()
	needs(t, "nginx")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	socket, err := listener.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	addr, dir := listener.Addr().String(), t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil { // for nginx' worker process, which root does not run as root
		t.Fatal(err)
	}
	_, location, _ := strings.Cut(readFile(t, "../README.md"), "```nginx\n")
	location, _, _ = strings.Cut(location, "```")
	set := strings.NewReplacer(append(changes, "127.0.0.1:8080", s.addr, "LISTEN", addr)...)
	for name, content := range map[string]string{"nginx.conf": readFile(t, "testdata/nginx.conf"), "location.conf": location} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(set.Replace(content)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	nginx := exec.Command("nginx", "-p", dir, "-c", filepath.Join(dir, "nginx.conf"), "-e", "stderr")
	nginx.Env = append(os.Environ(), "NGINX=3;") // take over descriptor 3, which listens already
	nginx.ExtraFiles = []*os.File{socket}
	nginx.Stderr = t.Output()
	if err := nginx.Start(); err != nil {
		t.Fatal(err)
	}
	end := func() { nginx.Process.Signal(syscall.SIGTERM) } // which its worker process does not outlive
	limit := time.AfterFunc(proxyPatience, func() {
		t.Errorf("not done after %v", proxyPatience)
		end()
	})
	t.Cleanup(func() {
		limit.Stop()
		end()
		nginx.Wait()
		http.DefaultClient.CloseIdleConnections()
	})
	return &server{url: "http://" + addr, addr: addr}
}

// readFile returns what the file holds.
func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What the server sends passes the proxy at once, with nothing after it that
// could push it on; also where the proxy is not told of HTTP/1.1, and would
// hold it back if the server did not ask for the contrary.
func TestProxyHoldsNothingBack(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"1.1", "1.0"} {
		t.Run("HTTP "+version, func(t *testing.T) {
			t.Parallel()
			s := start(t, "-keepalive", "1h")
			proxy := behindNginx(t, s, "proxy_http_version 1.1", "proxy_http_version "+version)
			bob := proxy.subscribe(t, "/chat/bob")
			bob.expect(t, "User bob connected to the chat.")

			again := proxy.subscribe(t, "/chat/bob") // is no news, so nothing follows its opening block
			for _, want := range []string{"retry: ", "id: ", ""} {
				if line, err := again.line(); err != nil || !strings.HasPrefix(line, want) {
					t.Fatalf("the opening block has %q, %v; want %q", line, err, want)
				}
			}
			for _, e := range []event{
				s.makes(t, "POST", "/users/alice", "", "User alice connected to the chat."),
				s.says(t, "alice", "hello"),
			} {
				bob.expect(t, e.data)
				again.expect(t, e.data)
			}
		})
	}
}

// A stream on which nobody speaks outlives the time for which the proxy lets
// one be silent, by the server's comments.
func TestProxyLetsIdleStreamsLive(t *testing.T) {
	t.Parallel()
	const idle = 2 * time.Second
	for _, c := range []struct {
		keepAlive string
		lives     bool
	}{
		{"200ms", true},
		{"1h", false},
	} {
		t.Run("comments every "+c.keepAlive, func(t *testing.T) {
			t.Parallel()
			s := start(t, "-keepalive", c.keepAlive)
			bob := behindNginx(t, s, "proxy_read_timeout 60s", "proxy_read_timeout "+idle.String()).subscribe(t, "/chat/bob")
			bob.expect(t, "User bob connected to the chat.")
			if !c.lives {
				if e, err := bob.next(); err == nil {
					t.Fatalf("got %+v, want the proxy to have ended the stream", e)
				}
				return
			}
			for begin := time.Now(); time.Since(begin) < 2*idle; {
				if _, err := bob.line(); err != nil {
					t.Fatalf("the stream ended after %v: %v", time.Since(begin), err)
				}
			}
			bob.expect(t, s.says(t, "bob", "still here").data)
		})
	}
}

// Streams resume through the proxy, those that go are noticed, and an end
// stays what it is: a proper one when the server stops, else none.
func TestProxyPassesOnHowStreamsEnd(t *testing.T) {
	t.Parallel()
	s := start(t, "-grace", "0")
	proxy := behindNginx(t, s)
	alice := s.subscribe(t, "/chat/alice")
	alice.expect(t, "User alice connected to the chat.")

	bob := proxy.subscribe(t, "/chat/bob")
	last := bob.expect(t, "User bob connected to the chat.").id
	alice.expect(t, "User bob connected to the chat.")
	bob.body.Close()
	missed := []event{
		alice.expect(t, "User bob disconnected from the chat."),
		s.says(t, "alice", "is bob gone?"),
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
		last = bob.expect(t, "User bob connected to the chat.").id
	}

	for _, end := range []struct {
		how  string
		end  func()
		want error
	}{
		{"SIGTERM", func() { s.stop(t) }, io.EOF},
		{"SIGKILL", func() { s.kill() }, io.ErrUnexpectedEOF},
	} {
		bob := proxy.subscribe(t, "/chat/bob")
		end.end()
		if e, err := bob.next(); err != end.want {
			t.Errorf("after %s got %+v, %v; want %v", end.how, e, err, end.want)
		}
		if r := proxy.do(t, "GET", "/users", ""); r.status != http.StatusBadGateway {
			t.Errorf("after %s got %d, want 502", end.how, r.status)
		}
		s = start(t, "-grace", "0", "-addr", s.addr)
		if e, err := proxy.subscribe(t, "/chat/bob", "Last-Event-ID", last).next(); e.name != "gap" {
			t.Errorf("after %s got %+v, %v; want a gap", end.how, e, err)
		}
	}
}

// Requests and answers pass the proxy as they are, names that had to be escaped
// included.
func TestProxyChangesNoAnswer(t *testing.T) {
	t.Parallel()
	s := start(t)
	proxy := behindNginx(t, s)
	for _, c := range []struct{ method, path, body string }{
		{"POST", "/users/alice", ""},
		{"POST", "/users/100%25", ""},
		{"POST", "/users/who%3F", ""},
		{"POST", "/users/%E2%98%83", ""},
		{"POST", "/users/a%2Fb", ""},
		{"POST", "/users/a%20b", ""},
		{"POST", "/users//", ""},
		{"POST", "/chat/100%25", "several\nlines: ☃\n"},
		{"POST", "/chat/alice", strings.Repeat("x", 4096)},
		{"POST", "/chat/alice", strings.Repeat("x", 5000)},
		{"POST", "/chat/nobody", "hello"},
		{"PUT", "/users", ""},
		{"OPTIONS", "/users", ""},
		{"GET", "/users", ""},
		{"GET", "/none", ""},
	} {
		want, got := s.do(t, c.method, c.path, c.body), proxy.do(t, c.method, c.path, c.body)
		if want.status == http.StatusCreated {
			want.status = http.StatusOK // what the second of the two is told
		}
		if got.status != want.status || got.body != want.body {
			t.Errorf("%s %s: got %d %q, want %d %q", c.method, c.path, got.status, got.body, want.status, want.body)
		}
		for _, name := range []string{"Content-Type", "X-Content-Type-Options", "Allow", "Vary"} {
			if got, want := got.header.Get(name), want.header.Get(name); got != want {
				t.Errorf("%s %s: got %s %q, want %q", c.method, c.path, name, got, want)
			}
		}
	}
}

// A request that is refused before the server has read it gets the server's
// answer, and not one of the proxy's about a server that stopped listening.
func TestProxyPassesOnRefusals(t *testing.T) {
	t.Parallel()
	s := start(t)
	proxy := behindNginx(t, s)
	want := s.do(t, "POST", "/chat/alice", strings.Repeat("x", 5000))
	body := strings.Repeat("x", 200_000)
	for range 50 {
		if got := proxy.do(t, "POST", "/chat/alice", body); got.status != http.StatusRequestEntityTooLarge || got.body != want.body {
			t.Fatalf("got %d %q, want 413 %q", got.status, got.body, want.body)
		}
	}
}

// Behind the proxy the server still knows its own page from others.
func TestProxyKeepsToWhoMayCall(t *testing.T) {
	t.Parallel()
	proxy := behindNginx(t, start(t, "-host", "chat.example"))
	_, port, _ := net.SplitHostPort(proxy.addr)
	host := "chat.example:" + port
	for _, c := range []struct {
		what, host   string
		header, says string
		want         int
	}{
		{"a program", host, "", "", 200},
		{"its page", host, "Origin", "http://" + host, 200},
		{"its page in a browser that says so", host, "Sec-Fetch-Site", "same-origin", 200},
		{"its page where the proxy has TLS", "chat.example", "Origin", "https://chat.example", 200},
		{"another's page", host, "Origin", "http://evil.example", 403},
		{"another's page on the same port", host, "Origin", "http://evil.example:" + port, 403},
		{"a page from another port", host, "Origin", "http://chat.example", 403},
		{"another's page in a browser that says so", host, "Sec-Fetch-Site", "cross-site", 403},
		{"a name that is not the server's", "evil.example:" + port, "", "", 421},
	} {
		for _, r := range []struct{ method, path string }{{"POST", "/users/bob"}, {"GET", "/chat/bob"}, {"GET", "/users"}} {
			t.Run(c.what+" "+r.method+" "+r.path, func(t *testing.T) {
				req, err := http.NewRequestWithContext(t.Context(), r.method, proxy.url+r.path, nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Host = c.host
				if c.header != "" {
					req.Header.Set(c.header, c.says)
				}
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if got := resp.StatusCode; got != c.want && !(got == http.StatusCreated && c.want == http.StatusOK) {
					t.Errorf("got %d, want %d", got, c.want)
				}
			})
		}
	}
}
