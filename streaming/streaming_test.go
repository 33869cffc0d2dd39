package streaming

// Bodies that are sent on hijacked connections belong here, and how they end.

import (
	"bufio"
	"context"
	"crypto/tls"
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

// body is a Body of the strings that are sent to pieces, until pieces is closed.
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

func (b *body) More(int) []byte { return nil }

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

// serve returns a connection to a server that responds with b.
func serve(t *testing.T, b *body) net.Conn {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) { Send(w, r, b) }))
	t.Cleanup(server.Close)
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestBodyIsChunkedOverHTTP11AndPlainOverHTTP10(t *testing.T) {
	for _, c := range []struct{ proto, want string }{
		{"HTTP/1.1", "\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"},
		{"HTTP/1.0", "\r\nonetwo"},
	} {
		b := newBody()
		b.pieces <- "one"
		b.pieces <- "two"
		close(b.pieces)
		conn := serve(t, b)
		fmt.Fprint(conn, "GET / "+c.proto+"\r\nHost: localhost\r\n\r\n")
		response, err := io.ReadAll(conn)
		if err != nil || !strings.HasSuffix(string(response), "\r\n"+c.want) ||
			!strings.Contains(string(response), "\r\nConnection: close\r\n") {
			t.Errorf("%s: got %q, %v, want it to end in %q", c.proto, response, err, c.want)
		}
		<-b.closed
	}
}

// eager is a body that also returns pieces without waiting.
type eager struct{ *body }

func (e eager) More(limit int) []byte {
	select {
	case piece := <-e.pieces:
		return []byte(piece)
	default:
		return nil
	}
}

func TestPiecesThatAreReadyAreSentTogether(t *testing.T) {
	for _, c := range []struct {
		chunked bool
		want    string
	}{
		{true, "c\r\none two four\r\n"},
		{false, "one two four"},
	} {
		client, conn := net.Pipe()
		e := eager{newBody()}
		s := &sender{conn: conn, chunked: c.chunked, body: e}
		e.pieces <- " two"
		e.pieces <- " four"
		go func() {
			s.send([]byte("one"))
			conn.Close()
		}()
		if got, err := io.ReadAll(client); string(got) != c.want || err != nil {
			t.Errorf("chunked %v: got %q, %v, want %q", c.chunked, got, err, c.want)
		}
	}
}

func TestBodyEndsWhenItsClientDisconnects(t *testing.T) {
	for name, disconnect := range map[string]func(*net.TCPConn){
		"close":      func(conn *net.TCPConn) { conn.Close() },
		"half-close": func(conn *net.TCPConn) { conn.CloseWrite() },
		"reset":      func(conn *net.TCPConn) { conn.SetLinger(0); conn.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBody()
			b.pieces <- "one"
			conn := serve(t, b)
			fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
			if _, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil {
				t.Fatal(err)
			}
			disconnect(conn.(*net.TCPConn))
			<-b.closed
		})
	}
}

// A client that sends too much still gets what is ready within overrunTime.
func TestClientThatSendsTooMuchIsDisconnectedAfterWhatIsReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBody()
		b.pieces <- "one"
		client, conn := net.Pipe()
		w := hijackable{httptest.NewRecorder(), conn}
		Send(w, httptest.NewRequest("GET", "/", nil), b)
		if n, err := client.Write(make([]byte, maxReceived-1)); err != nil {
			t.Fatalf("the client was disconnected after %d bytes: %v", n, err)
		}
		time.Sleep(time.Hour)
		begin := time.Now()
		client.Write([]byte{0})
		time.Sleep(overrunTime - 1)
		b.pieces <- "two"
		if got, err := io.ReadAll(client); string(got) != "3\r\ntwo\r\n0\r\n\r\n" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		<-b.closed
		if took := time.Since(begin); took != overrunTime {
			t.Errorf("it was disconnected after %v, want %v", took, overrunTime)
		}
	})
}

// A client that half-closes the connection after its request may still wait for the response. To
// net/http, the request's context is done then.
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

// hijackable is a recorder whose connection can be hijacked.
type hijackable struct {
	*httptest.ResponseRecorder
	conn net.Conn
}

func (h hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.conn, bufio.NewReadWriter(bufio.NewReader(h.conn), nil), nil
}

// unflushable is a recorder whose header cannot be sent.
type unflushable struct{ hijackable }

func (unflushable) FlushError() error { return os.ErrDeadlineExceeded }

func TestBodyIsClosedIfTheHeaderCannotBeSent(t *testing.T) {
	b := newBody()
	b.pieces <- "one"
	w := unflushable{hijackable{ResponseRecorder: httptest.NewRecorder()}}
	Send(w, httptest.NewRequest("GET", "/", nil), b)
	select {
	case <-b.closed:
	default:
		t.Error("the body is open")
	}
}

// patient is a connection whose writes take as long as it says. It records how its user timeout is
// switched.
type patient struct {
	net.Conn
	takes    time.Duration
	switched []bool // on
}

func (p *patient) Write(b []byte) (int, error) {
	time.Sleep(p.takes)
	return len(b), nil
}

func (p *patient) EnableUserTimeout(on bool) error {
	p.switched = append(p.switched, on)
	return nil
}

func TestUserTimeoutIsOffWhileWritesAreSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, conn := net.Pipe()
		defer client.Close()
		p := &patient{Conn: conn}
		s := &sender{body: newBody(), conn: p}
		for _, c := range []struct {
			pause, takes time.Duration
			want         []bool // how the timeout has been switched by then
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
			if !slices.Equal(p.switched, c.want) {
				t.Errorf("%+v: it was switched %v", c, p.switched)
			}
		}
	})
}

// The data that the kernel still has for a slow client must not keep a closed connection alive.
func TestUserTimeoutIsOnAfterAFailedWrite(t *testing.T) {
	client, conn := net.Pipe()
	client.Close()
	p := &patient{Conn: conn}
	s := &sender{body: newBody(), conn: failing{p}}
	if err := s.send([]byte("x")); err == nil || !slices.Equal(p.switched, []bool{true}) {
		t.Errorf("after %v it was switched %v, want on", err, p.switched)
	}
}

// failing is a patient connection whose writes fail.
type failing struct{ *patient }

func (failing) Write([]byte) (int, error) { return 0, os.ErrDeadlineExceeded }

func TestEachPieceIsOneRecordOverTLS(t *testing.T) {
	b := newBody()
	b.pieces <- "one"
	server := httptest.NewTLSServer(http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) { Send(w, r, b) }))
	defer server.Close()
	addr, config := server.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true}
	conn, err := tls.Dial("tcp", addr, config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
	// Read returns the content of at most one record.
	buffer := make([]byte, 1000)
	for begin := ""; !strings.Contains(begin, "one"); {
		n, err := conn.Read(buffer)
		if err != nil {
			t.Fatal(err)
		}
		begin += string(buffer[:n])
	}
	b.pieces <- "two"
	if n, err := conn.Read(buffer); string(buffer[:n]) != "3\r\ntwo\r\n" || err != nil {
		t.Errorf("got %q, %v", buffer[:n], err)
	}
	close(b.pieces)
}

func TestUserTimeoutIsThatOfTheConnectionUnderTLS(t *testing.T) {
	client, conn := net.Pipe()
	defer client.Close()
	p := &patient{Conn: conn}
	enableUserTimeout(tls.Server(p, nil), true)
	if !slices.Equal(p.switched, []bool{true}) {
		t.Errorf("it was switched %v, want on", p.switched)
	}
}
