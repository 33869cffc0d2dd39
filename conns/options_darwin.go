package conns

import "time"

// TCP_RXT_CONNDROPTIME and TCP_NOTSENT_LOWAT, which package syscall lacks; see Darwin's
// netinet/tcp.h.
const (
	timeoutOption = 0x80
	timeoutUnit   = time.Second
	unsentOption  = 0x201
)
