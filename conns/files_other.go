//go:build !unix

package conns

// MaxOpenFiles returns how many files the process may have open at once, connections included. ok
// is false if there is no such limit, as on this system.
func MaxOpenFiles() (n int, ok bool) {
	return 0, false
}

// OpenFiles returns 0, because this system does not tell.
func OpenFiles() int { return 0 }
