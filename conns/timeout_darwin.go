package conns

import "time"

// TCP_RXT_CONNDROPTIME, which package syscall does not have; see Darwin's netinet/tcp.h.
const (
	giveUpOption = 0x80
	giveUpUnit   = time.Second
)
