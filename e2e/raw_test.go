package e2e

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// dial opens a connection on which everything has to be over in a minute. The
// test closes it.
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

// requestText returns the text of a request, with the request line, METHOD TARGET,
// and the header lines as they stand. Without a Host among these it has the
// server's own.
func (s *server) requestText(line, body string, headers ...string) string {
	if !slices.ContainsFunc(headers, func(h string) bool { return strings.HasPrefix(h, "Host:") }) {
		headers = append([]string{"Host: " + s.addr}, headers...)
	}
	if body != "" {
		headers = append(headers, fmt.Sprintf("Content-Length: %d", len(body)))
	}
	return line + " HTTP/1.1\r\n" + strings.Join(headers, "\r\n") + "\r\n\r\n" + body
}

// send makes a request over a connection of its own and reads its answer.
func (s *server) send(t testing.TB, line, body string, headers ...string) response {
	t.Helper()
	return s.exchange(t, s.requestText(line, body, headers...))
}

// exchange sends text over a connection of its own and reads the answer, which
// must come at once: before a time limit of the server's passes.
func (s *server) exchange(t testing.TB, text string) response {
	t.Helper()
	conn := s.dial(t)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(4 * time.Second))
	go io.WriteString(conn, text) // which may be more than the server takes before it answers
	method, _, _ := strings.Cut(text, " ")
	return readResponse(t, bufio.NewReader(conn), method)
}

// readResponse reads the answer to a request with that method.
func readResponse(t testing.TB, r *bufio.Reader, method string) response {
	t.Helper()
	resp, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s with %q and no end: %v", resp.Status, body, err)
	}
	return response{resp.StatusCode, resp.Header, string(body)}
}

// dialStream opens a stream over a connection of its own that takes no more
// than some 100 KiB that are not read.
func (s *server) dialStream(t testing.TB, target string) (*stream, *net.TCPConn) {
	t.Helper()
	conn := s.dial(t)
	conn.SetReadBuffer(128 << 10)
	io.WriteString(conn, s.requestText("GET "+target, ""))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %+v, %v", target, resp, err)
	}
	return &stream{sseReader{r: bufio.NewReader(resp.Body)}, resp.Header, resp.Body}, conn
}

// flood lets the user, who is there afterwards, say 4 KiB so many times.
func (s *server) flood(t testing.TB, name string, times int) {
	t.Helper()
	s.do(t, "POST", "/users/"+name, "")
	conn := s.dial(t)
	defer conn.Close()
	say := s.requestText("POST /chat/"+name, strings.Repeat("x", 4096))
	go func() {
		for range times {
			io.WriteString(conn, say)
		}
	}()
	answers := bufio.NewReader(conn)
	for range times {
		if r := readResponse(t, answers, "POST"); r.status != 200 {
			t.Fatalf("flood: got %d %q, want 200", r.status, r.body)
		}
	}
}

// A head of 16 KiB is taken, and not one byte more, on a fresh connection or a
// used one.
func TestHeadSize(t *testing.T) {
	s := start(t)
	for _, c := range []struct{ size, status int }{{16 << 10, 200}, {16<<10 + 1, 431}, {20 << 10, 431}, {1 << 20, 431}} {
		bare := len(s.requestText("GET /users", "", "X: "))
		head := s.requestText("GET /users", "", "X: "+strings.Repeat("x", c.size-bare))
		t.Run(fmt.Sprint("first/", c.size), func(t *testing.T) {
			if r := s.exchange(t, head); r.status != c.status {
				t.Errorf("got %d %q, want %d", r.status, r.body, c.status)
			}
		})
		t.Run(fmt.Sprint("second/", c.size), func(t *testing.T) {
			conn := s.dial(t)
			answers := bufio.NewReader(conn)
			io.WriteString(conn, s.requestText("GET /users", ""))
			readResponse(t, answers, "GET")
			go io.WriteString(conn, head)
			if r := readResponse(t, answers, "GET"); r.status != c.status {
				t.Errorf("got %d %q, want %d", r.status, r.body, c.status)
			}
		})
	}
}

// What is asked for is what stands in the request, with no path made another.
func TestRequestLines(t *testing.T) {
	s := start(t)
	host := "\r\nHost: " + s.addr
	s.unchanged(t, func() {
		for status, heads := range map[int][]string{
			200: {
				"GET /users HTTP/1.1" + host, "GET /users HTTP/1.0" + host, "GET /users?a=b&%zz HTTP/1.1" + host, "GET /%75sers HTTP/1.1" + host,
				"GET http://" + s.addr + "/users HTTP/1.1" + host, "GET http://" + s.addr + "/users HTTP/1.1\r\nHost: evil.example",
				"OPTIONS * HTTP/1.1" + host,
			},
			400: {
				"GET /users HTTP/1.1", "GET /users HTTP/1.1" + host + host, "GET /users HTTP/1.1\r\nHost: a b", "GET /users" + host,
				"GET users HTTP/1.1" + host, "GET /users/a b HTTP/1.1" + host, "POST /users/a\x01 HTTP/1.1" + host,
				"POST /users/%zz HTTP/1.1" + host, "POST /users/\xff HTTP/1.1" + host,
			},
			404: {
				"GET //users HTTP/1.1" + host, "GET //evil.example/%2e%2e HTTP/1.1" + host, "GET http://" + s.addr + "//users HTTP/1.1" + host,
				"GET /users/ HTTP/1.1" + host, "GET /Users HTTP/1.1" + host, "GET /./users HTTP/1.1" + host, "GET /users/../users HTTP/1.1" + host,
				"GET /chat/ HTTP/1.1" + host, "POST /users/ HTTP/1.1" + host, "POST /users/bob/ HTTP/1.1" + host, "POST /USERS/bob HTTP/1.1" + host,
				"GET /index.html HTTP/1.1" + host, "GET /web/index.html HTTP/1.1" + host, "GET * HTTP/1.1" + host,
				"CONNECT 127.0.0.1:80 HTTP/1.1" + host,
			},
			405: {"CONNECT /users HTTP/1.1" + host, "TRACE /users HTTP/1.1" + host},
			421: {
				"GET http://evil.example/users HTTP/1.1" + host, "CONNECT evil.example:80 HTTP/1.1" + host, "GET /users HTTP/1.0",
				"GET /users HTTP/1.1\r\nHost:", "OPTIONS * HTTP/1.1\r\nHost: evil.example",
			},
			505: {"GET /users HTTP/3.0" + host},
		} {
			for _, head := range heads {
				r := s.exchange(t, head+"\r\n\r\n")
				isList := status == 200 && head[:3] == "GET"
				if r.status != status || strings.HasPrefix(r.body, "Connected users:\n") != isList || r.header.Get("Location") != "" {
					t.Errorf("%.80q: got %d %v %q, want %d", head, r.status, r.header, r.body, status)
				}
			}
		}
	})
}

// Requests that follow each other without waiting are answered in turn.
func TestPipelinedRequests(t *testing.T) {
	s := start(t)
	conn := s.dial(t)
	io.WriteString(conn, s.requestText("POST /users/alice", "")+s.requestText("POST /chat/alice", "hi")+s.requestText("HEAD /users", "")+
		s.requestText("PATCH /users", "")+s.requestText("GET /users", "")+s.requestText("DELETE /users/alice", "")+s.requestText("GET /chat/alice", ""))
	answers := bufio.NewReader(conn)
	for _, want := range []struct {
		method string
		status int
		body   string
	}{
		{"POST", 201, "User alice connected."}, {"POST", 200, "alice: hi"}, {"HEAD", 200, ""},
		{"PATCH", 405, "The method PATCH is not possible here, only GET, HEAD, OPTIONS.\n"},
		{"GET", 200, "Connected users:\nUser: alice"}, {"DELETE", 200, "User alice disconnected."},
	} {
		if r := readResponse(t, answers, want.method); r.status != want.status || r.body != want.body {
			t.Errorf("%s: got %d %q, want %d %q", want.method, r.status, r.body, want.status, want.body)
		}
	}
	resp, err := http.ReadResponse(answers, nil)
	if err != nil {
		t.Fatal(err)
	}
	st := &stream{sseReader{r: bufio.NewReader(resp.Body)}, resp.Header, resp.Body}
	st.expect(t, "User alice connected to the chat.")
}

// A client of HTTP/1.0 gets the stream as it is, without chunks.
func TestStreamOverHTTP10(t *testing.T) {
	s := start(t)
	conn := s.dial(t)
	io.WriteString(conn, "GET /chat/alice HTTP/1.0\r\nHost: "+s.addr+"\r\n\r\n")
	r := bufio.NewReader(conn)
	for line := "-"; line != "\r\n"; {
		var err error
		if line, err = r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	st := &stream{sseReader: sseReader{r: r}, body: conn}
	st.expect(t, "User alice connected to the chat.")
	s.stop(t)
	if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
		t.Errorf("at the end got %q and %v, want nothing", rest, err)
	}
}

func TestExpectContinue(t *testing.T) {
	s := start(t)
	s.do(t, "POST", "/users/alice", "")
	const expect = "Expect: 100-continue"
	conn := s.dial(t)
	answers := bufio.NewReader(conn)
	io.WriteString(conn, s.requestText("POST /chat/alice", "", expect, "Content-Length: 2"))
	if r := readResponse(t, answers, "POST"); r.status != 100 {
		t.Fatalf("before the body got %d %q, want 100", r.status, r.body)
	}
	io.WriteString(conn, "hi")
	if r := readResponse(t, answers, "POST"); r.status != 200 || r.body != "alice: hi" {
		t.Errorf("got %d %q, want 200", r.status, r.body)
	}
	for target, status := range map[string]int{"/nosuch": 404, "/chat/%0A": 400, "/chat": 405} {
		s.refuses(t, status, "POST "+target, "", expect, "Content-Length: 2")
	}
}

func TestChunkedBodies(t *testing.T) {
	s := start(t)
	s.do(t, "POST", "/users/alice", "")
	sendAll := func(request, body string) response {
		conn := s.dial(t)
		io.WriteString(conn, s.requestText(request, "", "Transfer-Encoding: chunked")+body)
		conn.CloseWrite()
		method, _, _ := strings.Cut(request, " ")
		return readResponse(t, bufio.NewReader(conn), method)
	}
	for _, body := range []string{"5\r\nhello\r\n0\r\n\r\n", "2;x=y\r\nhe\r\n003\r\nllo\r\n0\r\n\r\n", "5\r\nhello\r\n0\r\nLast-Event-ID: x\r\n\r\n"} {
		if r := s.exchange(t, s.requestText("POST /chat/alice", "", "Transfer-Encoding: chunked")+body); r.status != 200 || r.body != "alice: hello" {
			t.Errorf("%q: got %d %q, want 200", body, r.status, r.body)
		}
	}
	changes := []string{"POST /users/bob", "DELETE /users/alice", "POST /chat/alice"}
	s.unchanged(t, func() {
		for _, c := range []struct {
			body     string
			status   int
			requests []string
		}{
			{"zz\r\n", 400, changes},
			{"-5\r\nhello\r\n0\r\n\r\n", 400, changes},
			{"5\r\nhelloxx0\r\n\r\n", 400, changes},
			{"5\nhello\n0\n\n", 400, changes},
			{"\r\n", 400, changes},
			{"", 400, changes},
			{"5\r\nhel", 400, changes},
			{"5\r\nhello\r\n", 400, changes},
			{"fffffffffffffffff\r\nhello", 400, changes},
			{"2000\r\n" + strings.Repeat("x", 5000), 413, changes},
			{"0\r\n\r\n", 400, []string{"GET /chat/bob"}},
			{"2\r\nhi\r\n0\r\n\r\n", 400, []string{"GET /chat/bob"}},
		} {
			for _, request := range c.requests {
				if r := sendAll(request, c.body); !r.isError(c.status) {
					t.Errorf("%s with %.30q: got %d %q, want %d", request, c.body, r.status, r.body, c.status)
				}
			}
		}
	})
}

// A request that can be refused without its body is not kept waiting for it.
func TestRefusedBeforeTheBodyCame(t *testing.T) {
	s := start(t)
	s.do(t, "POST", "/users/alice", "")
	s.unchanged(t, func() {
		for _, c := range []struct {
			status          int
			request, header string
		}{
			{404, "POST /nosuch", ""},
			{405, "POST /users", ""},
			{405, "PUT /users/alice", ""},
			{405, "POST /", ""},
			{403, "POST /users/bob", "Sec-Fetch-Site: cross-site"},
			{403, "POST /chat/alice", "Origin: http://evil.example"},
			{421, "DELETE /users/alice", "Host: evil.example"},
			{400, "POST /users/%00", ""},
			{400, "DELETE /users/%00", ""},
			{400, "POST /chat/%00", ""},
			{400, "GET /chat", ""},
			{400, "GET /chat/alice", ""},
			{400, "GET /chat/bob", ""},
		} {
			header := cmp.Or(c.header, "X: y")
			s.refuses(t, c.status, c.request, "", header, "Content-Length: 2")
			s.refuses(t, c.status, c.request, "", header, "Transfer-Encoding: chunked")
		}
		for _, request := range []string{"POST /users/bob", "DELETE /users/alice", "POST /chat/alice"} {
			s.refuses(t, 413, request, "", "Content-Length: 1000000")
		}
	})
}

// Who does not finish what it began is not waited for for ever. All of them
// are slow at the same time.
func TestSlowRequests(t *testing.T) {
	t.Parallel()
	const (
		head, body = 5 * time.Second, 10 * time.Second
		noAnswer   = `^$`
		refused    = `^(HTTP/1.1 4(00|08) (.|\n)*)?$`
		timedOut   = `^HTTP/1.1 408 `
	)
	s := start(t)
	s.do(t, "POST", "/users/alice", "")
	stuck := func(request string) string { return s.requestText(request, "", "Content-Length: 9") + "h" }
	s.unchanged(t, func() {
		var clients sync.WaitGroup
		for _, c := range []struct {
			name, first string // sent at once
			more        string // sent every now and then
			limit       time.Duration
			answer      string
		}{
			{"silent", "", "", head, noAnswer},
			{"head without an end", "GET /users HTTP/1.1\r\nHost: " + s.addr + "\r\n", "", head, refused},
			{"head that trickles", "GET /users HTTP/1.1\r\nHost: " + s.addr + "\r\n", "X: y\r\n", head, refused},
			{"one byte of a head", "G", "", head, refused},
			{"one byte of a second head", s.requestText("GET /users", "") + "G", "", head, `watcher$`},
			{"most of a second head", strings.TrimSuffix(s.requestText("GET /users", "")+s.requestText("GET /users", ""), "\r\n"), "", head, `watcher$`},
			{"join", stuck("POST /users/bob"), "", body, timedOut},
			{"join that trickles", s.requestText("POST /users/bob", "", "Content-Length: 4000"), "x", body, timedOut},
			{"leave", stuck("DELETE /users/alice"), "", body, timedOut},
			{"say", stuck("POST /chat/alice"), "", body, timedOut},
			{"say in chunks that trickle", s.requestText("POST /chat/alice", "", "Transfer-Encoding: chunked"), "1\r\nx\r\n", body, timedOut},
			{"list", stuck("GET /users"), "", body, timedOut},
			{"page", stuck("GET /"), "", body, timedOut},
			{"options", stuck("OPTIONS /users"), "", body, timedOut},
		} {
			conn := s.dial(t)
			conn.SetDeadline(time.Now().Add(c.limit + 5*time.Second))
			closed := make(chan struct{})
			begin := time.Now()
			io.WriteString(conn, c.first)
			if c.more != "" {
				clients.Go(func() {
					for {
						select {
						case <-time.After(500 * time.Millisecond):
							io.WriteString(conn, c.more)
						case <-closed:
							return
						}
					}
				})
			}
			clients.Go(func() {
				defer close(closed)
				answer, err := io.ReadAll(conn)
				took := time.Since(begin)
				if errors.Is(err, os.ErrDeadlineExceeded) || took < c.limit-time.Second/2 {
					t.Errorf("%s: %v after %v, want it closed after %v", c.name, err, took, c.limit)
				}
				if !regexp.MustCompile(c.answer).Match(answer) {
					t.Errorf("%s: got %.200q, want %s", c.name, answer, c.answer)
				}
			})
		}
		clients.Wait()
	})
}

// A reader that takes nothing is cut, and nobody else notices.
func TestReaderThatNeverReads(t *testing.T) {
	t.Parallel()
	s := start(t, "-grace", "0")
	s.do(t, "POST", "/users/watcher", "")
	watcher := s.open(t, "/chat/watcher")
	begin := time.Now()
	_, frozen := s.dialStream(t, "/chat/frozen")
	const times = 500
	s.flood(t, "alice", times)
	watcher.expectRun(t, "User frozen connected to the chat.", "User alice connected to the chat.")
	watcher.expectRun(t, slices.Repeat([]string{"alice: " + strings.Repeat("x", 4096)}, times)...)
	timer := time.AfterFunc(30*time.Second, func() { watcher.body.Close() })
	defer timer.Stop()
	e, err := watcher.next()
	took := time.Since(begin)
	if err != nil || e.data != "User frozen disconnected from the chat." || took < 9*time.Second || took > 20*time.Second {
		t.Errorf("after %v got %q and %v, want the reader to be cut after about 10 s", took, e.data, err)
	}
	if _, err := io.Copy(io.Discard, frozen); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection is still open: %v", err)
	}
}

// A reader that falls behind gets what it missed, as far as it is kept, and
// where it is not, is told so.
func TestReaderThatFallsBehind(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		history string
		gap     bool
	}{{"10", true}, {"100000", false}} {
		t.Run("history "+c.history, func(t *testing.T) {
			s := start(t, "-history", c.history)
			late, _ := s.dialStream(t, "/chat/late")
			s.flood(t, "alice", 6000)
			last := s.do(t, "POST", "/chat/alice", "the end").header.Get("Last-Event-ID")
			gap, id := false, ""
			for id != last {
				e, err := late.next()
				if err != nil {
					t.Fatalf("after %s of %s: %v", id, last, err)
				}
				if e.name == "gap" {
					gap = true
				} else if id != "" && e.id != idPlus(t, id, 1) {
					t.Fatalf("%s follows %s without a gap", e.id, id)
				}
				id = e.id
			}
			if gap != c.gap {
				t.Errorf("gap: got %v, want %v", gap, c.gap)
			}
		})
	}
}

// Who asks and does not read what it asked for is cut: in the middle of a long
// list, and also where each of many answers is short.
func TestAnswersThatAreNotRead(t *testing.T) {
	t.Parallel()
	const limit = 10 * time.Second
	s := start(t)
	joins := s.dial(t)
	answers := bufio.NewReader(joins)
	const users = 10_000 // whose list is larger than all buffers on its way
	go func() {
		for i := range users {
			io.WriteString(joins, s.requestText(fmt.Sprintf("POST /users/%064d", i), ""))
		}
	}()
	for range users {
		readResponse(t, answers, "POST")
	}
	for _, c := range []struct{ name, request string }{
		{"a list", s.requestText("GET /users", "")},
		{"errors", strings.Repeat(s.requestText("GET /nosuch", ""), 10_000)},
		{"messages", strings.Repeat(s.requestText("POST /chat/"+strings.Repeat("0", 64), "hello"), 10_000)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			conn := s.dial(t)
			conn.SetReadBuffer(64 << 10)
			begin := time.Now()
			var err error
			for err == nil { // what stands behind the first request is not read, and shows the end
				_, err = io.WriteString(conn, c.request)
			}
			if took := time.Since(begin); errors.Is(err, os.ErrDeadlineExceeded) || took < limit-time.Second || took > limit+8*time.Second {
				t.Errorf("%v after %v, want the connection to be cut after %v", err, took, limit)
			}
		})
	}
}
