package main

// This file starts a server as a process, stops it, and reads its use of resources from /proc.

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

// A process is a running server, with its child processes if it has any.
type process struct {
	*server
	cmd  *exec.Cmd
	addr netip.AddrPort
}

// startProcess starts a server and returns once it responds.
func startProcess(s *server, dir string, announce bool) (*process, error) {
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
	p := &process{server: s, cmd: cmd}
	if s.prints {
		var line string
		line, err = bufio.NewReader(output).ReadString('\n')
		_, how.addr, _ = strings.Cut(strings.TrimSpace(line), "http://")
	} else {
		socket.Close() // so that only the server holds it, and no connection outlives the server
	}
	if err == nil {
		p.addr, err = netip.ParseAddrPort(how.addr)
	}
	if err == nil {
		err = probe(how.addr)
	}
	if err != nil {
		p.stop()
		return nil, fmt.Errorf("it did not start: %w", err)
	}
	return p, nil
}

// contain makes sure that a command that has yet to start ends no later than this program.
func contain(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid:   true,            // so that stop reaches its children too
		Pdeathsig: syscall.SIGKILL, // so that it does not outlive this program
	}
}

// listen returns a socket that listens at addr. TCP_NODELAY is set on its connections, as in Go,
// because two peers do not set it themselves.
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

// probe waits until the server at addr sends a byte or closes the connection.
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

// stop kills the server, unless it has ended already.
func (p *process) stop() {
	if p.cmd.Process == nil || p.cmd.ProcessState != nil {
		return // Another process may have its number by now.
	}
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	p.cmd.Wait()
}

// pids returns the ids of the process and its children.
func (p *process) pids() []string {
	pid := strconv.Itoa(p.cmd.Process.Pid)
	children, _ := os.ReadFile("/proc/" + pid + "/task/" + pid + "/children")
	return append(strings.Fields(string(children)), pid)
}

// cpu returns the processor time used so far.
func (p *process) cpu() (time.Duration, error) {
	const tick = time.Second / 100 // USER_HZ, on every Linux that Go runs on
	var sum time.Duration
	for _, pid := range p.pids() {
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

// memory returns the resident memory in bytes.
func (p *process) memory() (int, error) { return p.memoryOf("VmRSS:") }

// mostMemory returns the largest resident memory so far, in bytes.
func (p *process) mostMemory() (int, error) { return p.memoryOf("VmHWM:") }

// memoryOf returns the sum of one line of /proc/PID/status over the processes, in bytes.
func (p *process) memoryOf(name string) (int, error) {
	sum := 0
	for _, pid := range p.pids() {
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
