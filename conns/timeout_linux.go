package conns

import "time"

// TCP_USER_TIMEOUT, which package syscall lacks; see tcp(7).
const (
	timeoutOption = 0x12
	timeoutUnit   = time.Millisecond
)
