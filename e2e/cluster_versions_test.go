// Tests that a lobby works with versions of etcd later than the installed one.
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

// Two nodes write a log and snapshots, compact it, lose etcd's leader and an entry, and are joined
// by a third.
func TestLaterVersionsOfEtcdWork(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"v3.5.35", "v3.6.16", "v3.7.3"} {
		t.Run(version, func(t *testing.T) {
			program := buildEtcd(t, version)
			e := newEtcd(t, 3)
			e.program = program
			e.start(t)
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
			e.remove(t, e.recentEntry(t))
			nodes = append(nodes, startNode(t, e.url(), longHistory...))
			finish(t, nodes, crowd, watcher)
			mustNotHaveStartedOver(t, nodes)
		})
	}
}

// buildEtcd builds a version of etcd from the Go proxy and returns the program. It leaves the
// processors to the tests that run at the same time.
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
