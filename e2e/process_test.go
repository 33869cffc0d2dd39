package e2e

import "testing"

func TestJoinIsAnnounced(t *testing.T) {
	s := start(t)
	bob := s.subscribe(t, "/chat/bob")
	bob.expect(t, "User bob connected to the chat.")
	if r := s.do(t, "POST", "/users/alice", ""); r.status != 201 || r.body != "User alice connected." {
		t.Fatalf("join: %+v", r)
	}
	bob.expect(t, "User alice connected to the chat.")
}
