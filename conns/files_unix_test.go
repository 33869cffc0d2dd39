//go:build unix

package conns

import (
	"syscall"
	"testing"
)

// The limit of open files belongs here. What a server makes of it is tested in e2e.

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
