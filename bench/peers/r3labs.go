package peers

// This file is a server based on github.com/r3labs/sse.

import (
	"net"
	"net/http"
	"strconv"
	"sync"

	"github.com/r3labs/sse/v2"
)

type r3labs struct {
	server   *sse.Server
	ids      counter
	announce bool
	opening  sync.Mutex // with announce, held until a stream has been announced
}

func serveR3labs(listener net.Listener, announce bool) error {
	r3 := &r3labs{server: sse.New(), announce: announce}
	r3.server.AutoReplay = false
	if announce {
		r3.server.BufferSize = 0 // so that an announcement is sent before the next stream registers
		r3.server.OnSubscribe = func(_ string, s *sse.Subscriber) {
			r3.publish(arrival(s.URL.Path[len("/chat/"):]))
			r3.opening.Unlock()
		}
	}
	r3.server.CreateStream("chat")
	return http.Serve(listener, routes(r3))
}

func (r3 *r3labs) stream(w http.ResponseWriter, r *http.Request, _ string) {
	r.URL.RawQuery = "stream=chat"
	if r3.announce {
		r3.opening.Lock()
	}
	r3.server.ServeHTTP(w, r)
}

func (r3 *r3labs) publish(text string) {
	id := strconv.Itoa(r3.ids.next())
	r3.server.Publish("chat", &sse.Event{
		ID: []byte(id), Event: []byte("message"), Data: []byte(text),
	})
}
