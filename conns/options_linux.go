package conns

import "time"

// TCP_USER_TIMEOUT and TCP_NOTSENT_LOWAT, which package syscall lacks; see tcp(7) and Linux's
// include/uapi/linux/tcp.h.
const (
	timeoutOption = 0x12
	timeoutUnit   = time.Millisecond
	unsentOption  = 0x19
)
