package peers

// This file is the least work for a handler: it sends constant responses, and writes to one stream
// after another.

import (
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/julienschmidt/httprouter"
)

type bare struct {
	announce bool

	mu      sync.Mutex
	last    int
	streams map[http.ResponseWriter]http.Flusher
}

func serveBare(listener net.Listener, announce bool) error {
	router := routes(&bare{announce: announce, streams: map[http.ResponseWriter]http.Flusher{}})
	router.GET("/users", constant("Connected users:"+strings.Repeat("\nUser: user123", 1000)))
	router.POST("/users/:name", constant("User alice connected."))
	return http.Serve(listener, router)
}

// constant responds with text, and with the headers that lobby sends in such a response.
func constant(text string) httprouter.Handle {
	body := []byte(text) // net/http would send a long string in pieces
	return func(w http.ResponseWriter, _ *http.Request, _ httprouter.Params) {
		h := w.Header()
		h.Set("Content-Type", "text/plain; charset=utf-8")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Last-Event-ID", "m3k7x2a5-1000")
		h.Set("Vary", "Accept")
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Length", strconv.Itoa(len(body)))
		w.Write(body)
	}
}

func (b *bare) stream(w http.ResponseWriter, r *http.Request, name string) {
	b.mu.Lock()
	b.streams[w] = openStream(w)
	if b.announce {
		b.writeAll(arrival(name))
	}
	b.mu.Unlock()

	<-r.Context().Done()
	b.mu.Lock()
	delete(b.streams, w)
	b.mu.Unlock()
}

func (b *bare) publish(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.writeAll(text)
}

// writeAll requires the lock.
func (b *bare) writeAll(text string) {
	b.last++
	event := event(b.last, text)
	for w, flusher := range b.streams {
		w.Write(event)
		flusher.Flush()
	}
}
