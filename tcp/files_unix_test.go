//go:build unix

package tcp

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"
)

// A limit is tried in a process of its own, which is this test once more.

const printsMaxOpenFiles = "LOBBY_TEST_PRINTS_MAX_OPEN_FILES"

func TestMaxOpenFilesIsTheLimitOfTheProcess(t *testing.T) {
	if os.Getenv(printsMaxOpenFiles) != "" {
		fmt.Println(MaxOpenFiles())
		os.Exit(0)
	}
	if got, want := maxOpenFilesAfter(t, "ulimit -n 48"), "48 true\n"; got != want {
		t.Errorf("with ulimit -n 48, MaxOpenFiles returns %q, want %q", got, want)
	}
}

func TestMaxOpenFilesIsTheLimitAsGoHasRaisedIt(t *testing.T) {
	got := maxOpenFilesAfter(t, "ulimit -Sn 48 && ulimit -Hn 80")
	if n, err := strconv.Atoi(got[:2]); err != nil || n < 79 { // Go leaves one below the hard limit
		t.Errorf("with soft limit 48 and hard limit 80, MaxOpenFiles returns %q, want 79 or 80", got)
	}
}

// maxOpenFilesAfter returns what MaxOpenFiles returns in a process whose limits a shell has set.
func maxOpenFilesAfter(t *testing.T, ulimit string) string {
	t.Helper()
	script := ulimit + ` && exec "$0" -test.run='^TestMaxOpenFilesIsTheLimitOfTheProcess$'`
	cmd := exec.Command("sh", "-c", script, os.Args[0])
	cmd.Env = append(os.Environ(), printsMaxOpenFiles+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", ulimit, err, out)
	}
	return string(out)
}
