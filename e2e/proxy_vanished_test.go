//go:build linux

package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Tests that a client that vanishes behind a proxy is noticed, with what docs/proxies.md says about
// that. Like the tests of clients without a proxy, they run on request: -run VanishedBehind -netns.

func TestClientThatVanishedBehindAProxyLeavesInTime(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	page := readFile(t, "../docs/proxies.md")
	sysctl := regexp.MustCompile(`sysctl -w (\S+)`).FindStringSubmatch(page)
	if sysctl == nil {
		t.Fatal("docs/proxies.md has no sysctl")
	}
	mustRun(t, "sysctl", "-w", sysctl[1])
	vanishBehind(t, nginx, caddy, apache, lighttpd, varnish)
}

// HAProxy needs no setting of the system.
func TestClientThatVanishedBehindHAProxyLeavesInTime(t *testing.T) {
	if inNamespace(t) {
		vanishBehind(t, haproxy)
	}
}

func vanishBehind(t *testing.T, proxies ...proxy) {
	for i, p := range proxies {
		for j, room := range []string{"quiet", "busy"} {
			t.Run(p.name+" "+room, func(t *testing.T) {
				t.Parallel()
				phone := newPhone(t, 2*i+j, 0)
				s := start(t, "-addr", phone.server+":0")
				proxy := p.at(phone.server).before(t, s)
				s.do(t, "POST", "/users/bob", "")
				phone.subscribe(t, proxy.url+"/chat/phone")
				phone.wire.isDown.Store(true)
				cut, messages := time.Now(), 0
				took := eventually(t, goneWithin, "the user to leave", func() bool {
					if room == "busy" && time.Since(cut) >= time.Duration(messages)*time.Second {
						s.do(t, "POST", "/chat/bob", fmt.Sprint(messages))
						messages++
					}
					return !strings.Contains(s.do(t, "GET", "/users", "").body, "User: phone")
				})
				t.Logf("it left %.1f s after the cut", took.Seconds())
			})
		}
	}
}
