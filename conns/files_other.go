//go:build !unix

package conns

import "math"

// MaxOpenFiles returns math.MaxInt, because this system does not limit how many files the process
// may have open.
func MaxOpenFiles() int { return math.MaxInt }

// OpenFiles returns 0, because this system does not tell.
func OpenFiles() int { return 0 }
