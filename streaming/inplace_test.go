package streaming

// Tests of bodies that the handler itself sends belong here.

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// listener accepts the server's ends of pipes.
type listener chan net.Conn

func (l listener) Accept() (net.Conn, error) {
	conn, ok := <-l
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}

func (l listener) Close() error { return nil }

func (l listener) Addr() net.Addr { return &net.TCPAddr{} }

// wrapped is the ResponseWriter of middleware that counts bytes. It can be hijacked, so that
// websockets work.
type wrapped struct {
	http.ResponseWriter
	written *int
}

func (w wrapped) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w wrapped) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

func (w wrapped) Write(b []byte) (int, error) {
	*w.written += len(b)
	return w.ResponseWriter.Write(b)
}

// inPlace calls test in a bubble with a response to b from each kind of server on whose connections
// nothing may be hijacked. Each has time limits of 10 s. Written is how many bytes have passed
// through middleware, if there is any.
func inPlace(t *testing.T, test func(t *testing.T, b *body, resp *http.Response, written *int)) {
	t.Helper()
	for _, c := range []struct {
		name  string
		http2 bool
	}{{"HTTP/1.1 and middleware", false}, {"HTTP/2", true}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBody()
				b.pieces <- "first "
				written := 0
				handler := func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/other" {
						return
					}
					if !c.http2 {
						w = wrapped{w, &written}
					}
					if !CanSend(w) {
						t.Error("CanSend is false")
					}
					Send(w, r, b)
				}
				protocols := new(http.Protocols)
				protocols.SetHTTP1(!c.http2)
				protocols.SetUnencryptedHTTP2(c.http2)
				server := &http.Server{
					Handler:      http.HandlerFunc(handler),
					ReadTimeout:  10 * time.Second,
					WriteTimeout: 10 * time.Second,
					Protocols:    protocols,
				}
				l := make(listener)
				dials := 0
				go server.Serve(l)
				defer close(l)
				transport := &http.Transport{
					Protocols: protocols,
					DialContext: func(context.Context, string, string) (net.Conn, error) {
						client, conn := net.Pipe()
						l <- conn
						dials++
						return client, nil
					},
				}
				defer transport.CloseIdleConnections()
				client := &http.Client{Transport: transport}
				resp, err := client.Get("http://localhost/")
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				if c.http2 {
					synctest.Wait() // until the connection is ready for another request
					other, err := client.Get("http://localhost/other")
					if err != nil {
						t.Fatal(err)
					}
					other.Body.Close()
					if dials > 1 {
						t.Error("the stream has its connection for itself")
					}
				}
				test(t, b, resp, &written)
				<-b.closed
			})
		})
	}
}

func TestBodyInPlaceOutlivesTheServersTimeLimits(t *testing.T) {
	inPlace(t, func(t *testing.T, b *body, resp *http.Response, written *int) {
		time.Sleep(time.Hour)
		b.pieces <- "second"
		close(b.pieces)
		got, err := io.ReadAll(resp.Body)
		if string(got) != "first second" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		if resp.ProtoMajor == 1 && *written != len("first second") {
			t.Errorf("middleware has seen %d bytes", *written)
		}
	})
}

func TestBodyInPlaceEndsWhenItsClientDisconnects(t *testing.T) {
	inPlace(t, func(t *testing.T, b *body, resp *http.Response, _ *int) {
		begin := time.Now()
		resp.Body.Close()
		<-b.closed
		if took := time.Since(begin); took > 0 {
			t.Errorf("it ended after %v", took)
		}
	})
}

func TestBodyInPlaceEndsIfItsClientDoesNotRead(t *testing.T) {
	inPlace(t, func(t *testing.T, b *body, resp *http.Response, _ *int) {
		for range cap(b.pieces) { // together more than an HTTP/2 client has room for
			b.pieces <- strings.Repeat("x", 1<<20)
		}
		time.Sleep(writeTimeout - 1)
		select {
		case <-b.closed:
			t.Error("it ended early")
		default:
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		select {
		case <-b.closed:
		default:
			t.Error("it has not ended")
		}
	})
}

func TestBodyThatCannotBeHijackedIsSentInPlace(t *testing.T) {
	b := newBody()
	b.pieces <- "one "
	b.pieces <- "two"
	close(b.pieces)
	w := httptest.NewRecorder()
	Send(stubborn{w}, httptest.NewRequest("GET", "/", nil), b)
	<-b.closed
	if got := w.Body.String(); got != "one two" {
		t.Errorf("got %q", got)
	}
}

// stubborn is a recorder that fails to be hijacked.
type stubborn struct{ *httptest.ResponseRecorder }

func (stubborn) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, errors.New("no") }

// flushes is a recorder that counts how often it is flushed.
type flushes struct {
	*httptest.ResponseRecorder
	count int
}

func (f *flushes) Flush() { f.count++ }

func TestPiecesThatAreReadyAreFlushedTogether(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	e := eager{newBody()}
	for _, piece := range []string{"first ", "one ", "two ", "four"} {
		e.pieces <- piece
	}
	w := &flushes{ResponseRecorder: httptest.NewRecorder()}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		Send(w, httptest.NewRequestWithContext(ctx, "GET", "/", nil), e)
	}()
	for len(e.pieces) > 0 {
		runtime.Gosched()
	}
	cancel()
	<-sent
	if got := w.Body.String(); got != "first one two four" || w.count != 2 {
		t.Errorf("got %q with %d flushes, want 2", got, w.count)
	}
}

// bare hides all methods of a recorder but those that every ResponseWriter has.
type bare struct{ http.ResponseWriter }

func TestCanSendOnlyWhereSomethingFlushes(t *testing.T) {
	recorder := httptest.NewRecorder()
	for _, c := range []struct {
		w    http.ResponseWriter
		want bool
	}{
		{recorder, true},
		{wrapped{recorder, nil}, true},
		{bare{recorder}, false},
		{wrapped{bare{recorder}, nil}, false},
	} {
		if got := CanSend(c.w); got != c.want {
			t.Errorf("%T: got %v", c.w, got)
		}
	}
}

// deadlines is a ResponseWriter that counts how often its write deadline is set.
type deadlines struct {
	*httptest.ResponseRecorder
	count atomic.Int64
}

func (d *deadlines) SetWriteDeadline(time.Time) error { d.count.Add(1); return nil }

// A body that is abandoned after it was sent must not end the next response on its connection.
func TestSentPiecesNoLongerSetDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
		abandoned := make(chan struct{})
		SendPieces(w, nil, slices.Values([][]byte{[]byte("one"), []byte("two")}), abandoned)
		before := w.count.Load()
		close(abandoned)
		synctest.Wait()
		if after := w.count.Load(); before != 2 || after != before {
			t.Errorf("the deadline was set %d times while the body was sent, and then %d times more, "+
				"want 2 and 0", before, after-before)
		}
	})
}
