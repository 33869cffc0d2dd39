package main

// This file sends requests over several connections in one epoll loop: at a rate, or each as soon
// as the last response has arrived.

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A requester has several connections, each with at most one request under way.
type requester struct {
	epoll int
	conns map[int]*conn // by descriptor
	idle  []*conn
}

type conn struct {
	fd    int
	addr  netip.AddrPort
	sent  time.Time // when the last request was sent
	head  []byte    // the incomplete head of a response
	body  int       // the number of bytes missing from the body of a response
	final bool      // whether the server closes the connection after this response
}

// A job says which requests to send, and how.
type job struct {
	request func() []byte       // the next request
	count   int                 // the number of requests; 0 means no limit
	length  time.Duration       // no request is sent later; 0 means no limit
	rate    float64             // requests per second; 0 means as fast as they are answered
	hold    func(sent int) bool // reports whether to wait before sending another; may be nil
	stop    <-chan struct{}     // closed to stop sending; may be nil

	// heard is called for each response with the times of both; may be nil.
	heard func(sent, now time.Time)
}

// newRequester returns a requester whose connections are spread evenly over addrs.
func newRequester(conns int, addrs ...netip.AddrPort) (*requester, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	r := &requester{epoll: epoll, conns: map[int]*conn{}}
	for i := range conns {
		if err := r.connect(addrs[i%len(addrs)]); err != nil {
			r.close()
			return nil, err
		}
	}
	return r, nil
}

func (r *requester) connect(addr netip.AddrPort) error {
	fd, err := dial(addr)
	if err != nil {
		return err
	}
	c := &conn{fd: fd, addr: addr}
	r.conns[fd] = c
	r.idle = append(r.idle, c)
	return watch(r.epoll, fd)
}

func (r *requester) close() {
	for fd := range r.conns {
		unix.Close(fd)
	}
	unix.Close(r.epoll)
}

// do does a job. It returns the number of requests that were answered, and the time that it took.
func (r *requester) do(j job) (answered int, took time.Duration, err error) {
	var (
		begin   = time.Now()
		heard   = begin // the last time when a response arrived or none was expected
		now     = begin
		sent    = 0
		events  = make([]unix.EpollEvent, 64)
		buffer  = make([]byte, 64<<10)
		allSent = func() bool {
			return isClosed(j.stop) || j.count > 0 && sent == j.count ||
				j.length > 0 && now.Sub(begin) >= j.length
		}
		isDue = func() bool {
			return !allSent() &&
				(j.rate == 0 || float64(sent) <= now.Sub(begin).Seconds()*j.rate) &&
				(j.hold == nil || !j.hold(sent))
		}
	)
	for {
		now = time.Now()
		for len(r.idle) > 0 && isDue() {
			if err := r.send(j.request()); err != nil {
				return answered, 0, err
			}
			sent++
		}
		if answered == sent {
			if allSent() {
				return answered, now.Sub(begin), nil
			}
			heard = now
		}
		if now.Sub(heard) > patience {
			return answered, 0, fmt.Errorf("no response arrived for %v", patience)
		}
		wait := 100 // milliseconds
		if len(r.idle) > 0 && !allSent() {
			wait = 1 // because another request may be due
		}
		n, err := unix.EpollWait(r.epoll, events, wait)
		if err != nil && err != unix.EINTR {
			return answered, 0, err
		}
		now = time.Now()
		for _, e := range events[:max(n, 0)] {
			c := r.conns[int(e.Fd)]
			done, err := r.read(c, buffer)
			if err != nil {
				return answered, 0, err
			}
			if done {
				answered++
				heard = now
				if j.heard != nil {
					j.heard(c.sent, now)
				}
			}
		}
	}
}

// send sends a request on one of the idle connections.
func (r *requester) send(request []byte) error {
	c := r.idle[len(r.idle)-1]
	r.idle = r.idle[:len(r.idle)-1]
	c.sent = time.Now()
	_, err := unix.Write(c.fd, request)
	return err
}

// isClosed reports whether c is closed; nothing is ever sent on it.
func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// read reads from a connection, and reports whether its response is complete.
func (r *requester) read(c *conn, buffer []byte) (done bool, err error) {
	n, err := unix.Read(c.fd, buffer)
	if err == unix.EAGAIN || err == unix.EINTR {
		return false, nil
	}
	if n <= 0 {
		return false, fmt.Errorf("the server closed a connection in use: %v", err)
	}
	data := buffer[:n]
	if c.body == 0 {
		if len(c.head) > 0 {
			data = append(c.head, data...)
		}
		head, err := readHead(data)
		if err != nil {
			return false, err
		}
		if head.size == 0 {
			c.head = bytes.Clone(data)
			return false, nil
		}
		c.head, c.body, c.final, data = nil, head.body, head.final, data[head.size:]
	}
	c.body -= len(data)
	if c.body < 0 {
		return false, fmt.Errorf("a response is %d bytes longer than its Content-Length", -c.body)
	}
	if c.body > 0 {
		return false, nil
	}
	if c.final {
		unix.Close(c.fd)
		delete(r.conns, c.fd)
		return true, r.connect(c.addr)
	}
	r.idle = append(r.idle, c)
	return true, nil
}

// A responseHead is the relevant content of a response's head.
type responseHead struct {
	size  int  // of the head itself; 0 if it is incomplete
	body  int  // the size of the body
	final bool // whether the server closes the connection after it
}

// readHead parses the head at the beginning of data. A status other than 2xx is an error, and so is
// the lack of a Content-Length.
func readHead(data []byte) (head responseHead, err error) {
	end := bytes.Index(data, []byte("\r\n\r\n"))
	if end < 0 {
		return head, nil
	}
	head.size, head.body = end+len("\r\n\r\n"), -1
	line, fields, _ := bytes.Cut(data[:end+len("\r\n")], []byte("\r\n"))
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 2")) {
		return head, fmt.Errorf("the response is %.300q", data)
	}
	for len(fields) > 0 {
		line, fields, _ = bytes.Cut(fields, []byte("\r\n"))
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if head.body, err = strconv.Atoi(string(value)); err != nil {
				return head, err
			}
		case bytes.EqualFold(name, []byte("Connection")):
			head.final = bytes.EqualFold(value, []byte("close"))
		}
	}
	if head.body < 0 {
		return head, errors.New("the response has no Content-Length")
	}
	return head, nil
}
