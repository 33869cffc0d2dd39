// Package peers has small servers that lobby is compared with. Each implements the same service in
// a different well-known way: GET /chat/NAME opens a stream, and POST /chat/NAME sends a message to
// all streams. None has users or a history, so each does less than lobby.
//
// Every peer registers a stream before it sends the response head, so that a client that has the
// head receives every later message.
package peers

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"

	"github.com/julienschmidt/httprouter"
)

// A Peer is one server. It runs in its own process.
type Peer struct {
	Name  string
	About string // how it broadcasts, briefly
	Uses  string // the module whose version the tables name, if any

	// Serve serves until it fails. If announce is set, each new stream is announced to itself and
	// to the streams before it, and to no other.
	Serve func(listener net.Listener, announce bool) error
}

// All lists the peers written in Go, in the order of the tables.
var All = []Peer{
	{Name: "one write", About: "epoll, one write(2) for each event and stream, no HTTP: the floor",
		Serve: serveOneWrite},
	{Name: "bare", About: "net/http and httprouter, constant answers; a stream is written to and " +
		"flushed under a lock", Uses: "github.com/julienschmidt/httprouter", Serve: serveBare},
	{Name: "mutex", About: "a mutex, and a map with a channel for each stream", Serve: serveMutex},
	{Name: "gorilla", About: "WebSocket; one goroutine hands each event to a buffer of 256 for " +
		"each client, and drops a client whose buffer is full", Uses: "github.com/gorilla/websocket",
		Serve: serveGorilla},
	{Name: "go-sse", About: "its provider Joe writes to each stream in turn",
		Uses: "github.com/tmaxmax/go-sse", Serve: serveGoSSE},
	{Name: "r3labs/sse", About: "a channel for each stream; its replay, which keeps every event " +
		"forever, is off", Uses: "github.com/r3labs/sse/v2", Serve: serveR3labs},
}

// A room is the part in which the peers over net/http differ.
type room interface {
	// stream serves one stream until the client leaves.
	stream(w http.ResponseWriter, r *http.Request, name string)
	// publish sends a line of text to every stream.
	publish(text string)
}

// routes returns a router for room.
func routes(room room) *httprouter.Router {
	router := httprouter.New()
	router.GET("/chat/:name", func(w http.ResponseWriter, r *http.Request, p httprouter.Params) {
		room.stream(w, r, p.ByName("name"))
	})
	router.POST("/chat/:name", func(w http.ResponseWriter, r *http.Request, p httprouter.Params) {
		text, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		room.publish(p.ByName("name") + ": " + string(text))
	})
	return router
}

// A counter numbers events. Its zero value is ready to use.
type counter struct {
	mu   sync.Mutex
	last int
}

func (c *counter) next() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	return c.last
}

// event renders one Server-Sent Event.
func event(id int, text string) []byte {
	return fmt.Appendf(nil, "id: %d\nevent: message\ndata: %s\n\n", id, text)
}

// arrival returns the announcement of a new stream.
func arrival(name string) string { return "User " + name + " connected to the chat." }

// openStream sends the response head of a stream of Server-Sent Events.
func openStream(w http.ResponseWriter) http.Flusher {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	flusher := w.(http.Flusher)
	flusher.Flush()
	return flusher
}
