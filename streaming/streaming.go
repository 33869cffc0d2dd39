// Package streaming sends response bodies that last, on connections that it takes from net/http.
//
// A handler that waits for events keeps net/http's goroutine, with a stack that has grown, and its
// buffers for as long as the client listens. And each event is copied into a buffer and leaves in up
// to three write(2)s. So [Send] lets net/http send the head, takes the connection, and returns; a
// goroutine that does nothing but wait and write sends the rest. That takes less than half of the
// memory for a client to whom nothing happens, and one writev(2) for each piece.
package streaming

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"time"
)

const (
	writeTimeout = 10 * time.Second // for the client to take what was written
	maxHeard     = 64 << 10         // bytes that the client may send, all discarded

	// slowWrite is how long a write takes if the client reads slowly. Between two slow writes some may
	// be quick, because the kernel waits for room for several.
	slowWrite = 100 * time.Millisecond
)

// Body is what there is to send. Send calls its methods from one goroutine at a time.
type Body interface {
	// Next waits for the next bytes and returns them. They must stay as they are. An error ends the
	// body properly.
	Next(ctx context.Context) ([]byte, error)
	// Close is called once, when the body has ended or its client is gone.
	Close()
}

// Send answers with the head that w has, and with body, until body ends, the client leaves, or the
// client does not take a write within 10 s. What Next returns first must be there at once. When Send
// returns, the head and the first bytes have left, and the handler must return. Without an http.Server that
// speaks HTTP/1 behind w, Send panics.
func Send(w http.ResponseWriter, r *http.Request, body Body) {
	// The body of an HTTP/1.1 response is chunked, so the client sees where it ends. The connection
	// ends there too, since net/http no longer has it, and the client must not send another request.
	w.Header().Set("Connection", "close")
	rc := http.NewResponseController(w)
	rc.SetWriteDeadline(time.Now().Add(writeTimeout))
	// Not with r.Context(), which is done if the client has closed its side, and still waits.
	first, err := body.Next(context.Background())
	w.Write(first)
	// Flush sends the head and the first bytes. If that fails, a part of them may have gone, so
	// nothing else can be answered.
	if err != nil || rc.Flush() != nil {
		body.Close()
		return
	}
	// From here on the body has the connection to itself, and returning frees net/http's goroutine
	// and buffers. net/http has said in the head whether the body is chunked.
	conn, buffered, err := rc.Hijack()
	if err != nil {
		body.Close()
		panic(err)
	}
	s := &sender{conn: conn, chunked: r.ProtoAtLeast(1, 1), heard: buffered.Reader.Buffered()}
	go s.sendAll(body)
}

// sender sends one body.
type sender struct {
	conn     net.Conn
	chunked  bool
	heard    int       // bytes that the client has sent
	deadline time.Time // of the next write
	lastSlow time.Time // when the last slow write began; zero if none did lately

	// What one send needs, kept for the next.
	size   []byte
	parts  [3][]byte
	unsent net.Buffers
}

// sendAll sends body and closes the connection.
func (s *sender) sendAll(body Body) {
	defer body.Close()
	defer s.conn.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		defer cancel()
		s.awaitLeave()
	}()
	for {
		data, err := body.Next(ctx)
		if s.send(data) != nil || err != nil { // with an error, data is empty, which ends the body
			return
		}
	}
}

// awaitLeave reads and discards until the client hangs up, or has sent maxHeard bytes. A client that
// only listens has nothing to say, so one that says as much is treated as gone.
func (s *sender) awaitLeave() {
	var buffer [64]byte // small, because every client keeps one
	for s.heard < maxHeard {
		n, err := s.conn.Read(buffer[:])
		if err != nil {
			return
		}
		s.heard += n
	}
}

var crlf = []byte("\r\n")

// send sends data. In HTTP/1.1 that is one chunk (RFC 9112, section 7.1), and an empty one ends the
// body.
func (s *sender) send(data []byte) error {
	begun := time.Now()
	s.renewDeadline(begun)
	if err := s.write(data); err != nil {
		s.giveUp(true) // on what the kernel still has to send
		return err
	}
	s.noteSpeed(begun)
	return nil
}

func (s *sender) write(data []byte) error {
	if !s.chunked {
		_, err := s.conn.Write(data)
		return err
	}
	s.size = append(strconv.AppendInt(s.size[:0], int64(len(data)), 16), crlf...)
	s.parts = [...][]byte{s.size, data, crlf}
	s.unsent = s.parts[:]
	_, err := s.unsent.WriteTo(s.conn) // in one writev(2)
	return err
}

// renewDeadline gives the client at least writeTimeout for the next write. It gives a second more,
// so that most calls have nothing to set: that would cost 5 % of the processor time.
func (s *sender) renewDeadline(now time.Time) {
	if s.deadline.Sub(now) < writeTimeout {
		s.deadline = now.Add(writeTimeout + time.Second)
		s.conn.SetWriteDeadline(s.deadline)
	}
}

// noteSpeed notes whether the write that has begun then was slow. While some writes are slow, their
// deadline tells whether the client is there, and the connection need not, if it has a way to.
func (s *sender) noteSpeed(begun time.Time) {
	isSlow, wasSlow := time.Since(begun) > slowWrite, !s.lastSlow.IsZero()
	switch {
	case isSlow:
		s.lastSlow = begun
	case wasSlow && begun.Sub(s.lastSlow) > writeTimeout:
		s.lastSlow = time.Time{}
	}
	if isLately := !s.lastSlow.IsZero(); isLately != wasSlow {
		s.giveUp(wasSlow)
	}
}

func (s *sender) giveUp(on bool) {
	if conn, ok := s.conn.(interface{ GiveUp(on bool) error }); ok {
		conn.GiveUp(on)
	}
}
