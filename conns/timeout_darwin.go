package conns

import "time"

// TCP_RXT_CONNDROPTIME, which package syscall lacks; see Darwin's netinet/tcp.h.
const (
	timeoutOption = 0x80
	timeoutUnit   = time.Second
)
