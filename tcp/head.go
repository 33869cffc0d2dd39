package tcp

import (
	"bytes"
	"io"
	"time"
)

// HeadLimits are what the head of an HTTP request may take while it comes. An http.Server looks at a
// head only when it is whole. Until then it limits the bytes but not the lines, of which 16 KiB can
// take 80 KB of memory. And it limits the time only in part: for the first head it counts the wait
// for the first byte, and for any other the first three bytes are idle time.
type HeadLimits struct {
	Wait   time.Duration   // for the first byte; 0 for the read deadline that is set already
	Time   time.Duration   // from the first byte on
	Lines  int             // with the request line
	Refuse func(io.Writer) // writes the answer to a head with more lines
}

// head is what a Conn knows of the head that comes.
type head struct {
	limits   *HeadLimits // nil while no head is expected
	buffer   int         // how many bytes the connection's first Read asked for
	begun    bool
	deadline time.Time // of what has begun; zero if the server sets its own in time
	ended    bool      // with an empty line; more requests may follow it
	lines    int       // that have come whole
	partial  bool      // whether some of the next line has come
}

// ExpectHead has what comes next on the connection be the head of a request, within limits. With nil
// it is anything.
func (c *Conn) ExpectHead(limits *HeadLimits) {
	hadDeadline := !c.head.deadline.IsZero()
	c.head = head{limits: limits, buffer: c.head.buffer}
	if hadDeadline {
		c.SetReadDeadline(time.Time{})
	}
}

// SetReadDeadline sets the read deadline to t, or to that of the head that has begun if that is
// earlier: an http.Server begins to count anew when it has four bytes.
func (c *Conn) SetReadDeadline(t time.Time) error {
	if d := c.head.deadline; !d.IsZero() && (t.IsZero() || t.After(d)) {
		t = d
	}
	return c.TCPConn.SetReadDeadline(t)
}

// Read reads as a TCPConn does, within the limits of a head that is expected. If the head has too many
// lines, Read has it refused, and returns io.EOF. Read must be called by a reader with a buffer, as
// http.Server does: such a reader asks for less than its buffer can hold if it has a byte already.
func (c *Conn) Read(b []byte) (int, error) {
	h := &c.head
	if h.buffer == 0 {
		h.buffer = len(b)
	}
	if h.limits == nil {
		return c.TCPConn.Read(b)
	}
	if !h.begun && len(b) < h.buffer {
		c.begin()
	}
	if !h.begun && h.limits.Wait > 0 {
		c.SetReadDeadline(time.Now().Add(h.limits.Wait))
	}
	n, err := c.TCPConn.Read(b)
	if h.hasTooManyLines(b[:n]) {
		answer(c.TCPConn, h.limits.Refuse)
		return 0, io.EOF
	}
	// Of a head that came whole there is nothing to wait for, and from 4 bytes on the server sets a
	// deadline of its own.
	if !h.begun && n > 0 && !h.ended && (h.limits.Wait > 0 || n < 4) {
		c.begin()
	}
	h.begun = h.begun || n > 0
	return n, err
}

// begin has the head have begun, and sets its deadline.
func (c *Conn) begin() {
	c.head.begun = true
	c.head.deadline = time.Now().Add(c.head.limits.Time)
	c.SetReadDeadline(c.head.deadline)
}

// hasTooManyLines counts the lines of the head in b, which follows what has come. Empty lines before
// the head do not count (RFC 9112, section 2.2).
func (h *head) hasTooManyLines(b []byte) bool {
	for !h.ended {
		line, rest, found := bytes.Cut(b, []byte("\n"))
		isEmpty := !h.partial && len(bytes.TrimSuffix(line, []byte("\r"))) == 0
		if !found {
			h.partial = !isEmpty
			return false
		}
		h.partial, b = false, rest
		if isEmpty {
			h.ended = h.lines > 0
			continue
		}
		h.lines++
		if h.lines > h.limits.Lines {
			return true
		}
	}
	return false
}
