package main

// This file opens streams and reads all of them in one epoll loop, which costs little compared with
// the server.

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long nothing may arrive before what is missing counts as lost. Tests shorten it.
var patience = 5 * time.Second

const (
	// maxUnanswered is the largest number of streams without a response head, so that connections
	// fit the server's backlog.
	maxUnanswered = 200

	// Latencies are taken from every sampleEvery-th read, to save the loader's own time.
	sampleEvery = 17
)

// streams are open streams of one server. One goroutine, read, reads them.
type streams struct {
	epoll   int
	status  []byte // the beginning of every response head
	fds     []int
	closing atomic.Bool

	progress chan struct{} // receives a value, if it has room, when something was read
	ended    chan struct{} // closed by read when it returns
	err      error         // why read returned; valid once ended is closed

	heads, closed, delivered atomic.Int64
	lastDelivery             atomic.Int64 // by the clock

	mu        sync.Mutex
	latencies []float64 // milliseconds
}

// openStreams opens n streams of the server at addr, one after another, and returns once all
// response heads have arrived. request returns the request for the i-th stream.
func openStreams(addr netip.AddrPort, n int, status string, request func(i int) []byte) (
	*streams, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	s := &streams{
		epoll:    epoll,
		status:   []byte(status),
		progress: make(chan struct{}, 1),
		ended:    make(chan struct{}),
	}
	go func() {
		defer close(s.ended)
		s.err = s.read()
	}()
	for i := range n {
		if err := s.open(addr, request(i)); err != nil {
			return s, fmt.Errorf("stream %d: %w", i, err)
		}
		if err := s.await("heads", &s.heads, int64(i-maxUnanswered)); err != nil {
			return s, err
		}
	}
	return s, s.await("heads", &s.heads, int64(n))
}

func (s *streams) open(addr netip.AddrPort, request []byte) error {
	fd, err := dial(addr)
	if err != nil {
		return err
	}
	s.fds = append(s.fds, fd)
	if _, err := unix.Write(fd, request); err != nil {
		return err
	}
	return watch(s.epoll, fd)
}

// await waits until count is at least want. It fails once nothing has arrived for the patience.
func (s *streams) await(what string, count *atomic.Int64, want int64) error {
	return s.awaitFor(patience, what, count, want)
}

// awaitFor is await with the given patience.
func (s *streams) awaitFor(
	patience time.Duration, what string, count *atomic.Int64, want int64,
) error {
	for count.Load() < want {
		select {
		case <-s.progress:
		case <-s.ended:
			return s.err
		case <-time.After(patience):
			return &lostError{what, want, count.Load()}
		}
	}
	return nil
}

// A lostError says that something did not arrive in time.
type lostError struct {
	what      string
	want, got int64
}

func (e *lostError) Error() string {
	return fmt.Sprintf("%d %s arrived, want %d", e.got, e.what, e.want)
}

// takeLatencies returns the latencies since the last call, sorted.
func (s *streams) takeLatencies() []float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	latencies := s.latencies
	s.latencies = nil
	slices.Sort(latencies)
	return latencies
}

// close closes the streams. The server must have been stopped.
func (s *streams) close() {
	s.closing.Store(true)
	<-s.ended
	for _, fd := range s.fds {
		unix.Close(fd)
	}
	unix.Close(s.epoll)
}

// read reads until the streams are closing. A wrong response head is an error.
func (s *streams) read() error {
	var (
		events  = make([]unix.EpollEvent, 512)
		buffer  = make([]byte, 256<<10)
		hasHead []bool // by descriptor
		reads   int
	)
	for !s.closing.Load() {
		n, err := unix.EpollWait(s.epoll, events, 100)
		if err != nil && err != unix.EINTR {
			return err
		}
		for _, e := range events[:max(n, 0)] {
			fd := int(e.Fd)
			n, err := unix.Read(fd, buffer)
			if err == unix.EAGAIN || err == unix.EINTR {
				continue
			}
			if n <= 0 {
				unix.EpollCtl(s.epoll, unix.EPOLL_CTL_DEL, fd, nil)
				s.closed.Add(1)
				continue
			}
			data := buffer[:n]
			for fd >= len(hasHead) {
				hasHead = append(hasHead, false)
			}
			if !hasHead[fd] {
				if !bytes.HasPrefix(data, s.status) {
					return fmt.Errorf("a stream begins with %.200q", data)
				}
				hasHead[fd] = true
				s.heads.Add(1)
			}
			texts := bytes.Count(data, []byte{mark})
			if texts == 0 {
				continue
			}
			now := clock()
			s.lastDelivery.Store(now)
			s.delivered.Add(int64(texts))
			if reads++; reads%sampleEvery == 0 {
				s.mu.Lock()
				s.latencies = appendLatencies(s.latencies, data, now)
				s.mu.Unlock()
			}
		}
		if n > 0 {
			select {
			case s.progress <- struct{}{}:
			default:
			}
		}
	}
	return errors.New("the streams were closed")
}

// dial returns the descriptor of a nonblocking connection.
func dial(addr netip.AddrPort) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	to := &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	if err := errors.Join(unix.Connect(fd, to), unix.SetNonblock(fd, true)); err != nil {
		unix.Close(fd)
		return 0, err
	}
	return fd, nil
}

// watch makes epoll report when fd can be read.
func watch(epoll, fd int) error {
	return unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd,
		&unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}
