package streaming

// What belongs here: bodies that are sent on connections taken from net/http, and how they end.

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// body is a Body of what is sent to pieces, until that is closed.
type body struct {
	pieces chan string
	closed chan struct{}
}

func newBody() *body { return &body{make(chan string, 10), make(chan struct{})} }

func (b *body) Next(ctx context.Context) ([]byte, error) {
	select {
	case piece, ok := <-b.pieces:
		if !ok {
			return nil, io.EOF
		}
		return []byte(piece), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (b *body) Close() { close(b.closed) }

func Example() {
	b := newBody()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		Send(w, r, b)
	}))
	defer server.Close()
	for _, piece := range []string{"one ", "two ", "three"} {
		b.pieces <- piece
	}
	close(b.pieces)
	resp, err := http.Get(server.URL)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	fmt.Println(resp.Header.Get("Content-Type"), string(all), err)
	// Output: text/plain one two three <nil>
}

// exchange sends a request to a server that answers with b, and returns the answer as it stands.
func exchange(t *testing.T, b *body, request string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { Send(w, r, b) }))
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, request)
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

func TestBodyAsItStands(t *testing.T) {
	for _, c := range []struct{ proto, want string }{
		{"HTTP/1.1", "\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"},
		{"HTTP/1.0", "\r\nonetwo"},
	} {
		b := newBody()
		b.pieces <- "one"
		b.pieces <- "two"
		close(b.pieces)
		answer := exchange(t, b, "GET / "+c.proto+"\r\nHost: localhost\r\n\r\n")
		if !strings.HasSuffix(answer, "\r\n"+c.want) || !strings.Contains(answer, "\r\nConnection: close\r\n") {
			t.Errorf("%s: got %q, want it to end in %q", c.proto, answer, c.want)
		}
		<-b.closed
	}
}

func TestBodyEndsWhenItsClientLeaves(t *testing.T) {
	for name, leave := range map[string]func(net.Conn){
		"closing":           func(conn net.Conn) { conn.Close() },
		"sending too much":  func(conn net.Conn) { conn.Write(make([]byte, maxHeard)) },
		"a reset":           func(conn net.Conn) { conn.(*net.TCPConn).SetLinger(0); conn.Close() },
		"closing its side":  func(conn net.Conn) { conn.(*net.TCPConn).CloseWrite() },
		"sending in pieces": func(conn net.Conn) { io.CopyN(conn, zeros{}, maxHeard) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBody()
			b.pieces <- "one"
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { Send(w, r, b) }))
			defer server.Close()
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
			if _, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil {
				t.Fatal(err)
			}
			leave(conn)
			<-b.closed
		})
	}
}

// zeros is a Reader without an end.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

func TestClientMaySendALittle(t *testing.T) {
	client, conn := net.Pipe()
	left := make(chan struct{})
	go func() {
		(&sender{conn: conn}).awaitLeave()
		close(left)
	}()
	client.Write(make([]byte, maxHeard-1))
	select {
	case <-left:
		t.Error("a client that has sent less than maxHeard is treated as gone")
	default:
	}
	client.Write([]byte{0})
	<-left
}

// A client that closes its side once it has asked may still wait for the answer. To net/http, the
// request's context is done then.
func TestHalfClosedRequestGetsTheBeginning(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 {
		b := newBody()
		b.pieces <- "one"
		client, conn := net.Pipe()
		w := httptest.NewRecorder()
		Send(hijackable{w, conn}, httptest.NewRequestWithContext(ctx, "GET", "/", nil), b)
		client.Close()
		<-b.closed
		if w.Body.String() != "one" {
			t.Fatalf("got %q", w.Body)
		}
	}
}

// hijackable is a recorder that has a connection to give.
type hijackable struct {
	*httptest.ResponseRecorder
	conn net.Conn
}

func (h hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.conn, bufio.NewReadWriter(bufio.NewReader(h.conn), nil), nil
}

// unflushable is a connection that takes a write in part.
type unflushable struct{ hijackable }

func (unflushable) FlushError() error { return os.ErrDeadlineExceeded }

func TestBodyWhoseHeadDidNotGoIsClosed(t *testing.T) {
	b := newBody()
	b.pieces <- "one"
	client, conn := net.Pipe()
	defer client.Close()
	Send(unflushable{hijackable{httptest.NewRecorder(), conn}}, httptest.NewRequest("GET", "/", nil), b)
	<-b.closed
}

// stubborn is a connection that takes a write, and fails to be given away.
type stubborn struct{ *httptest.ResponseRecorder }

func (stubborn) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, errors.New("no") }

func TestServerThatKeepsItsConnectionIsAMistake(t *testing.T) {
	b := newBody()
	b.pieces <- "one"
	defer func() {
		<-b.closed
		if recover() == nil {
			t.Error("Send returned")
		}
	}()
	Send(stubborn{httptest.NewRecorder()}, httptest.NewRequest("GET", "/", nil), b)
}

// patient is a connection whose writes take as long as they say, and that notes what it is told.
type patient struct {
	net.Conn
	takes time.Duration
	gives []bool // up
}

func (p *patient) Write(b []byte) (int, error) { time.Sleep(p.takes); return len(b), nil }
func (p *patient) GiveUp(on bool) error        { p.gives = append(p.gives, on); return nil }

func TestConnectionDoesNotGiveUpWhileWritesAreSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, conn := net.Pipe()
		defer client.Close()
		p := &patient{Conn: conn}
		s := &sender{conn: p}
		for _, c := range []struct {
			pause, takes time.Duration
			want         []bool // what the connection has been told by then
		}{
			{takes: slowWrite},
			{takes: slowWrite + 1, want: []bool{false}},
			{takes: 0, want: []bool{false}},
			{takes: 9 * time.Second, want: []bool{false}},
			{pause: writeTimeout - 9*time.Second, takes: 0, want: []bool{false}},
			{pause: 1, takes: 0, want: []bool{false, true}},
			{pause: time.Hour, takes: 0, want: []bool{false, true}},
			{takes: time.Second, want: []bool{false, true, false}},
		} {
			time.Sleep(c.pause)
			p.takes = c.takes
			s.send([]byte("x"))
			if !slices.Equal(p.gives, c.want) {
				t.Errorf("%+v: it was told %v", c, p.gives)
			}
		}
	})
}

// What the kernel still has to send to a slow client must not keep the connection after its close.
func TestConnectionGivesUpAfterAWriteThatFailed(t *testing.T) {
	client, conn := net.Pipe()
	client.Close()
	p := &patient{Conn: conn}
	s := &sender{conn: failing{p}}
	if err := s.send([]byte("x")); err == nil || !slices.Equal(p.gives, []bool{true}) {
		t.Errorf("after %v it was told %v, want true", err, p.gives)
	}
}

// failing is a patient connection whose writes fail.
type failing struct{ *patient }

func (failing) Write([]byte) (int, error) { return 0, os.ErrDeadlineExceeded }
