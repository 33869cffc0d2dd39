// Here belongs that everything at once, at random, breaks nothing that a lobby promises.
package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

var chaosTime = flag.Duration("chaos", 20*time.Second, "how long TestChaosBreaksNoPromise lasts")

// Nodes and etcd's servers are killed, stopped and paused, answers are lost and repeated,
// connections are cut and stand still, in an order that is drawn: what was answered is what
// happened.
func TestChaosBreaksNoPromise(t *testing.T) {
	t.Parallel()
	seed := seed(t)
	e := startEtcd(t, 3)
	nodes, gates := startGated(t, e, 3)
	var followers []*follower
	for i := range 6 {
		f := &follower{
			name:  fmt.Sprint("follower-", i),
			nodes: servers(slices.Concat(nodes[i%3:], nodes[:i%3])),
		}
		if i >= 3 {
			f.hops = rand.New(rand.NewPCG(seed, uint64(i)))
		}
		f.start(t)
		followers = append(followers, f)
	}
	crowd := startCrowd(t, "user", nodes, 12, 5*time.Millisecond)
	var troubling sync.WaitGroup
	end := time.Now().Add(*chaosTime)
	for i, makeTrouble := range []func(kind, which int, lasts time.Duration) string{
		func(kind, which int, lasts time.Duration) string {
			return troubleWithNode(t, nodes[which], kind, lasts)
		},
		func(kind, which int, lasts time.Duration) string {
			return troubleWithEtcd(t, e, which, kind, lasts)
		},
		func(kind, which int, lasts time.Duration) string {
			return troubleOnTheWay(gates[which], kind, lasts)
		},
	} {
		random := rand.New(rand.NewPCG(seed, uint64(100+i)))
		troubling.Go(func() {
			for time.Now().Before(end) {
				lasts := time.Duration(300+random.IntN(3000)) * time.Millisecond
				if random.IntN(6) == 0 {
					lasts *= 4
				}
				which := random.IntN(3)
				t.Log(makeTrouble(random.IntN(4), which, lasts), which, lasts)
				time.Sleep(time.Duration(random.IntN(3000)) * time.Millisecond)
			}
		})
	}
	troubling.Wait()
	e.mustWork(t)
	for _, n := range nodes {
		n.mustServe(t, 1, 10*time.Second+slack)
		eventually(t, 20*time.Second+slack, n.addr+" to answer", func() bool {
			c := n.caller(t)
			r, err := c.call("GET", "/users", "")
			return err == nil && r.status == 200
		})
	}
	time.Sleep(time.Second)
	operations := crowd.stop()
	mustBeClear(t, operations)
	for _, own := range gates {
		for _, g := range own {
			g.repeating.Wait()
		}
	}
	events := mustBeOneHistory(t, nodes, operations)
	for _, f := range followers {
		f.mustHaveRead(t, events)
	}
	counts := statuses(operations)
	t.Logf("statuses %v, silent for %v", counts, crowd.silence())
	if counts[200]+counts[201] < 200 {
		t.Error("hardly anything succeeded")
	}
}

// troubleWithNode makes trouble of some kind for so long, and returns what it was.
func troubleWithNode(t *testing.T, n *node, kind int, lasts time.Duration) string {
	switch kind {
	case 0:
		n.kill()
		time.Sleep(lasts / 4)
		n.start(t)
		return "a node was killed"
	case 1:
		n.stop(t)
		n.start(t)
		return "a node was stopped"
	default:
		n.pause()
		time.Sleep(lasts)
		n.resume()
		return "a node was paused"
	}
}

func troubleWithEtcd(t *testing.T, e *etcd, which, kind int, lasts time.Duration) string {
	switch kind {
	case 0:
		e.kill(which)
		time.Sleep(lasts / 2)
		e.restart(t, which)
		return "a server of etcd's was killed"
	case 1:
		for _, m := range e.members { // some may be in trouble
			if _, err := e.ask(m, "kv/range", `{"key":"YQ=="}`); err == nil {
				e.compact(t)
				return "etcd was compacted"
			}
		}
		return "etcd was not there"
	case 2:
		e.kill()
		time.Sleep(lasts / 4)
		e.start(t)
		return "all of etcd was killed, not only"
	default:
		e.pause(which)
		time.Sleep(lasts)
		e.resume(which)
		return "a server of etcd's was paused"
	}
}

func troubleOnTheWay(gates []*gate, kind int, lasts time.Duration) (what string) {
	switch kind {
	case 0:
		what = "the ways of a node were cut"
		makeAll(gates, trouble{cut: true})
	case 1:
		what = "everything stood still for a node"
		makeAll(gates, trouble{holds: everything})
	case 2:
		what = "half of everything stood still for a node"
		gates[0].make(trouble{holds: watches, losesEvery: 2})
		gates[1].make(trouble{holds: puts})
		gates[2].make(trouble{holds: watches, delay: 50 * time.Millisecond})
	default:
		what = "answers were lost and requests repeated for a node"
		makeAll(gates, trouble{losesEvery: 2, repeatAfter: 2 * lasts})
	}
	time.Sleep(lasts)
	makeAll(gates, trouble{})
	return what
}
