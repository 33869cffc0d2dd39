package conns

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"time"
)

const (
	// A connection on which no first byte arrives is closed after maxSilence, or within
	// maxCrowdedSilence while the listener is Crowded.
	maxSilence        = 30 * time.Second
	maxCrowdedSilence = 5 * time.Second

	refusalTimeout = time.Second // to wait for a request, and again for the rest of the refusal
	maxDropped     = 64 << 10    // bytes from a refused client; they are read and discarded

	// Pauses after an error of accept(2), the first and the longest.
	minPause = 5 * time.Millisecond
	maxPause = time.Second
)

// MaxRefusals is the maximum number of refusals under way at once. Each uses an open file.
const MaxRefusals = 64

// Limited is a listener that admits a limited number of connections. A connection has a place until
// its Close. When no place is left, a connection is refused, and the server never sees it.
type Limited struct {
	listener listener
	places   chan struct{}   // has an element for each connection that has a place
	refusals chan struct{}   // has an element for each refusal under way
	refuse   func(io.Writer) // writes the refusal
	ready    chan *Conn      // connections whose first byte has arrived, for Accept
	open     context.Context // until Close
	close    context.CancelFunc
}

// listener is the part of net.TCPListener that Limited needs.
type listener interface {
	AcceptTCP() (*net.TCPConn, error)
	Close() error
	Addr() net.Addr
}

// Conn is a connection with a place in a Limited, or one that is being refused and has no place.
//
// It embeds *net.TCPConn rather than net.Conn so that net can use unexported methods: writev(2) for
// net.Buffers, sendfile(2) for files. Call the Conn's own Close: the TCPConn's would not free the
// place.
type Conn struct {
	*net.TCPConn
	places      chan struct{}
	userTimeout time.Duration // as set by the latest SetUserTimeout
	first       [1]byte       // the first byte from the client
	unread      bool          // whether Read has yet to return first
}

// Limit returns a listener that admits connections from l while fewer than n of them are open.
// Accept returns each once its first byte has arrived, so that a server's time limit for a request
// does not include the wait for it. A connection without a byte is closed after 30 s, or within 5 s
// while the listener is Crowded.
//
// Any other client is sent what refuse writes, in a separate goroutine: after its first byte or one
// second. (The Writer is a *Conn, so refuse can wrap it in TLS.) Its connection is closed when the
// client has closed its side, or a second later. At most n/8 + 1 such refusals, and never more than
// MaxRefusals, are under way at once; beyond that, a connection is closed without a response.
//
// At most n connections, the refusals, and one connection that is about to be closed are open.
func Limit(l *net.TCPListener, n int, refuse func(io.Writer)) *Limited {
	limited := limit(l, n, refuse)
	go limited.admitAll()
	return limited
}

func limit(l listener, n int, refuse func(io.Writer)) *Limited {
	limited := &Limited{
		listener: l,
		places:   make(chan struct{}, n),
		refusals: make(chan struct{}, min(n/8+1, MaxRefusals)),
		refuse:   refuse,
		ready:    make(chan *Conn),
	}
	limited.open, limited.close = context.WithCancel(context.Background())
	return limited
}

// admitAll gives each connection a place or refuses it, until Close.
//
// When accepting fails, as it does when the process runs out of files, it tries again after
// increasing pauses. It does not report the errors, because http.Server would log each one or stop.
func (l *Limited) admitAll() {
	defer l.close()
	pause := minPause
	for {
		conn, err := l.listener.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			select {
			case <-time.After(pause):
			case <-l.open.Done():
			}
			pause = min(2*pause, maxPause)
			continue
		}
		pause = minPause
		select {
		case l.places <- struct{}{}:
			go l.admit(&Conn{TCPConn: conn, places: l.places})
		default:
			l.refuseOrClose(conn)
		}
	}
}

// admit passes conn to Accept once its first byte has arrived.
func (l *Limited) admit(conn *Conn) {
	stop := context.AfterFunc(l.open, func() { conn.Close() })
	conn.unread = l.awaitByte(conn.TCPConn, conn.first[:])
	if stop() && conn.unread {
		select {
		case l.ready <- conn:
			return
		case <-l.open.Done():
		}
	}
	conn.Close()
}

// awaitByte reads the first byte from conn and reports whether it arrived in time.
func (l *Limited) awaitByte(conn net.Conn, first []byte) bool {
	for range maxSilence / maxCrowdedSilence {
		conn.SetReadDeadline(time.Now().Add(maxCrowdedSilence))
		n, err := conn.Read(first)
		if n > 0 {
			conn.SetReadDeadline(time.Time{})
			return true
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) || l.Crowded() {
			return false
		}
	}
	return false
}

// Accept waits for a connection that has a place and has sent a byte, and returns it, a *Conn. It
// fails only after Close.
func (l *Limited) Accept() (net.Conn, error) {
	select {
	case conn := <-l.ready:
		return conn, nil
	case <-l.open.Done():
		return nil, net.ErrClosed
	}
}

// refuseOrClose refuses conn, or only closes it if too many refusals are under way.
func (l *Limited) refuseOrClose(conn *net.TCPConn) {
	select {
	case l.refusals <- struct{}{}:
		go func() {
			// A client that gets a response before it has sent a request may report a broken
			// connection. One that sends nothing gets the response after a second.
			conn.SetReadDeadline(time.Now().Add(refusalTimeout))
			refused := &Conn{TCPConn: conn}
			n, _ := conn.Read(refused.first[:])
			refused.unread = n > 0
			respond(refused, l.refuse)
			conn.Close()
			<-l.refusals
		}()
	default:
		conn.Close()
	}
}

// respond writes the refusal and reads until the client closes: closing with unread input would
// send a reset, which can overtake the response.
func respond(conn *Conn, refuse func(io.Writer)) {
	conn.SetDeadline(time.Now().Add(refusalTimeout))
	refuse(conn)
	conn.CloseWrite()
	io.Copy(io.Discard, io.LimitReader(conn, maxDropped))
}

// Connections returns the number of connections that have a place.
func (l *Limited) Connections() int { return len(l.places) }

// Crowded reports whether more than half of the places are in use. A server that then responds with
// "Connection: close" keeps places free of idle connections.
func (l *Limited) Crowded() bool {
	return len(l.places) > cap(l.places)/2
}

// Close closes the listener and the connections that Accept has not returned yet. Accept fails from
// then on.
func (l *Limited) Close() error {
	l.close()
	return l.listener.Close()
}

// Addr returns the listener's address.
func (l *Limited) Addr() net.Addr {
	return l.listener.Addr()
}

// Read reads from the connection.
func (c *Conn) Read(b []byte) (int, error) {
	if c.unread && len(b) > 0 {
		c.unread = false
		return copy(b, c.first[:]), nil
	}
	return c.TCPConn.Read(b)
}

// WriteTo hides the TCPConn's method, which would skip the first byte.
func (c *Conn) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{c})
}

// Close closes the connection and frees its place, if it has one. A second Close fails and frees
// nothing.
func (c *Conn) Close() error {
	err := c.TCPConn.Close()
	// net reports net.ErrClosed to all callers but the first.
	if c.places != nil && !errors.Is(err, net.ErrClosed) {
		<-c.places
	}
	return err
}

// SetUserTimeout is the function SetUserTimeout, for this connection.
func (c *Conn) SetUserTimeout(d time.Duration) error {
	c.userTimeout = d
	return SetUserTimeout(c.TCPConn, d)
}

// EnableUserTimeout switches the timeout that was set with SetUserTimeout off or on again. It must
// be off while writes wait for a client that reads slowly: Linux may end such a connection although
// the client still reads, and the writes have their own deadline.
func (c *Conn) EnableUserTimeout(on bool) error {
	if on {
		return SetUserTimeout(c.TCPConn, c.userTimeout)
	}
	return SetUserTimeout(c.TCPConn, 0)
}
