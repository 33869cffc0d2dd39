// Tests how long a user stays without a stream. The rules of presence and their times are tested
// exactly beside the hub.
package e2e

import (
	"testing"
	"time"
)

// The first end of alice's stream is a reload, which causes no events.
func TestUserLeaves5SecondsAfterTheLastStream(t *testing.T) {
	t.Parallel()
	s := start(t)
	watcher := s.subscribe(t, "/chat/watcher")
	s.subscribe(t, "/chat/alice").body.Close()
	alice := s.subscribe(t, "/chat/alice")
	begin := time.Now()
	alice.body.Close()
	watcher.expectRun(t, arrives("watcher"), arrives("alice"), leaves("alice"))
	if took := time.Since(begin); took < 4500*time.Millisecond {
		t.Errorf("alice left after %v, want 5 s", took)
	}
}
