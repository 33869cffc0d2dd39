// Tests that no combination of faults breaks a promise or causes a data race.
package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var chaosTime = flag.Duration("chaos", 20*time.Second, "how long TestChaosBreaksNoPromise lasts")

// Nodes and members of etcd are killed, stopped and paused, responses are lost, requests repeated,
// and connections cut and stalled, all at random: responses still say what happened, and the race
// detector finds nothing.
func TestChaosBreaksNoPromise(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "lobby")
	build := exec.CommandContext(t.Context(), "go", "build", "-race", "-o", program, ".")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		missing(t, "go build -race: %v\n%s", err, out)
	}
	e, seed := startEtcd(t, 3), seed(t)
	nodes, links := linkedNodes(t, e, 3)
	for _, n := range nodes {
		n.program = program
	}
	startAll(t, nodes, 2*startLimit)
	var followers []*follower
	for i := range 3 {
		hops := rand.New(rand.NewPCG(seed, uint64(i)))
		followers = append(followers,
			follow(t, fmt.Sprint("follower-", i), rotate(nodes, i)...),
			hop(t, fmt.Sprint("hopper-", i), hops, rotate(nodes, i)...))
	}
	crowd := startCrowd(t, "user", nodes, 12, 5*time.Millisecond)
	var causing sync.WaitGroup
	end := time.Now().Add(*chaosTime)
	for i, fail := range []func(which, kind int, lasts time.Duration) string{
		func(i, kind int, lasts time.Duration) string { return nodes[i].fail(t, kind, lasts) },
		func(i, kind int, lasts time.Duration) string { return e.fail(t, i, kind, lasts) },
		func(i, kind int, lasts time.Duration) string { return failAll(links[i], kind, lasts) },
	} {
		random := rand.New(rand.NewPCG(seed, uint64(100+i)))
		causing.Go(func() {
			for time.Now().Before(end) {
				which, kind := random.IntN(3), random.IntN(4)
				lasts := time.Duration(300+random.IntN(3000)) * time.Millisecond
				if random.IntN(6) == 0 {
					lasts *= 4
				}
				t.Log(fail(which, kind, lasts), which, lasts)
				time.Sleep(time.Duration(random.IntN(3000)) * time.Millisecond)
			}
		})
	}
	causing.Wait()
	e.mustWork(t)
	for _, n := range nodes {
		n.mustServe(t, 1, startLimit)
		n.mustAnswer(t)
	}
	time.Sleep(time.Second)
	operations := mustSucceed(t, crowd.stop(), 0, 503, 504)
	for _, l := range slices.Concat(links...) {
		l.repeating.Wait()
	}
	events := mustBeOneHistory(t, nodes, operations)
	for _, f := range followers {
		f.mustHaveRead(t, events)
	}
	counts := statuses(operations)
	if counts[200]+counts[201] < 200 {
		t.Errorf("hardly anything succeeded: the statuses are %v", counts)
	}
	for _, n := range nodes {
		n.stop(t)
		if printed := n.allErrs.String(); strings.Contains(printed, "DATA RACE") {
			t.Errorf("the node at %s printed %s", n.addr, printed)
		}
	}
}

// fail makes the node fail in one of several ways for a while, and returns which.
func (n *node) fail(t *testing.T, kind int, lasts time.Duration) string {
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

func (e *etcd) fail(t *testing.T, which, kind int, lasts time.Duration) string {
	switch kind {
	case 0:
		e.kill(which)
		time.Sleep(lasts / 2)
		e.restart(t, which)
		return "a member of etcd was killed"
	case 1:
		for _, m := range e.members { // some may be failing
			if _, err := e.ask(m, "kv/range", `{"key":"YQ=="}`); err == nil {
				e.compact(t)
				return "etcd was compacted"
			}
		}
		return "etcd did not respond"
	case 2:
		e.kill()
		time.Sleep(lasts / 4)
		e.start(t)
		return "all of etcd was killed, not only"
	default:
		m := e.members[which]
		m.pause()
		time.Sleep(lasts)
		m.resume()
		return "a member of etcd was paused"
	}
}

func failAll(links []*link, kind int, lasts time.Duration) (what string) {
	switch kind {
	case 0:
		what = "the links of a node were cut"
		injectAll(links, fault{cut: true})
	case 1:
		what = "all links of a node stalled"
		injectAll(links, fault{stalls: everything})
	case 2:
		what = "half of the links of a node stalled"
		links[0].inject(fault{stalls: watches, losesEvery: 2})
		links[1].inject(fault{stalls: puts})
		links[2].inject(fault{stalls: watches, delay: 50 * time.Millisecond})
	default:
		what = "responses to a node were lost and its requests repeated"
		injectAll(links, fault{losesEvery: 2, repeatAfter: 2 * lasts})
	}
	time.Sleep(lasts)
	injectAll(links, fault{})
	return what
}
