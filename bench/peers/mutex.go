package peers

// This file is the textbook broadcaster: a mutex, and a map with a channel for each stream.

import (
	"net"
	"net/http"
	"sync"
)

type mutex struct {
	announce bool

	mu      sync.Mutex
	last    int
	streams map[*mutexStream]bool
}

type mutexStream struct {
	events chan []byte
	gone   <-chan struct{} // closed when the client has left
}

func serveMutex(listener net.Listener, announce bool) error {
	return http.Serve(listener, routes(&mutex{announce: announce, streams: map[*mutexStream]bool{}}))
}

func (m *mutex) stream(w http.ResponseWriter, r *http.Request, name string) {
	s := &mutexStream{make(chan []byte, 16), r.Context().Done()}
	m.mu.Lock()
	m.streams[s] = true
	if m.announce {
		m.sendAll(arrival(name))
	}
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.streams, s)
		m.mu.Unlock()
	}()

	flusher := openStream(w)
	for {
		select {
		case event := <-s.events:
			w.Write(event)
			flusher.Flush()
		case <-s.gone:
			return
		}
	}
}

func (m *mutex) publish(text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sendAll(text)
}

// sendAll requires the lock. It waits for streams whose channel is full, so that nothing is lost.
func (m *mutex) sendAll(text string) {
	m.last++
	event := event(m.last, text)
	for s := range m.streams {
		select {
		case s.events <- event:
		case <-s.gone:
		}
	}
}
