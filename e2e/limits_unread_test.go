// Tests that clients that pipeline requests and read no response cost others little.
package e2e

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// pipeline sends requests on many connections, none of which reads a response.
func (s *server) pipeline(t *testing.T, connections, requests int, path string) {
	t.Helper()
	text := strings.Repeat(s.text("GET "+path, ""), requests)
	for range connections {
		io.WriteString(s.dial(t), text)
	}
}

func TestUnreadPagesCostLittleMemory(t *testing.T) {
	t.Parallel()
	const connections = 1000
	needProc(t, connections+100)
	s := start(t)
	before := s.memory(t, "VmRSS")
	s.pipeline(t, connections, 20, "/lobby.js")
	if used := s.memory(t, "VmHWM") - before; used > 100<<20 {
		t.Errorf("%d connections took %d MiB", connections, used>>20)
	}
}

func TestUnreadListsDelayNobody(t *testing.T) {
	t.Parallel()
	const connections, users = 600, 200
	needProc(t, connections+100)
	s := start(t)
	for i := range users {
		s.do(t, "POST", fmt.Sprint("/users/", i, strings.Repeat("x", 60)), "")
	}
	s.pipeline(t, connections, 40, "/users")
	c := s.caller(t)
	for _, method := range []string{"GET", "HEAD", "GET", "HEAD"} {
		begin := time.Now()
		r, err := c.call(method, "/users", "")
		if took := time.Since(begin); err != nil || r.status != 200 || took > 2*time.Second {
			t.Errorf("%s /users got %d, %v after %v", method, r.status, err, took)
		}
	}
}
