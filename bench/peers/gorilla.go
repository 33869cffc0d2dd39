package peers

// This file is the usual hub of a chat over WebSocket: one goroutine owns all clients, and sends to
// each over a buffered channel.

import (
	"net"
	"net/http"

	"github.com/gorilla/websocket"
)

type gorilla struct {
	announce bool
	arrivals chan *gorillaClient
	leavings chan *gorillaClient
	texts    chan string
}

type gorillaClient struct {
	name  string
	texts chan string // closed by run when it drops the client
}

func serveGorilla(listener net.Listener, announce bool) error {
	g := &gorilla{announce, make(chan *gorillaClient), make(chan *gorillaClient), make(chan string)}
	go g.run()
	return http.Serve(listener, routes(g))
}

func (g *gorilla) run() {
	clients := map[*gorillaClient]bool{}
	drop := func(c *gorillaClient) {
		if clients[c] {
			delete(clients, c)
			close(c.texts)
		}
	}
	broadcast := func(text string) {
		for c := range clients {
			select {
			case c.texts <- text:
			default: // the client reads too slowly
				drop(c)
			}
		}
	}
	for {
		select {
		case c := <-g.arrivals:
			clients[c] = true
			if g.announce {
				broadcast(arrival(c.name))
			}
		case c := <-g.leavings:
			drop(c)
		case text := <-g.texts:
			broadcast(text)
		}
	}
}

func (g *gorilla) publish(text string) { g.texts <- text }

var upgrader = websocket.Upgrader{ReadBufferSize: 1024, WriteBufferSize: 1024}

func (g *gorilla) stream(w http.ResponseWriter, r *http.Request, name string) {
	c := &gorillaClient{name, make(chan string, 256)}
	g.arrivals <- c
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil { // Upgrade has responded.
		g.leavings <- c
		return
	}
	go c.write(conn)
	go func() { // so that the handler returns, which frees net/http's memory for the request
		defer func() { g.leavings <- c }()
		for {
			if _, _, err := conn.NextReader(); err != nil {
				return
			}
		}
	}()
}

// write sends all waiting texts in one message, one text per line.
func (c *gorillaClient) write(conn *websocket.Conn) {
	defer conn.Close()
	for text := range c.texts {
		message, err := conn.NextWriter(websocket.TextMessage)
		if err != nil {
			return
		}
		message.Write([]byte(text))
		for range len(c.texts) {
			if text, ok := <-c.texts; ok {
				message.Write([]byte("\n" + text))
			}
		}
		if message.Close() != nil {
			return
		}
	}
}
