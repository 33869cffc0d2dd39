// This file has the helpers that make requests and check responses. In each of them, headers are
// names and values alternately.
package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

// h is headers, for the rows of a table.
type h []string

// response is a response, read whole.
type response struct {
	status int
	header http.Header
	body   string
	closes bool // whether it says Connection: close
}

// do makes a request and reads its response.
func (s *server) do(t testing.TB, method, path, body string, headers ...string) response {
	t.Helper()
	r, err := s.request(http.DefaultClient, method, path, body, headers...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// request makes a request with client and reads its response.
func (s *server) request(
	client *http.Client, method, path, body string, headers ...string,
) (response, error) {
	req, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	if err != nil {
		return response{}, err
	}
	setHeaders(req, headers)
	resp, err := client.Do(req)
	if err != nil {
		return response{}, err
	}
	return readWhole(resp)
}

func setHeaders(req *http.Request, headers []string) {
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	if host := req.Header.Get("Host"); host != "" { // net/http ignores the header
		req.Host = host
	}
}

// readWhole reads a response's body and closes it.
func readWhole(resp *http.Response) (response, error) {
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return response{resp.StatusCode, resp.Header, string(body), resp.Close}, err
}

// caller makes requests over its own connection, from any goroutine.
type caller struct {
	server *server
	client http.Client
}

func (s *server) caller(t testing.TB) *caller {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &caller{s, http.Client{Transport: transport, Timeout: time.Minute}}
}

// call makes a request and reads its response.
func (c *caller) call(method, path, body string) (response, error) {
	return c.server.request(&c.client, method, path, body)
}

// dial opens a connection whose reads and writes fail after a minute. It ends with the test.
func (s *server) dial(t testing.TB) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	return conn.(*net.TCPConn)
}

// text returns the text of a request whose line begins with METHOD TARGET. Its Host is the
// server's own unless the headers contain one.
func (s *server) text(line, body string, headers ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s HTTP/1.1\r\n", line)
	hasHost := false
	for i := 0; i < len(headers); i += 2 {
		fmt.Fprintf(&b, "%s: %s\r\n", headers[i], headers[i+1])
		hasHost = hasHost || headers[i] == "Host"
	}
	if !hasHost {
		fmt.Fprintf(&b, "Host: %s\r\n", s.addr)
	}
	if body != "" {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
	}
	return b.String() + "\r\n" + body
}

// send makes a request over a new connection, with line, METHOD TARGET, unchanged, and reads the
// response.
func (s *server) send(t testing.TB, line, body string, headers ...string) response {
	t.Helper()
	return s.exchange(t, s.text(line, body, headers...))
}

// exchange sends text over a new connection and reads the response, which must arrive at once:
// before any of the server's time limits.
func (s *server) exchange(t testing.TB, text string) response {
	t.Helper()
	conn := s.dial(t)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(4 * time.Second))
	go io.WriteString(conn, text) // The server may respond before it has read everything.
	method, _, _ := strings.Cut(text, " ")
	return mustRead(t, bufio.NewReader(conn), method)
}

// ask requests path over a new connection and reads nothing.
func (s *server) ask(t testing.TB, path string) *net.TCPConn {
	t.Helper()
	conn := s.dial(t)
	if _, err := io.WriteString(conn, s.text("GET "+path, "")); err != nil {
		t.Fatal(err)
	}
	return conn
}

// mustRead reads the response to a request with that method.
func mustRead(t testing.TB, r *bufio.Reader, method string) response {
	t.Helper()
	whole, err := readAnswer(r, method)
	if err != nil {
		t.Fatalf("got %d %q and then %v", whole.status, whole.body, err)
	}
	return whole
}

// readAnswer is mustRead for any goroutine.
func readAnswer(r *bufio.Reader, method string) (response, error) {
	resp, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		return response{}, err
	}
	return readWhole(resp)
}

// mustFlood adds the user and posts n messages of 4 KiB as that user.
func (s *server) mustFlood(t testing.TB, name string, n int) {
	t.Helper()
	s.do(t, "POST", "/users/"+name, "")
	s.mustRepeat(t, n, func(int) string {
		return s.text("POST /chat/"+name, strings.Repeat("x", 4096))
	})
}

// mustRepeat makes that many POST requests over one connection without waiting for responses in
// between. Each request must succeed.
func (s *server) mustRepeat(t testing.TB, times int, text func(n int) string) {
	t.Helper()
	conn := s.dial(t)
	defer conn.Close()
	go func() {
		for n := range times {
			io.WriteString(conn, text(n))
		}
	}()
	responses := bufio.NewReader(conn)
	for n := range times {
		conn.SetDeadline(time.Now().Add(time.Minute)) // for each response
		if r := mustRead(t, responses, "POST"); r.status >= 300 {
			t.Fatalf("%.60q: got %d %q, want success", text(n), r.status, r.body)
		}
	}
}

// makes makes a request that causes an event and returns that event, whose data must be data.
func (s *server) makes(t testing.TB, method, path, body, data string) event {
	t.Helper()
	r := s.do(t, method, path, body)
	if r.status >= 300 {
		t.Fatalf("%s %s: %d %s", method, path, r.status, r.body)
	}
	return event{r.header.Get("Last-Event-ID"), "message", data}
}

// says posts text as the user name and returns the event that this causes.
func (s *server) says(t testing.TB, name, text string) event {
	t.Helper()
	return s.makes(t, "POST", "/chat/"+name, text, name+": "+text)
}

// lastID returns the id of the server's last event.
func (s *server) lastID(t testing.TB) string {
	t.Helper()
	return s.do(t, "GET", "/users", "").header.Get("Last-Event-ID")
}

// mustNotChange fails the test if do changes the list of users or causes an event.
func (s *server) mustNotChange(t testing.TB, do func()) {
	t.Helper()
	s.do(t, "POST", "/users/watcher", "")
	watcher := s.subscribe(t, "/chat/watcher")
	defer watcher.body.Close()
	before := s.do(t, "GET", "/users", "")
	do()
	after := s.do(t, "GET", "/users", "")
	id, want := after.header.Get("Last-Event-ID"), before.header.Get("Last-Event-ID")
	if after.body != before.body || id != want {
		t.Errorf("got %q at %s, want still %q at %s", after.body, id, before.body, want)
	}
	s.do(t, "POST", "/chat/watcher", "nothing happened")
	watcher.expectRun(t, "watcher: nothing happened")
}

// sentence matches the body of an error.
var sentence = regexp.MustCompile(`^[A-Z][^\n]+\.\n?$`)

// isError reports whether r is an error as the contract describes it.
func (r response) isError(status int) bool {
	return r.status == status && sentence.MatchString(r.body) && r.header.Get("Location") == "" &&
		r.header.Get("Content-Type") == "text/plain; charset=utf-8" &&
		r.header.Get("X-Content-Type-Options") == "nosniff"
}

// mustRefuse fails the test unless the response to a request is that error.
func (s *server) mustRefuse(
	t testing.TB, status int, line, body string, headers ...string,
) response {
	t.Helper()
	r := s.send(t, line, body, headers...)
	if !r.isError(status) {
		t.Errorf("%.40q with %.20q and %.40q: got %d %v %q, want the error %d",
			line, body, headers, r.status, r.header, r.body, status)
	}
	return r
}

// mustHave fails the test unless the response has those headers. A header whose value here is ""
// must be absent.
func (r response) mustHave(t testing.TB, request string, headers ...string) {
	t.Helper()
	for i := 0; i < len(headers); i += 2 {
		name, want := headers[i], headers[i+1]
		if got := strings.Join(r.header.Values(name), ", "); got != want {
			t.Errorf("%s: got %s: %q, want %q", request, name, got, want)
		}
	}
}

// mustAskToRetry fails the test unless the response has a Retry-After of 3 to 8 s. It returns the
// value.
func (r response) mustAskToRetry(t testing.TB) (retryAfter string) {
	t.Helper()
	retryAfter = r.header.Get("Retry-After")
	if len(retryAfter) != 1 || retryAfter < "3" || retryAfter > "8" {
		t.Errorf("got %d with the Retry-After %q, want 3 to 8", r.status, retryAfter)
	}
	return retryAfter
}
