package peers

// This file is a server based on github.com/tmaxmax/go-sse.

import (
	"net"
	"net/http"
	"strconv"
	"sync"

	"github.com/tmaxmax/go-sse"
)

type goSSE struct {
	server   sse.Server
	ids      counter
	announce bool
	opening  sync.Mutex // with announce, held until a stream has been announced
}

func serveGoSSE(listener net.Listener, announce bool) error {
	g := &goSSE{announce: announce}
	g.server.Provider = &sse.Joe{Replayer: goSSEOpener{g}}
	// A stream's second topic is its user's name, for goSSEOpener.
	g.server.OnSession = func(_ http.ResponseWriter, r *http.Request) ([]string, bool) {
		return []string{sse.DefaultTopic, r.URL.Path[len("/chat/"):]}, true
	}
	return http.Serve(listener, routes(g))
}

func (g *goSSE) stream(w http.ResponseWriter, r *http.Request, _ string) {
	if g.announce {
		g.opening.Lock()
	}
	g.server.ServeHTTP(w, r)
}

func (g *goSSE) publish(text string) {
	message := &sse.Message{ID: sse.ID(strconv.Itoa(g.ids.next())), Type: sse.Type("message")}
	message.AppendData(text)
	g.server.Publish(message)
}

// A goSSEOpener replays nothing. Joe calls it whenever it registers a stream, which is the moment
// to send the stream's head.
type goSSEOpener struct{ *goSSE }

func (o goSSEOpener) Replay(subscription sse.Subscription) error {
	if o.announce {
		go func() { // Joe accepts the message only after Replay has returned.
			o.publish(arrival(subscription.Topics[1]))
			o.opening.Unlock()
		}()
	}
	return subscription.Client.Flush()
}

func (goSSEOpener) Put(m *sse.Message, _ []string) (*sse.Message, error) { return m, nil }
