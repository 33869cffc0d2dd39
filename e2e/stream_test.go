package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
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
	body   io.ReadCloser
}

// subscribe opens a stream at path. headers are names and values in turn. The
// test closes it.
func (s *server) subscribe(t testing.TB, path string, headers ...string) *stream {
	t.Helper()
	st, err := s.trySubscribe(path, headers...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.body.Close() })
	return st
}

func (s *server) trySubscribe(path string, headers ...string) (*stream, error) {
	req, err := http.NewRequest("GET", s.url+path, nil)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return nil, fmt.Errorf("GET %s: %s: %s", path, resp.Status, b)
	}
	return &stream{sseReader{r: bufio.NewReader(resp.Body)}, resp.Header, resp.Body}, nil
}

// expect reads the next event and fails the test unless it is a message with
// that data, or when it takes more than 10 s.
func (st *stream) expect(t testing.TB, data string) event {
	t.Helper()
	timer := time.AfterFunc(10*time.Second, func() { st.body.Close() })
	defer timer.Stop()
	e, err := st.next()
	if err != nil {
		t.Fatalf("waiting for %q: %v", data, err)
	}
	if e.name != "message" || e.data != data {
		t.Fatalf("got the event %q with %q, want a message with %q", e.name, e.data, data)
	}
	return e
}
