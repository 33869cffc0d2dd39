// Here belong long lists of users: what they cost, and who may be slow with them.
package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// longName returns a name of 64 code points with 4 bytes each, another for each n.
func longName(n int) string {
	var name strings.Builder
	for range 64 {
		name.WriteRune('😀' + rune(n%10))
		n /= 10
	}
	return name.String()
}

// Clients that ask for long lists, each another, and take them slowly are cut, and
// cost the server little memory until then. The others do not notice.
func TestSlowReadersOfListsCostLittle(t *testing.T) {
	t.Parallel()
	const (
		users, slow = 99_900, 120
		maxMemory   = 300 << 20
		limit       = 10 * time.Second // and 1 s for each 256 KiB that is taken
	)
	needProc(t, 1000)
	s := startForMinutes(t)
	s.mustRepeat(t, users, func(n int) string { return s.text("POST /users/"+longName(n), "") })
	watcher := s.subscribe(t, "/chat/watcher")
	watcher.mustOpen(t)

	var reading sync.WaitGroup
	patient := s.dial(t)
	patient.SetDeadline(time.Time{})
	reading.Go(func() { // 2 MiB/s, for longer than 10 s
		io.WriteString(patient, s.text("GET /users", ""))
		taken := &slowly{patient, 40 << 10, 20 * time.Millisecond, nil}
		r, err := readAnswer(bufio.NewReaderSize(taken, 64<<10))
		if got := strings.Count(r.body, "\n"); err != nil || r.status != 200 || got < users {
			t.Errorf("a reader of 2 MiB/s got %d with %d lines and %v", r.status, got, err)
		}
	})
	s.lastID(t) // over a connection that stays open
	open := s.descriptors(t)
	answers := make(chan response, slow)
	for n := range slow {
		s.do(t, []string{"POST", "DELETE"}[n%2], "/users/another", "")
		conn := s.dial(t)
		conn.SetReadBuffer(64 << 10)
		accept := []string{"text/plain", "application/json"}[n/2%2]
		io.WriteString(conn, s.text("GET /users", "", "Accept", accept))
		go func() {
			taken := bufio.NewReader(&slowly{conn, 4 << 10, 250 * time.Millisecond, nil})
			resp, err := http.ReadResponse(taken, nil)
			if err != nil {
				t.Error(err)
				return
			}
			answers <- response{resp.StatusCode, resp.Header, "", resp.Close}
			io.Copy(io.Discard, resp.Body)
		}()
		if memory := s.memory(t, "VmRSS"); memory > maxMemory {
			t.Fatalf("%d MiB of memory with %d slow readers", memory>>20, n+1)
		}
	}
	begin := time.Now()

	said := s.do(t, "POST", "/chat/"+longName(0), "hello")
	for watcher.lastID != said.header.Get("Last-Event-ID") {
		watcher.mustNext(t)
	}
	eventually(t, time.Minute, "a list", func() bool { // the slow may have all the memory for lists
		r := s.do(t, "GET", "/users", "")
		if r.status == 503 {
			r.mustAskToRetry(t)
		} else if got := strings.Count(r.body, "\n"); r.status != 200 || got < users {
			t.Fatalf("got %d with %d lines, want 200 with %d", r.status, got, users)
		}
		return r.status == 200
	})
	eventually(t, time.Minute, "the slow readers to be cut", func() bool { return s.descriptors(t) <= open })
	took := time.Since(begin)
	if took < limit-time.Second || took > limit+10*time.Second {
		t.Errorf("the slow readers were cut after %v, want %v and little more", took, limit)
	}
	reading.Wait()
	sent := 0
	for range slow {
		if r := <-answers; r.status == 200 {
			sent++
		} else if r.mustAskToRetry(t); r.status != 503 {
			t.Errorf("a slow reader got %d %v, want 200 or 503", r.status, r.header)
		}
	}
	memory := s.memory(t, "VmHWM")
	t.Logf("%d MiB of memory at the peak, with %d slow readers", memory>>20, sent)
	if memory > maxMemory || sent == 0 {
		t.Errorf("%d MiB of memory at the peak, with %d slow readers", memory>>20, sent)
	}
}

// When a server begins anew and everyone comes back at once, with an id of the
// server before and a wish for the list, nobody waits long: the arrivals between
// the lists do not make them dearer. Nothing else runs at the same time, so that
// the machine is not what they wait for.
func TestEveryoneComesBackAtOnce(t *testing.T) {
	const users, clients, patience = 20_000, 1500, 3 * time.Second
	needProc(t, 6*clients)
	s := startForMinutes(t)
	s.mustRepeat(t, users, func(n int) string {
		return s.text(fmt.Sprint("POST /users/user-", n), "")
	})
	comeBack := func(name string, n int) error {
		path := fmt.Sprint("/chat/", name, "-", n)
		st, err := s.trySubscribe(path, "Last-Event-ID", "0123456789-17")
		if err == nil {
			t.Cleanup(func() { st.body.Close() })
		}
		return err
	}
	times, statuses := make(chan time.Duration, 2*clients), make(chan int, 2*clients)
	list := func(c *caller) error {
		begin := time.Now()
		r, err := c.call("GET", "/users", "")
		if r.status == 503 {
			r.mustAskToRetry(t)
		}
		times <- time.Since(begin)
		statuses <- r.status
		return err
	}
	streams := s.mustDoAtOnce(t, clients, func(n int, _ *caller) error { return comeBack("a", n) })
	lists := s.mustDoAtOnce(t, clients, func(_ int, c *caller) error { return list(c) })
	calm := lateOf(times)
	both := s.mustDoAtOnce(t, clients, func(n int, c *caller) error {
		if err := comeBack("b", n); err != nil {
			return err
		}
		return list(c)
	})
	late := lateOf(times)
	t.Logf("streams cost %v, lists %v and both %v; 95 %% of the lists came in %v and %v",
		streams, lists, both, calm, late)
	if both > 2*(streams+lists) {
		t.Errorf("streams cost %v, lists %v and both %v", streams, lists, both)
	}
	if late > max(patience, 3*calm) { // which is longer on a machine that others use
		t.Errorf("5 %% of the lists came after more than %v, want %v", late, patience)
	}
	close(statuses)
	counts := map[int]int{}
	for status := range statuses {
		counts[status]++
	}
	if counts[200]+counts[503] != 2*clients || counts[503] > clients/5 {
		t.Errorf("got the statuses %v, want 200, and hardly any 503", counts)
	}
}

// mustDoAtOnce makes so many clients act at the same time, and returns how much
// processor time that cost the server.
func (s *server) mustDoAtOnce(
	t *testing.T, clients int, act func(n int, c *caller) error,
) (cost time.Duration) {
	t.Helper()
	before, begin := s.processorTime(t), make(chan struct{})
	var acting sync.WaitGroup
	for n := range clients {
		c := s.caller(t)
		acting.Go(func() {
			<-begin
			if err := act(n, c); err != nil {
				t.Error(err)
			}
		})
	}
	close(begin)
	acting.Wait()
	return s.processorTime(t) - before
}

// lateOf empties times and returns what 95 % of them are below.
func lateOf(times chan time.Duration) time.Duration {
	var all []time.Duration
	for len(times) > 0 {
		all = append(all, <-times)
	}
	slices.Sort(all)
	return all[len(all)*95/100]
}
