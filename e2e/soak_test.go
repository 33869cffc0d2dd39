// Here belongs what shows only after a long time of use.
package e2e

import (
	"flag"
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

var (
	soakFor     = flag.Duration("soak", 10*time.Second, "how long the soak lasts")
	soakStreams = flag.Int("soak-streams", 500, "how many streams the soak holds open")
)

// A server that has been in use for long holds no more than it did after the
// first minute, or after the first half of a shorter time: neither descriptors nor memory.
func TestSoakLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	const (
		change   = 20 * time.Millisecond // between two joins, leaves or messages
		maxDrift = 1 << 20               // bytes
	)
	needProc(t, uint64(*soakStreams)+1000)
	s := start(t)
	descriptors := s.descriptors(t)
	conns := make([]*net.TCPConn, *soakStreams)
	open := func(i int, lastEventID string) {
		conns[i] = s.ask(t, fmt.Sprintf("/chat/reader-%d?lastEventId=%s", i, lastEventID))
		conns[i].SetDeadline(time.Time{})
		go io.Copy(io.Discard, conns[i])
	}
	for i := range conns {
		open(i, "")
	}
	has := func(n int) bool { // beside the requests' own connection, if that is open
		opened := s.descriptors(t) - descriptors
		return opened == n || opened == n+1
	}
	eventually(t, time.Minute, "all streams to be open", func() bool { return has(len(conns)) })

	var early, late []int // bytes of memory, before and after it is warm
	begin, sampled := time.Now(), time.Now()
	warm := min(time.Minute, *soakFor/2)
	turn := warm / 2 // in which each stream is cut and resumed once
	lastEventID, cuts := "", 0
	ticker := time.NewTicker(change)
	defer ticker.Stop()
	for n := 0; time.Since(begin) < *soakFor; n++ {
		<-ticker.C
		name := fmt.Sprintf("/users/visitor-%d", n/3%100)
		switch n % 3 {
		case 0:
			lastEventID = s.do(t, "POST", name, "").header.Get("Last-Event-ID")
		case 1:
			s.do(t, "POST", "/chat/reader-0", "hello")
		case 2:
			s.do(t, "DELETE", name, "")
		}
		for ; cuts < int(time.Since(begin)*time.Duration(len(conns))/turn); cuts++ {
			i := cuts % len(conns)
			conns[i].Close()
			open(i, lastEventID)
		}
		if time.Since(sampled) < *soakFor/60 {
			continue
		}
		sampled = time.Now()
		if memory := s.memory(t, "VmRSS"); time.Since(begin) < warm {
			early = append(early, memory)
		} else {
			late = append(late, memory)
		}
	}
	eventually(t, time.Minute, "as many descriptors as at first", func() bool { return has(len(conns)) })
	t.Logf("KiB of memory: first %v, then %v", inKiB(early), inKiB(late))
	if drift := late[len(late)-1] - late[0]; drift > maxDrift {
		t.Errorf("%d bytes of memory more than at first, want at most %d", drift, maxDrift)
	}
	for _, conn := range conns {
		conn.Close()
	}
	eventually(t, time.Minute, "all descriptors to come back", func() bool { return has(0) })
}

func inKiB(sizes []int) (kib []int) {
	for _, size := range sizes {
		kib = append(kib, size>>10)
	}
	return kib
}
