// Tests what a request may look like on the wire, when its body is read, and what happens to its
// connection.
package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestTargetIsTakenAsItStands(t *testing.T) {
	s := start(t)
	page := s.do(t, "GET", "/", "").body
	const list = "Connected users:\n"
	for _, c := range []struct {
		method, target, host string
		status               int
		begins               string // the response's body
	}{
		{"GET", "/users?a=b&%zz", s.addr, 200, list},
		{"GET", "/%75sers", s.addr, 200, list},
		{"GET", "http://" + s.addr + "/users", "evil.example", 200, list}, // The URL wins.
		{"GET", "http://evil.example/users", s.addr, 421, "This server does not answer to"},
		{"GET", "http://" + s.addr + "//users", s.addr, 404, "There is nothing at"},
		{"GET", "http://" + s.addr, s.addr, 200, page},
		{"OPTIONS", "*", s.addr, 200, ""},
		{"OPTIONS", "*", "evil.example", 421, "This server does not answer to"},
		{"GET", "*", s.addr, 404, "There is nothing at"},
		{"CONNECT", "127.0.0.1:80", s.addr, 404, "There is nothing at"},
		{"CONNECT", "evil.example:80", s.addr, 421, "This server does not answer to"},
		{"TRACE", "/users", s.addr, 405, "Method TRACE is not allowed here"},
	} {
		line := c.method + " " + c.target
		r := s.send(t, line, "", "Host", c.host)
		if r.status != c.status || !strings.HasPrefix(r.body, c.begins) ||
			r.header.Get("Location") != "" {
			t.Errorf("%s of %s: got %d %v %.80q, want %d %.80q",
				line, c.host, r.status, r.header, r.body, c.status, c.begins)
		}
	}
}

// Proxies may disagree on where such a request ends, so the server reads nothing after it.
func TestConnectionEndsAfterARequestWithTwoLengths(t *testing.T) {
	s := start(t)
	s.do(t, "POST", "/users/alice", "")
	for _, c := range []struct {
		request, body string
		status        int
	}{
		{request: "POST /chat/alice", body: "5\r\nhello\r\n0\r\n\r\n", status: 200},
		{request: "GET /users", body: "0\r\n\r\n", status: 200},
		{request: "GET /nosuch", body: "0\r\n\r\n", status: 404},
	} {
		for _, lengths := range []h{
			{"Content-Length", "5", "Transfer-Encoding", "chunked"},
			{"Transfer-Encoding", "chunked", "Content-Length", "0"},
		} {
			conn := s.dial(t)
			conn.SetDeadline(time.Now().Add(4 * time.Second))
			responses := bufio.NewReader(conn)
			next := s.text("POST /users/eve", "")
			io.WriteString(conn, s.text(c.request, "", lengths...)+c.body+next)
			r := mustRead(t, responses, "POST")
			if r.status != c.status || !r.closes {
				t.Errorf("%s: got %d %q that closes: %v, want %d and a close",
					c.request, r.status, r.body, r.closes, c.status)
			}
			rest, err := io.ReadAll(responses)
			if errors.Is(err, os.ErrDeadlineExceeded) || len(rest) > 0 {
				t.Errorf("%s: then got %.20q and %v, want the end", c.request, rest, err)
			}
		}
	}
}

// A client that closes its side after its request still waits for the response. To net/http, such
// a request is canceled. Streams are tested beside package streaming.
func TestHalfClosedRequestsAreServed(t *testing.T) {
	t.Parallel()
	const clients, rounds = 64, 20 // so many that requests wait for each other in the server
	s := start(t)
	var asking sync.WaitGroup
	for i := range clients {
		asking.Go(func() {
			name := fmt.Sprint("user-", i)
			for range rounds {
				for _, text := range []string{
					s.text("POST /users/"+name, ""), s.text("POST /users/"+name, "ignored"),
					s.text("POST /chat/"+name, "hi"), s.text("GET /users", ""),
					s.text("DELETE /users/"+name, ""),
				} {
					if r, err := s.askHalfClosed(text); err != nil || r.status >= 300 {
						t.Errorf("%q: got %d %q and %v", text, r.status, r.body, err)
						return
					}
				}
			}
		})
	}
	asking.Wait()
}

// askHalfClosed sends text over a connection whose side it then closes, and reads the response.
func (s *server) askHalfClosed(text string) (response, error) {
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		return response{}, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(conn, text)
	conn.(*net.TCPConn).CloseWrite()
	return readAnswer(bufio.NewReader(conn), "POST")
}

func TestBrokenBodyChangesNothing(t *testing.T) {
	s := start(t)
	s.do(t, "POST", "/users/alice", "")
	const incomplete = "The body is incomplete."
	s.mustNotChange(t, func() {
		for _, c := range []struct {
			header, value, body string
			status              int
			want                string // a part of the response's body
		}{
			{"Content-Length", "5", "hel", 400, incomplete},
			{"Transfer-Encoding", "chunked", "zz\r\n", 400, incomplete},
			{"Transfer-Encoding", "chunked", "5\r\nhello\r\n", 400, incomplete},
			{"Transfer-Encoding", "chunked", "2000\r\n" + strings.Repeat("x", 5000), 413,
				"The body is too long: a message has at most 4096 bytes"},
		} {
			for _, request := range []string{
				"POST /users/bob", "DELETE /users/alice", "POST /chat/alice",
			} {
				conn := s.dial(t)
				io.WriteString(conn, s.text(request, "", c.header, c.value)+c.body)
				conn.CloseWrite() // Otherwise the server would wait for more.
				r := mustRead(t, bufio.NewReader(conn), "POST")
				if !r.isError(c.status) || !strings.Contains(r.body, c.want) {
					t.Errorf("%s with %.30q: got %d %q, want %d with %q",
						request, c.body, r.status, r.body, c.status, c.want)
				}
			}
		}
	})
	if r := s.exchange(t, s.text("POST /chat/alice", "", "Transfer-Encoding", "chunked")+
		"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"); r.status != 200 || r.body != "alice: hello" {
		t.Errorf("with a whole body got %d %q, want 200", r.status, r.body)
	}
}

func TestStreamRequestMayHaveAnEmptyChunkedBody(t *testing.T) {
	s := start(t)
	conn := s.dial(t)
	io.WriteString(conn, s.text("GET /chat/alice", "", "Transfer-Encoding", "chunked")+"0\r\n\r\n")
	mustStream(t, conn, bufio.NewReader(conn))
}
