package tcp

import (
	"errors"
	"io"
	"net"
	"time"
)

const (
	refusalTimeout = time.Second // for a request to come, and as long again for all that follows
	MaxRefusals    = 64          // refusals under way at a time, at most
	maxDropped     = 64 << 10    // bytes that are read and dropped of what a refused client sends

	// How long Accept waits after an error, first and at most.
	minPause = 5 * time.Millisecond
	maxPause = time.Second
)

// Limited is a listener with a certain number of places. A connection has a place from Accept until
// its Close. When no place is left, a connection is refused, and the server never sees it.
type Limited struct {
	listener listener
	places   chan struct{}   // has an element for each connection that has a place
	refusals chan struct{}   // has an element for each refusal under way
	refuse   func(io.Writer) // writes what a refused client gets
	closed   chan struct{}   // is closed by Close
}

// listener is what Limited needs of a net.TCPListener.
type listener interface {
	AcceptTCP() (*net.TCPConn, error)
	Close() error
	Addr() net.Addr
}

// Conn is a connection with a place in a Limited.
//
// It embeds the TCPConn, and not just a net.Conn, because net looks for methods beyond that
// interface, some of them unexported: with them a net.Buffers leaves in one writev(2), and a file
// in sendfile(2). Call the Conn's own Close; the TCPConn's would keep the place.
type Conn struct {
	*net.TCPConn
	places chan struct{}
	wait   time.Duration // for what comes next to begin; 0 for no limit beside the one that is set
	limit  time.Duration // for what comes next, once it has begun; 0 for no limit
	buffer int           // how many bytes the first Read asked for
}

// Limit returns a listener that takes connections from l while fewer than n of them are open. Any
// other connection gets what refuse writes, in a goroutine of its own and within a second, and is
// closed. At most n/8 + 1 such refusals, and never more than 64, are under way at a time; beyond
// that, a connection is closed without an answer.
//
// So at most n connections and these refusals are open, and one that is about to be closed.
func Limit(l *net.TCPListener, n int, refuse func(io.Writer)) *Limited {
	return limit(l, n, refuse)
}

func limit(l listener, n int, refuse func(io.Writer)) *Limited {
	return &Limited{
		listener: l,
		places:   make(chan struct{}, n),
		refusals: make(chan struct{}, min(n/8+1, MaxRefusals)),
		refuse:   refuse,
		closed:   make(chan struct{}),
	}
}

// Accept waits for a connection that gets a place and returns it, a *Conn. It fails only after
// Close.
//
// Any other error it takes for one that passes, such as that the process has no file left, and
// tries again after a pause. It says nothing meanwhile, because http.Server would log a line for
// each error that it saw, or even end.
func (l *Limited) Accept() (net.Conn, error) {
	pause := minPause
	for {
		conn, err := l.listener.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		if err != nil {
			select {
			case <-time.After(pause):
			case <-l.closed:
			}
			pause = min(2*pause, maxPause)
			continue
		}
		pause = minPause
		select {
		case l.places <- struct{}{}:
			return &Conn{TCPConn: conn, places: l.places}, nil
		default:
			l.turnAway(conn)
		}
	}
}

// turnAway refuses conn, or just closes it if there are too many refusals under way.
func (l *Limited) turnAway(conn *net.TCPConn) {
	select {
	case l.refusals <- struct{}{}:
		go func() {
			l.answer(conn)
			conn.Close()
			<-l.refusals
		}()
	default:
		conn.Close()
	}
}

// answer has refuse write to conn, so that the client sees the answer. A client that gets an answer
// before it has asked may take the connection for broken, so answer waits for a request. And if a
// connection is closed before all that came on it was read, the kernel sends a reset, which can
// overtake the answer; so answer reads until the client has closed, too.
func (l *Limited) answer(conn *net.TCPConn) {
	conn.SetDeadline(time.Now().Add(refusalTimeout))
	conn.Read(make([]byte, 1)) // a client that sends nothing gets the answer as well
	conn.SetDeadline(time.Now().Add(refusalTimeout))
	l.refuse(conn)
	conn.CloseWrite()
	io.Copy(io.Discard, io.LimitReader(conn, maxDropped))
}

// Crowded reports whether more than half of the places are taken. A server that answers
// "Connection: close" then keeps places free of idle connections.
func (l *Limited) Crowded() bool {
	return len(l.places) > cap(l.places)/2
}

// Close closes the listener. It ends Accept, and leaves the connections alone.
func (l *Limited) Close() error {
	err := l.listener.Close()
	if !errors.Is(err, net.ErrClosed) { // it was open, which net says to one caller only
		close(l.closed)
	}
	return err
}

// Addr returns the listener's address.
func (l *Limited) Addr() net.Addr {
	return l.listener.Addr()
}

// Close closes the connection and frees its place. A second Close fails and frees nothing.
func (c *Conn) Close() error {
	err := c.TCPConn.Close()
	if !errors.Is(err, net.ErrClosed) { // it was open, which net says to one caller only
		<-c.places
	}
	return err
}

// LimitNext gives whatever comes next on the connection d to come, from its first byte on. It has
// wait to begin, or, if wait is 0, until the read deadline that is set already. If d is 0, Read leaves
// deadlines alone.
//
// An http.Server counts a first request from the moment at which the connection is there, and takes
// up to three bytes of any other for idle time. LimitNext mends both.
func (c *Conn) LimitNext(wait, d time.Duration) {
	c.wait, c.limit = wait, d
}

// Read reads as a TCPConn does, and sets the deadlines that LimitNext has asked for. It must be
// called by a reader with a buffer, as http.Server does: such a reader asks for less than its buffer
// can hold if it has a byte already.
func (c *Conn) Read(b []byte) (int, error) {
	if c.buffer == 0 {
		c.buffer = len(b)
	}
	if c.limit == 0 {
		return c.TCPConn.Read(b)
	}
	begun := len(b) < c.buffer
	if begun {
		c.SetReadDeadline(time.Now().Add(c.limit))
	} else if c.wait > 0 {
		c.SetReadDeadline(time.Now().Add(c.wait))
	}
	n, err := c.TCPConn.Read(b)
	if !begun && n > 0 && (c.wait > 0 || n < 4) {
		c.SetReadDeadline(time.Now().Add(c.limit))
	}
	c.limit = 0
	return n, err
}
