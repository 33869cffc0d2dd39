// Here belongs that a lobby works with other builds than those of the other tests: later versions
// of etcd, and a server that looks for data races.
package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// The versions of etcd after Debian's are as good as that one: the log is written, read, saved,
// compacted and taken over.
func TestOtherVersionsOfEtcd(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"v3.5.35", "v3.6.16", "v3.7.3"} {
		t.Run(version, func(t *testing.T) { testEtcd(t, buildEtcd(t, version)) })
	}
}

// buildEtcd builds a version of etcd from the Go proxy, and returns the program. It leaves the
// processors to the tests that run meanwhile.
func buildEtcd(t *testing.T, version string) (program string) {
	t.Helper()
	needs(t, "nice")
	dir := t.TempDir()
	program = filepath.Join(dir, "etcd")
	for _, command := range []string{
		"go mod init etcd", "go get go.etcd.io/etcd/server/v3@" + version,
		"nice go build -o " + program + " go.etcd.io/etcd/server/v3",
	} {
		args := strings.Fields(command)
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			missing(t, "%s: %v\n%s", command, err, out)
		}
	}
	return program
}

// testEtcd has two nodes write a log and save states, lose etcd's leader, and be joined by a third.
func testEtcd(t *testing.T, program string) {
	t.Helper()
	e := startEtcdOf(t, 3, program)
	nodes := startNodes(t, e, 2, longHistory...)
	watcher := follow(t, "watcher", nodes[0])
	crowd := startCrowd(t, "user", nodes, 6, 10*time.Millisecond)
	var flooding sync.WaitGroup
	for i := range 10 {
		flooding.Go(func() { nodes[i%2].mustFlood(t, fmt.Sprint("flood-", i), 128) })
	}
	leader := e.leader(t)
	e.kill(leader)
	flooding.Wait()
	e.restart(t, leader)
	e.mustWork(t)
	e.compact(t)
	nodes = append(nodes, startNode(t, e, longHistory...))
	operations := crowd.stop()
	mustSucceed(t, operations)
	events := mustBeOneHistory(t, nodes, operations)
	mustHaveStayed(t, events, watcher)
	mustHaveLivedOnce(t, nodes)
}

// The race detector has nothing to say about nodes that act, die, lose etcd and come back.
func TestRaceDetectorIsSilent(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "lobby")
	build := exec.CommandContext(t.Context(), "go", "build", "-race", "-o", program, ".")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		missing(t, "go build -race: %v\n%s", err, out)
	}
	e := startEtcd(t, 3)
	var nodes []*node
	for range 3 {
		n := newNode(t, e.url(), longHistory...)
		n.program = program
		nodes = append(nodes, n)
	}
	startAll(t, nodes, 20*time.Second+slack)
	var said []*lines
	for _, n := range nodes {
		said = append(said, n.errs)
	}
	traveller := follow(t, "traveller", nodes...)
	crowd := startCrowd(t, "user", nodes, 6, 10*time.Millisecond)
	time.Sleep(time.Second)
	nodes[0].kill()
	nodes[0].restart(t)
	said = append(said, nodes[0].errs)
	nodes[1].stop(t)
	nodes[1].restart(t)
	said = append(said, nodes[1].errs)
	e.kill()
	time.Sleep(9 * time.Second)
	e.start(t)
	e.mustWork(t)
	for _, n := range nodes {
		n.mustServe(t, 2, 10*time.Second+slack)
	}
	time.Sleep(time.Second)
	operations := crowd.stop()
	mustBeClear(t, operations)
	events := mustBeOneHistory(t, nodes, operations)
	traveller.mustHaveRead(t, events)
	for _, n := range nodes {
		if took, exit := n.stop(t); exit != nil {
			t.Errorf("a node ended with %v after %v, want 0", exit, took)
		}
	}
	for _, lines := range said {
		if strings.Contains(lines.String(), "DATA RACE") {
			t.Errorf("a node has said %s", lines)
		}
	}
}
