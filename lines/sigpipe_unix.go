//go:build unix

package lines

import (
	"os/signal"
	"syscall"
)

// ignoreSIGPIPE lets a write to a pipe without a reader fail instead of ending the process.
func ignoreSIGPIPE() { signal.Ignore(syscall.SIGPIPE) }
