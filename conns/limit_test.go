package conns

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A Limited with real connections; and its pauses, in a bubble, with a listener that fails.

const full = "the server is full"

func sayFull(w io.Writer) { io.WriteString(w, full) }

// listen returns a Limited that listens until the test ends.
func listen(t *testing.T, places int, refuse func(io.Writer)) *Limited {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return Limit(l, places, refuse)
}

// dial returns a client's connection, which the test closes.
func dial(t *testing.T, l *Limited) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn.(*net.TCPConn)
}

// mustAccept returns the next connection, which the test closes.
func mustAccept(t *testing.T, l *Limited) *Conn {
	t.Helper()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*Conn)
}

// refuseAll lets l, which has no place left, refuse whoever comes.
func refuseAll(t *testing.T, l *Limited) {
	go func() {
		if conn, err := l.Accept(); err == nil {
			t.Errorf("Accept returned the connection from %v, want a refusal", conn.RemoteAddr())
			conn.Close()
		}
	}()
}

// ask sends a request.
func ask(t *testing.T, client net.Conn) {
	t.Helper()
	if _, err := io.WriteString(client, "hello"); err != nil {
		t.Fatal(err)
	}
}

// expect reads what a client gets up to the proper end of the connection.
func expect(t *testing.T, client net.Conn, want string) {
	t.Helper()
	if got, err := io.ReadAll(client); string(got) != want || err != nil {
		t.Errorf("the client got %q, %v, want %q", got, err, want)
	}
}

// refusalEnded returns once no refusal is under way, of those that l can have at a time.
func refusalEnded(t *testing.T, l *Limited) {
	t.Helper()
	for range cap(l.refusals) {
		select {
		case l.refusals <- struct{}{}:
		case <-time.After(20 * time.Second):
			t.Fatal("a refusal does not end")
		}
	}
}

func TestOneConnectionTooManyIsRefused(t *testing.T) {
	l := listen(t, 2, sayFull)
	var clients, conns [2]net.Conn
	for i := range clients {
		clients[i], conns[i] = dial(t, l), mustAccept(t, l)
	}
	refuseAll(t, l)
	third := dial(t, l)
	ask(t, third)
	expect(t, third, full)

	for i, conn := range conns { // the others live
		io.WriteString(conn, "welcome")
		conn.Close()
		expect(t, clients[i], "welcome")
	}
}

func TestCloseMakesRoom(t *testing.T) {
	l := listen(t, 1, sayFull)
	for range 3 {
		client, conn := dial(t, l), mustAccept(t, l)
		io.WriteString(conn, "welcome")
		conn.Close()
		expect(t, client, "welcome")
	}
}

func TestSecondCloseFreesNothing(t *testing.T) {
	l := listen(t, 5, sayFull)
	for range 4 {
		dial(t, l)
		mustAccept(t, l)
	}
	dial(t, l)
	conn := mustAccept(t, l)
	var closers sync.WaitGroup
	for range 4 {
		closers.Go(func() { conn.Close() })
	}
	closers.Wait()
	if err := conn.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closing again returned %v, want net.ErrClosed", err)
	}
	if got := len(l.places); got != 4 {
		t.Errorf("%d places are taken, want the 4 of the other connections", got)
	}
}

func TestListenerIsCrowdedWhenMoreThanHalfOfThePlacesAreTaken(t *testing.T) {
	for _, test := range []struct{ places, half int }{{1, 0}, {4, 2}, {5, 2}} {
		l := listen(t, test.places, sayFull)
		for range test.half {
			dial(t, l)
			mustAccept(t, l)
		}
		if l.Crowded() {
			t.Errorf("crowded with %d of %d places taken", test.half, test.places)
		}
		dial(t, l)
		conn := mustAccept(t, l)
		if !l.Crowded() {
			t.Errorf("not crowded with %d of %d places taken", test.half+1, test.places)
		}
		conn.Close()
		if l.Crowded() {
			t.Errorf("crowded with %d of %d places taken, after one more", test.half, test.places)
		}
	}
}

// Whoever has sent a request must see the answer and then a proper end, not a reset.
func TestRefusedClientGetsTheAnswerAfterALongRequest(t *testing.T) {
	l := listen(t, 0, sayFull)
	refuseAll(t, l)
	for range 20 {
		client := dial(t, l)
		if _, err := client.Write(bytes.Repeat([]byte("x"), maxDropped)); err != nil {
			t.Fatal(err)
		}
		expect(t, client, full)
		client.Close()
		refusalEnded(t, l)
		<-l.refusals
	}
}

func TestRefusedClientGetsNoAnswerBeforeItAsks(t *testing.T) {
	answered := make(chan struct{}, 1)
	l := listen(t, 0, func(w io.Writer) {
		answered <- struct{}{}
		sayFull(w)
	})
	refuseAll(t, l)
	first, second := dial(t, l), dial(t, l)
	expect(t, second, "") // since the first one's refusal is under way
	select {
	case <-answered:
		t.Error("the answer was written before the client had asked")
	default:
	}
	ask(t, first)
	expect(t, first, full)
}

func TestRefusedClientThatSaysNothingGetsTheAnswerToo(t *testing.T) {
	l := listen(t, 0, sayFull)
	refuseAll(t, l)
	expect(t, dial(t, l), full)
}

func TestRefusedClientHasASecondToClose(t *testing.T) {
	l := listen(t, 0, sayFull)
	refuseAll(t, l)
	client := dial(t, l)
	begin := time.Now()
	ask(t, client)
	expect(t, client, full)
	if took := time.Since(begin); took >= refusalTimeout {
		t.Errorf("the end of the answer came after %v, want it to come at once", took)
	}
	refusalEnded(t, l)
	if took := time.Since(begin); took < refusalTimeout {
		t.Errorf("the server closed after %v, want it to wait for the client", took)
	}
	var err error
	for err == nil {
		_, err = client.Write(make([]byte, 64<<10))
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the server did not close")
	}
}

func TestRefusedClientThatSendsTooMuchIsCutOffAtOnce(t *testing.T) {
	l := listen(t, 0, sayFull)
	refuseAll(t, l)
	client := dial(t, l)
	begin := time.Now()
	for range 10 {
		client.Write(make([]byte, maxDropped)) // fails when the server has had enough
	}
	refusalEnded(t, l)
	if took := time.Since(begin); took >= refusalTimeout {
		t.Errorf("the server read on for %v", took)
	}
}

func TestRefusedClientThatDoesNotReadIsCutOff(t *testing.T) {
	ended := make(chan error)
	l := listen(t, 0, func(w io.Writer) {
		for {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				ended <- err
				return
			}
		}
	})
	refuseAll(t, l)
	ask(t, dial(t, l))
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("writing ended with %v, want a timeout", err)
	}
}

func TestRefusalsUnderWayAreBounded(t *testing.T) {
	for _, test := range []struct{ places, refusals int }{
		{0, 1}, {7, 1}, {8, 2}, {503, 63}, {504, 64}, {100_000, 64},
	} {
		if got := cap(limit(nil, test.places, nil).refusals); got != test.refusals {
			t.Errorf("%d places: %d refusals at a time, want %d", test.places, got, test.refusals)
		}
	}

	started, finish := make(chan struct{}), make(chan struct{})
	l := listen(t, 0, func(w io.Writer) {
		started <- struct{}{}
		<-finish
		sayFull(w)
	})
	refuseAll(t, l)
	first := dial(t, l)
	ask(t, first)
	<-started
	expect(t, dial(t, l), "") // closed without an answer
	close(finish)
	expect(t, first, full)
	first.Close()
	refusalEnded(t, l)
}

func TestCloseEndsAccept(t *testing.T) {
	l := listen(t, 1, sayFull)
	ended := make(chan error)
	go func() {
		_, err := l.Accept()
		ended <- err
	}()
	if err := l.Close(); err != nil {
		t.Errorf("Close returned %v", err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept returned %v, want net.ErrClosed", err)
	}
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closing again returned %v, want net.ErrClosed", err)
	}
}

// scripted is a listener of which each call of AcceptTCP sends when it happens, and then returns
// the next of errs, over and over. With a nil error it returns a connection that is good for
// nothing but to be closed.
type scripted struct {
	errs   []error
	calls  chan time.Time
	closed chan struct{}
}

func (s *scripted) AcceptTCP() (*net.TCPConn, error) {
	select {
	case <-s.closed:
		return nil, net.ErrClosed
	case s.calls <- time.Now():
	}
	err := s.errs[0]
	s.errs = append(s.errs[1:], err)
	return new(net.TCPConn), err
}

func (s *scripted) Close() error   { close(s.closed); return nil }
func (s *scripted) Addr() net.Addr { return nil }

// pauses returns how long Accept waits between n calls and the ones before them.
func (s *scripted) pauses(n int) []time.Duration {
	pauses := make([]time.Duration, n)
	last := <-s.calls
	for i := range pauses {
		call := <-s.calls
		pauses[i] = call.Sub(last)
		last = call
	}
	return pauses
}

func TestAcceptTriesAgainAfterPausesThatGrow(t *testing.T) {
	const ms = time.Millisecond
	noFile, other := error(syscall.EMFILE), errors.New("something else")
	growing := []time.Duration{5 * ms, 10 * ms, 20 * ms, 40 * ms, 80 * ms, 160 * ms, 320 * ms,
		640 * ms, time.Second, time.Second}
	for _, test := range []struct {
		errs []error
		want []time.Duration
	}{
		{errs: []error{noFile}, want: growing},
		{errs: []error{other}, want: growing},
		{errs: []error{noFile, other, nil}, want: []time.Duration{5 * ms, 10 * ms, 0, 5 * ms, 10 * ms}},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &scripted{test.errs, make(chan time.Time), make(chan struct{})}
			l := limit(s, 0, nil)
			l.refusals <- struct{}{} // so a connection is just closed
			ended := make(chan error)
			go func() {
				_, err := l.Accept()
				ended <- err
			}()
			if got := s.pauses(len(test.want)); !slices.Equal(got, test.want) {
				t.Errorf("%v: pauses of %v, want %v", test.errs, got, test.want)
			}
			synctest.Wait() // until Accept is in a pause
			begin := time.Now()
			l.Close()
			if err := <-ended; !errors.Is(err, net.ErrClosed) {
				t.Errorf("Accept returned %v, want net.ErrClosed", err)
			}
			if took := time.Since(begin); took != 0 {
				t.Errorf("Accept ended %v after Close, want at once", took)
			}
		})
	}
}

// What a TCPConn does with one system call, a Conn must not do with several. Which way was taken
// shows in what an error says of it.
func TestConnWritesAsItsTCPConnDoes(t *testing.T) {
	l := listen(t, 1, sayFull)
	dial(t, l)
	conn := mustAccept(t, l)
	conn.Close()
	for what, write := range map[string]func(io.Writer) error{
		"net.Buffers": func(w io.Writer) error {
			_, err := (&net.Buffers{[]byte("a"), []byte("b")}).WriteTo(w)
			return err
		},
		"io.Copy": func(w io.Writer) error {
			_, err := io.Copy(w, io.LimitReader(strings.NewReader("a"), 1))
			return err
		},
	} {
		var got, want *net.OpError
		if !errors.As(write(conn), &got) || !errors.As(write(conn.TCPConn), &want) {
			t.Fatalf("%s: writing to a closed connection succeeds", what)
		}
		if got.Op != want.Op {
			t.Errorf("%s writes with %s to a Conn, want %s as to its TCPConn", what, got.Op, want.Op)
		}
	}
}

func TestPlacesAreNeverExceededAndAllComeBack(t *testing.T) {
	const places, clients, rounds = 8, 32, 50
	l := listen(t, places, sayFull)
	var inUse, most, answers atomic.Int64
	var servers, callers sync.WaitGroup
	serve := func(conn net.Conn) {
		io.WriteString(conn, "welcome")
		if rand.N(2) == 0 {
			io.Copy(io.Discard, conn)
		}
		inUse.Add(-1)
		for range 1 + rand.N(2) {
			conn.Close()
		}
	}
	servers.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			most.Store(max(most.Load(), inUse.Add(1)))
			servers.Go(func() { serve(conn) })
		}
	})
	call := func() {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		conn.Write([]byte("hello")) // fails if the server has closed at once
		if answer := make([]byte, 1); rand.N(4) > 0 {
			n, _ := conn.Read(answer)
			answers.Add(int64(n))
		}
	}
	for range clients {
		callers.Go(func() {
			for range rounds {
				call()
			}
		})
	}
	callers.Wait()
	l.Close()
	servers.Wait()
	if got := most.Load(); got > places || got < 2 {
		t.Errorf("%d connections at a time, want several and at most %d", got, places)
	}
	if got := len(l.places); got != 0 {
		t.Errorf("%d places are taken when all connections are closed, want none", got)
	}
	if answers.Load() == 0 {
		t.Error("no client got an answer")
	}
}
