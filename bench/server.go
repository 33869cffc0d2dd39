package main

// This file starts a side's server as a process, stops it, and reads what it has used from /proc.

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A server is a process, or a few with one parent.
type server struct {
	*side
	cmd  *exec.Cmd
	addr netip.AddrPort
}

// startServer starts a side and returns when it answers.
func startServer(s *side, dir string, announce bool) (*server, error) {
	how := start{dir: dir, announce: announce}
	var socket *os.File
	if !s.prints {
		var err error
		if socket, how.addr, err = listen(); err != nil {
			return nil, err
		}
		defer socket.Close()
	}
	cmd, err := s.command(how)
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	contain(cmd)
	var output io.Reader
	if s.prints {
		output, err = cmd.StdoutPipe()
	} else {
		cmd.ExtraFiles = []*os.File{socket}
	}
	if err := errors.Join(err, cmd.Start()); err != nil {
		return nil, err
	}
	srv := &server{side: s, cmd: cmd}
	if s.prints {
		var line string
		line, err = bufio.NewReader(output).ReadString('\n')
		_, how.addr, _ = strings.Cut(strings.TrimSpace(line), "http://")
	} else {
		socket.Close() // with the server's own, so that no connection outlives it
	}
	if err == nil {
		srv.addr, err = netip.ParseAddrPort(how.addr)
	}
	if err == nil {
		err = probe(how.addr)
	}
	if err != nil {
		srv.stop()
		return nil, fmt.Errorf("it did not start: %w", err)
	}
	return srv, nil
}

// contain makes sure that a command that will be started ends at the latest with the race.
func contain(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid:   true,            // so that stop reaches its children too
		Pdeathsig: syscall.SIGKILL, // so that it does not outlive the race
	}
}

// listen returns a socket that listens at addr. Its connections send everything at once, as Go's
// do: two peers do not set TCP_NODELAY themselves.
func listen() (socket *os.File, addr string, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	defer listener.Close()
	if socket, err = listener.(*net.TCPListener).File(); err != nil {
		return nil, "", err
	}
	err = unix.SetsockoptInt(int(socket.Fd()), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	return socket, listener.Addr().String(), err
}

// probe waits until the server at addr answers something, or closes the connection.
func probe(addr string) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return err
	}
	if _, err = conn.Read(make([]byte, 1)); err == io.EOF {
		return nil
	}
	return err
}

// stop ends the server at once, unless it has ended already.
func (s *server) stop() {
	if s.cmd.Process == nil || s.cmd.ProcessState != nil {
		return // its number may be another process's by now
	}
	syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	s.cmd.Wait()
}

// pids returns the process and its children.
func (s *server) pids() []string {
	pid := strconv.Itoa(s.cmd.Process.Pid)
	children, _ := os.ReadFile("/proc/" + pid + "/task/" + pid + "/children")
	return append(strings.Fields(string(children)), pid)
}

// cpu returns the processor time that the server has used.
func (s *server) cpu() (time.Duration, error) {
	const tick = time.Second / 100 // USER_HZ, on every Linux that Go runs on
	var sum time.Duration
	for _, pid := range s.pids() {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			return 0, err
		}
		// The second field, a name in parentheses, may have spaces.
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) < 13 {
			return 0, fmt.Errorf("/proc/%s/stat is %q", pid, stat)
		}
		user, err1 := strconv.Atoi(fields[11])
		system, err2 := strconv.Atoi(fields[12])
		if err := errors.Join(err1, err2); err != nil {
			return 0, err
		}
		sum += time.Duration(user+system) * tick
	}
	return sum, nil
}

// memory returns how many bytes of memory the server has.
func (s *server) memory() (int, error) { return s.memoryOf("VmRSS:") }

// mostMemory returns how many bytes of memory the server has had at most.
func (s *server) mostMemory() (int, error) { return s.memoryOf("VmHWM:") }

// memoryOf returns what a line of the kernel's status of each process adds up to.
func (s *server) memoryOf(name string) (int, error) {
	sum := 0
	for _, pid := range s.pids() {
		status, err := os.ReadFile("/proc/" + pid + "/status")
		if err != nil {
			return 0, err
		}
		_, line, _ := strings.Cut(string(status), name)
		kib, _, _ := strings.Cut(line, " kB")
		n, err := strconv.Atoi(strings.TrimSpace(kib))
		if err != nil {
			return 0, err
		}
		sum += n << 10
	}
	return sum, nil
}
