// Here is how a test reads a stream: as it stands, as events, or as fast as it comes.
package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// event is what an EventSource would hand to its page, with the id that it
// would reconnect with afterwards.
type event struct{ id, name, data string }

// sseReader reads the event stream format (HTML standard, section 9.2.6) one
// byte at a time, sharing nothing with the server that wrote it.
type sseReader struct {
	r        *bufio.Reader
	lastID   string // as of the last blank line
	retry    string
	comments []string
}

// next returns the next event that has data.
func (s *sseReader) next() (event, error) {
	id, name, data, hasData := s.lastID, "", "", false
	for {
		line, err := s.line()
		if err != nil {
			return event{}, err
		}
		if line == "" {
			s.lastID = id
			if hasData {
				if name == "" {
					name = "message"
				}
				return event{id, name, data}, nil
			}
			name = ""
			continue
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "":
			s.comments = append(s.comments, value)
		case "id":
			if !strings.Contains(value, "\x00") {
				id = value
			}
		case "event":
			name = value
		case "data":
			if hasData {
				data += "\n"
			}
			data, hasData = data+value, true
		case "retry":
			s.retry = value
		}
	}
}

// line reads up to LF, CR LF or CR.
func (s *sseReader) line() (string, error) {
	var line []byte
	for {
		c, err := s.r.ReadByte()
		if err != nil {
			return "", err
		}
		switch c {
		case '\n':
			return string(line), nil
		case '\r':
			if next, err := s.r.Peek(1); err == nil && next[0] == '\n' {
				s.r.ReadByte()
			}
			return string(line), nil
		}
		line = append(line, c)
	}
}

// stream is an open stream of the server's.
type stream struct {
	sseReader
	header http.Header
	body   io.Closer    // closes the connection
	conn   *net.TCPConn // to make trouble with
}

// subscribe opens a stream at path. The test closes it.
func (s *server) subscribe(t testing.TB, path string, headers ...string) *stream {
	t.Helper()
	st, err := s.trySubscribe(path, headers...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.body.Close() })
	return st
}

// trySubscribe opens a stream at path, which the caller closes.
func (s *server) trySubscribe(path string, headers ...string) (*stream, error) {
	req, err := http.NewRequest("GET", s.url+path, nil)
	if err != nil {
		return nil, err
	}
	setHeaders(req, headers)
	st := &stream{}
	trace := &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
		st.conn, _ = got.Conn.(*net.TCPConn)
	}}
	req = req.WithContext(httptrace.WithClientTrace(req.Context(), trace))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		r, _ := readWhole(resp)
		return nil, fmt.Errorf("GET %s: %s: %s", path, resp.Status, r.body)
	}
	st.r, st.header, st.body = bufio.NewReader(resp.Body), resp.Header, resp.Body
	return st, nil
}

// subscribeWhenFree opens a stream as soon as the server has a place for it.
func (s *server) subscribeWhenFree(t testing.TB, path string) (st *stream) {
	t.Helper()
	eventually(t, time.Minute, "a place for "+path, func() bool {
		var err error
		st, err = s.trySubscribe(path)
		return err == nil
	})
	t.Cleanup(func() { st.body.Close() })
	return st
}

// subscribeSlowly opens a stream on which the client's system takes no more than
// some 100 KiB that the test does not read.
func (s *server) subscribeSlowly(t testing.TB, path string) *stream {
	t.Helper()
	st := s.subscribe(t, path)
	st.conn.SetReadBuffer(128 << 10)
	return st
}

// mustStream reads the head of a stream that was asked for on conn.
func mustStream(t testing.TB, conn *net.TCPConn, answers *bufio.Reader) *stream {
	t.Helper()
	resp, err := http.ReadResponse(answers, nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("a stream: got %+v, %v, want 200", resp, err)
	}
	body := bufio.NewReader(resp.Body)
	return &stream{sseReader: sseReader{r: body}, header: resp.Header, body: conn, conn: conn}
}

// closeAfter closes the stream in that time unless stop is called before.
func (st *stream) closeAfter(limit time.Duration) (stop func() bool) {
	return time.AfterFunc(limit, func() { st.body.Close() }).Stop
}

// mustNext returns the next event, and fails the test if it takes more than 10 s.
func (st *stream) mustNext(t testing.TB) event {
	t.Helper()
	defer st.closeAfter(10 * time.Second)()
	e, err := st.next()
	if err != nil {
		t.Fatalf("waiting for an event after %s: %v", st.lastID, err)
	}
	return e
}

// expect reads the next event and fails the test unless it is a message with
// that data, or if it takes more than 10 s.
func (st *stream) expect(t testing.TB, data string) event {
	t.Helper()
	defer st.closeAfter(10 * time.Second)()
	e, err := st.next()
	if err != nil {
		t.Fatalf("waiting for %q: %v", data, err)
	}
	if e.name != "message" || e.data != data {
		t.Fatalf("got the event %q with %q, want a message with %q", e.name, e.data, data)
	}
	return e
}

// expectRun reads events with those data, whose ids must follow without a hole:
// from the opening block on if that has not been read yet.
func (st *stream) expectRun(t testing.TB, data ...string) {
	t.Helper()
	if st.lastID == "" {
		st.mustOpen(t)
	}
	for _, d := range data {
		want := idPlus(t, st.lastID, 1)
		if e := st.expect(t, d); e.id != want {
			t.Fatalf("%q has the id %q, want %q", d, e.id, want)
		}
	}
}

var openingBlock = regexp.MustCompile(
	`^retry: ([12]\d{3}|3000)\nid: ([0-9a-z]{8,}-\d+)\n(event: gap\ndata: [A-Z][^\n]*\.\n)?\n$`)

// mustOpen reads the stream's opening block, which must not be a gap.
func (st *stream) mustOpen(t testing.TB) {
	t.Helper()
	if st.readOpening(t) {
		t.Fatalf("the stream begins with a gap at %s", st.lastID)
	}
}

// readOpening reads the stream's opening block and reports whether it is a gap.
func (st *stream) readOpening(t testing.TB) (isGap bool) {
	t.Helper()
	block := st.block(t)
	m := openingBlock.FindStringSubmatch(block)
	if m == nil {
		t.Fatalf("the stream begins with %q", block)
	}
	st.retry, st.lastID = m[1], m[2]
	return m[3] != ""
}

// block returns the stream's next lines as they stand, up to a blank one. It
// fails the test if they take more than 10 s.
func (st *stream) block(t testing.TB) string {
	t.Helper()
	defer st.closeAfter(10 * time.Second)()
	block := ""
	for !strings.HasSuffix(block, "\n\n") {
		line, err := st.r.ReadString('\n')
		if block += line; err != nil {
			t.Fatalf("a block %q and %v", block, err)
		}
	}
	return block
}

// mustBeCut fails the test unless the stream ends within 10 s.
func (st *stream) mustBeCut(t testing.TB) {
	t.Helper()
	const limit = 10 * time.Second
	inTime := st.closeAfter(limit)
	_, err := io.Copy(io.Discard, st.r)
	if !inTime() {
		t.Errorf("the stream is still open after %v: %v", limit, err)
	}
}

// slowly reads size bytes at a time, with a pause before each, until it has had
// enough. Then it reads as fast as others.
type slowly struct {
	io.Reader
	size   int
	pause  time.Duration
	enough chan struct{} // closed then, or nil if it never has
}

func (s *slowly) Read(p []byte) (int, error) {
	select {
	case <-s.enough:
		return s.Reader.Read(p)
	case <-time.After(s.pause):
		return s.Reader.Read(p[:min(len(p), s.size)])
	}
}

// lastWord is the data of sayLastWord's event.
const lastWord = "last: word"

// sayLastWord makes the event that the readers of a test wait for.
func (s *server) sayLastWord(t testing.TB) {
	t.Helper()
	s.do(t, "POST", "/users/last", "")
	if r := s.do(t, "POST", "/chat/last", "word"); r.status != 200 {
		t.Fatalf("say: got %d %q, want 200", r.status, r.body)
	}
}

// readToLastWord returns the stream's events up to the last word. It fails the
// test if the stream ends before that.
func (st *stream) readToLastWord(t testing.TB) []event {
	var events []event
	for {
		e, err := st.next()
		if err != nil {
			t.Errorf("after %d events, waiting for the last word: %v", len(events), err)
			return events
		}
		if events = append(events, e); e.data == lastWord {
			return events
		}
	}
}

// errHole is what skim returns if events are missing without a gap.
var errHole = errors.New("events are missing without a gap")

// skim reads a stream up to the last word and looks at the ids alone, where
// sseReader would be too slow.
func skim(stream io.Reader, epoch string) (gaps int, err error) {
	r := bufio.NewReaderSize(stream, 16<<10)
	last, id, name, hasData := -1, 0, "", false
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return gaps, err
		}
		field, value, _ := bytes.Cut(line[:len(line)-1], []byte(": "))
		switch string(field) {
		case "id":
			id = numberOf(epoch, string(value))
		case "event":
			name = string(value)
		case "data":
			hasData = true
			if string(value) == lastWord {
				return gaps, nil
			}
		case "":
			switch {
			case name == "gap":
				gaps++
			case hasData && id != last+1:
				return gaps, fmt.Errorf("%w between %d and %d", errHole, last, id)
			}
			last, name, hasData = id, "", false
		}
	}
}

func arrives(name string) string { return "User " + name + " connected to the chat." }
func leaves(name string) string  { return "User " + name + " disconnected from the chat." }

// epochOf returns the epoch of an id.
func epochOf(id string) string {
	epoch, _, _ := strings.Cut(id, "-")
	return epoch
}

// numberOf returns the number in an id of the epoch, or -1 if it is not one.
func numberOf(epoch, id string) int {
	number, ok := strings.CutPrefix(id, epoch+"-")
	if n, err := strconv.Atoi(number); ok && err == nil {
		return n
	}
	return -1
}

// idPlus returns the id that comes n events after id.
func idPlus(t testing.TB, id string, n int) string {
	t.Helper()
	epoch := epochOf(id)
	number := numberOf(epoch, id)
	if number < 0 {
		t.Fatalf("the id %q is not EPOCH-SEQ", id)
	}
	return fmt.Sprint(epoch, "-", number+n)
}

// mustFollow fails the test unless the events are messages with the ids of the
// epoch from first on, without a hole.
func mustFollow(t testing.TB, epoch string, first int, events []event) {
	t.Helper()
	for i, e := range events {
		if want := fmt.Sprintf("%s-%d", epoch, first+i); e.id != want || e.name != "message" {
			t.Fatalf("got %+v, want a message with the id %s", e, want)
		}
	}
}
