package streaming

import (
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
	source, hasMore := body.(interface{ More(limit int) []byte })
	for {
		// The server's WriteTimeout would end even a stream on which nothing is written.
		rc.SetWriteDeadline(time.Time{})
		data, err := body.Next(r.Context())
		rc.SetWriteDeadline(time.Now().Add(writeTimeout))
		if err != nil {
			return
		}
		for size := len(data); len(data) > 0; size += len(data) {
			w.Write(data)
			data = nil
			if hasMore {
				data = source.More(maxWrite - size)
			}
		}
		// After the deadline, Write may still succeed, but Flush does not.
		if rc.Flush() != nil {
			return
		}
	}
}
