// Tests the limits on one request: the size of its head, the time for its head and its body, and
// the time in which the client must read the response.
package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// The limits must be exact on a used connection too, where net/http lets more through. Neither the
// response nor the end of the connection waits for the request's body.
func TestHeadHasAtMost16KiBAnd100Lines(t *testing.T) {
	s := start(t)
	for _, c := range []struct{ size, status int }{
		{16 << 10, 200}, {16<<10 + 1, 431}, {1 << 20, 431},
	} {
		bare := len(s.text("GET /users", "", "X", ""))
		s.mustLimitHead(t, c.status, s.text("GET /users", "", "X", strings.Repeat("x", c.size-bare)))
	}
	for _, c := range []struct{ lines, status int }{{100, 200}, {101, 431}, {1950, 431}} {
		repeated, distinct := h{}, h{}
		for n := range c.lines - 1 { // The last line is the Host.
			repeated = append(repeated, "X", "y")
			distinct = append(distinct, fmt.Sprint("X", n), "y")
		}
		s.mustLimitHead(t, c.status, s.text("GET /users", "", repeated...))
		s.mustLimitHead(t, c.status, s.text("GET /users", "", distinct...))
		if c.status == 431 {
			withBody := append(repeated[2:], "Content-Length", "9")
			s.mustLimitHead(t, c.status, s.text("POST /chat/alice", "", withBody...))
		}
	}
}

// mustLimitHead sends a request over a fresh connection and over a used one. It fails the test
// unless the response has that status and, if that is 431, ends the connection.
func (s *server) mustLimitHead(t *testing.T, status int, head string) {
	t.Helper()
	for _, before := range []string{"", s.text("GET /users", "")} {
		conn := s.dial(t)
		conn.SetDeadline(time.Now().Add(4 * time.Second))
		responses := bufio.NewReader(conn)
		if before != "" {
			io.WriteString(conn, before)
			mustRead(t, responses, "GET")
		}
		go io.WriteString(conn, head) // The server may not read all of it.
		r := mustRead(t, responses, "GET")
		isByNetHTTP := r.body == "431 Request Header Fields Too Large"
		if r.status != status || status == 431 && !isByNetHTTP && !r.isError(431) {
			t.Errorf("%d bytes: got %d %v %q, want %d",
				len(head), r.status, r.header, r.body, status)
		}
		if status == 200 {
			conn.Close()
			continue
		}
		if _, err := io.ReadAll(responses); !r.closes || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d bytes: the connection goes on (%v), want its end", len(head), err)
		}
	}
}

// All of these clients are slow at the same time.
func TestClientThatDoesNotFinishItsRequestIsCutOff(t *testing.T) {
	t.Parallel()
	const (
		// The time for a head begins with its first byte, however long the connection was idle: here
		// for longer than any request or response may take.
		head, idle = 5 * time.Second, 12 * time.Second
		body       = 10 * time.Second
		rejected   = `^(HTTP/1.1 4(00|08) (.|\n)*)?$`
		timedOut   = `^HTTP/1.1 408 (.|\n)*The body did not arrive within 10s\.`
	)
	s := start(t)
	s.do(t, "POST", "/users/alice", "")
	get := s.text("GET /users", "")
	most := strings.TrimSuffix(get, "\r\n")
	stuck := func(request string) string { return s.text(request, "", "Content-Length", "9") + "h" }
	s.mustNotChange(t, func() {
		var clients sync.WaitGroup
		for _, c := range []slowRequest{
			{name: "one byte of a head, late",
				idle: idle, first: "G", limit: head, response: rejected},
			{name: "second head at once",
				before: get, first: most, limit: head, response: rejected},
			{name: "second head that trickles", before: get, idle: idle,
				first: most, more: "X: y\r\n", limit: head, response: rejected},

			{name: "join that trickles",
				first: s.text("POST /users/bob", "", "Content-Length", "4000"), more: "x",
				limit: body, response: timedOut},
			{name: "leave", first: stuck("DELETE /users/alice"), limit: body, response: timedOut},
			{name: "say in chunks that trickle",
				first: s.text("POST /chat/alice", "", "Transfer-Encoding", "chunked"),
				more:  "1\r\nx\r\n", limit: body, response: timedOut},
			{name: "list", first: stuck("GET /users"), limit: body, response: timedOut},
			{name: "page", first: stuck("GET /"), limit: body, response: timedOut},
		} {
			conn := s.dial(t)
			clients.Go(func() {
				if err := c.makeOn(conn); err != nil {
					t.Errorf("%s: %v", c.name, err)
				}
			})
		}
		clients.Wait()
	})
}

// slowRequest is a request that a client does not finish.
type slowRequest struct {
	name, before string // before is a whole request
	idle         time.Duration
	first        string // sent then, at once
	more         string // sent twice a second after that
	limit        time.Duration
	response     string // a pattern of what arrives until the connection is closed
}

// makeOn makes the request. It returns an error unless the server responds and closes the
// connection when the time is over.
func (c slowRequest) makeOn(conn net.Conn) error {
	conn.SetDeadline(time.Now().Add(c.idle + c.limit + 5*time.Second))
	responses := bufio.NewReader(conn)
	if c.before != "" {
		io.WriteString(conn, c.before)
		if r, err := readAnswer(responses, "GET"); err != nil || r.status != 200 {
			return fmt.Errorf("the request before got %d, %v", r.status, err)
		}
	}
	time.Sleep(c.idle)
	closed := make(chan struct{})
	defer close(closed)
	begin := time.Now()
	io.WriteString(conn, c.first)
	go func() {
		for {
			select {
			case <-time.After(500 * time.Millisecond):
				io.WriteString(conn, c.more)
			case <-closed:
				return
			}
		}
	}()
	response, err := io.ReadAll(responses)
	took := time.Since(begin)
	if errors.Is(err, os.ErrDeadlineExceeded) || took < c.limit-time.Second/2 {
		return fmt.Errorf("closed after %v with %v, want %v", took, err, c.limit)
	}
	if !regexp.MustCompile(c.response).Match(response) {
		return fmt.Errorf("got %.200q, want %s", response, c.response)
	}
	return nil
}

// Lists are tested in limits_lists_test.go.
func TestClientThatDoesNotReadItsResponsesIsCutOff(t *testing.T) {
	t.Parallel()
	const limit = 10 * time.Second
	s := start(t)
	s.do(t, "POST", "/users/alice", "")
	for _, request := range []string{s.text("GET /nosuch", ""), s.text("POST /chat/alice", "hello")} {
		t.Run(strings.Fields(request)[0], func(t *testing.T) {
			t.Parallel()
			conn := s.dial(t)
			conn.SetReadBuffer(64 << 10)
			begin := time.Now()
			var err error
			for err == nil { // The server stops reading requests when its responses are not read.
				_, err = io.WriteString(conn, strings.Repeat(request, 10_000))
			}
			took := time.Since(begin)
			isOpen := errors.Is(err, os.ErrDeadlineExceeded)
			if isOpen || took < limit-time.Second || took > limit+8*time.Second {
				t.Errorf("%v after %v, want the connection cut off after %v", err, took, limit)
			}
		})
	}
}

// None of these connections reads a response.
func TestUnreadPagesCostLittleMemory(t *testing.T) {
	t.Parallel()
	const connections, requests = 1000, 20
	needProc(t, connections+100)
	s := start(t)
	before := s.memory(t, "VmRSS")
	for range connections {
		io.WriteString(s.dial(t), strings.Repeat(s.text("GET /lobby.js", ""), requests))
	}
	if used := s.memory(t, "VmHWM") - before; used > 100<<20 {
		t.Errorf("%d connections took %d MiB", connections, used>>20)
	}
}
