// Here belongs what a stream looks like.
package e2e

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

func TestStreamIsWrittenAsTheContractHasIt(t *testing.T) {
	s := start(t, "-keepalive", "200ms")
	id := s.lastID(t)
	st := s.subscribe(t, "/chat/alice")
	response{header: st.header}.mustHave(t, "GET /chat/alice",
		"Content-Type", "text/event-stream", "Cache-Control", "no-cache, no-transform",
		"X-Accel-Buffering", "no", "X-Content-Type-Options", "nosniff",
		"Last-Event-ID", idPlus(t, id, 1))
	block := st.block(t)
	if !openingBlock.MatchString(block) || !strings.HasSuffix(block, "\nid: "+id+"\n\n") {
		t.Errorf("got the opening block %q, want the id %s", block, id)
	}
	event := func(n int, data string) string {
		return fmt.Sprintf("id: %s\nevent: message\ndata: %s\n\n", idPlus(t, id, n), data)
	}
	const comment = ": keep-alive\n\n"
	for _, c := range []struct{ request, body, want string }{
		{request: "GET /users", want: event(1, arrives("alice"))},
		{request: "GET /users", want: comment},
		{request: "GET /users", want: comment},
		{request: "POST /users/alice", want: comment},
		{request: "POST /chat/alice", body: "hello", want: event(2, "alice: hello")},
		{request: "POST /chat/alice", body: "\na\r\n b\n",
			want: event(3, "alice: \ndata: a\ndata:  b")},
		{request: "POST /users/bob", want: event(4, arrives("bob"))},
		{request: "DELETE /users/bob", want: event(5, leaves("bob"))},
	} {
		s.send(t, c.request, c.body)
		got := st.block(t)
		for range 50 { // a slow machine may be in time for a comment first
			if got != comment || c.want == comment {
				break
			}
			got = st.block(t)
		}
		if got != c.want {
			t.Errorf("after %s: got %q, want %q", c.request, got, c.want)
		}
	}
}

func TestRetryIsDrawnForEachStream(t *testing.T) {
	s := start(t)
	retries := map[string]bool{}
	for range 10 {
		st := s.subscribe(t, "/chat/alice")
		st.mustOpen(t)
		retries[st.retry] = true
	}
	if len(retries) < 2 {
		t.Errorf("10 streams got the retry %v, want it drawn for each", retries)
	}
}

// The user of a stream without a name is called by the address that it comes from.
func TestStreamWithoutNameIsCalledByItsAddress(t *testing.T) {
	s := start(t)
	st := s.subscribe(t, "/chat")
	name := st.conn.LocalAddr().String()
	st.expect(t, arrives(name))
	s.do(t, "POST", "/chat/"+name, "hi")
	st.expect(t, name+": hi")
	if r := s.do(t, "GET", "/users", ""); r.body != "Connected users:\nUser: "+name {
		t.Errorf("got %q, want %s alone", r.body, name)
	}
}

// A client of HTTP/1.0 gets the stream as it is, without chunks.
func TestStreamOverHTTP10HasNoChunks(t *testing.T) {
	s := start(t)
	conn := s.dial(t)
	io.WriteString(conn, "GET /chat/alice HTTP/1.0\r\nHost: "+s.addr+"\r\n\r\n")
	st := &stream{body: conn}
	st.r = bufio.NewReader(conn)
	for line := "-"; line != ""; {
		var err error
		if line, err = st.line(); err != nil {
			t.Fatal(err)
		}
	}
	st.expectRun(t, arrives("alice"))
	s.stop(t)
	if rest, err := io.ReadAll(st.r); err != nil || len(rest) > 0 {
		t.Errorf("at the end got %q and %v, want nothing", rest, err)
	}
}

// By default a stream gets a comment 15 s after the last event.
func TestCommentComesAfter15QuietSeconds(t *testing.T) {
	t.Parallel()
	s := start(t)
	st := s.subscribe(t, "/chat/alice")
	st.expectRun(t, arrives("alice"))
	begin := time.Now()
	defer st.closeAfter(25 * time.Second)()
	line, err := st.line()
	if quiet := time.Since(begin); line != ": keep-alive" || quiet < 13*time.Second {
		t.Errorf("after %v got %q and %v, want a comment after 15 s", quiet, line, err)
	}
}
