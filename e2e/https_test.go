// Here belongs what is different over https: HTTP/2, many streams on one connection, certificates.
package e2e

import (
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
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// protocols are those that https can speak.
var protocols = []string{"HTTP/1.1", "HTTP/2.0"}

// certify makes a certificate with the command in docs/https.md.
func certify(t testing.TB) (certFile, keyFile string) {
	t.Helper()
	needs(t, "openssl")
	_, command, _ := strings.Cut(readFile(t, "../docs/https.md"), "\n```sh\n")
	command, _, _ = strings.Cut(command, "\ncurl ")
	cmd := exec.Command("sh", "-c", command)
	cmd.Dir = t.TempDir()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
	return filepath.Join(cmd.Dir, "cert.pem"), filepath.Join(cmd.Dir, "key.pem")
}

// startSecure is start for a server that speaks https, which is killed after three minutes.
func startSecure(t *testing.T, args ...string) *server {
	t.Helper()
	certFile, keyFile := certify(t)
	return startForMinutes(t, append([]string{"-tls-cert", certFile, "-tls-key", keyFile}, args...)...)
}

// tlsClient is a client that speaks one protocol, and counts its connections.
type tlsClient struct {
	http.Client
	conns  atomic.Int64
	isMute atomic.Bool // whether nothing that it sends reaches the server
}

// tlsConn is a connection of a tlsClient, under TLS.
type tlsConn struct {
	net.Conn
	client *tlsClient
}

func (c tlsConn) Write(b []byte) (int, error) {
	if c.client.isMute.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func newTLSClient(t testing.TB, protocol string) *tlsClient {
	t.Helper()
	c := &tlsClient{}
	transport := &http.Transport{
		Protocols:       new(http.Protocols),
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c.conns.Add(1)
			conn, err := new(net.Dialer).DialContext(ctx, network, addr)
			return tlsConn{conn, c}, err
		},
	}
	transport.Protocols.SetHTTP1(protocol == "HTTP/1.1")
	transport.Protocols.SetHTTP2(protocol == "HTTP/2.0")
	c.Transport = transport
	t.Cleanup(transport.CloseIdleConnections)
	return c
}

// do makes a request and reads its response.
func (c *tlsClient) do(
	t testing.TB, s *server, method, path, body string, headers ...string,
) response {
	t.Helper()
	r, err := s.request(&c.Client, method, path, body, headers...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// subscribe opens a stream, which ends with the test.
func (c *tlsClient) subscribe(t testing.TB, s *server, path string, headers ...string) *stream {
	t.Helper()
	st, err := s.trySubscribeWith(&c.Client, path, headers...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.body.Close() })
	return st
}

// The server is told to stop when all has been said, so each stream ends properly after that.
func TestManyStreamsOfOneClientShowOneOrderOverHTTPS(t *testing.T) {
	t.Parallel()
	const streams, speakers, messages = 60, 4, 250
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			s := startSecure(t)
			c := newTLSClient(t, protocol)
			var heard [streams][]event
			var rest []event // what a resumed stream gets
			var speaking, reading sync.WaitGroup
			for n := range streams {
				st := c.subscribe(t, s, fmt.Sprintf("/chat/reader-%d", n))
				reading.Go(func() { heard[n] = st.readToEnd(t) })
			}
			before := c.do(t, s, "POST", "/users/alice", "")
			epoch := epochOf(before.header.Get("Last-Event-ID"))
			for n := range speakers {
				speaking.Go(func() {
					for m := range messages {
						r, err := s.request(&c.Client, "POST", "/chat/alice", fmt.Sprint(n, "-", m))
						if err != nil || r.status != 200 {
							t.Errorf("say: got %d, %v", r.status, err)
							return
						}
					}
				})
			}
			speaking.Wait()
			resumed := c.subscribe(t, s, "/chat/reader-0", "Last-Event-ID", fmt.Sprint(epoch, "-100"))
			reading.Go(func() { rest = resumed.readToEnd(t) })
			took, err := s.stop(t)
			if printed := s.stderr.String(); err != nil || took >= 5*time.Second || printed != "" {
				t.Errorf("the server ended after %v with %v and printed %q", took, err, printed)
			}
			reading.Wait()
			if t.Failed() {
				return
			}
			const all = streams + 1 + speakers*messages
			for n, events := range heard {
				mustFollow(t, epoch, n+1, events) // from the reader's own arrival on
				if want := all - n; len(events) != want {
					t.Errorf("reader %d: got %d events, want %d", n, len(events), want)
				}
			}
			mustFollow(t, epoch, 101, rest)
			if len(rest) != all-100 {
				t.Errorf("the resumed stream got %d events, want %d", len(rest), all-100)
			}
			if protocol == "HTTP/2.0" && c.conns.Load() != 1 {
				t.Errorf("the client has %d connections, want 1", c.conns.Load())
			}
		})
	}
}

// A reader that stalls delays nothing else on its connection, and loses its stream 10 s after its
// window is full.
func TestStalledStreamDelaysNothingOnItsConnection(t *testing.T) {
	t.Parallel()
	const (
		window   = 4 << 20 // bytes, of each stream of this client
		messages = 2 * window / 4096
		most     = 100 * time.Millisecond
	)
	s := startSecure(t, "-grace", "0", "-history", fmt.Sprint(messages))
	c := newTLSClient(t, "HTTP/2.0")
	c.do(t, s, "POST", "/users/alice", "")
	healthy := c.subscribe(t, s, "/chat/healthy")
	pings, left := make(chan struct{}, 1), make(chan time.Time, 1)
	go func() {
		for e, err := healthy.next(); err == nil; e, err = healthy.next() {
			switch e.data {
			case "alice: ping":
				pings <- struct{}{}
			case leaves("stalled"):
				left <- time.Now()
			}
		}
	}()
	// slowest returns how long the slowest of many messages took, until healthy had it.
	slowest := func() (took time.Duration) {
		for range 200 {
			begin := time.Now()
			c.do(t, s, "POST", "/chat/alice", "ping")
			await(t, pings, "a message")
			took = max(took, time.Since(begin))
		}
		return took
	}
	before := slowest()
	stalled := c.subscribe(t, s, "/chat/stalled")
	flooder := newTLSClient(t, "HTTP/2.0")
	begin := time.Now()
	for range messages {
		flooder.do(t, s, "POST", "/chat/alice", strings.Repeat("x", 4096))
	}
	full := time.Now() // or earlier
	during := slowest()
	for len(left) == 0 && during > before+most { // A busy machine is not slow every time.
		during = slowest()
	}
	t.Logf("the slowest message took %v before and %v while a stream was stalled", before, during)
	if during > before+most {
		t.Errorf("a stalled stream delayed a message by %v, want at most %v", during-before, most)
	}
	select {
	case at := <-left:
		if at.Sub(begin) < 10*time.Second || at.Sub(full) > 15*time.Second {
			t.Errorf("the stalled stream was closed %v after the first message and %v after the last, "+
				"want 10 s after its window was full", at.Sub(begin), at.Sub(full))
		}
	case <-time.After(30 * time.Second):
		t.Error("the stalled stream is still open")
	}
	if _, err := io.Copy(io.Discard, stalled.body.(io.Reader)); err == nil {
		t.Error("the stalled stream has ended as if it were complete")
	}
	if c.conns.Load() != 1 {
		t.Errorf("the client has %d connections, want 1", c.conns.Load())
	}
}

// When files count is tested beside package certs.
func TestCertificateIsReplacedWithoutARestart(t *testing.T) {
	t.Parallel()
	certFile, keyFile := certify(t)
	newCert, newKey := certify(t)
	s := start(t, "-tls-cert", certFile, "-tls-key", keyFile)
	serial := func() string {
		conn, err := tls.Dial("tcp", s.addr, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	first := serial()
	os.Rename(newCert, certFile)
	os.Rename(newKey, keyFile)
	eventually(t, 10*time.Second, "the new certificate", func() bool { return serial() != first })
	second := serial()
	os.Remove(certFile)
	eventually(t, time.Minute, "a line about the certificate", func() bool {
		return strings.HasPrefix(s.stderr.String(), "lobby: cannot read the certificate: open "+certFile)
	})
	if serial() != second {
		t.Error("the certificate has changed without a file")
	}
}

func TestPlainRequestToTheHTTPSPortGets400(t *testing.T) {
	t.Parallel()
	s := startSecure(t)
	r := s.send(t, "GET /users", "")
	if r.status != 400 || !strings.Contains(r.body, "HTTP request to an HTTPS server") {
		t.Errorf("got %d %q", r.status, r.body)
	}
	// Nor does the server print anything about clients that cannot shake hands.
	conn := s.dial(t)
	fmt.Fprint(conn, "hello\r\n\r\n")
	io.Copy(io.Discard, conn)
	s.stop(t)
	if printed := s.stderr.String(); printed != "" {
		t.Errorf("it printed %q", printed)
	}
}

func TestRequestsAreCheckedOverHTTPSToo(t *testing.T) {
	t.Parallel()
	s := startSecure(t, "-host", "chat.example")
	for _, protocol := range protocols {
		c := newTLSClient(t, protocol)
		for _, test := range []struct {
			method, path, body string
			headers            h
			status             int
		}{
			{"GET", "/users", "", nil, 200},
			{"GET", "/chat/bob", "", h{"Host", "evil.example"}, 421},
			{"GET", "/chat/bob", "", h{"Origin", "https://evil.example"}, 403},
			{"GET", "/users", "", h{"Host", "chat.example", "Origin", "https://chat.example:443"}, 200},
			{"POST", "/chat/nobody", strings.Repeat("x", 5000), nil, 413},
			{"GET", "/chat/bob", "x", nil, 400},
			{"GET", "/users", "", h{"X", strings.Repeat("x", 15<<10)}, 200},
			{"GET", "/users", "", h{"X", strings.Repeat("x", 17<<10)}, 431},
			{"GET", "/users", "", slices.Repeat(h{"X", "x"}, 90), 200},
			{"GET", "/users", "", slices.Repeat(h{"X", "x"}, 101), 431},
		} {
			r := c.do(t, s, test.method, test.path, test.body, test.headers...)
			if r.status != test.status {
				t.Errorf("%s %.100q: got %d %q", protocol, fmt.Sprint(test), r.status, r.body)
			}
		}
		if protocol == "HTTP/2.0" && c.conns.Load() != 1 {
			t.Errorf("the client has made %d connections, want 1", c.conns.Load())
		}
	}
}

func TestConnectionBeyondTheLimitGets503OverHTTPS(t *testing.T) {
	t.Parallel()
	certFile, keyFile := certify(t)
	s := startWithFiles(t, 80, "-tls-cert", certFile, "-tls-key", keyFile)
	for range 60 { // more than there are places for
		s.dial(t).Write([]byte{22}) // of a handshake that the server waits for
	}
	c := newTLSClient(t, "HTTP/1.1")
	var r response
	eventually(t, 5*time.Second, "a response", func() bool { // beside those for the others
		var err error
		r, err = s.request(&c.Client, "GET", "/users", "")
		return err == nil
	})
	if r.mustAskToRetry(t); !r.isError(503) {
		t.Errorf("got %d %v %q, want 503", r.status, r.header, r.body)
	}
}

// A client whose program has stopped, while its system still acknowledges what arrives, is noticed
// by a ping.
func TestClientThatAnswersNoPingIsGone(t *testing.T) {
	t.Parallel()
	s := startSecure(t)
	watcher := newTLSClient(t, "HTTP/2.0").subscribe(t, s, "/chat/watcher")
	watcher.expect(t, arrives("watcher"))
	silent := newTLSClient(t, "HTTP/2.0")
	silent.subscribe(t, s, "/chat/silent")
	watcher.expect(t, arrives("silent"))
	silent.isMute.Store(true)
	begin := time.Now()
	defer watcher.closeAfter(60 * time.Second)()
	if e, err := watcher.next(); err != nil || e.data != leaves("silent") {
		t.Fatalf("got %q, %v after %v", e.data, err, time.Since(begin))
	}
	t.Logf("the client was gone after %v", time.Since(begin))
}
