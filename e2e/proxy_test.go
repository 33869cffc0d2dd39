package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The tests of this file meet the server behind each proxy of docs/proxies.md, configured as that
// page says.

// proxyPatience bounds a test behind a proxy, most of which do not wait at all.
const proxyPatience = time.Minute

// proxy is a program that docs/proxies.md tells how to put in front of the server. What that page
// has for its configuration goes into a file named "block".
type proxy struct {
	name    string   // of its section in docs/proxies.md
	command string   // runs it in the foreground, in the folder with its configuration
	config  string   // the file of testdata/proxies that includes the block, if it needs one
	set     []string // strings in command and configuration, each followed by its replacement
	silence string   // the setting that ends a stream after 60 s of silence, if there is one

	rewritesPaths bool // it changes or refuses paths with %2F or //, which hold no name
	noticesLate   bool // it notices that a client has gone only when it writes to that client
	hidesCrashes  bool // it ends a stream properly even if the server was killed
}

var (
	nginx = proxy{
		name:    "nginx",
		command: "nginx -p . -c nginx.conf -e stderr",
		config:  "nginx.conf",
		set:     []string{"listen 80;", "listen LISTEN;"},
		silence: "proxy_read_timeout 60",
	}
	caddy = proxy{
		name:         "Caddy",
		command:      "caddy run --adapter caddyfile --config Caddyfile",
		config:       "Caddyfile",
		set:          []string{"chat.example {", "http://:PORT {"},
		hidesCrashes: true,
	}
	haproxy = proxy{
		name:    "HAProxy",
		command: "haproxy -db -f block",
		set:     []string{"bind :80", "bind LISTEN"},
		silence: "timeout server 60",
	}
	apache = proxy{
		name:          "Apache",
		command:       "apache2 -DFOREGROUND -d . -f apache.conf",
		config:        "apache.conf",
		set:           []string{"*:80>", "*:PORT>"},
		silence:       "Timeout 60",
		rewritesPaths: true,
		noticesLate:   true,
	}
	lighttpd = proxy{
		name:          "lighttpd",
		command:       "lighttpd -D -f lighttpd.conf",
		config:        "lighttpd.conf",
		silence:       "max-write-idle = 60",
		rewritesPaths: true,
	}
	varnish = proxy{
		name:    "Varnish",
		command: "varnishd -F -j none -n DIR/run -a LISTEN -T none -p pipe_timeout=60 -f DIR/block",
		silence: "pipe_timeout=60",
	}
	proxies = []proxy{nginx, caddy, haproxy, apache, lighttpd, varnish}
)

// with returns p with more to set.
func (p proxy) with(set ...string) proxy {
	p.set = slices.Concat(p.set, set)
	return p
}

// configure writes what the proxy needs to listen at addr, in front of the server at serverAddr,
// into the folder dir, and returns the fields of its command.
func (p proxy) configure(t *testing.T, dir, addr, serverAddr string) []string {
	t.Helper()
	_, block, _ := strings.Cut(readFile(t, "../docs/proxies.md"), "\n## "+p.name+"\n")
	_, block, _ = strings.Cut(block, "\n```")
	_, block, _ = strings.Cut(block, "\n") // the language
	block, _, _ = strings.Cut(block, "```")
	files := map[string]string{"block": block}
	if p.config != "" {
		files[p.config] = readFile(t, "testdata/proxies/"+p.config)
	}
	for i := 0; i < len(p.set); i += 2 {
		if !strings.Contains(p.command+block+files[p.config], p.set[i]) {
			t.Fatalf("the configuration of %s has no %q", p.name, p.set[i])
		}
	}
	_, port, _ := net.SplitHostPort(addr)
	_, serverPort, _ := net.SplitHostPort(serverAddr)
	set := func(text string) string {
		text = strings.NewReplacer(p.set...).Replace(text)
		addresses := strings.NewReplacer("8080", serverPort, "LISTEN", addr, "PORT", port, "DIR", dir)
		return addresses.Replace(text)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(set(content)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return strings.Fields(set(p.command))
}

// before puts the proxy in front of s and returns s as it is met through it. The test ends the
// proxy, at the latest after proxyPatience, so that no test waits for ever for what one holds back.
func (p proxy) before(t *testing.T, s *server) *server {
	t.Helper()
	program, _, _ := strings.Cut(p.command, " ")
	needs(t, program)
	dir, addr := t.TempDir(), reserve(t)
	// Workers have to get in, and root lets someone else do their work.
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
		t.Fatal(err)
	}
	args := p.configure(t, dir, addr, s.addr)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME=", "XDG_DATA_HOME=")
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		cmd.Wait()
		close(exited)
	}()
	end := func() { cmd.Process.Signal(syscall.SIGTERM) } // which ends its workers too
	limit := time.AfterFunc(proxyPatience, func() {
		t.Errorf("not done after %v", proxyPatience)
		end()
	})
	t.Cleanup(func() {
		limit.Stop()
		s.kill() // or Apache would wait for the streams that it still has
		end()
		<-exited
		http.DefaultClient.CloseIdleConnections()
	})
	eventually(t, time.Minute, p.name+" to listen", func() bool {
		select {
		case <-exited:
			t.Fatalf("%s ended by itself", p.name)
		default:
		}
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return &server{url: "http://" + addr, addr: addr}
}

// reserve returns a free address for a program that the test starts. A socket is bound to it, but
// does not listen: so until the test ends, the system gives the address to nobody who asks for any
// free one, and yet a program that asks for it by its number may listen there.
func reserve(t *testing.T) (addr string) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	syscall.CloseOnExec(fd)
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	bound, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", bound.(*syscall.SockaddrInet4).Port)
}

// behindEach runs the test behind every proxy.
func behindEach(t *testing.T, test func(*testing.T, proxy)) {
	t.Parallel()
	for _, p := range proxies {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			test(t, p)
		})
	}
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

// What the server sends passes the proxy at once, with nothing after it that could push it on.
func TestProxyHoldsNothingBack(t *testing.T) {
	behindEach(t, holdsNothingBack)
}

// nginx that is not told of HTTP/1.1 would hold everything back if the server
// did not ask it not to.
func TestNginxHoldsNothingBackOverHTTP10(t *testing.T) {
	t.Parallel()
	holdsNothingBack(t, nginx.with("proxy_http_version 1.1", "proxy_http_version 1.0"))
}

func holdsNothingBack(t *testing.T, p proxy) {
	s := start(t, "-keepalive", "1h")
	proxy := p.before(t, s)
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
}

// The proxy passes an event on without waiting for more. (HAProxy would, for
// 200 ms; a loaded machine is slow once in a while, but not half of the time.)
func TestProxyDelaysNoEvent(t *testing.T) {
	behindEach(t, func(t *testing.T, p proxy) {
		s := start(t, "-keepalive", "1h")
		bob := p.before(t, s).subscribe(t, "/chat/bob")
		bob.expect(t, "User bob connected to the chat.")
		var delays []time.Duration
		for range 21 {
			begin := time.Now()
			bob.expect(t, s.says(t, "bob", "hello").data)
			delays = append(delays, time.Since(begin))
		}
		slices.Sort(delays)
		if median := delays[len(delays)/2]; median > 100*time.Millisecond {
			t.Errorf("half of the events took more than %v", median)
		}
	})
}

// A stream on which nobody speaks outlives the time for which the proxy lets
// one be silent, by the server's comments.
func TestProxyLetsIdleStreamsLive(t *testing.T) {
	const idle = 2 * time.Second
	behindEach(t, func(t *testing.T, p proxy) {
		if p.silence != "" {
			p = p.with(p.silence, strings.TrimSuffix(p.silence, "60")+"2")
		}
		t.Run("with comments", func(t *testing.T) {
			t.Parallel()
			s := start(t, "-keepalive", "200ms")
			bob := p.before(t, s).subscribe(t, "/chat/bob")
			bob.expect(t, "User bob connected to the chat.")
			for begin := time.Now(); time.Since(begin) < 2*idle; {
				if _, err := bob.line(); err != nil {
					t.Fatalf("the stream ended after %v: %v", time.Since(begin), err)
				}
			}
			bob.expect(t, s.says(t, "bob", "still here").data)
		})
		if p.silence == "" {
			return
		}
		t.Run("without comments", func(t *testing.T) {
			t.Parallel()
			bob := p.before(t, start(t, "-keepalive", "1h")).subscribe(t, "/chat/bob")
			bob.expect(t, "User bob connected to the chat.")
			if e, err := bob.next(); err == nil {
				t.Fatalf("got %+v, want the proxy to have ended the stream", e)
			}
		})
	})
}

// backWithin is how long a proxy may take a server for gone that is back.
const backWithin = 10 * time.Second

// Streams resume through the proxy, those that go are noticed, and an end
// stays what it is: a proper one when the server stops, else none.
func TestProxyPassesOnHowStreamsEnd(t *testing.T) {
	behindEach(t, func(t *testing.T, p proxy) {
		flags := []string{"-grace", "0", "-keepalive", "1h"}
		if p.noticesLate {
			flags = []string{"-grace", "0", "-keepalive", "200ms"}
		}
		s := start(t, flags...)
		proxy := p.before(t, s)
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
			began := time.Now()
			eventually(t, time.Minute, p.name+" to take the server for one that is back", func() bool {
				again, err := proxy.trySubscribe("/chat/bob", "Last-Event-ID", last)
				if err != nil {
					return false
				}
				t.Cleanup(func() { again.body.Close() }) // so bob stays until then
				if e, err := again.next(); e.name != "gap" {
					t.Errorf("after %s got %+v, %v; want a gap", end.how, e, err)
				}
				return true
			})
			if took := time.Since(began); took > backWithin {
				t.Errorf("after %s the server was back only after %v", end.how, took)
			}
		}
	})
}

// Requests and answers pass the proxy as they are, names that had to be escaped
// included.
func TestProxyChangesNoAnswer(t *testing.T) {
	behindEach(t, func(t *testing.T, p proxy) {
		s := start(t)
		proxy := p.before(t, s)
		for _, c := range []struct{ method, path, body string }{
			{"GET", "/users", ""},
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

// A request that is refused before the server has read it gets the server's
// answer, and not one of the proxy's about a server that stopped listening.
func TestProxyPassesOnRefusals(t *testing.T) {
	behindEach(t, func(t *testing.T, p proxy) {
		s := start(t)
		proxy := p.before(t, s)
		want := s.do(t, "POST", "/chat/alice", strings.Repeat("x", 5000))
		body := strings.Repeat("x", 200_000)
		for range 50 {
			if got := proxy.do(t, "POST", "/chat/alice", body); got.status != 413 || got.body != want.body {
				t.Fatalf("got %d %q, want 413 %q", got.status, got.body, want.body)
			}
		}
	})
}

// Behind the proxy the server still knows its own page from others.
func TestProxyKeepsToWhoMayCall(t *testing.T) {
	behindEach(t, func(t *testing.T, p proxy) {
		proxy := p.before(t, start(t, "-host", "chat.example"))
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
			for _, request := range []string{"POST /users/bob", "GET /chat/bob", "GET /users"} {
				t.Run(c.what+" "+request, func(t *testing.T) {
					method, path, _ := strings.Cut(request, " ")
					req, err := http.NewRequestWithContext(t.Context(), method, proxy.url+path, nil)
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
					if got := resp.StatusCode; got != c.want && (got != 201 || c.want != 200) {
						t.Errorf("got %d, want %d", got, c.want)
					}
				})
			}
		}
	})
}

// HAProxy's check of the server's health, a request without a Host, finds it
// well: after a check that failed, only one that succeeds brings it back.
func TestHAProxyFindsTheServerWell(t *testing.T) {
	t.Parallel()
	s := start(t)
	relay := newRelay(t, s.addr, "\x00")
	relay.down.Store(true)
	relayed := &server{cmd: s.cmd, exited: s.exited, addr: strings.TrimPrefix(relay.url, "http://")}
	proxy := haproxy.with(" check\n", " check inter 100ms fall 1 rise 1\n").before(t, relayed)
	await(t, relay.missed, "a check that fails")
	await(t, relay.missed, "another check, which begins when HAProxy knows the result of the first")
	relay.down.Store(false)
	eventually(t, time.Minute, "a check that succeeds", func() bool {
		return proxy.do(t, "GET", "/users", "").status == 200
	})
}

// Over HTTP/2, which Caddy speaks by itself as it has TLS, the streams of a client
// share one connection, and there may be many more than a browser's six over HTTP/1.1.
func TestCaddySharesAConnection(t *testing.T) {
	t.Parallel()
	s := start(t, "-host", "chat.example")
	caddy := caddy
	caddy.set = []string{
		"auto_https off",
		"auto_https disable_redirects\nhttps_port PORT\nlocal_certs\nskip_install_trust",
	}
	proxy := caddy.before(t, s)
	insecure := &tls.Config{InsecureSkipVerify: true, ServerName: "chat.example"}
	eventually(t, time.Minute, "Caddy to have a certificate", func() bool {
		conn, err := tls.Dial("tcp", proxy.addr, insecure)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	var connections atomic.Int32
	transport := &http.Transport{
		ForceAttemptHTTP2: true,
		TLSClientConfig:   insecure,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			connections.Add(1)
			return new(net.Dialer).DialContext(ctx, network, proxy.addr)
		},
	}
	defer transport.CloseIdleConnections()
	_, port, _ := net.SplitHostPort(proxy.addr)
	origin := "https://chat.example:" + port
	for n := range 50 {
		req, err := http.NewRequestWithContext(t.Context(), "GET", origin+"/chat/bob", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Origin", origin)
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != 200 || resp.ProtoMajor != 2 {
			t.Fatalf("stream %d: got %s over %s, want 200 over HTTP/2", n, resp.Status, resp.Proto)
		}
		bob := &stream{sseReader: sseReader{r: bufio.NewReader(resp.Body)}, header: resp.Header, body: resp.Body}
		if n == 0 {
			bob.expect(t, "User bob connected to the chat.")
		}
		bob.expect(t, s.says(t, "bob", "hello").data)
	}
	if got := connections.Load(); got != 1 {
		t.Errorf("the streams took %d connections, want 1", got)
	}
}
