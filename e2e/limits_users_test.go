// Tests the response beyond the limits of users and streams. The limits themselves are tested
// beside the hub.
package e2e

import "testing"

// mustBeFull fails the test unless there is no place for what the request asks for. It returns the
// Retry-After.
func (s *server) mustBeFull(t testing.TB, request string) (retryAfter string) {
	t.Helper()
	return s.mustRefuse(t, 503, request, "").mustAskToRetry(t)
}

// Clients that were rejected together should not come back together.
func TestRetryAfterIsRandomForEachResponse(t *testing.T) {
	s := start(t, "-max-users", "1", "-max-streams", "1")
	s.subscribe(t, "/chat/alice")
	for _, request := range []string{"POST /users/bob", "GET /chat/bob"} {
		seen := map[string]bool{}
		for range 100 { // One of the six values is missing once in 7 million runs.
			seen[s.mustBeFull(t, request)] = true
		}
		if len(seen) != 6 {
			t.Errorf("%s: got the Retry-Afters %v, want all of 3 to 8", request, seen)
		}
	}
}
