// Here belongs that everything at once, at random, breaks nothing that a lobby promises.
package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

// Nodes and etcd's servers are killed, stopped and paused, answers are lost and repeated, connections
// are cut and stand still, in an order that is drawn: what was answered is what happened. For longer
// and others than CI has time for, set LOBBY_CHAOS to SEED or SEED,SECONDS.
func TestChaosBreaksNoPromise(t *testing.T) {
	t.Parallel()
	seed, seconds := uint64(18), 20
	fmt.Sscanf(os.Getenv("LOBBY_CHAOS"), "%d,%d", &seed, &seconds)
	t.Logf("random seed %d, for %d s", seed, seconds)
	random := rand.New(rand.NewPCG(seed, 0))
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
	for end := time.Now().Add(time.Duration(seconds) * time.Second); time.Now().Before(end); {
		n, m := random.IntN(3), random.IntN(3)
		node, gate := nodes[n], gates[n][m]
		lasts := time.Duration(500+random.IntN(3000)) * time.Millisecond
		if random.IntN(6) == 0 {
			lasts *= 4
		}
		what := ""
		switch random.IntN(10) {
		case 0:
			what = "kill node"
			node.kill()
			time.Sleep(lasts / 4)
			node.start(t)
		case 1:
			what = "stop node"
			node.stop(t)
			node.start(t)
		case 2:
			what = "pause node"
			node.pause()
			time.Sleep(lasts)
			node.resume()
		case 3:
			what = "kill etcd"
			e.kill(m)
			time.Sleep(lasts / 2)
			e.restart(t, m)
		case 4:
			what = "pause etcd"
			e.pause(m)
			time.Sleep(lasts)
			e.resume(m)
		case 5:
			what = "cut a way"
			gate.make(trouble{cut: true})
			time.Sleep(lasts)
			gate.make(trouble{})
		case 6:
			what = "cut all ways"
			makeAll(gates[n], trouble{holds: everything})
			time.Sleep(lasts)
			makeAll(gates[n], trouble{})
		case 7:
			what = "lose and repeat"
			makeAll(gates[n], trouble{losesEvery: 2, repeatAfter: lasts * 2})
			time.Sleep(lasts)
			makeAll(gates[n], trouble{})
		case 8:
			what = "half a way"
			makeAll(gates[n], trouble{holds: []func(string) bool{watches, puts}[m%2]})
			time.Sleep(lasts)
			makeAll(gates[n], trouble{})
		case 9:
			what = "compact"
			within(t, 30*time.Second, "etcd to work", func() bool {
				_, err := e.ask(e.members[m], "kv/range", `{"key":"YQ=="}`)
				return err == nil
			})
			e.compact(t)
		}
		t.Log(what, strconv.Itoa(n), strconv.Itoa(m), lasts)
	}
	e.mustWork(t)
	for _, n := range nodes {
		n.mustServe(t, 1, 10*time.Second+slack)
		within(t, 20*time.Second+slack, n.addr+" to answer", func() bool {
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
	t.Logf("statuses %v, silent for %v", statuses(operations), crowd.silence())
}
