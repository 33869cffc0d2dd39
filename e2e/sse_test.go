// This file has the helpers that open and read streams, and the package's one parser of the event
// stream format.
package e2e

import (
	"bufio"
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

// event is what an EventSource would dispatch, with the id that it would reconnect with afterwards.
type event struct{ id, name, data string }

// sseReader reads the event stream format (HTML standard, "Server-sent events"). It shares no code
// with the server.
type sseReader struct {
	r        *bufio.Reader
	lines    []string // read from r together and not yet returned
	lastID   string   // as of the last blank line
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

// line returns the next line. LF, CR LF and CR each end one, but a CR is noticed only when an LF
// arrives, which does no harm here: the server sends no CR.
func (s *sseReader) line() (string, error) {
	if len(s.lines) == 0 {
		text, err := s.r.ReadString('\n')
		if err != nil {
			return "", err
		}
		text = strings.TrimSuffix(strings.TrimSuffix(text, "\n"), "\r")
		s.lines = strings.Split(text, "\r")
	}
	line := s.lines[0]
	s.lines = s.lines[1:]
	return line, nil
}

// countGaps reads the stream up to the last word. It fails if the stream ends before that, or with
// errHole if events are missing without a gap.
func (s *sseReader) countGaps() (gaps int, err error) {
	number := -1
	for {
		e, err := s.next()
		if err != nil {
			return gaps, err
		}
		n := numberOf(epochOf(e.id), e.id)
		switch {
		case e.name == "gap":
			gaps++
		case number >= 0 && n != number+1:
			return gaps, fmt.Errorf("%w between %d and %d", errHole, number, n)
		case e.data == lastWord:
			return gaps, nil
		}
		number = n
	}
}

var errHole = errors.New("events are missing without a gap")

// stream is an open stream.
type stream struct {
	sseReader
	header http.Header
	body   io.Closer    // closes the connection
	conn   *net.TCPConn // for tests that disturb it
}

// subscribe opens a stream at path, which ends with the test.
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
	return s.trySubscribeWith(http.DefaultClient, path, headers...)
}

// trySubscribeWith is trySubscribe for a client of the test.
func (s *server) trySubscribeWith(
	client *http.Client, path string, headers ...string,
) (*stream, error) {
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
	resp, err := client.Do(req)
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

// subscribeSlowly opens a stream on which the client's kernel accepts at most about 100 KiB that
// the test does not read.
func (s *server) subscribeSlowly(t testing.TB, path string) *stream {
	t.Helper()
	st := s.subscribe(t, path)
	st.conn.SetReadBuffer(128 << 10)
	return st
}

// mustStream reads the head of a stream that was requested on conn.
func mustStream(t testing.TB, conn *net.TCPConn, r *bufio.Reader) *stream {
	t.Helper()
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("a stream: got %+v, %v, want 200", resp, err)
	}
	body := bufio.NewReader(resp.Body)
	return &stream{sseReader: sseReader{r: body}, header: resp.Header, body: conn, conn: conn}
}

// closeAfter closes the stream after that time unless stop is called before.
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

// expect reads the next event and fails the test unless it is a message with that data, or if it
// takes more than 10 s.
func (st *stream) expect(t testing.TB, data string) event {
	t.Helper()
	e := st.mustNext(t)
	if e.name != "message" || e.data != data {
		t.Fatalf("got the event %q with %q, want a message with %q", e.name, e.data, data)
	}
	return e
}

// expectRun reads events with those data, whose ids must follow each other: from the opening block
// on, if that has not been read yet.
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
	`^retry: (1\d{3}|2000)\nid: ([0-9a-z]{8,}-\d+)\n(event: gap\ndata: [A-Z][^\n]*\.\n)?\n$`)

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

// block returns the stream's next lines, up to and including a blank one, as they were sent. It
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

// slowly is a Reader that reads at most size bytes at once, after a pause, until enough is closed.
type slowly struct {
	io.Reader
	size   int
	pause  time.Duration
	enough chan struct{} // nil if it stays slow
}

func (s *slowly) Read(p []byte) (int, error) {
	select {
	case <-s.enough:
		return s.Reader.Read(p)
	case <-time.After(s.pause):
		return s.Reader.Read(p[:min(len(p), s.size)])
	}
}

// lastWord is the data of the event that ends a test's reading.
const lastWord = "last: word"

// sayLastWord causes that event.
func (s *server) sayLastWord(t testing.TB) {
	t.Helper()
	s.do(t, "POST", "/users/last", "")
	if r := s.do(t, "POST", "/chat/last", "word"); r.status != 200 {
		t.Fatalf("say: got %d %q, want 200", r.status, r.body)
	}
}

// readToLastWord returns the stream's events up to the last word. It fails the test if the stream
// ends before that.
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

// readToEnd returns all further events. It fails the test unless the stream ends properly.
func (st *stream) readToEnd(t testing.TB) []event {
	var events []event
	for {
		e, err := st.next()
		if err == io.EOF {
			return events
		}
		if err != nil {
			t.Errorf("after %d events, waiting for the proper end: %v", len(events), err)
			return events
		}
		events = append(events, e)
	}
}

func arrives(name string) string { return "User " + name + " connected to the chat." }
func leaves(name string) string  { return "User " + name + " disconnected from the chat." }

// epochOf returns the epoch of an id.
func epochOf(id string) string {
	epoch, _, _ := strings.Cut(id, "-")
	return epoch
}

// numberOf returns the number in an id of the epoch, or -1 if the id is not of that epoch.
func numberOf(epoch, id string) int {
	number, ok := strings.CutPrefix(id, epoch+"-")
	if n, err := strconv.Atoi(number); ok && err == nil {
		return n
	}
	return -1
}

// idPlus returns the id of the nth event after id.
func idPlus(t testing.TB, id string, n int) string {
	t.Helper()
	epoch := epochOf(id)
	number := numberOf(epoch, id)
	if number < 0 {
		t.Fatalf("the id %q is not EPOCH-SEQ", id)
	}
	return fmt.Sprint(epoch, "-", number+n)
}

// mustFollow fails the test unless the events are messages with the ids of the epoch from first
// on, without a hole.
func mustFollow(t testing.TB, epoch string, first int, events []event) {
	t.Helper()
	for i, e := range events {
		if want := fmt.Sprintf("%s-%d", epoch, first+i); e.id != want || e.name != "message" {
			t.Fatalf("got %+v, want a message with the id %s", e, want)
		}
	}
}
