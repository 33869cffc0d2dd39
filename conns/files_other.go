//go:build !unix

package conns

// MaxOpenFiles returns how many files the process may have open at a time, connections included. ok
// is false if the system has no such limit, as is the case here.
func MaxOpenFiles() (n int, ok bool) {
	return 0, false
}
