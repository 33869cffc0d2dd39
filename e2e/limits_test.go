// Here belongs what happens at a limit of users, streams and descriptors.
package e2e

import (
	"bufio"
	"fmt"
	"net"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestUsersAndStreamsAreLimited(t *testing.T) {
	s := start(t, "-max-users", "3", "-max-streams", "3", "-grace", "0")
	s.do(t, "POST", "/users/alice", "")
	bob := s.subscribe(t, "/chat/bob")
	s.mustNotChange(t, func() {
		s.mustBeFull(t, "POST /users/carol")
		s.subscribe(t, "/chat/alice") // the third, with the watcher's
		s.mustBeFull(t, "GET /chat/bob")
		s.mustBeFull(t, "GET /chat/carol")
		s.mustBeFull(t, "GET /chat")
		if r := s.do(t, "POST", "/users/alice", ""); r.status != 200 {
			t.Errorf("got %d for one who is there, want 200", r.status)
		}
	})
	s.subscribeWhenFree(t, "/chat/bob") // in the watcher's place
	s.mustBeFull(t, "GET /chat/bob")
	s.do(t, "DELETE", "/users/watcher", "")
	if r := s.do(t, "POST", "/users/carol", ""); r.status != 201 {
		t.Errorf("got %d in a place that is free, want 201", r.status)
	}
	s.mustBeFull(t, "POST /users/watcher")
	bob.expectRun(t, arrives("bob"), arrives("watcher"), "watcher: nothing happened",
		leaves("watcher"), arrives("carol"))
}

// A stream's own user always gets in, so nobody can lock streams out by POST.
func TestPOSTCannotLockStreamsOut(t *testing.T) {
	s := start(t, "-max-users", "1", "-grace", "0")
	s.do(t, "POST", "/users/alice", "")
	s.mustBeFull(t, "POST /users/bob")
	bob, carol := s.subscribe(t, "/chat/bob"), s.subscribe(t, "/chat/carol")
	if r := s.do(t, "POST", "/users/bob", ""); r.status != 200 { // who is there by the stream
		t.Errorf("got %d %q for one who is there, want 200", r.status, r.body)
	}
	if r := s.do(t, "POST", "/chat/carol", "hi"); r.status != 200 {
		t.Errorf("got %d %q, want 200", r.status, r.body)
	}
	s.mustBeFull(t, "POST /users/dave")
	s.do(t, "DELETE", "/users/alice", "")
	s.mustBeFull(t, "POST /users/alice")
	bob.expectRun(t, arrives("bob"), arrives("carol"), "carol: hi", leaves("alice"))
	carol.body.Close()
	bob.expectRun(t, leaves("carol"))
	s.do(t, "DELETE", "/users/bob", "")
	if r := s.do(t, "POST", "/users/alice", ""); r.status != 201 {
		t.Errorf("got %d %q in a place that is free, want 201", r.status, r.body)
	}
}

// mustBeFull fails the test unless there is no place for what the request asks for.
func (s *server) mustBeFull(t testing.TB, request string) {
	t.Helper()
	r := s.mustRefuse(t, 503, request, "")
	r.mustHave(t, request, "Last-Event-ID", s.lastID(t))
	r.mustAskToRetry(t)
}

// mustAskToRetry fails the test unless the answer has a Retry-After of 3 to 8 s,
// which it returns.
func (r response) mustAskToRetry(t testing.TB) (seconds int) {
	t.Helper()
	after := r.header.Get("Retry-After")
	if !regexp.MustCompile(`^[3-8]$`).MatchString(after) {
		t.Errorf("got %d with the Retry-After %q, want 3 to 8", r.status, after)
	}
	seconds, _ = strconv.Atoi(after)
	return seconds
}

// Clients that were refused at the same time do not come back at the same time.
func TestRetryAfterIsDrawnForEachAnswer(t *testing.T) {
	s := start(t, "-max-users", "1", "-max-streams", "1")
	s.subscribe(t, "/chat/alice")
	for _, request := range []string{"POST /users/bob", "GET /chat/bob", "GET /chat"} {
		drawn := map[int]int{}
		for range 100 {
			drawn[s.mustRefuse(t, 503, request, "").mustAskToRetry(t)]++
		}
		if len(drawn) != 6 {
			t.Errorf("%s: got the Retry-Afters %v, want all of 3 to 8", request, drawn)
		}
	}
}

// With no descriptor left, the server goes on with the connections that it has,
// and takes new ones when others are closed.
func TestServerWithoutDescriptorsGoesOn(t *testing.T) {
	t.Parallel()
	const limit, asked = 64, 80
	needProc(t, 1000)
	s := startForMinutes(t)
	alice := s.caller(t)
	if _, err := alice.call("POST", "/users/alice", ""); err != nil {
		t.Fatal(err)
	}
	bob := s.subscribe(t, "/chat/bob")
	bob.expect(t, arrives("bob"))
	prlimit := exec.Command("prlimit",
		fmt.Sprintf("--pid=%d", s.cmd.Process.Pid), fmt.Sprintf("--nofile=%d", limit))
	if out, err := prlimit.CombinedOutput(); err != nil {
		missing(t, "can't limit the server's descriptors: %v: %s", err, out)
	}
	conns := make([]*net.TCPConn, asked)
	for i := range conns {
		conns[i] = s.ask(t, fmt.Sprintf("/chat/reader-%d", i))
	}
	eventually(t, time.Minute, "the server to have no descriptor left", func() bool {
		return s.descriptors(t) >= limit
	})

	for n := range 20 {
		text := fmt.Sprintf("message %d", n)
		if r, err := alice.call("POST", "/chat/alice", text); err != nil || r.status != 200 {
			t.Fatalf("say: got %d, %v, want 200", r.status, err)
		}
		for e := (event{}); e.data != "alice: "+text; { // after arrivals
			var err error
			if e, err = bob.next(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, conn := range conns[:asked/2] {
		conn.Close()
	}
	for _, conn := range conns[asked/2:] {
		mustStream(t, conn, bufio.NewReader(conn))
	}
	s.stop(t)
	if lines := strings.Count(s.stderr.String(), "\n"); lines > 2 {
		t.Errorf("standard error has %d lines, want no flood: %s", lines, &s.stderr)
	}
}
