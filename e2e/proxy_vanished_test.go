//go:build linux

package e2e

import (
	"fmt"
	"regexp"
	"testing"
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
		for j, messages := range [][]int{nil, everySecond()} {
			t.Run(fmt.Sprintf("%s with %d messages", p.name, len(messages)), func(t *testing.T) {
				t.Parallel()
				phone := newPhone(t, 2*i+j, 0)
				s := start(t, "-addr", phone.server+":0")
				s.do(t, "POST", "/users/bob", "")
				phone.subscribe(t, p.at(phone.server).before(t, s).url+"/chat/phone")
				phone.vanish(t, s, newTLSClient(t, "HTTP/1.1"), messages)
			})
		}
	}
}
