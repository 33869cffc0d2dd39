// Here belongs that presence over several nodes is what it is on one machine: tabs, reloads, the
// grace, POST and DELETE.
package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Every event is compared, so that none more can hide.
//
// A step a=alice@1 opens the stream a for alice at node 1, close:a closes it; 200:POST:alice@1 is a
// request at node 1 and its answer; +alice and -alice are what a watcher reads next, and quiet is
// that it reads nothing for longer than the grace, which is 2 s.
func TestUsersAreThereOverAllNodes(t *testing.T) {
	t.Parallel()
	const grace = 2 * time.Second
	nodes := startNodes(t, startEtcd(t, 3), 3, "-grace", grace.String())
	for _, c := range []struct{ name, steps string }{
		{
			name:  "two tabs on two nodes",
			steps: "a=alice@0 +alice b=alice@1 close:a quiet close:b -alice",
		},
		{
			name: "reloads that alternate",
			steps: "a=alice@0 +alice close:a a=alice@1 close:a a=alice@2 close:a a=alice@0 quiet " +
				"close:a b=alice@1 quiet close:b -alice",
		},
		{
			name: "POST here keeps streams there",
			steps: "a=alice@0 +alice 200:POST:alice@1 close:a quiet 200:POST:alice@2 " +
				"200:DELETE:alice@0 -alice",
		},
		{
			name: "DELETE here of streams there",
			steps: "a=alice@0 +alice 200:DELETE:alice@1 -alice 404:DELETE:alice@2 " +
				"201:POST:alice@1 +alice close:a quiet 200:DELETE:alice@0 -alice",
		},
		{
			name: "the late end of old streams",
			steps: "a=alice@0 b=alice@1 +alice 200:DELETE:alice@2 -alice c=alice@2 +alice close:a " +
				"close:b quiet close:c -alice",
		},
		{
			name: "DELETE within the grace, and back on another node",
			steps: "a=alice@0 +alice close:a 200:DELETE:alice@1 -alice b=alice@2 +alice quiet " +
				"close:b -alice",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, n := range nodes {
				n.do(t, "POST", "/users/watcher", "")
			}
			watcher, streams := nodes[2].subscribe(t, "/chat/watcher"), map[string]*stream{}
			defer watcher.body.Close()
			watcher.mustOpen(t)
			for step := range strings.FieldsSeq(c.steps) {
				rest, at, hasNode := strings.Cut(step, "@")
				node := nodes[2]
				if hasNode {
					node = nodes[at[0]-'0']
				}
				name, user, isOpen := strings.Cut(rest, "=")
				if isOpen {
					streams[name] = node.subscribe(t, "/chat/"+user)
					streams[name].mustOpen(t)
				} else if name, isClose := strings.CutPrefix(step, "close:"); isClose {
					streams[name].body.Close()
				} else if user, isArrival := strings.CutPrefix(step, "+"); isArrival {
					watcher.expectRun(t, arrives(user))
				} else if user, isDeparture := strings.CutPrefix(step, "-"); isDeparture {
					watcher.expectRun(t, leaves(user))
				} else if step == "quiet" {
					time.Sleep(grace + time.Second)
					nodes[0].do(t, "POST", "/chat/watcher", "quiet")
					watcher.expectRun(t, "watcher: quiet")
				} else {
					p := strings.Split(rest, ":")
					if r := node.do(t, p[1], "/users/"+p[2], ""); fmt.Sprint(r.status) != p[0] {
						t.Errorf("%s: got %d", step, r.status)
					}
				}
			}
		})
	}
}

// A stream on one node is closed, and the user is there for the grace, whichever node is asked.
func TestGraceIsTheSameOnEveryNode(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, startEtcd(t, 1), 2)
	watchers := []*follower{follow(t, "watcher-0", nodes[0]), follow(t, "watcher-1", nodes[1])}
	st := nodes[0].subscribe(t, "/chat/alice")
	st.mustOpen(t)
	closed := time.Now()
	st.body.Close()
	for _, w := range watchers {
		took := w.sightingOf(t, leaves("alice"), closed, 20*time.Second).at.Sub(closed)
		if took < 5*time.Second || took > 6*time.Second+slack {
			t.Errorf("alice left after %v, want 5 s", took)
		}
	}
}
