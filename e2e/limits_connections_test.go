// Tests the limits on connections: how many there may be, and how many files they may use. How long
// they may be silent is tested beside package conns.
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
	"strings"
	"testing"
	"time"
)

// startWithFiles is start for a server that may open only that many files.
func startWithFiles(t *testing.T, files int, args ...string) *server {
	t.Helper()
	return startCommand(t, withFiles(files, args...))
}

// withFiles returns the command of a server that may open only that many files.
func withFiles(files int, args ...string) *exec.Cmd {
	limited := fmt.Sprintf(`ulimit -n %d; exec "$0" "$@"`, files)
	args = append([]string{"-c", limited, binary, "-addr", "127.0.0.1:0"}, args...)
	return exec.Command("sh", args...)
}

// mustHaveWarned ends the server and fails the test unless it has written that many lines to
// standard error. It returns them.
func (s *server) mustHaveWarned(t *testing.T, lines int) string {
	t.Helper()
	s.stop(t)
	printed := s.stderr.String()
	if got := strings.Count(printed, "\n"); got != lines {
		t.Errorf("standard error has %d lines, want %d: %.2000s", got, lines, printed)
	}
	return printed
}

// Beyond the limit, a connection gets a 503. Once more than half of the connections are in use,
// those that could stay idle end with their response.
func TestConnectionsAreLimited(t *testing.T) {
	t.Parallel()
	const files = 256
	addr := reserve(t)
	s := startWithFiles(t, files, "-metrics", addr)
	var occupied []*net.TCPConn
	for len(occupied) < files {
		conn := s.dial(t)
		responses := bufio.NewReader(conn)
		// The server waits 10 s for the body that it asks for here.
		io.WriteString(conn, s.text("POST /users/alice", "",
			"Expect", "100-continue", "Content-Length", "2"))
		r := mustRead(t, responses, "POST")
		if r.status == 100 {
			occupied = append(occupied, conn)
			continue
		}
		if !r.isError(503) || !r.closes ||
			!strings.HasPrefix(r.body, "There are too many connections; try again later.") {
			t.Errorf("got %d %v %q that closes: %v, want the error 503 and a close",
				r.status, r.header, r.body, r.closes)
		}
		r.mustAskToRetry(t)
		if rest, err := io.ReadAll(responses); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("then got %q and %v, want the end", rest, err)
		}
		break
	}
	limit := len(occupied)
	if limit < files/2 || limit == files {
		t.Errorf("there may be %d connections with %d files, want half as many or more",
			limit, files)
	}
	mustShow(t, addr, fmt.Sprintf("lobby_connections %d", limit),
		`lobby_rejections_total{limit="connections"} 1`, `lobby_responses_total{class="5xx"} 1`)
	leave := func(n int) { // leaves n connections occupied
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
	eventually(t, time.Minute, "responses to leave connections open", func() bool {
		return !s.send(t, "GET /users", "").closes
	})
}

func TestStreamLimitIsLoweredIfTheProcessMayNotOpenEnoughFiles(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		files, inherited, asked int
		args                    []string
	}{
		{files: 48, asked: 45},
		{files: 128, asked: 128, args: []string{"-max-streams", "100000"}},
		{files: 256, inherited: 100, asked: 200},
		{files: 1024, asked: 1020},
	} {
		t.Run(fmt.Sprint(c.files, " files"), func(t *testing.T) {
			t.Parallel()
			needProc(t, 4096)
			cmd := withFiles(c.files, append(c.args, "-grace", "0")...)
			for range c.inherited {
				cmd.ExtraFiles = append(cmd.ExtraFiles, os.Stdin)
			}
			s := startCommand(t, cmd)
			conns := make([]*net.TCPConn, c.asked)
			for i := range conns {
				conns[i] = s.ask(t, fmt.Sprintf("/chat/reader-%d", i))
			}
			streams := 0
			for _, conn := range conns {
				conn.SetDeadline(time.Now().Add(5 * time.Second))
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatal("a stream is neither opened nor rejected")
				}
				if err == nil && resp.StatusCode == 200 {
					streams++
					continue
				}
				if err == nil { // Of so many at once, some may get no response.
					if r, _ := readWhole(resp); !r.isError(503) {
						t.Errorf("beyond the limit: got %d %v %q, want 503",
							r.status, r.header, r.body)
					}
				}
				conn.Close()
			}
			if streams < (c.files-c.inherited)/4 || streams >= c.files-c.inherited {
				t.Errorf("%d streams are open with %d files", streams, c.files)
			}
			list := s.send(t, "GET /users", "")
			if got := strings.Count(list.body, "User: "); list.status != 200 || got != streams {
				t.Errorf("got %d and %d users, want 200 and %d", list.status, got, streams)
			}
			s.mustRefuse(t, 503, "GET /chat/late", "")
			want := fmt.Sprintf("at most %d streams are allowed", streams)
			if warning := s.mustHaveWarned(t, 1); !strings.Contains(warning, want) {
				t.Errorf("the server warns %q, want %q", warning, want)
			}
		})
	}
}

func TestServerDoesNotWarnIfTheStreamsFit(t *testing.T) {
	startWithFiles(t, 256, "-max-streams", "50").mustHaveWarned(t, 0)
}

func TestServerThatMayOpenTooFewFilesSaysSo(t *testing.T) {
	t.Parallel()
	cmd := withFiles(16)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 1 || strings.Count(string(out), "\n") != 1 ||
		!strings.Contains(string(out), "ulimit -n") {
		t.Errorf("it printed %q and exited with %v", out, err)
	}
}
