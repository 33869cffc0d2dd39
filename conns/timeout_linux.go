package conns

import "time"

// TCP_USER_TIMEOUT, which package syscall does not have; see tcp(7).
const (
	giveUpOption = 0x12
	giveUpUnit   = time.Millisecond
)
