// Package streaming sends long-lived response bodies.
//
// A handler that waits for events ties up net/http's goroutine, with a stack that has grown, and
// its buffers for as long as the client listens. In addition, each event is copied into a buffer
// and sent with up to three write(2)s. So [Send] lets net/http send the header, hijacks the
// connection, and returns; a goroutine that only waits and writes sends the rest. This more than
// halves the memory per idle client, and each piece of the body needs one writev(2).
//
// Where nobody may hijack the connection, over HTTP/2 and under middleware, the handler sends the
// body itself. [SendPieces] sends a long body that is ready, also from the handler's goroutine.
package streaming

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"
)

const (
	writeTimeout = 10 * time.Second // for one write, at least; see extendDeadline
	maxWrite     = 64 << 10         // bytes of several pieces that are sent together
	maxReceived  = 64 << 10         // bytes that the client may send; all are discarded

	// overrunTime passes between the client's last allowed byte and the end of the stream, so that
	// what is ready is still sent.
	overrunTime = time.Second

	// A write that takes longer than slowWrite shows that the client reads slowly. A fast one does
	// not show that the client has caught up: after a slow one, the kernel lets writing continue only
	// once there is room for several, so the next few are fast.
	slowWrite = 100 * time.Millisecond
)

// Body is the source of a response body. Send calls its methods from one goroutine at a time.
type Body interface {
	// Next waits for the next bytes and returns them. The slice must not be modified afterwards. An
	// error ends the body cleanly; the slice is empty then.
	Next(ctx context.Context) ([]byte, error)
	// More returns further bytes without waiting, or nil if none are ready or there are more than
	// limit. They are sent together with those of Next.
	More(limit int) []byte
	// Close is called once, when the body has ended or its client has disconnected.
	Close()
}

// Send sends w's header and then body, until body ends, the client disconnects, or a write reaches
// its limit of 10 to 11 s. The first Next must return immediately. When Send returns, the header
// and the first bytes have been sent, or sending has failed, and the handler must return. CanSend
// must be true for w.
func Send(w http.ResponseWriter, r *http.Request, body Body) {
	// The body of an HTTP/1.1 response is chunked, so the client sees where it ends. The connection
	// ends there too, since net/http no longer has it: the client must not send another request.
	// Over HTTP/2, this header would end the connection, with all that happens on it.
	if r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close")
	}
	rc := http.NewResponseController(w)
	rc.SetWriteDeadline(time.Now().Add(writeTimeout))
	// r.Context() is canceled when the client half-closes the connection, even if it still waits.
	first, err := body.Next(context.Background())
	w.Write(first)
	// Flush sends the header and the first bytes. If it fails, some of them may have been sent, so
	// no other response is possible.
	if err != nil || rc.Flush() != nil {
		body.Close()
		return
	}
	hijacker, ok := w.(http.Hijacker)
	if _, isWrapped := w.(wrapper); !ok || isWrapped { // a wrapper may change what is written
		sendInPlace(w, r, body)
		return
	}
	// From here on, only the body uses the connection, and returning frees net/http's goroutine and
	// buffers. The header has already told the client whether the body is chunked.
	conn, buffered, err := hijacker.Hijack()
	if err != nil {
		sendInPlace(w, r, body)
		return
	}
	s := &sender{body: body, conn: conn, chunked: r.ProtoAtLeast(1, 1),
		received: buffered.Reader.Buffered()}
	go s.sendAll()
}

// sender sends one body.
type sender struct {
	body      Body
	conn      net.Conn
	chunked   bool
	received  int       // bytes that the client has sent
	deadline  time.Time // of the next write
	slowUntil time.Time // TCP's user timeout stays off until a fast write after this; zero if it is on

	// What one send needs, kept for the next.
	size   []byte
	parts  [][]byte
	unsent net.Buffers
}

// sendAll sends the body and closes the connection.
func (s *sender) sendAll() {
	defer s.body.Close()
	defer s.conn.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		defer cancel()
		s.awaitLeave()
	}()
	for {
		data, err := s.body.Next(ctx)
		// With an error, data is empty, and to send nothing ends the body.
		if s.send(data) != nil || err != nil {
			return
		}
	}
}

// awaitLeave reads and discards until the client disconnects or has sent maxReceived bytes. A
// client has nothing to send, so one that sends this much is treated as disconnected.
func (s *sender) awaitLeave() {
	var buffer [64]byte // small, because every client keeps one
	for s.received < maxReceived {
		n, err := s.conn.Read(buffer[:])
		if err != nil {
			return
		}
		s.received += n
	}
	time.Sleep(overrunTime)
}

var crlf = []byte("\r\n")

// send sends data and whatever else the body has ready. In HTTP/1.1, all of that is one chunk (RFC
// 9112, section 7.1), and an empty chunk ends the body.
func (s *sender) send(data []byte) error {
	begun := time.Now()
	s.extendDeadline(begun)
	if err := s.write(data); err != nil {
		enableUserTimeout(s.conn, true) // for the data that the kernel still has to send
		return err
	}
	// The kernel would reset the connection of a client that reads slowly but steadily, even with a
	// timeout of 30 s. So while writes are slow, only their deadline detects a dead client.
	switch isOn := s.slowUntil.IsZero(); {
	case time.Since(begun) > slowWrite:
		s.slowUntil = begun.Add(writeTimeout)
		if isOn {
			enableUserTimeout(s.conn, false)
		}
	case !isOn && begun.After(s.slowUntil):
		s.slowUntil = time.Time{}
		enableUserTimeout(s.conn, true)
	}
	return nil
}

func (s *sender) write(data []byte) error {
	size := len(data)
	s.parts = append(s.parts[:0], nil, data) // nil is for the size of the chunk
	for size > 0 {
		more := s.body.More(maxWrite - size)
		if len(more) == 0 {
			break
		}
		s.parts, size = append(s.parts, more), size+len(more)
	}
	s.unsent = s.parts[1:]
	if s.chunked {
		s.size = append(strconv.AppendInt(s.size[:0], int64(size), 16), crlf...)
		s.parts[0] = s.size
		s.parts = append(s.parts, crlf)
		s.unsent = s.parts
	}
	if _, ok := s.conn.(*tls.Conn); ok { // each write would become a record
		_, err := s.conn.Write(slices.Concat(s.unsent...))
		return err
	}
	_, err := s.unsent.WriteTo(s.conn) // in one writev(2)
	return err
}

// extendDeadline gives the client at least writeTimeout for the next write. It adds a second, so
// that most calls need not set the deadline, which would cost 5 % of the processor time.
func (s *sender) extendDeadline(now time.Time) {
	if s.deadline.Sub(now) < writeTimeout {
		s.deadline = now.Add(writeTimeout + time.Second)
		s.conn.SetWriteDeadline(s.deadline)
	}
}

// enableUserTimeout switches the user timeout of conn, if it has one. If that fails, a slow client
// may lose its response, and asks again.
func enableUserTimeout(conn net.Conn, on bool) {
	if overTLS, ok := conn.(*tls.Conn); ok {
		conn = overTLS.NetConn()
	}
	if conn, ok := conn.(interface{ EnableUserTimeout(on bool) error }); ok {
		conn.EnableUserTimeout(on)
	}
}
