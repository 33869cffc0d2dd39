package main

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"lobby/bench/peers"
)

// newStand returns a stand whose server runs in the test's process.
func newStand(t *testing.T, mayLose, announces bool, serve func(net.Listener)) *stand {
	t.Helper()
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	s := &stand{
		process: &process{
			server: &server{name: "test", mayLose: mayLose},
			cmd:    &exec.Cmd{Process: self},
			addr:   listenFor(t, serve),
		},
		announces: announces,
		plan:      plan{length: 50 * time.Millisecond},
		results:   &results{},
	}
	t.Cleanup(func() {
		if s.streams != nil {
			s.streams.close()
		}
	})
	return s
}

func inTurn(steps ...step) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (s *stand) figure(t *testing.T, title, column string) float64 {
	t.Helper()
	table := s.results.table(title)
	if table == nil {
		t.Fatalf("%q was not measured", title)
	}
	spread, ok := table.spread("test", column)
	if !ok {
		t.Fatalf("%q has no %q", title, column)
	}
	return spread.median
}

func TestGoPeersDeliverEverything(t *testing.T) {
	for _, peer := range peers.All {
		t.Run(peer.Name, func(t *testing.T) {
			t.Parallel()
			s := newStand(t, false, false, func(l net.Listener) { peer.Serve(l, false) })
			s.webSocket = peer.Name == "gorilla"
			s.plan.length = 20 * time.Millisecond // gorilla's hub loses messages in floods
			if err := inTurn(s.open(20), s.fanOut(200)); err != nil {
				t.Fatal(err)
			}
			if n := s.figure(t, fanOutTitle(20, 200), deliveries); n <= 0 {
				t.Errorf("%v deliveries/s", n)
			}
		})
		t.Run(peer.Name+" announces", func(t *testing.T) {
			t.Parallel()
			s := newStand(t, false, true, func(l net.Listener) { peer.Serve(l, true) })
			s.webSocket = peer.Name == "gorilla"
			if err := s.storm(200)(); err != nil {
				t.Fatal(err)
			}
			if n := s.figure(t, stormTitle(200), deliveries); n <= 0 {
				t.Errorf("%v deliveries/s", n)
			}
		})
	}
}

// repeat serves streams that receive each message that many times.
func repeat(times int) func(net.Listener) {
	var mu sync.Mutex
	var streams []http.ResponseWriter
	return func(listener net.Listener) {
		http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == "GET" {
				mu.Lock()
				streams = append(streams, w)
				w.(http.Flusher).Flush()
				mu.Unlock()
				<-r.Context().Done()
				return
			}
			text, _ := io.ReadAll(r.Body)
			mu.Lock()
			defer mu.Unlock()
			for _, stream := range streams {
				for range times {
					stream.Write(text)
				}
				stream.(http.Flusher).Flush()
			}
		}))
	}
}

func TestLostMessagesFailOnlyServersThatMustNotLoseAny(t *testing.T) {
	defer func(before time.Duration) { patience = before }(patience)
	patience = 200 * time.Millisecond

	s := newStand(t, false, false, repeat(0))
	err := inTurn(s.open(3), s.fanOut(0))
	if lost := (*lostError)(nil); !errors.As(err, &lost) {
		t.Errorf("a server that must not lose messages lost all of them: got %v", err)
	}
	s = newStand(t, true, false, repeat(0))
	s.plan.length = 300 * time.Millisecond
	if err := inTurn(s.open(3), s.fanOut(0)); err != nil {
		t.Errorf("a server that may lose messages: %v", err)
	}
	if percent := s.figure(t, fanOutTitle(3, 0), lost); percent != 100 {
		t.Errorf("%v %% were lost, want 100", percent)
	}
	if n := s.figure(t, fanOutTitle(3, 0), reached) * 0.3; n > maxMessages+publishers {
		t.Errorf("%v messages were under way, want %d at most", n, maxMessages)
	}
	s = newStand(t, false, true, repeat(1))
	if err := s.storm(3)(); err == nil {
		t.Error("a server that must not lose announcements made none, without an error")
	}
	s = newStand(t, true, false, repeat(2))
	if err := inTurn(s.open(3), s.fanOut(0)); err == nil {
		t.Error("everything arrived twice, without an error")
	}
}

func TestRejectedStreamsAreAnError(t *testing.T) {
	s := newStand(t, true, false, answerWith(func(w io.Writer) {
		io.WriteString(w, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
	}, false))
	if err := s.open(3)(); err == nil {
		t.Error("streams were rejected, without an error")
	}
}
