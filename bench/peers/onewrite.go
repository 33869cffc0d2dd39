package peers

// This file is the floor: the least work with which one process can send each event to each stream
// in its own write(2).

import (
	"bytes"
	"net"

	"golang.org/x/sys/unix"
)

const (
	oneWriteHead = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
	oneWriteDone = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
)

// oneWrite reads connections in one epoll loop. Its writes block.
type oneWrite struct {
	announce bool
	epoll    int
	last     int
	streams  map[int]bool // by descriptor
}

func serveOneWrite(listener net.Listener, announce bool) error {
	file, err := listener.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	defer file.Close()
	accepting := int(file.Fd())
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	o := &oneWrite{announce: announce, epoll: epoll, streams: map[int]bool{}}
	if err := o.watch(accepting); err != nil {
		return err
	}
	events, request := make([]unix.EpollEvent, 256), make([]byte, 64<<10)
	for {
		n, err := unix.EpollWait(epoll, events, -1)
		if err != nil && err != unix.EINTR {
			return err
		}
		for _, e := range events[:max(n, 0)] {
			if fd := int(e.Fd); fd != accepting {
				o.read(fd, request)
			} else if err := o.accept(accepting); err != nil {
				return err
			}
		}
	}
}

func (o *oneWrite) watch(fd int) error {
	return unix.EpollCtl(o.epoll, unix.EPOLL_CTL_ADD, fd,
		&unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

func (o *oneWrite) accept(listener int) error {
	fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	if err != nil {
		return err
	}
	return o.watch(fd)
}

// read reads one request, which it expects to arrive in one piece.
func (o *oneWrite) read(fd int, buffer []byte) {
	n, err := unix.Read(fd, buffer)
	if err == unix.EINTR {
		return
	}
	if n <= 0 {
		delete(o.streams, fd)
		unix.Close(fd)
		return
	}
	head, body, _ := bytes.Cut(buffer[:n], []byte("\r\n\r\n"))
	line, _, _ := bytes.Cut(head, []byte(" HTTP/1.1\r\n"))
	if name, ok := bytes.CutPrefix(line, []byte("GET /chat/")); ok {
		unix.Write(fd, []byte(oneWriteHead))
		o.streams[fd] = true
		if o.announce {
			o.publish(arrival(string(name)))
		}
	} else if name, ok := bytes.CutPrefix(line, []byte("POST /chat/")); ok {
		o.publish(string(name) + ": " + string(body))
		unix.Write(fd, []byte(oneWriteDone))
	} else {
		unix.Close(fd) // It is not one of bench's requests.
	}
}

func (o *oneWrite) publish(text string) {
	o.last++
	event := event(o.last, text)
	for fd := range o.streams {
		unix.Write(fd, event)
	}
}
