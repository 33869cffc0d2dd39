// Tests what the GET of a stream may look like.
package e2e

import (
	"fmt"
	"strings"
	"testing"
)

func TestStreamRequestMayHaveAnEmptyChunkedBody(t *testing.T) {
	t.Parallel()
	s := start(t)
	for _, c := range []struct {
		body   string
		status int
	}{
		{"0\r\n\r\n", 200},
		{"1\r\nx\r\n0\r\n\r\n", 400},
	} {
		text := s.text("GET /chat/alice", "", "Transfer-Encoding", "chunked") + c.body
		conn := s.dial(t)
		fmt.Fprint(conn, text)
		head := make([]byte, len("HTTP/1.1 200"))
		if _, err := conn.Read(head); err != nil || string(head) != fmt.Sprint("HTTP/1.1 ", c.status) {
			t.Errorf("a stream with the body %q begins with %q, %v, want status %d", c.body, head, err, c.status)
		}
	}
	s.do(t, "DELETE", "/users/alice", "")
}

func TestSpeculativeLoadOfAStreamAnnouncesNobody(t *testing.T) {
	t.Parallel()
	s := start(t)
	for _, purpose := range []string{"prefetch", "prefetch;prerender"} {
		s.mustRefuse(t, 403, "GET /chat/alice", "", "Sec-Purpose", purpose)
	}
}

func TestLastIDThatIsNotEmptyCounts(t *testing.T) {
	t.Parallel()
	s := start(t)
	first := s.do(t, "POST", "/users/alice", "").header.Get("Last-Event-ID")
	second := s.says(t, "alice", "hello").id
	for _, c := range []struct {
		path    string
		headers []string
		gap     bool
	}{
		{path: "/chat/bob?lastEventId=" + first + "&lastEventId=" + second},
		{path: "/chat/bob?lastEventId=" + second + "&lastEventId="},
		{path: "/chat/bob", headers: []string{"Last-Event-ID", first, "Last-Event-ID", second}},
		{path: "/chat/bob", headers: []string{"Last-Event-ID", second, "Last-Event-ID", ""}},
		{path: "/chat/bob?lastEventId=" + first, headers: []string{"Last-Event-ID", second}},
		{path: "/chat/bob", headers: []string{"Last-Event-ID", second + strings.Repeat("0", 15_000)}, gap: true},
	} {
		st := s.subscribe(t, c.path, c.headers...)
		if isGap := st.readOpening(t); isGap != c.gap || !c.gap && st.lastID != second {
			t.Errorf("%s with %.100q starts after %s, with a gap: %t", c.path, c.headers, st.lastID, isGap)
		}
		st.body.Close()
	}
}
