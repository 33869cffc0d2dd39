//go:build linux

// Tests that a client whose network fails is noticed in time, and that one whose network comes back
// loses nothing. They make network namespaces, so they run only as root and on request:
//
//	go test -count=1 -run 'Vanished|NetworkOutage' -v . -netns
package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// goneWithin is how long a user may stay whose client has vanished, the grace period included.
const goneWithin = 60 * time.Second

// everySecond returns 60 seconds.
func everySecond() (seconds []int) {
	for n := range 60 {
		seconds = append(seconds, n)
	}
	return seconds
}

func TestUserWhoseClientHasVanishedLeavesInTime(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	certFile, keyFile := certify(t)
	secure := []string{"-tls-cert", certFile, "-tls-key", keyFile}
	for i, test := range []struct {
		room      string
		keepAlive string
		messages  []int // seconds after the cut
		args      []string
	}{
		{"quiet", "15s", nil, nil},
		{"quiet without comments", "10m", nil, nil},
		{"busy", "15s", everySecond(), nil},
		{"busy without comments", "10m", everySecond(), nil},

		// While a message is unacknowledged, the kernel does not probe. So a connection lasts
		// longest if a message is sent just before the probes would have ended it.
		{"one message after 10 s", "10m", []int{10}, nil},
		{"one message after 20 s", "10m", []int{20}, nil},
		{"one message after 23 s", "10m", []int{23}, nil},

		// curl speaks HTTP/2 then.
		{"quiet over https", "15s", nil, secure},
		{"busy over https", "10m", everySecond(), secure},
	} {
		t.Run(test.room, func(t *testing.T) {
			t.Parallel()
			phone := newPhone(t, i, 0)
			args := []string{"-addr", phone.server + ":0", "-keepalive", test.keepAlive}
			s, c := start(t, append(args, test.args...)...), newTLSClient(t, "HTTP/1.1")
			c.do(t, s, "POST", "/users/bob", "")
			phone.subscribe(t, s.url+"/chat/phone")
			phone.vanish(t, s, c, test.messages)
		})
	}
}

// vanish breaks the wire and waits until s has noticed. Bob speaks in these seconds after that.
func (p *phone) vanish(t *testing.T, s *server, c *tlsClient, seconds []int) {
	t.Helper()
	p.wire.isDown.Store(true)
	cut := time.Now()
	took := eventually(t, goneWithin, "the user to leave", func() bool {
		if len(seconds) > 0 && time.Since(cut) >= time.Duration(seconds[0])*time.Second {
			c.do(t, s, "POST", "/chat/bob", "still present?")
			seconds = seconds[1:]
		}
		return !strings.Contains(c.do(t, s, "GET", "/users", "").body, "User: phone")
	})
	t.Logf("it left %.1f s after the cut", took.Seconds())
}

// An outage of 15 s, such as a tunnel, ends no stream, and nothing is lost.
func TestNetworkOutageOf15SecondsLosesNothing(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	const outage, recovery = 15 * time.Second, 20 * time.Second
	for i, test := range []struct {
		room      string
		keepAlive string
		messages  int // one a second
	}{
		{"quiet", "15s", 0},
		{"quiet without comments", "10m", 0},
		{"one message", "10m", 1},
		{"busy", "15s", int(outage / time.Second)},
	} {
		t.Run(test.room, func(t *testing.T) {
			t.Parallel()
			phone := newPhone(t, i, 0)
			s := start(t, "-addr", phone.server+":0", "-keepalive", test.keepAlive)
			s.do(t, "POST", "/users/bob", "")
			phone.subscribe(t, s.url+"/chat/phone")
			// The kernel probes an idle connection after 10 s, so the outage covers most probes.
			if test.messages == 0 {
				time.Sleep(9 * time.Second)
			}
			begin := time.Now()
			phone.wire.isDown.Store(true)
			for n := range test.messages {
				s.do(t, "POST", "/chat/bob", fmt.Sprint(n))
				time.Sleep(time.Second)
			}
			time.Sleep(outage - time.Since(begin))
			phone.wire.isDown.Store(false)
			if test.messages == 0 {
				time.Sleep(recovery) // until the connection would have been dropped
			}
			s.do(t, "POST", "/chat/bob", "last")
			defer time.AfterFunc(recovery, s.kill).Stop()
			for n := range test.messages + 1 {
				want := fmt.Sprint("bob: ", n)
				if n == test.messages {
					want = "bob: last"
				}
				if e, err := phone.stream.next(); err != nil || e.data != want {
					t.Fatalf("after the outage the stream has %q, %v, want %q", e.data, err, want)
				}
			}
		})
	}
}
