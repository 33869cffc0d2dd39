// Here belong connections: how long they may be idle, how many there may be, and
// what becomes of the rest.
package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A connection may be idle for longer than the pools of clients and proxies keep
// one, so that no request is sent on it just as the server closes it.
func TestIdleConnectionsStayOpen(t *testing.T) {
	t.Parallel()
	s := start(t)
	var waiting sync.WaitGroup
	for _, c := range []struct {
		name, first string // sent before the idle time
		idle        time.Duration
	}{
		{name: "after a request", first: s.text("GET /users", ""), idle: 6 * time.Second},
		{name: "after an error", first: s.text("GET /nosuch", ""), idle: 8 * time.Second},
		{name: "after a request, long",
			first: s.text("POST /users/alice", ""), idle: 100 * time.Second},
		{name: "after the page, long", first: s.text("GET /", ""), idle: 100 * time.Second},
	} {
		conn := s.dial(t)
		conn.SetDeadline(time.Now().Add(c.idle + 20*time.Second))
		waiting.Go(func() {
			answers := bufio.NewReader(conn)
			io.WriteString(conn, c.first)
			if _, err := readAnswer(answers); err != nil {
				t.Errorf("%s: no answer to the first request: %v", c.name, err)
				return
			}
			time.Sleep(c.idle)
			io.WriteString(conn, s.text("GET /users", ""))
			if r, err := readAnswer(answers); err != nil || r.status != 200 || r.closes {
				t.Errorf("%s: after %v got %d that closes: %v, and %v, want 200",
					c.name, c.idle, r.status, r.closes, err)
			}
		})
	}
	waiting.Wait()
}

// readAnswer reads an answer, from any goroutine.
func readAnswer(answers *bufio.Reader) (response, error) {
	resp, err := http.ReadResponse(answers, nil)
	if err != nil {
		return response{}, err
	}
	return readWhole(resp)
}

// A connection that nothing has come on yet is not late either: browsers and Go's
// pool open some in advance.
func TestFreshConnectionHasTimeForItsFirstByte(t *testing.T) {
	t.Parallel()
	const idle, head = 7 * time.Second, 5 * time.Second
	s := start(t)
	served, cut := s.dial(t), s.dial(t)
	time.Sleep(idle)
	io.WriteString(served, s.text("GET /users", ""))
	if r, err := readAnswer(bufio.NewReader(served)); err != nil || r.status != 200 {
		t.Errorf("after %v got %d and %v, want 200", idle, r.status, err)
	}
	begun := slowRequest{first: "G", limit: head, answer: `^(HTTP/1.1 4(00|08) (.|\n)*)?$`}
	if err := begun.makeOn(cut); err != nil {
		t.Error(err)
	}
}

// startWithFiles is start for a server that may open only so many files.
func startWithFiles(t *testing.T, files int, args ...string) *server {
	t.Helper()
	needs(t, "sh")
	limited := fmt.Sprintf(`ulimit -n %d; exec "$0" "$@"`, files)
	args = append([]string{"-c", limited, binary, "-addr", "127.0.0.1:0"}, args...)
	return startCommand(t, exec.Command("sh", args...))
}

// mustHaveWarned ends the server and fails the test unless it has written so many
// lines to standard error, which it returns.
func (s *server) mustHaveWarned(t *testing.T, lines int) string {
	t.Helper()
	s.stop(t)
	if got := strings.Count(s.stderr.String(), "\n"); got != lines {
		t.Errorf("standard error has %d lines, want %d: %.2000s", got, lines, &s.stderr)
	}
	return s.stderr.String()
}

// occupy opens a connection and keeps it in use for 10 s, with a request whose body
// does not come. It returns the server's answer, which is 100 if it waits for that.
func (s *server) occupy(t *testing.T) (response, *bufio.Reader, *net.TCPConn) {
	t.Helper()
	conn := s.dial(t)
	answers := bufio.NewReader(conn)
	expects := h{"Expect", "100-continue", "Content-Length", "2"}
	io.WriteString(conn, s.text("POST /users/alice", "", expects...))
	return mustRead(t, answers, "POST"), answers, conn
}

// With as many connections as there may be, one more is told so. With more than
// half of them, those that could stay idle end with their answer.
func TestConnectionsAreLimited(t *testing.T) {
	t.Parallel()
	const files = 256
	s := startWithFiles(t, files)
	var occupied []*net.TCPConn
	for {
		r, answers, conn := s.occupy(t)
		if r.status != 100 {
			r.mustTurnAway(t, answers, conn)
			break
		}
		if occupied = append(occupied, conn); len(occupied) > files {
			t.Fatalf("%d connections are open with %d files", len(occupied), files)
		}
	}
	limit := len(occupied)
	if limit < files/2 {
		t.Errorf("there may be %d connections with %d files, want at least half as many",
			limit, files)
	}
	drawn := map[int]bool{}
	for range 50 {
		r, answers, conn := s.occupy(t)
		drawn[r.mustTurnAway(t, answers, conn)] = true
	}
	if len(drawn) < 2 {
		t.Errorf("50 connections got the Retry-After %v, want it drawn for each", drawn)
	}

	leave := func(n int) { // so many occupied
		for _, conn := range occupied[n:] {
			conn.Close()
		}
		occupied = occupied[:n]
	}
	leave(limit/2 + 3)
	eventually(t, time.Minute, "a connection to be free", func() bool {
		return s.send(t, "GET /users", "").status == 200
	})
	for _, request := range []string{"GET /users", "GET /", "POST /users/bob", "GET /nosuch"} {
		if r := s.send(t, request, ""); !r.closes {
			t.Errorf("%s with more than half of the connections in use stays open", request)
		}
	}
	leave(limit/2 - 3)
	eventually(t, time.Minute, "answers to leave connections open", func() bool {
		return !s.send(t, "GET /users", "").closes
	})
	warning := s.mustHaveWarned(t, 1)
	if !strings.Contains(warning, "stream") {
		t.Errorf("the server warns of %q, want it to be of the limit of streams", warning)
	}
}

// mustTurnAway fails the test unless the answer is that of a connection too many,
// and the connection ends. It returns the answer's Retry-After.
func (r response) mustTurnAway(
	t *testing.T, answers *bufio.Reader, conn net.Conn,
) (retryAfter int) {
	t.Helper()
	defer conn.Close()
	if !r.isError(503) || !r.closes {
		t.Fatalf("got %d %v %q that closes: %v, want the error 503 and a close",
			r.status, r.header, r.body, r.closes)
	}
	rest, err := io.ReadAll(answers)
	if errors.Is(err, os.ErrDeadlineExceeded) || len(rest) > 0 {
		t.Errorf("then got %q and %v, want the end", rest, err)
	}
	return r.mustAskToRetry(t)
}

// If the process may not open enough files for its limit of streams, it says how
// many streams there can be, and has connections left for other requests.
func TestStreamsLeaveRoomForOthers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		files, asked int
		args         []string
	}{
		{files: 48, asked: 45},
		{files: 128, asked: 128, args: []string{"-max-streams", "100000"}},
		{files: 1024, asked: 1020},
	} {
		t.Run(fmt.Sprint(c.files, " files"), func(t *testing.T) {
			t.Parallel()
			needProc(t, 4096)
			s := startWithFiles(t, c.files, append(c.args, "-grace", "0")...)
			conns := make([]*net.TCPConn, c.asked)
			for i := range conns {
				conns[i] = s.ask(t, fmt.Sprintf("/chat/reader-%d", i))
			}
			streams := 0
			for _, conn := range conns {
				conn.SetDeadline(time.Now().Add(5 * time.Second))
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatal("a stream is neither opened nor refused")
				}
				if err == nil && resp.StatusCode == 200 {
					streams++
					continue
				}
				if err == nil { // of so many at once, some may just be closed
					if r, _ := readWhole(resp); !r.isError(503) {
						t.Errorf("a stream too many: got %d %v %q, want 503",
							r.status, r.header, r.body)
					}
				}
				conn.Close()
			}
			if streams < c.files/4 {
				t.Errorf("%d streams are open with %d files, want at least a quarter",
					streams, c.files)
			}
			list := s.send(t, "GET /users", "")
			if got := strings.Count(list.body, "User: "); list.status != 200 || got != streams {
				t.Errorf("got %d and %d users, want 200 and %d", list.status, got, streams)
			}
			s.mustRefuse(t, 503, "GET /chat/late", "")
			warning := s.mustHaveWarned(t, 1)
			if !regexp.MustCompile(fmt.Sprintf(`\b%d\b`, streams)).MatchString(warning) {
				t.Errorf("the server warns %q, want it to name the limit %d", warning, streams)
			}
		})
	}
}

func TestNoWarningIfTheStreamsFit(t *testing.T) {
	startWithFiles(t, 256, "-max-streams", "50").mustHaveWarned(t, 0)
}

// Requests with many headers, which cost more than they are long, are refused as
// soon as the headers have come, so that thousands of them cost little.
func TestManyHeadersCostLittle(t *testing.T) {
	t.Parallel()
	const maxMemory, clients = 400 << 20, 8
	needProc(t, 4000)
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	each := min(10_000, int(files.Cur)/2) / clients
	same, distinct := slices.Repeat(h{"X", "y"}, 1949), h{}
	for n := range 1949 {
		distinct = append(distinct, strconv.FormatInt(int64(n), 36), "")
	}
	for name, text := range map[string]func(s *server) string{
		"bodies that do not come": func(s *server) string {
			return s.text("POST /users/alice", "", append(same, "Content-Length", "9")...)
		},
		"heads that do not end": func(s *server) string {
			return strings.TrimSuffix(s.text("GET /users", "", distinct...), "\r\n")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := startForMinutes(t)
			begun := text(s)
			var asking sync.WaitGroup
			for range clients {
				asking.Go(func() {
					for n := 0; n < each && s.memory(t, "VmRSS") < maxMemory; n++ {
						conn, err := net.Dial("tcp", s.addr)
						if err != nil {
							t.Error(err)
							return
						}
						t.Cleanup(func() { conn.Close() })
						io.WriteString(conn, begun)
					}
				})
			}
			asking.Wait()
			memory := s.memory(t, "VmHWM")
			t.Logf("%d MiB of memory at the peak", memory>>20)
			if memory > maxMemory {
				t.Fatalf("%d MiB of memory at the peak, want at most %d", memory>>20, maxMemory>>20)
			}
			if r := s.do(t, "GET", "/users", ""); r.status != 200 {
				t.Errorf("then GET /users got %d %q, want 200", r.status, r.body)
			}
		})
	}
}
