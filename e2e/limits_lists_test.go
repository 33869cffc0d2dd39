// Tests the limits on long lists of users that clients read slowly.
package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// Each slow client here asks for a different list of 25 MB. Together they must cost little memory
// and nobody else's time, until they are cut off.
func TestSlowReadersOfListsCostLittle(t *testing.T) {
	t.Parallel()
	const (
		users, slow = 99_900, 120
		maxMemory   = 300 << 20
		limit       = 10 * time.Second // and a little more for what is read
	)
	longName := func(n int) string { return fmt.Sprintf("%s%05d", strings.Repeat("😀", 59), n) }
	needProc(t, 1000)
	s := startForMinutes(t)
	s.mustRepeat(t, users, func(n int) string { return s.text("POST /users/"+longName(n), "") })
	watcher := s.subscribe(t, "/chat/watcher")
	watcher.mustOpen(t)

	var reading sync.WaitGroup
	patient := s.dial(t)
	patient.SetDeadline(time.Time{})
	reading.Go(func() { // 2 MiB/s is fast enough, even for longer than 10 s.
		io.WriteString(patient, s.text("GET /users", ""))
		slowly := &slowly{patient, 40 << 10, 20 * time.Millisecond, nil}
		r, err := readAnswer(bufio.NewReaderSize(slowly, 64<<10), "GET")
		if got := strings.Count(r.body, "\n"); err != nil || r.status != 200 || got < users {
			t.Errorf("a reader of 2 MiB/s got %d with %d lines and %v", r.status, got, err)
		}
	})
	s.lastID(t) // opens a connection that stays open
	open := s.descriptors(t)
	responses := make(chan response, slow)
	for n := range slow {
		s.do(t, []string{"POST", "DELETE"}[n%2], "/users/another", "")
		conn := s.dial(t)
		conn.SetReadBuffer(64 << 10)
		accept := []string{"text/plain", "application/json"}[n/2%2]
		io.WriteString(conn, s.text("GET /users", "", "Accept", accept))
		go func() {
			r := bufio.NewReader(&slowly{conn, 4 << 10, 250 * time.Millisecond, nil})
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Error(err)
				return
			}
			responses <- response{resp.StatusCode, resp.Header, "", resp.Close}
			io.Copy(io.Discard, resp.Body)
		}()
	}
	begin := time.Now()

	said := s.says(t, longName(0), "hello")
	for watcher.lastID != said.id {
		watcher.mustNext(t)
	}
	eventually(t, time.Minute, "a list", func() bool { // The slow may have all memory for lists.
		r := s.do(t, "GET", "/users", "")
		if r.status == 503 {
			r.mustAskToRetry(t)
		} else if got := strings.Count(r.body, "\n"); r.status != 200 || got < users {
			t.Fatalf("got %d with %d lines, want 200 with %d", r.status, got, users)
		}
		return r.status == 200
	})
	eventually(t, time.Minute, "the slow readers to be cut off", func() bool {
		return s.descriptors(t) <= open
	})
	if took := time.Since(begin); took < limit-time.Second || took > limit+10*time.Second {
		t.Errorf("the slow readers were cut off after %v, want %v and little more", took, limit)
	}
	reading.Wait()
	sent := 0
	for range slow {
		if r := <-responses; r.status == 200 {
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
