package conns

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
	giveUp time.Duration // what GiveUpAfter was told
}

// Limit returns a listener that takes connections from l while fewer than n of them are open. Any
// other connection gets what refuse writes, in a goroutine of its own: when it has asked, or after
// a second. It is closed when the client has closed its side, or a second later. At most n/8 + 1
// such refusals, and never more than 64, are under way at a time; beyond that, a connection is
// closed without an answer.
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
			// A client that gets an answer before it has asked may take the connection for broken.
			// One that does not ask at all gets the answer after a second.
			conn.SetReadDeadline(time.Now().Add(refusalTimeout))
			conn.Read(make([]byte, 1))
			answer(conn, l.refuse)
			conn.Close()
			<-l.refusals
		}()
	default:
		conn.Close()
	}
}

// answer has refuse write to conn, so that the client sees the answer. If a connection is closed
// before all that came on it was read, the kernel sends a reset, which can overtake the answer. So
// answer reads until the client has closed, too.
func answer(conn *net.TCPConn, refuse func(io.Writer)) {
	conn.SetDeadline(time.Now().Add(refusalTimeout))
	refuse(conn)
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

// GiveUpAfter does what the function GiveUpAfter does, and remembers d for GiveUp.
func (c *Conn) GiveUpAfter(d time.Duration) error {
	c.giveUp = d
	return GiveUpAfter(c.TCPConn, d)
}

// GiveUp switches what GiveUpAfter has set off and on again. It should be off while a write waits
// for a client that reads slowly. Linux may take such a client for gone even if it reads on, and the
// write has a deadline of its own.
func (c *Conn) GiveUp(on bool) error {
	if on {
		return GiveUpAfter(c.TCPConn, c.giveUp)
	}
	return GiveUpAfter(c.TCPConn, 0)
}
