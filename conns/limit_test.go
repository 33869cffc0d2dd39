package conns

import (
	"bytes"
	"errors"
	"fmt"
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

// Tests of Limited belong here: with real connections, and in a bubble if they involve time.

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

// connect returns both ends of a connection on which the client has sent one byte.
func connect(t *testing.T, l *Limited) (client *net.TCPConn, conn *Conn) {
	t.Helper()
	client = dial(t, l)
	client.Write([]byte("x"))
	return client, mustAccept(t, l)
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

// ask sends a request.
func ask(t *testing.T, client net.Conn) {
	t.Helper()
	if _, err := io.WriteString(client, "hello"); err != nil {
		t.Fatal(err)
	}
}

// expect reads what the client receives until the proper end of the connection.
func expect(t *testing.T, client net.Conn, want string) {
	t.Helper()
	if got, err := io.ReadAll(client); string(got) != want || err != nil {
		t.Errorf("the client got %q, %v, want %q", got, err, want)
	}
}

// refusalEnded returns once no refusal is under way.
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
		clients[i], conns[i] = connect(t, l)
	}
	third := dial(t, l)
	ask(t, third)
	expect(t, third, full)

	for i, conn := range conns { // the others are not affected
		io.WriteString(conn, "welcome")
		conn.Close()
		expect(t, clients[i], "welcome")
	}
}

func TestCloseMakesRoom(t *testing.T) {
	l := listen(t, 1, sayFull)
	for range 3 {
		client, conn := connect(t, l)
		io.WriteString(conn, "welcome")
		conn.Read(make([]byte, 1))
		conn.Close()
		expect(t, client, "welcome")
	}
}

func TestSecondCloseFreesNothing(t *testing.T) {
	l := listen(t, 5, sayFull)
	for range 4 {
		connect(t, l)
	}
	_, conn := connect(t, l)
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

func TestConnectionThatIsBeingRefusedMayBeClosed(t *testing.T) {
	closed := make(chan error, 1)
	l := listen(t, 1, func(w io.Writer) { closed <- w.(*Conn).Close() })
	connect(t, l)
	ask(t, dial(t, l))
	if err := <-closed; err != nil || l.Connections() != 1 {
		t.Errorf("closing it: %v; %d connections have a place, want 1", err, l.Connections())
	}
}

func TestAcceptReturnsAConnectionOnceTheClientHasSentAByte(t *testing.T) {
	l := listen(t, 2, sayFull)
	first, second := dial(t, l), dial(t, l)
	for _, client := range []net.Conn{second, first} {
		client.Write([]byte("x"))
		if conn := mustAccept(t, l); conn.RemoteAddr().String() != client.LocalAddr().String() {
			t.Errorf("Accept returned the connection from %v, want %v, which has sent a byte",
				conn.RemoteAddr(), client.LocalAddr())
		}
	}
}

func TestConnectionIsReadFromItsFirstByte(t *testing.T) {
	for how, read := range map[string]func(*Conn) ([]byte, error){
		"Read": func(c *Conn) ([]byte, error) { return io.ReadAll(c) },
		"WriteTo": func(c *Conn) ([]byte, error) {
			var b bytes.Buffer
			_, err := c.WriteTo(&b)
			return b.Bytes(), err
		},
		"nothing, then Read": func(c *Conn) ([]byte, error) {
			if n, err := c.Read(nil); n != 0 || err != nil {
				return nil, fmt.Errorf("Read(nil) returned %d, %v", n, err)
			}
			return io.ReadAll(c)
		},
	} {
		l := listen(t, 1, sayFull)
		client := dial(t, l)
		ask(t, client)
		client.CloseWrite()
		if got, err := read(mustAccept(t, l)); string(got) != "hello" || err != nil {
			t.Errorf("%s: got %q, %v", how, got, err)
		}
	}
}

func TestSilentConnectionKeepsItsPlaceUntilTheClientOrTheListenerCloses(t *testing.T) {
	for who, end := range map[string]func(*Limited, *net.TCPConn){
		"the client":      func(_ *Limited, client *net.TCPConn) { client.Close() },
		"the client half": func(_ *Limited, client *net.TCPConn) { client.CloseWrite() },
		"the listener":    func(l *Limited, _ *net.TCPConn) { l.Close() },
		"the listener, after the first byte": func(l *Limited, client *net.TCPConn) {
			ask(t, client)
			l.Close()
		},
	} {
		l := listen(t, 1, sayFull)
		silent, other := dial(t, l), dial(t, l)
		ask(t, other)
		expect(t, other, full) // since the silent one has the only place
		end(l, silent)
		select {
		case l.places <- struct{}{}:
		case <-time.After(maxCrowdedSilence / 2):
			t.Errorf("%s closes: the place is not free at once", who)
		}
		if _, err := silent.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s closes: the silent connection is open", who)
		}
	}
}

func TestFirstByteIsAwaitedForLongerUnlessTheListenerIsCrowded(t *testing.T) {
	const never = time.Hour
	for _, test := range []struct {
		sentAfter, crowdedAfter time.Duration
		took                    time.Duration
		arrived                 bool
	}{
		{0, never, 0, true},
		{maxSilence - 1, never, maxSilence - 1, true},
		{maxSilence + 1, never, 30 * time.Second, false},
		{never, 0, 5 * time.Second, false},
		{never, maxCrowdedSilence + 1, 2 * maxCrowdedSilence, false},
		{never, maxSilence - 1, maxSilence, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := limit(nil, 1, nil)
			client, conn := net.Pipe()
			defer client.Close()
			begin, first := time.Now(), make([]byte, 1)
			time.AfterFunc(test.crowdedAfter, func() { l.places <- struct{}{} })
			time.AfterFunc(test.sentAfter, func() { io.WriteString(client, "first") })
			arrived := l.awaitByte(conn, first)
			if took := time.Since(begin); took != test.took || arrived != test.arrived {
				t.Errorf("%+v: took %v, and a byte arrived: %t", test, took, arrived)
			}
			if !arrived {
				return
			}
			time.Sleep(time.Hour) // the time limit must not apply to the rest
			rest := make([]byte, len("irst"))
			if _, err := conn.Read(rest); string(first)+string(rest) != "first" || err != nil {
				t.Errorf("%+v: read %q, then %q, %v", test, first, rest, err)
			}
		})
	}
}

func TestListenerIsCrowdedWhenMoreThanHalfOfThePlacesAreTaken(t *testing.T) {
	for _, test := range []struct{ places, half int }{{1, 0}, {4, 2}, {5, 2}} {
		l := listen(t, test.places, sayFull)
		for range test.half {
			connect(t, l)
		}
		if l.Crowded() {
			t.Errorf("crowded with %d of %d places taken", test.half, test.places)
		}
		_, conn := connect(t, l)
		if !l.Crowded() {
			t.Errorf("not crowded with %d of %d places taken", test.half+1, test.places)
		}
		conn.Close()
		if l.Crowded() {
			t.Errorf("crowded with %d of %d places taken, after one more", test.half, test.places)
		}
	}
}

// A client that has sent a request must see the response and then a proper end, not a reset.
func TestRefusedClientGetsAResponseAfterALongRequest(t *testing.T) {
	l := listen(t, 0, sayFull)
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

func TestRefusedClientGetsNoResponseBeforeItsRequest(t *testing.T) {
	responded := make(chan struct{}, 1)
	l := listen(t, 0, func(w io.Writer) {
		responded <- struct{}{}
		sayFull(w)
	})
	first, second := dial(t, l), dial(t, l)
	expect(t, second, "") // since the first one's refusal is under way
	select {
	case <-responded:
		t.Error("the response was written before the client had sent a request")
	default:
	}
	ask(t, first)
	expect(t, first, full)
}

func TestSilentRefusedClientGetsAResponse(t *testing.T) {
	l := listen(t, 0, sayFull)
	expect(t, dial(t, l), full)
}

func TestRefusedClientHasASecondToClose(t *testing.T) {
	l := listen(t, 0, sayFull)
	client := dial(t, l)
	begin := time.Now()
	ask(t, client)
	expect(t, client, full)
	if took := time.Since(begin); took >= refusalTimeout {
		t.Errorf("the response ended after %v, want it to end at once", took)
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
	client := dial(t, l)
	begin := time.Now()
	for range 10 {
		client.Write(make([]byte, maxDropped)) // fails once the server has closed
	}
	refusalEnded(t, l)
	if took := time.Since(begin); took >= refusalTimeout {
		t.Errorf("the server kept reading for %v", took)
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
			t.Errorf("%d places: %d refusals at once, want %d", test.places, got, test.refusals)
		}
	}

	started, finish := make(chan struct{}), make(chan struct{})
	l := listen(t, 0, func(w io.Writer) {
		started <- struct{}{}
		<-finish
		sayFull(w)
	})
	first := dial(t, l)
	ask(t, first)
	<-started
	expect(t, dial(t, l), "") // closed without a response
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

// scripted is a listener whose AcceptTCP sends the time of each call, and then returns the next of
// errs, over and over. With a nil error it returns a connection that can only be closed.
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

// pauses returns the times between n calls of AcceptTCP and the ones before them.
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

func TestListenerRetriesAfterPausesThatGrow(t *testing.T) {
	const ms = time.Millisecond
	noFile, other := error(syscall.EMFILE), errors.New("something else")
	growing := []time.Duration{5 * ms, 10 * ms, 20 * ms, 40 * ms, 80 * ms, 160 * ms, 320 * ms,
		640 * ms, time.Second, time.Second}
	for _, test := range []struct {
		errs []error
		want []time.Duration
	}{
		{[]error{noFile}, growing},
		{[]error{noFile, other, nil}, []time.Duration{5 * ms, 10 * ms, 0, 5 * ms, 10 * ms}},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &scripted{test.errs, make(chan time.Time), make(chan struct{})}
			l := limit(s, 0, nil)
			l.refusals <- struct{}{} // so a connection is only closed
			ended := make(chan struct{})
			go func() {
				l.admitAll()
				close(ended)
			}()
			if got := s.pauses(len(test.want)); !slices.Equal(got, test.want) {
				t.Errorf("%v: pauses of %v, want %v", test.errs, got, test.want)
			}
			synctest.Wait() // until it is in a pause
			begin := time.Now()
			l.Close()
			<-ended
			if took := time.Since(begin); took != 0 {
				t.Errorf("the listener ended %v after Close, want at once", took)
			}
		})
	}
}

// What a TCPConn does with one system call, a Conn must not do with several. The error shows which
// way was taken.
func TestConnWritesAsItsTCPConnDoes(t *testing.T) {
	l := listen(t, 1, sayFull)
	_, conn := connect(t, l)
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
			t.Errorf("%s uses %s for a Conn, want %s as for its TCPConn", what, got.Op, want.Op)
		}
	}
}

func TestPlacesAreNeverExceededAndAllComeBack(t *testing.T) {
	const places, clients, rounds = 8, 32, 50
	l := listen(t, places, sayFull)
	var inUse, most, received atomic.Int64
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
		if rand.N(4) > 0 {
			n, _ := conn.Read(make([]byte, 1))
			received.Add(int64(n))
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
		t.Errorf("%d connections at once, want several and at most %d", got, places)
	}
	for range places { // Connections without a byte are closed in their own goroutines.
		select {
		case l.places <- struct{}{}:
		case <-time.After(10 * time.Second):
			t.Fatal("a place is in use although all connections are closed")
		}
	}
	if received.Load() == 0 {
		t.Error("no client received anything")
	}
}
