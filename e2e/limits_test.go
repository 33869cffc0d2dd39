// Here belongs what happens at a limit of users, streams and descriptors.
package e2e

import (
	"bufio"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"testing"
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

// mustBeFull fails the test unless there is no place for what the request asks for.
func (s *server) mustBeFull(t testing.TB, request string) {
	t.Helper()
	r := s.mustRefuse(t, 503, request, "")
	r.mustHave(t, request, "Last-Event-ID", s.lastID(t))
	if _, err := strconv.ParseUint(r.header.Get("Retry-After"), 10, 31); err != nil {
		t.Errorf("%s: got the Retry-After %q, want seconds", request, r.header.Get("Retry-After"))
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
	eventually(t, "the server to have no descriptor left", func() bool {
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
}
