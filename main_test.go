package main

import (
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lobby/conns"
)

func TestFailureToLimitAConnectionIsPrintedAtMostOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stderr strings.Builder
		prepare := prepareConn(&stderr)
		for _, after := range []time.Duration{0, time.Second - 1, 1} {
			time.Sleep(after)
			broken := &conns.Conn{TCPConn: new(net.TCPConn)} // no option can be set on it
			if ctx := prepare(t.Context(), broken); ctx.Value(connKey{}) != broken {
				t.Error("the connection is not served")
			}
		}
		line := "lobby: cannot limit a connection: invalid argument\n"
		if got := stderr.String(); got != line+line {
			t.Errorf("printed %q in a second, want %q twice", got, line)
		}
	})
}
