// Tests what a stream looks like on the wire.
package e2e

import (
	"fmt"
	"strings"
	"testing"
)

func TestStreamLooksAsTheContractShows(t *testing.T) {
	s := start(t, "-keepalive", "200ms")
	id := s.lastID(t)
	st := s.subscribe(t, "/chat/alice")
	response{header: st.header}.mustHave(t, "GET /chat/alice",
		"Content-Type", "text/event-stream; charset=utf-8",
		"Cache-Control", "no-cache, no-transform", "X-Accel-Buffering", "no",
		"X-Content-Type-Options", "nosniff", "Last-Event-ID", idPlus(t, id, 1))
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
		for range 50 { // On a slow machine, comments may arrive first.
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

func TestRetryIsRandomForEachStream(t *testing.T) {
	s := start(t)
	retries := map[string]bool{}
	for range 10 {
		st := s.subscribe(t, "/chat/alice")
		st.mustOpen(t)
		retries[st.retry] = true
	}
	if len(retries) < 2 {
		t.Errorf("10 streams got the retry %v, want different ones", retries)
	}
}
