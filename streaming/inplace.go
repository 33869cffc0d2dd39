package streaming

import (
	"iter"
	"net"
	"net/http"
	"time"
)

// wrapper is a ResponseWriter of middleware, as http.ResponseController expects it.
type wrapper interface{ Unwrap() http.ResponseWriter }

// CanSend reports whether Send can send a body to w piece by piece: w, or a ResponseWriter that it
// wraps, must be able to flush. That of http.TimeoutHandler is not.
func CanSend(w http.ResponseWriter) bool {
	for {
		switch x := w.(type) {
		case http.Flusher, interface{ FlushError() error }:
			return true
		case wrapper:
			w = x.Unwrap()
		default:
			return false
		}
	}
}

// sendInPlace sends the rest of body from the handler's goroutine.
func sendInPlace(w http.ResponseWriter, r *http.Request, body Body) {
	defer body.Close()
	rc := http.NewResponseController(w)
	for {
		// The server's WriteTimeout would end even a stream on which nothing is written.
		rc.SetWriteDeadline(time.Time{})
		data, err := body.Next(r.Context())
		rc.SetWriteDeadline(time.Now().Add(writeTimeout))
		if err != nil {
			return
		}
		for size := 0; len(data) > 0; {
			w.Write(data)
			size += len(data)
			data = body.More(maxWrite - size)
		}
		// After the deadline, Write may still succeed, but Flush does not.
		if rc.Flush() != nil {
			return
		}
	}
}

// MinRate is how many bytes per second a client must read, once 10 s have passed.
const MinRate = 64 << 10

// SendPieces sends the pieces of a long body over conn, which may be nil if it is unknown. If the
// client reads too slowly, the connection is closed. Once abandoned is closed, SendPieces cuts the
// connection: a write that is waiting for the client fails, and before the next piece SendPieces
// panics with http.ErrAbortHandler.
func SendPieces(
	w http.ResponseWriter, conn net.Conn, pieces iter.Seq[[]byte], abandoned <-chan struct{},
) {
	// The deadline grows with each piece, so a client that has read fast may then pause for longer
	// than the user timeout.
	enableUserTimeout(conn, false)
	defer enableUserTimeout(conn, true)
	rc := http.NewResponseController(w)
	sent, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-abandoned:
			rc.SetWriteDeadline(time.Now()) // ends a write that is waiting for the client
		case <-sent:
		}
	}()
	defer func() { close(sent); <-watched }() // the deadline must not end the next response
	deadline := time.Now().Add(writeTimeout)
	for piece := range pieces {
		rc.SetWriteDeadline(deadline)
		select {
		case <-abandoned:
			panic(http.ErrAbortHandler)
		default:
		}
		if _, err := w.Write(piece); err != nil {
			return
		}
		deadline = deadline.Add(time.Duration(len(piece)) * time.Second / MinRate)
	}
}
