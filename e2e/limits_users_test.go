// Tests the limits on users and streams.
package e2e

import (
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
			t.Errorf("POST for a present user: got %d, want 200", r.status)
		}
	})
	eventually(t, time.Minute, "the watcher's place to be free", func() bool {
		st, err := s.trySubscribe("/chat/bob")
		if err == nil {
			t.Cleanup(func() { st.body.Close() })
		}
		return err == nil
	})
	s.mustBeFull(t, "GET /chat/bob")
	s.do(t, "DELETE", "/users/watcher", "")
	if r := s.do(t, "POST", "/users/carol", ""); r.status != 201 {
		t.Errorf("POST for a new user when there is a place: got %d, want 201", r.status)
	}
	bob.expectRun(t, arrives("bob"), arrives("watcher"), "watcher: nothing happened",
		leaves("watcher"), arrives("carol"))
}

// mustBeFull fails the test unless there is no place for what the request asks for.
func (s *server) mustBeFull(t testing.TB, request string) {
	t.Helper()
	s.mustRefuse(t, 503, request, "").mustAskToRetry(t)
}

// Clients that were rejected together should not come back together.
func TestRetryAfterIsRandomForEachResponse(t *testing.T) {
	s := start(t, "-max-users", "1", "-max-streams", "1")
	s.subscribe(t, "/chat/alice")
	for _, request := range []string{"POST /users/bob", "GET /chat/bob"} {
		seen := map[string]bool{}
		for range 100 { // One of the six values is missing once in 7 million runs.
			seen[s.mustRefuse(t, 503, request, "").mustAskToRetry(t)] = true
		}
		if len(seen) != 6 {
			t.Errorf("%s: got the Retry-Afters %v, want all of 3 to 8", request, seen)
		}
	}
}
