//go:build unix

package conns

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// Limits of open files belong here, set by the process itself or by the shell that started it.

func TestMaxOpenFilesIsTheSoftLimit(t *testing.T) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	lower := limit
	lower.Cur = 100
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lower); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	if n := MaxOpenFiles(); n != 100 {
		t.Errorf("MaxOpenFiles returns %d, want 100", n)
	}
}

// printsMaxOpenFiles is set in a process that runs this test again, started by a shell.
const printsMaxOpenFiles = "LOBBY_TEST_PRINTS_MAX_OPEN_FILES"

func TestMaxOpenFilesIsTheLimitOfTheProcess(t *testing.T) {
	if os.Getenv(printsMaxOpenFiles) != "" {
		fmt.Println(MaxOpenFiles())
		os.Exit(0)
	}
	if got, want := maxOpenFilesAfter(t, "ulimit -n 48"), "48\n"; got != want {
		t.Errorf("with ulimit -n 48, MaxOpenFiles returns %q, want %q", got, want)
	}
}

func TestMaxOpenFilesIsTheLimitAfterGoHasRaisedIt(t *testing.T) {
	got := maxOpenFilesAfter(t, "ulimit -Sn 48 && ulimit -Hn 80")
	if got != "79\n" && got != "80\n" { // Go may leave one below the hard limit
		t.Errorf("with limits of 48 (soft) and 80 (hard), MaxOpenFiles returns %q", got)
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
