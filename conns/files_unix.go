//go:build unix

package conns

import (
	"math"
	"os"
	"syscall"
)

// MaxOpenFiles returns how many files the process may have open at once, connections included. This
// is the soft limit, which the Go runtime raises as far as it may when the program starts. It is
// math.MaxInt if there is no limit.
func MaxOpenFiles() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return math.MaxInt
	}
	return int(min(uint64(limit.Cur), math.MaxInt))
}

// OpenFiles returns the number of files that the process has open, inherited ones included, or 0 if
// the system does not tell.
func OpenFiles() int {
	files, _ := os.ReadDir("/dev/fd")
	return len(files)
}
