package tcp

// What belongs here: the heads of requests, while they come on a Conn.

import (
	"bufio"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

func TestHeadHasLittleTimeOnceItHasBegun(t *testing.T) {
	l := listen(t, 1, nil)
	client := dial(t, l)
	conn := mustAccept(t, l)
	reader := bufio.NewReader(conn)
	// With time that is over as soon as it begins, the next read tells whether it has begun.
	for _, c := range []struct {
		before, sent string // what came before ExpectHead, and after it
		wait, limit  time.Duration
		want         bool // whether there is a deadline
	}{
		{sent: "GET ", limit: time.Nanosecond}, // net/http sets its own
		{sent: "G", limit: time.Nanosecond, want: true},
		{before: "G", sent: "ET", limit: time.Nanosecond, want: true},
		{sent: "GET ", wait: time.Hour, limit: time.Nanosecond, want: true},
	} {
		io.WriteString(client, c.before)
		reader.Peek(len(c.before))
		conn.ExpectHead(&HeadLimits{Wait: c.wait, Time: c.limit, Lines: 100})
		io.WriteString(client, c.sent)
		reader.Peek(len(c.before + c.sent))
		io.WriteString(client, "x")
		_, err := reader.Peek(len(c.before+c.sent) + 1)
		if got := errors.Is(err, os.ErrDeadlineExceeded); got != c.want {
			t.Errorf("%+v: got %v", c, err)
		}
		conn.ExpectHead(nil)
		reader.Peek(len(c.before+c.sent) + 1)
		reader.Discard(reader.Buffered())
	}
}

func TestHeadHasTimeToBegin(t *testing.T) {
	l := listen(t, 1, nil)
	dial(t, l)
	conn := mustAccept(t, l)
	conn.ExpectHead(&HeadLimits{Wait: time.Millisecond, Time: time.Hour, Lines: 100})
	if _, err := conn.Read(make([]byte, 4)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestHeadHasOnlySoManyLines(t *testing.T) {
	const line = "a: b\r\n"
	for _, c := range []struct {
		name string
		sent []string // each of which is read by itself
		want bool     // whether it is refused
	}{
		{name: "as many as it may", sent: []string{strings.Repeat(line, 5), "\r\n"}},
		{name: "without carriage returns", sent: []string{strings.Repeat("a\n", 5), "\n"}},
		{name: "one more", sent: []string{strings.Repeat(line, 6)}, want: true},
		{name: "one more without carriage returns", sent: []string{strings.Repeat("a\n", 6)}, want: true},
		{name: "one more in pieces", sent: []string{"a", "b\r\n" + strings.Repeat(line, 4), "c", "\r", "\n"}, want: true},
		{name: "one more after an empty line", sent: []string{"\r\n" + strings.Repeat(line, 6)}, want: true},
		{name: "with what follows the head", sent: []string{line + "\r\n" + strings.Repeat(line, 9)}},
		{name: "with what follows later", sent: []string{line, "\r", "\n", strings.Repeat(line, 9)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := listen(t, 1, nil)
			client := dial(t, l)
			conn := mustAccept(t, l)
			conn.ExpectHead(&HeadLimits{Time: time.Minute, Lines: 5, Refuse: sayFull})
			for i, piece := range c.sent {
				io.WriteString(client, piece)
				if i == len(c.sent)-1 {
					client.CloseWrite()
				}
				_, err := io.ReadFull(conn, make([]byte, len(piece)))
				if refused := err == io.EOF; refused != (c.want && i == len(c.sent)-1) {
					t.Fatalf("after piece %d: %v", i, err)
				}
			}
			conn.Close()
			if got, _ := io.ReadAll(client); string(got) == full != c.want {
				t.Errorf("the client got %q", got)
			}
		})
	}
}

func TestWhatIsNoHeadHasNoLimits(t *testing.T) {
	l := listen(t, 1, nil)
	client := dial(t, l)
	conn := mustAccept(t, l)
	conn.ExpectHead(&HeadLimits{Time: time.Nanosecond, Lines: 1, Refuse: sayFull})
	conn.ExpectHead(nil)
	for range 2 {
		io.WriteString(client, "\na\nb\n")
		if _, err := io.ReadFull(conn, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
	}
}

// An http.Server counts anew when it has four bytes.
func TestServerCannotLengthenTheTimeOfAHead(t *testing.T) {
	l := listen(t, 1, nil)
	client := dial(t, l)
	conn := mustAccept(t, l)
	reader := bufio.NewReader(conn)
	reader.Peek(0)
	conn.ExpectHead(&HeadLimits{Time: time.Millisecond, Lines: 5, Refuse: sayFull})
	io.WriteString(client, "G")
	reader.Peek(1)
	for _, t := range []time.Time{{}, time.Now().Add(time.Hour)} {
		conn.SetReadDeadline(t)
	}
	if _, err := reader.Peek(2); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	conn.ExpectHead(nil) // the head has come
	io.WriteString(client, "E")
	if _, err := reader.Peek(2); err != nil {
		t.Errorf("after that, got %v", err)
	}
}
