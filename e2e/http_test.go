// Here belongs HTTP itself: what a request may look like on the wire, and what
// becomes of its connection.
package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// A head of 16 KiB is taken, and not one byte more, on a fresh connection or a
// used one.
func TestHeadsUpTo16KiBAreTaken(t *testing.T) {
	s := start(t)
	for _, c := range []struct{ size, status int }{
		{16 << 10, 200}, {16<<10 + 1, 431}, {17 << 10, 431}, {20 << 10, 431}, {1 << 20, 431},
	} {
		bare := len(s.text("GET /users", "", "X", ""))
		head := s.text("GET /users", "", "X", strings.Repeat("x", c.size-bare))
		t.Run(fmt.Sprint("first/", c.size), func(t *testing.T) {
			s.exchange(t, head).mustTakeHead(t, c.status)
		})
		t.Run(fmt.Sprint("second/", c.size), func(t *testing.T) {
			conn := s.dial(t)
			answers := bufio.NewReader(conn)
			io.WriteString(conn, s.text("GET /users", ""))
			mustRead(t, answers, "GET")
			go io.WriteString(conn, head)
			r := mustRead(t, answers, "GET")
			if r.mustTakeHead(t, c.status); r.closes != (c.status == 431) {
				t.Errorf("after %d the connection ends: %v", c.status, r.closes)
			}
		})
	}
}

// mustTakeHead fails the test unless the answer has that status, 200 or 431. It may
// be net/http that refuses the head.
func (r response) mustTakeHead(t testing.TB, status int) {
	t.Helper()
	byNetHTTP := r.body == "431 Request Header Fields Too Large"
	if r.status != status || status == 431 && !byNetHTTP && !r.isError(431) {
		t.Errorf("got %d %v %q, want %d", r.status, r.header, r.body, status)
	}
}

// The error comes at once, also if the request has a body, and ends the connection.
func TestHeadsUpTo100LinesAreTaken(t *testing.T) {
	s := start(t)
	s.do(t, "POST", "/users/alice", "")
	for _, lines := range []int{100, 101, 1950} {
		repeated, distinct := h{}, h{}
		for n := range lines - 1 { // the last is the Host
			repeated = append(repeated, "X", "y")
			distinct = append(distinct, fmt.Sprint("X", n), "y")
		}
		withBody := append(repeated[2:len(repeated):len(repeated)], "Content-Length", "9")
		for _, c := range []struct {
			name, text string
			isWhole    bool
		}{
			{name: "one header", text: s.text("GET /users", "", repeated...), isWhole: true},
			{name: "many headers", text: s.text("GET /users", "", distinct...), isWhole: true},
			{name: "without its body", text: s.text("POST /chat/alice", "", withBody...)},
		} {
			status := 200
			if lines > 100 {
				status = 431
			} else if !c.isWhole {
				continue // which waits for the body, as it should
			}
			for _, before := range []string{"", s.text("GET /users", "")} {
				t.Run(fmt.Sprint(c.name, " ", lines, " ", before != ""), func(t *testing.T) {
					conn := s.dial(t)
					conn.SetDeadline(time.Now().Add(4 * time.Second))
					answers := bufio.NewReader(conn)
					if before != "" {
						io.WriteString(conn, before)
						mustRead(t, answers, "GET")
					}
					io.WriteString(conn, c.text)
					r := mustRead(t, answers, "GET")
					r.mustTakeHead(t, status)
					if status == 200 {
						return
					}
					_, err := io.ReadAll(answers)
					if !r.closes || errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("the connection goes on (%v), want its end", err)
					}
				})
			}
		}
	}
}

// A request asks for what stands in it: no path is made another.
func TestPathsAreTakenAsTheyStand(t *testing.T) {
	s := start(t)
	host := "\r\nHost: " + s.addr
	s.mustNotChange(t, func() {
		for status, heads := range map[int][]string{
			200: {
				"GET /users HTTP/1.1" + host,
				"GET /users HTTP/1.0" + host,
				"GET /users?a=b&%zz HTTP/1.1" + host,
				"GET /%75sers HTTP/1.1" + host,
				"GET http://" + s.addr + "/users HTTP/1.1" + host,
				"GET http://" + s.addr + "/users HTTP/1.1\r\nHost: evil.example",
				"GET /users HTTP/1.0",
				"OPTIONS * HTTP/1.1" + host,
			},
			400: {
				"GET /users HTTP/1.1",
				"GET /users HTTP/1.1" + host + host,
				"GET /users HTTP/1.1\r\nHost: a b",
				"GET /users" + host,
				"GET users HTTP/1.1" + host,
				"GET /users/a b HTTP/1.1" + host,
				"POST /users/a\x01 HTTP/1.1" + host,
				"POST /users/%zz HTTP/1.1" + host,
				"POST /users/\xff HTTP/1.1" + host,
			},
			404: {
				"GET //users HTTP/1.1" + host,
				"GET //evil.example/%2e%2e HTTP/1.1" + host,
				"GET http://" + s.addr + "//users HTTP/1.1" + host,
				"GET /users/ HTTP/1.1" + host,
				"GET /Users HTTP/1.1" + host,
				"GET /./users HTTP/1.1" + host,
				"GET /users/../users HTTP/1.1" + host,
				"GET /chat/ HTTP/1.1" + host,
				"POST /users/ HTTP/1.1" + host,
				"POST /users/bob/ HTTP/1.1" + host,
				"POST /USERS/bob HTTP/1.1" + host,
				"GET /index.html HTTP/1.1" + host,
				"GET /web/index.html HTTP/1.1" + host,
				"GET * HTTP/1.1" + host,
				"CONNECT 127.0.0.1:80 HTTP/1.1" + host,
			},
			405: {
				"CONNECT /users HTTP/1.1" + host,
				"TRACE /users HTTP/1.1" + host,
			},
			421: {
				"GET http://evil.example/users HTTP/1.1" + host,
				"CONNECT evil.example:80 HTTP/1.1" + host,
				"OPTIONS * HTTP/1.1\r\nHost: evil.example",
			},
			505: {"GET /users HTTP/3.0" + host},
		} {
			for _, head := range heads {
				r := s.exchange(t, head+"\r\n\r\n")
				isList := strings.HasPrefix(r.body, "Connected users:\n")
				wantList := status == 200 && strings.HasPrefix(head, "GET")
				if r.status != status || isList != wantList || r.header.Get("Location") != "" {
					t.Errorf("%.80q: got %d %v %q, want %d",
						head, r.status, r.header, r.body, status)
				}
			}
		}
	})
}

// A target that is a whole URL with an empty path asks for the page.
func TestURLWithoutPathIsThePage(t *testing.T) {
	s := start(t)
	page := s.do(t, "GET", "/", "").body
	for _, target := range []string{"", "?", "?x=y", "/"} {
		head := " http://" + s.addr + target + " HTTP/1.1\r\nHost: " + s.addr + "\r\n\r\n"
		if r := s.exchange(t, "GET"+head); r.status != 200 || r.body != page {
			t.Errorf("GET%q: got %d %.80q, want the page", head, r.status, r.body)
		}
		if r := s.exchange(t, "HEAD"+head); r.status != 200 {
			t.Errorf("HEAD%q: got %d, want 200", head, r.status)
		}
		if r := s.exchange(t, "POST"+head); !r.isError(405) {
			t.Errorf("POST%q: got %d %q, want 405", head, r.status, r.body)
		}
	}
}

// What follows a request with both Content-Length and Transfer-Encoding, which
// proxies may not agree about, is not taken for another request.
func TestConnectionEndsAfterARequestWithTwoLengths(t *testing.T) {
	s := start(t)
	s.do(t, "POST", "/users/alice", "")
	for _, c := range []struct {
		request, body string
		status        int
	}{
		{request: "POST /users/alice", body: "0\r\n\r\n", status: 200},
		{request: "POST /chat/alice", body: "5\r\nhello\r\n0\r\n\r\n", status: 200},
		{request: "DELETE /users/bob", body: "0\r\n\r\n", status: 404},
		{request: "GET /users", body: "0\r\n\r\n", status: 200},
		{request: "GET /", body: "0\r\n\r\n", status: 200},
		{request: "GET /chat/alice", body: "0\r\n\r\n", status: 400},
		{request: "OPTIONS /users", body: "0\r\n\r\n", status: 200},
		{request: "GET /nosuch", body: "0\r\n\r\n", status: 404},
	} {
		for _, lengths := range []h{
			{"Content-Length", "5", "Transfer-Encoding", "chunked"},
			{"Transfer-Encoding", "chunked", "Content-Length", "0"},
		} {
			conn := s.dial(t)
			conn.SetDeadline(time.Now().Add(4 * time.Second))
			answers := bufio.NewReader(conn)
			next := s.text("POST /users/eve", "")
			io.WriteString(conn, s.text(c.request, "", lengths...)+c.body+next)
			r := mustRead(t, answers, "POST")
			if r.status != c.status || !r.closes {
				t.Errorf("%s: got %d %q that closes: %v, want %d and a close",
					c.request, r.status, r.body, r.closes, c.status)
			}
			rest, err := io.ReadAll(answers)
			if errors.Is(err, os.ErrDeadlineExceeded) || len(rest) > 0 {
				t.Errorf("%s: then got %.20q and %v, want the end", c.request, rest, err)
			}
		}
	}
}

// Requests that follow each other without waiting are answered in turn.
func TestPipelinedRequestsAreAnsweredInTurn(t *testing.T) {
	s := start(t)
	conn := s.dial(t)
	answers := bufio.NewReader(conn)
	rows := []struct {
		request, body string
		status        int
		want          string
	}{
		{request: "POST /users/alice", status: 201, want: "User alice connected."},
		{request: "POST /chat/alice", body: "hi", status: 200, want: "alice: hi"},
		{request: "HEAD /users", status: 200},
		{request: "GET /users", status: 200, want: "Connected users:\nUser: alice"},
		{request: "DELETE /users/alice", status: 200, want: "User alice disconnected."},
	}
	var all strings.Builder
	for _, c := range rows {
		all.WriteString(s.text(c.request, c.body))
	}
	all.WriteString(s.text("PATCH /users", "") + s.text("GET /chat/alice", ""))
	io.WriteString(conn, all.String())
	for _, c := range rows {
		method, _, _ := strings.Cut(c.request, " ")
		if r := mustRead(t, answers, method); r.status != c.status || r.body != c.want {
			t.Errorf("%s: got %d %q, want %d %q", c.request, r.status, r.body, c.status, c.want)
		}
	}
	if r := mustRead(t, answers, "PATCH"); !r.isError(405) {
		t.Errorf("PATCH: got %d %q, want 405", r.status, r.body)
	}
	mustStream(t, conn, answers).expectRun(t, arrives("alice"))
}

// A client that closes its side once it has asked still waits for the answer. Of
// a stream it is promised the opening block.
func TestHalfClosedRequestsAreServed(t *testing.T) {
	t.Parallel()
	const clients, rounds = 64, 20 // so many that requests wait for each other in the server
	s := start(t, "-grace", "0")
	var asking sync.WaitGroup
	for i := range clients {
		asking.Go(func() {
			for range rounds {
				for _, c := range []struct {
					request, body string
					status        int
					want          string // what the answer begins with
				}{
					{request: "POST /users/NAME", status: 201, want: "User NAME connected."},
					{request: "POST /users/NAME", body: "of no use", status: 200},
					{request: "POST /chat/NAME", body: "hi", status: 200, want: "NAME: hi"},
					{request: "GET /users", status: 200, want: "Connected users:\n"},
					{request: "GET /chat/NAME", status: 200, want: "retry: "},
					{request: "DELETE /users/NAME", status: 200},
					{request: "DELETE /users/NAME", status: 404},
				} {
					fill := strings.NewReplacer("NAME", fmt.Sprint("user-", i)).Replace
					r, err := s.askHalfClosed(fill(c.request), c.body)
					if r.status != c.status || !strings.HasPrefix(r.body, fill(c.want)) {
						t.Errorf("%s: got %d %q and %v, want %d",
							c.request, r.status, r.body, err, c.status)
						return
					}
				}
			}
		})
	}
	asking.Wait()
	if r := s.do(t, "GET", "/users", ""); r.body != "Connected users:\n" {
		t.Errorf("the users at the end are %q", r.body)
	}
}

// askHalfClosed makes a request over a connection whose side it then closes, and
// reads the answer. A stream ends with an error after its opening block.
func (s *server) askHalfClosed(request, body string) (response, error) {
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		return response{}, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(conn, s.text(request, body))
	conn.(*net.TCPConn).CloseWrite()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return response{}, err
	}
	return readWhole(resp)
}

func TestBodyIsAskedForIfTheClientExpectsThat(t *testing.T) {
	s := start(t)
	s.do(t, "POST", "/users/alice", "")
	expects := h{"Expect", "100-continue", "Content-Length", "2"}
	conn := s.dial(t)
	answers := bufio.NewReader(conn)
	io.WriteString(conn, s.text("POST /chat/alice", "", expects...))
	if r := mustRead(t, answers, "POST"); r.status != 100 {
		t.Fatalf("before the body got %d %q, want 100", r.status, r.body)
	}
	io.WriteString(conn, "hi")
	if r := mustRead(t, answers, "POST"); r.status != 200 || r.body != "alice: hi" {
		t.Errorf("got %d %q, want 200", r.status, r.body)
	}
	for target, status := range map[string]int{"/nosuch": 404, "/chat/%0A": 400, "/chat": 405} {
		s.mustRefuse(t, status, "POST "+target, "", expects...)
	}
}

func TestChunkedBodiesAreRead(t *testing.T) {
	s := start(t)
	s.do(t, "POST", "/users/alice", "")
	for _, body := range []string{
		"5\r\nhello\r\n0\r\n\r\n",
		"2;x=y\r\nhe\r\n003\r\nllo\r\n0\r\n\r\n",
		"5\r\nhello\r\n0\r\nLast-Event-ID: x\r\n\r\n",
	} {
		r := s.exchange(t, s.text("POST /chat/alice", "", "Transfer-Encoding", "chunked")+body)
		if r.status != 200 || r.body != "alice: hello" {
			t.Errorf("%q: got %d %q, want 200", body, r.status, r.body)
		}
	}
	changes := []string{"POST /users/bob", "DELETE /users/alice", "POST /chat/alice"}
	stream := []string{"GET /chat/bob"}
	s.mustNotChange(t, func() {
		for _, c := range []struct {
			body     string
			status   int
			requests []string
		}{
			{body: "zz\r\n", status: 400, requests: changes},
			{body: "-5\r\nhello\r\n0\r\n\r\n", status: 400, requests: changes},
			{body: "5\r\nhelloxx0\r\n\r\n", status: 400, requests: changes},
			{body: "5\nhello\n0\n\n", status: 400, requests: changes},
			{body: "\r\n", status: 400, requests: changes},
			{body: "", status: 400, requests: changes},
			{body: "5\r\nhel", status: 400, requests: changes},
			{body: "5\r\nhello\r\n", status: 400, requests: changes},
			{body: "fffffffffffffffff\r\nhello", status: 400, requests: changes},
			{body: "2000\r\n" + strings.Repeat("x", 5000), status: 413, requests: changes},
			{body: "0\r\n\r\n", status: 400, requests: stream},
			{body: "2\r\nhi\r\n0\r\n\r\n", status: 400, requests: stream},
		} {
			for _, request := range c.requests {
				conn := s.dial(t)
				io.WriteString(conn, s.text(request, "", "Transfer-Encoding", "chunked")+c.body)
				conn.CloseWrite() // or the server would wait for more of some bodies
				if r := mustRead(t, bufio.NewReader(conn), "POST"); !r.isError(c.status) {
					t.Errorf("%s with %.30q: got %d %q, want %d",
						request, c.body, r.status, r.body, c.status)
				}
			}
		}
	})
}

// A request that can be refused without its body is not kept waiting for it.
func TestRequestsAreRefusedBeforeTheBodyCame(t *testing.T) {
	s := start(t)
	s.do(t, "POST", "/users/alice", "")
	s.mustNotChange(t, func() {
		for _, c := range []struct {
			status  int
			request string
			headers h
		}{
			{status: 404, request: "POST /nosuch"},
			{status: 405, request: "POST /users"},
			{status: 405, request: "PUT /users/alice"},
			{status: 405, request: "POST /"},
			{status: 403, request: "POST /users/bob", headers: h{"Sec-Fetch-Site", "cross-site"}},
			{status: 403, request: "POST /chat/alice", headers: h{"Origin", "http://evil.example"}},
			{status: 421, request: "DELETE /users/alice", headers: h{"Host", "evil.example"}},
			{status: 400, request: "POST /users/%00"},
			{status: 400, request: "DELETE /users/%00"},
			{status: 400, request: "POST /chat/%00"},
			{status: 400, request: "GET /chat"},
			{status: 400, request: "GET /chat/alice"},
			{status: 400, request: "GET /chat/bob"},
			{status: 413, request: "POST /users/bob", headers: h{"Content-Length", "1000000"}},
			{status: 413, request: "DELETE /users/alice", headers: h{"Content-Length", "1000000"}},
			{status: 413, request: "POST /chat/alice", headers: h{"Content-Length", "1000000"}},
		} {
			for _, length := range []h{{"Content-Length", "2"}, {"Transfer-Encoding", "chunked"}} {
				if c.status == 413 {
					length = nil
				}
				r := s.mustRefuse(t, c.status, c.request, "", append(length, c.headers...)...)
				if !r.closes {
					t.Errorf("%s: the answer does not end the connection", c.request)
				}
			}
		}
	})
}

// Whoever sends a body that is refused, and reads only after it has sent all of it, gets to know
// why: the server must not reset the connection while the body still comes.
func TestRefusalsReachClientsThatStillSend(t *testing.T) {
	t.Parallel()
	s := start(t)
	const size = 100_000
	for _, headers := range []h{{}, {"Connection", "close"}} {
		conn := s.dial(t)
		head := append(h{"Content-Length", fmt.Sprint(size)}, headers...)
		io.WriteString(conn, s.text("POST /users/alice", "", head...))
		answers := bufio.NewReader(conn)
		answers.Peek(1) // the answer is there, and the server may close
		for range size / 1000 {
			if _, err := conn.Write(make([]byte, 1000)); err != nil {
				t.Fatalf("%v: %v before the body was sent", headers, err)
			}
		}
		if r := mustRead(t, answers, "POST"); !r.isError(413) {
			t.Fatalf("%v: got %d %q, want 413", headers, r.status, r.body)
		}
	}
}
