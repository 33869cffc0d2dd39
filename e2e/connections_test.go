// Here belong connections: how long they may be idle, how many there may be, and
// what becomes of the rest.
package e2e

import (
	"bufio"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"
)

// A connection may be idle for longer than the pools of clients and proxies keep
// one, so that no request is sent on it just as the server closes it.
func TestIdleConnectionsStayOpen(t *testing.T) {
	t.Parallel()
	s := start(t)
	var waiting sync.WaitGroup
	for _, c := range []struct {
		name, first string // sent before the idle time
		idle        time.Duration
	}{
		{name: "after a request", first: s.text("GET /users", ""), idle: 6 * time.Second},
		{name: "after an error", first: s.text("GET /nosuch", ""), idle: 8 * time.Second},
		{name: "after a request, long",
			first: s.text("POST /users/alice", ""), idle: 100 * time.Second},
		{name: "after the page, long", first: s.text("GET /", ""), idle: 100 * time.Second},
	} {
		conn := s.dial(t)
		conn.SetDeadline(time.Now().Add(c.idle + 20*time.Second))
		waiting.Go(func() {
			answers := bufio.NewReader(conn)
			io.WriteString(conn, c.first)
			if _, err := readAnswer(answers); err != nil {
				t.Errorf("%s: no answer to the first request: %v", c.name, err)
				return
			}
			time.Sleep(c.idle)
			io.WriteString(conn, s.text("GET /users", ""))
			if r, err := readAnswer(answers); err != nil || r.status != 200 || r.closes {
				t.Errorf("%s: after %v got %d that closes: %v, and %v, want 200",
					c.name, c.idle, r.status, r.closes, err)
			}
		})
	}
	waiting.Wait()
}

// readAnswer reads an answer, from any goroutine.
func readAnswer(answers *bufio.Reader) (response, error) {
	resp, err := http.ReadResponse(answers, nil)
	if err != nil {
		return response{}, err
	}
	return readWhole(resp)
}

// A connection that nothing has come on yet is not late either: browsers and Go's
// pool open some in advance.
func TestFreshConnectionHasTimeForItsFirstByte(t *testing.T) {
	t.Parallel()
	const idle, head = 7 * time.Second, 5 * time.Second
	s := start(t)
	served, cut := s.dial(t), s.dial(t)
	time.Sleep(idle)
	io.WriteString(served, s.text("GET /users", ""))
	if r, err := readAnswer(bufio.NewReader(served)); err != nil || r.status != 200 {
		t.Errorf("after %v got %d and %v, want 200", idle, r.status, err)
	}
	begun := slowRequest{first: "G", limit: head, answer: `^(HTTP/1.1 4(00|08) (.|\n)*)?$`}
	if err := begun.makeOn(cut); err != nil {
		t.Error(err)
	}
}
