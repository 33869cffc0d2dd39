package etcd

// What belongs here: tests of Begin and Append, with the etcd of gateway_test.go.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestFirstNodeSetsTheSettings(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		w.mustBegin()
		s, err := w.newLog().Begin(t.Context(), "others", Entry{})
		if err != nil || s.Settings != "settings" || s.Snapshot != nil || s.At != 0 || s.Restored {
			t.Errorf("the session is %+v, %v", s, err)
		}
	})
}

func TestLobbyWhoseKeyWasRemovedKeepsItsSnapshot(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		s := w.mustBegin()
		at := mustAppend(t, s, "a", 1, "old")
		mustSave(t, s, at, "snapshot")
		mustAppend(t, s, "a", 2, "older than the new key")
		w.remove("lobby/lobby")
		s, err := w.newLog().Begin(t.Context(), "others", Entry{})
		if err != nil || s.Settings != "others" || string(s.Snapshot) != "snapshot" || s.At != at {
			t.Errorf("the session has %q, %q at %d, %v", s.Settings, s.Snapshot, s.At, err)
		}
		follow(t.Context(), s).mustRead(t, "a/2=older than the new key")
	})
}

// These are the responses of etcd and nginx.
func TestEntryThatIsTooLargeIsNotSentAgain(t *testing.T) {
	for _, rejection := range []struct {
		status  int
		message string
	}{
		{http.StatusBadRequest, "etcdserver: request is too large"},
		{http.StatusBadRequest, "etcdserver: too many operations in txn request"},
		{http.StatusTooManyRequests, "grpc: received message larger than max (700017 vs. 655360)"},
		{http.StatusTooManyRequests, "grpc: trying to send message larger than max (3 vs. 2)"},
		{http.StatusRequestEntityTooLarge, "<html>"},
	} {
		inWorld(t, 2, func(t *testing.T, w *world) {
			s := w.mustBegin()
			asked := 0
			w.script(func(c *call, serve func()) {
				asked++
				c.fail(rejection.status, rejection.message)
			})
			_, err := s.Append(t.Context(), "a", 1, []byte("large"))
			if !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "--max-request-bytes") {
				t.Errorf("%q: got %v", rejection.message, err)
			}
			if asked != 1 {
				t.Errorf("%q: etcd was asked %d times", rejection.message, asked)
			}
			w.script(nil)
			mustAppend(t, s, "a", 1, "small")
		})
	}
}

func TestBeginTellsTheOperatorWhatToDo(t *testing.T) {
	rejects := func(status int, message string) func(*world, *Log) {
		return func(w *world, _ *Log) {
			w.script(func(c *call, _ func()) { c.fail(status, message) }, 0)
			w.members[1].down = true
		}
	}
	for _, test := range []struct {
		prepare   func(*world, *Log)
		isRefused bool
		want      string
	}{
		{func(w *world, log *Log) {
			w.password, log.config.User, log.config.Password = "right", "alice", "wrong"
		}, true, "USER:PASSWORD@"},
		{func(w *world, _ *Log) { w.password = "right" }, true, "requires a user"},
		{rejects(403, "etcdserver: permission denied"), true, "requires a user"},
		{func(w *world, log *Log) {
			log.config.User, log.config.Password = "alice", "right"
			rejects(403, "etcdserver: permission denied")(w, log)
		}, true, "grant a role"},
		{rejects(400, "CommonName of client sending a request against gateway will be ignored"),
			true, "-subj /O=lobby"},
		{rejects(404, "404 page not found"), true, "--enable-grpc-gateway"},
		{func(w *world, _ *Log) { // what etcd 3.7 sends if it serves only gRPC
			w.script(func(c *call, _ func()) {
				conn, _, err := c.w.(http.Hijacker).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				io.WriteString(conn, "\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x05\x00\x00@\x00")
				conn.Close()
			}, 0)
			w.members[1].down = true
		}, true, "http://m0:2379 serves only gRPC; " +
			"use the address in etcd's --listen-client-http-urls"},
		{func(w *world, log *Log) {
			w.password, log.config.User, log.config.Password = "right", "alice", "right"
			w.script(func(c *call, serve func()) {
				if c.path != "/v3/auth/authenticate" {
					c.fail(http.StatusUnauthorized, "etcdserver: invalid auth token")
					return
				}
				serve()
			})
		}, false, "invalid auth token"},
		{func(w *world, _ *Log) {
			w.members[0].down, w.members[1].gone = true, true
		}, false, "connection refused"},
		{rejects(503, "etcdserver: no leader"), false, "no leader (status 503)"},
		// What the gateway says if it cannot reach etcd depends on where its connection ended.
		{rejects(503, "connection closed"), false, "not for servers only"},
		{rejects(503, "use of closed network connection"), false, "not for servers only"},
		{rejects(503, "write tcp 127.0.0.1:41670->127.0.0.1:2379: write: broken pipe"),
			false, "not for servers only"},
		{rejects(503, "write tcp 127.0.0.1:41670->127.0.0.1:2379: write: connection reset by peer"),
			false, "not for servers only"},
		{rejects(503, "EOF"), false, "not for servers only"},
		{rejects(503, `desc = "error reading server preface: remote error: tls: bad certificate"`),
			false, "not for servers only"},
		{rejects(503, `desc = "transport: failed to write client preface: i/o timeout"`),
			false, "not for servers only"},
		{rejects(503, `desc = "transport: authentication handshake failed: i/o timeout"`),
			false, "not for servers only"},
	} {
		inWorld(t, 2, func(t *testing.T, w *world) {
			log := w.newLog()
			test.prepare(w, log)
			start := time.Now()
			_, err := log.Begin(t.Context(), "", Entry{})
			isRefused := errors.Is(err, ErrRefused)
			if err == nil || !strings.Contains(err.Error(), test.want) || isRefused != test.isRefused {
				t.Fatalf("got %v (refused: %v), want %q", err, isRefused, test.want)
			}
			if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "wrong") {
				t.Errorf("%q has several lines or contains the password", err)
			}
			if took := time.Since(start); took > 3*slowAfter {
				t.Errorf("%v: it took %v", err, took)
			}
		})
	}
}

// A stalled endpoint delays no start: neither one of two URLs, nor one that stalls only after it
// has said where it belongs.
func TestStalledEndpointDelaysNoStart(t *testing.T) {
	for _, script := range []func(c *call, serve func()){
		failures["stuck"],
		func(c *call, serve func()) {
			if c.path == "/v3/kv/txn" {
				c.hang()
				return
			}
			serve()
		},
	} {
		for members := 2; members <= 4; members++ {
			inWorld(t, members, func(t *testing.T, w *world) {
				w.script(script, 0)
				mustTake(t, 0, 0, func() { w.mustBegin() })
			})
		}
	}
}

// The snapshot cannot be read at every endpoint.
func TestSnapshotIsReadAtAnotherEndpoint(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		s := w.mustBegin()
		at := mustAppend(t, s, "a", 1, "x")
		mustSave(t, s, at, "snapshot")
		var isSecond atomic.Bool
		w.script(func(c *call, serve func()) {
			if c.path == "/v3/kv/txn" && !bytes.Contains(c.body, []byte("compare")) && !isSecond.Swap(true) {
				c.abort()
			}
			serve()
		})
		mustHave(t, w, at, "snapshot")
	})
}

// The third URL leads to another cluster, which is the first to say so.
func TestBeginWaitsUntilItIsKnownWhichClusterCounts(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		const late = requestTimeout - 1
		other := newWorld(t, "2")
		w.members[2].world = other
		w.script(func(c *call, serve func()) {
			if c.path == "/v3/maintenance/status" {
				time.Sleep(late)
			}
			serve()
		}, 0, 1)
		mustTake(t, late, late, func() { mustAppend(t, w.mustBegin(), "a", 1, "x") })
		if got := other.list("lobby/"); len(got) > 0 {
			t.Errorf("the other cluster has %q", got)
		}
	})
}

// Two clusters have one endpoint each, and a third endpoint is down.
func TestSessionBelongsToTheClusterThatRespondedFirst(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		w.members[1].world, w.members[2].down = newWorld(t, "2"), true
		var isSecond atomic.Bool
		w.script(func(c *call, serve func()) { // its status comes last, and then it is too late
			if c.path == "/v3/maintenance/status" {
				time.Sleep(time.Second)
			} else if !isSecond.Swap(true) {
				c.hang()
				return
			}
			serve()
		}, 1)
		s, err := w.newLog().Begin(t.Context(), "", Entry{})
		if err != nil {
			t.Fatal(err)
		}
		mustAppend(t, s, "a", 1, "x")
	})
}

// A node starts although each response, and each message of a watch, takes 4.9 s.
func TestNodeStartsWithASlowEtcd(t *testing.T) {
	const late = requestTimeout - 100*time.Millisecond
	for _, password := range []string{"", "secret"} {
		inWorld(t, 3, func(t *testing.T, w *world) {
			w.late, w.password = late, password
			var s *Session
			mustTake(t, 2*late, 2*requestTimeout, func() {
				var err error
				if s, err = w.newLog().Begin(t.Context(), "", Entry{}); err != nil {
					t.Fatal(err)
				}
			})
			f := follow(t.Context(), s)
			time.Sleep(time.Second) // so the first response lacks the first entry
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for n := range 10 {
				mustTake(t, late, late, func() {
					if _, err := s.Append(ctx, "a", n+1, []byte("x")); err != nil {
						t.Fatal(err)
					}
				})
			}
			f.mustRead(t, "a/1=x", "a/2=x", "a/3=x", "a/4=x", "a/5=x", "a/6=x", "a/7=x", "a/8=x", "a/9=x")
			mustTake(t, 0, late, func() { f.mustRead(t, "a/10=x") })
			if n := w.requests("/v3/watch"); n != 1 {
				t.Errorf("there were %d watches, want 1", n)
			}
		})
	}
}

func TestExplainHasTheLastErrorOfEachEndpoint(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		s := w.mustBegin()
		lost := errors.New("lost")
		mustSay := func(want string) {
			t.Helper()
			if err := s.log.Explain(lost); !errors.Is(err, lost) || err.Error() != want {
				t.Errorf("got %v, want %s", err, want)
			}
		}
		mustFail := func() {
			ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
			defer cancel()
			if _, err := s.Append(ctx, "a", 1, nil); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		}
		mustSay("lost")
		w.stop(0)
		w.script(func(c *call, _ func()) {
			c.fail(http.StatusTooManyRequests, "etcdserver: mvcc: database space exceeded")
		}, 1)
		w.script(failures["stuck"], 2)
		mustTake(t, 7*time.Second, 7*time.Second, mustFail)
		mustSay("lost: http://m0:2379: connection refused; " +
			"http://m1:2379: mvcc: database space exceeded (status 429); http://m2:2379: no response in time")
		w.script(failures["lost before"], 1)
		mustFail()
		mustSay("lost: http://m0:2379: connection refused; " +
			"http://m1:2379: the connection was closed; http://m2:2379: no response in time")
		w.script(nil, 1)
		mustAppend(t, s, "a", 1, "")
		if err := s.log.Explain(lost); strings.Contains(err.Error(), "m1") {
			t.Errorf("got %v", err)
		}
	})
}

func TestExpiredTokenIsReplaced(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		w.password = "secret"
		s := w.mustBegin()
		f := follow(t.Context(), s)
		mustAppend(t, s, "a", 1, "x")
		f.mustRead(t, "a/1=x")
		synctest.Wait() // until the watch is open
		if n := w.requests("/v3/auth/authenticate"); n != 1 {
			t.Errorf("authenticated %d times at first, want once", n)
		}
		w.set(func() { clear(w.tokens) })
		before := w.requests("/v3/auth/authenticate")
		mustAppend(t, s, "a", 2, "y")
		mustAppend(t, s, "a", 3, "z")
		f.mustRead(t, "a/2=y", "a/3=z")
		if n := w.requests("/v3/auth/authenticate") - before; n != 1 {
			t.Errorf("authenticated %d times, want once", n)
		}
	})
}

// The last member has lost its disk and formed a new cluster.
func TestEndpointOfAnotherClusterIsLeftOut(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		other := newWorld(t, "2")
		s := w.mustBegin()
		f := follow(t.Context(), s)
		mustAppend(t, s, "a", 1, "x")
		f.mustRead(t, "a/1=x")
		var warnings []string
		warn := func(sentence string) { w.set(func() { warnings = append(warnings, sentence) }) }
		mustWarn := func() {
			t.Helper()
			synctest.Wait() // until all endpoints have responded
			want := []string{"http://m2:2379: left out, as it belongs to a different etcd cluster than most URLs"}
			if !slices.Equal(warnings, want) {
				t.Errorf("the warnings are %q, want %q", warnings, want)
			}
			warnings = nil
		}
		s.log.Warn = warn
		w.stop(0, 1, 2)
		w.set(func() {
			w.members[2].world = other
			for _, m := range w.members {
				m.down = false
			}
		})
		s.appender.at = 2
		mustAppend(t, s, "a", 2, "y")
		f.mustRead(t, "a/2=y")
		mustWarn()
		for range 20 { // the endpoints respond in any order
			log := w.newLog()
			log.Warn = warn
			s, err := log.Begin(t.Context(), "", Entry{})
			if err != nil {
				t.Fatal(err)
			}
			follow(t.Context(), s).mustRead(t, "a/1=x", "a/2=y")
			mustWarn()
		}
		if got := other.list("lobby/"); len(got) > 0 {
			t.Errorf("the other cluster has %q", got)
		}
	})
}

// A backup is restored to a new cluster, one member after the other.
func TestClusterOfMostEndpointsCounts(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		s := w.mustBegin()
		mustAppend(t, s, "a", 1, "x")
		w.stop(0, 1, 2)
		w.members[1].world, w.members[2].world = newWorld(t, "2"), newWorld(t, "2")
		w.members[1].down, w.members[2].down = false, false
		if _, err := s.Append(t.Context(), "a", 2, nil); !errors.Is(err, ErrReplaced) {
			t.Errorf("got %v", err)
		}
	})
}

func TestPasswordsAreSwitchedOnAndOffWhileNodesRun(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		w.password = "secret"
		s := w.mustBegin()
		f := follow(t.Context(), s)
		for n := range 6 {
			w.set(func() {
				w.password = ""
				clear(w.tokens)
				if n%2 == 0 {
					w.password = "secret"
				}
			})
			for _, conn := range w.members[0].open {
				conn.Close() // and with it the watch
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*retryDelay)
			defer cancel()
			if _, err := s.Append(ctx, "a", n+1, []byte("x")); err != nil {
				t.Fatalf("after %d changes: %v", n, err)
			}
			f.mustRead(t, fmt.Sprintf("a/%d=x", n+1))
		}
	})
}

// failures are ways in which a member fails before or after it has executed a request.
var failures = map[string]func(c *call, serve func()){
	"lost before": func(c *call, serve func()) { c.abort() },
	"lost after":  func(c *call, serve func()) { execute(c, serve); c.abort() },
	"stuck":       func(c *call, serve func()) { c.hang() },
	"stuck after": func(c *call, serve func()) { execute(c, serve); c.hang() },
	"half a response": func(c *call, serve func()) {
		execute(c, serve)
		c.say(`{"header":{"rev`)
		c.abort()
	},
	"leader changed": func(c *call, serve func()) {
		execute(c, serve)
		c.fail(http.StatusServiceUnavailable, "etcdserver: leader changed")
	},
	"no leader": func(c *call, serve func()) { c.fail(http.StatusServiceUnavailable, "etcdserver: no leader") },
	"no JSON":   func(c *call, serve func()) { c.say("<html>") },
}

// execute serves a request but discards the response.
func execute(c *call, serve func()) {
	w := c.w
	defer func() { c.w = w }()
	c.w = httptest.NewRecorder()
	serve()
}

func TestEntryIsAppendedOnceWhateverFails(t *testing.T) {
	for name, fail := range failures {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 2, func(t *testing.T, w *world) {
				s := w.mustBegin()
				mustAppend(t, s, "a", 1, "one")
				w.script(fail, 0)
				var revision int64
				mustTake(t, 0, slowAfter, func() { revision = mustAppend(t, s, "a", 2, "two") })
				if got := w.keys["lobby/log/a/2"]; got.Modified != revision || got.Version != 1 {
					t.Errorf("revision is %d, but the entry has revision %d, version %d", revision, got.Modified, got.Version)
				}
				// The endpoint that worked is asked first.
				mustTake(t, 0, 0, func() { mustAppend(t, s, "a", 3, "three") })
				want := []string{"lobby/log/a/1=one", "lobby/log/a/2=two", "lobby/log/a/3=three"}
				if got := w.list("lobby/log/"); !slices.Equal(got, want) {
					t.Errorf("the log is %q", got)
				}
			})
		})
	}
}

// Each transaction of a node can arrive again, even after the others have declared the node dead.
func TestLateRetryChangesNothing(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		s, other := w.mustBegin(), w.mustBegin()
		var late []transaction
		w.script(func(c *call, serve func()) {
			late = append(late, decode[transaction](c.body))
			serve()
		}, 0)
		for i := range 3 {
			mustAppend(t, s, "a", i+1, "x")
		}
		w.script(nil, 0)
		mustRepeat := func(when string) {
			t.Helper()
			before := w.revision
			for _, transaction := range late {
				w.transact(transaction)
			}
			if w.revision != before {
				t.Errorf("%s, a late retry changed something", when)
			}
		}
		mustRepeat("at first")
		mustSave(t, other, 4, "", "a")
		if got := w.names("nodes/"); len(got) > 0 {
			t.Fatalf("the nodes are %q, want none", got)
		}
		mustRepeat("after the node's key was removed")
	})
}

// Two snapshots are saved between a node's Begin and its first entry.
func TestFirstEntryFollowsAnotherNodesSnapshot(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		s, other := w.mustBegin(), w.mustBegin()
		for n := range 2 {
			mustSave(t, other, mustAppend(t, other, "other", n+1, ""), "")
		}
		mustAppend(t, s, "a", 1, "one")
		mustAppend(t, s, "a", 2, "two")
	})
}

// A response was lost because the context was done.
func TestAppendCanBeRepeated(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		s := w.mustBegin()
		first := mustAppend(t, s, "a", 1, "x")
		w.put("other", "")
		f := follow(t.Context(), s)
		f.mustRead(t, "a/1=x")
		if again := mustAppend(t, s, "a", 1, "x"); again != first {
			t.Errorf("revision is %d, want %d", again, first)
		}
	})
}

func TestUnreachableEndpointDelaysLittle(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		s := w.mustBegin()
		w.set(func() { w.members[0].gone, w.members[1].script = true, failures["stuck"] })
		s.log.http.CloseIdleConnections()
		mustTake(t, 2*slowAfter, 2*slowAfter, func() { mustAppend(t, s, "a", 1, "") })
	})
}

func TestAppendWaitsForALeader(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		s := w.mustBegin()
		var isBack atomic.Bool
		w.script(func(c *call, serve func()) {
			if c.r.Header.Get("Grpc-Metadata-hasleader") != "true" {
				t.Error("the request does not ask for a leader")
			}
			if !isBack.Load() {
				failures["no leader"](c, serve)
				return
			}
			serve()
		})
		const back = 3 * time.Second
		time.AfterFunc(back, func() { isBack.Store(true) })
		mustTake(t, back, back+retryDelay, func() { mustAppend(t, s, "a", 1, "") })
		if n := len(w.asked); n > 3+3*40 {
			t.Errorf("asked %d times", n)
		}
	})
}

// The leader stalls: it does not respond, and what the others forward to it is lost. Then they have
// no leader, until they elect another one. Once they have, everything continues at once, however
// long the election took.
func TestStalledLeaderDelaysNothingBeyondTheElection(t *testing.T) {
	for name, do := range map[string]func(t *testing.T, s *Session){
		"append": func(t *testing.T, s *Session) { mustAppend(t, s, "a", 2, "two") },
		"read":   func(t *testing.T, s *Session) { follow(t.Context(), s).mustRead(t, "a/1=one") },
	} {
		for elected := 2 * time.Second; elected < 6*time.Second; elected += time.Second / 2 {
			t.Run(fmt.Sprint(name, elected), func(t *testing.T) {
				inWorld(t, 3, func(t *testing.T, w *world) {
					s := w.mustBegin()
					mustAppend(t, s, "a", 1, "one")
					start := time.Now()
					w.script(failures["stuck"], 0)
					w.script(func(c *call, serve func()) {
						switch now := time.Since(start); {
						case now < elected/2:
							c.hang()
						case now < elected:
							failures["no leader"](c, serve)
						default:
							serve()
						}
					}, 1, 2)
					mustTake(t, elected, elected+slowAfter+2*retryDelay, func() { do(t, s) })
				})
			})
		}
	}
}

// Every response is late. The first one counts all the same, and few requests are sent twice.
func TestSlowEtcdIsUsedWithoutFloodingIt(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		const late = 2 * time.Second
		s := w.mustBegin()
		before := w.requests("/v3/kv/txn")
		w.script(func(c *call, serve func()) { time.Sleep(late); serve() })
		mustTake(t, late, late, func() { mustAppend(t, s, "a", 1, "one") })
		ctx, cancel := context.WithCancel(t.Context())
		mustTake(t, late, late, func() { follow(ctx, s).mustRead(t, "a/1=one") })
		cancel()
		time.Sleep(late) // until the members have served all requests
		if n, most := w.requests("/v3/kv/txn")-before, 2*(1+int(late/slowAfter)); n > most {
			t.Errorf("asked %d times, want at most %d", n, most)
		}
	})
}

func TestFirstEntryIsNotAppendedToAnotherLog(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		s := w.mustBegin()
		w.remove("lobby/")
		w.mustBegin()
		if _, err := s.Append(t.Context(), "a", 1, nil); !errors.Is(err, ErrReplaced) {
			t.Errorf("got %v", err)
		}
	})
}

func TestAppendDetectsThatTheLogWasLost(t *testing.T) {
	for _, test := range []struct {
		name    string
		prepare func(w *world)
		want    error
	}{
		{"emptied", func(w *world) { w.remove("lobby/") }, ErrReplaced},
		{"recreated", func(w *world) { w.remove("lobby/"); w.mustBegin() }, ErrReplaced},
		{"another etcd", func(w *world) { w.set(func() { w.revision = 1; clear(w.keys) }) }, ErrReplaced},
		{"restored", func(w *world) { w.restore("lobby/log/a/1") }, ErrRestored},
		{"restored, and then grown", func(w *world) {
			w.restore("lobby/log/a/1")
			w.set(func() { w.revision += 100 })
		}, ErrRestored},
		{"restored without the node", func(w *world) { w.restore("lobby/lobby") }, ErrRestored},
		{"restored without others", func(w *world) { w.restore("lobby/log/a/2") }, ErrRestored},
		{"declared dead", func(w *world) { w.remove("lobby/nodes/a") }, ErrVoid},
		{"its count was changed", func(w *world) { w.put("lobby/nodes/a", "x") }, ErrForgedCount},
		{"its count was counted up", func(w *world) { w.put("lobby/nodes/a", "3") }, ErrForgedCount},
		{"its count was counted up twice", func(w *world) {
			w.put("lobby/nodes/a", "3")
			w.put("lobby/nodes/a", "4")
		}, ErrForgedCount},
		{"its count was put again", func(w *world) {
			w.remove("lobby/nodes/a")
			w.put("lobby/nodes/a", "2")
		}, ErrForgedCount},
		{"its count and its next entry were forged", func(w *world) {
			w.put("lobby/log/a/3", "x")
			w.put("lobby/nodes/a", "3")
		}, ErrForgedCount},
	} {
		t.Run(test.name, func(t *testing.T) {
			inWorld(t, 1, func(t *testing.T, w *world) {
				s := w.mustBegin()
				mustAppend(t, s, "a", 1, "")
				mustAppend(t, s, "a", 2, "")
				w.put("lobby/log/b/1", "")
				f := follow(t.Context(), s)
				f.mustRead(t, "a/1=", "a/2=", "b/1=")
				test.prepare(w)
				if _, err := s.Append(t.Context(), "a", 3, nil); !errors.Is(err, test.want) {
					t.Errorf("got %v, want %v", err, test.want)
				}
				if errors.Is(test.want, ErrForgedCount) && len(w.names("nodes/")) > 0 {
					t.Error("the forged count is still in etcd")
				}
			})
		})
	}
}

func TestEntryThatWasRemovedBeforeItsRetryIsInTheLog(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		s := w.mustBegin()
		mustAppend(t, s, "a", 1, "")
		var put int64
		w.script(func(c *call, serve func()) {
			w.script(nil)
			execute(c, serve)
			put = w.revision
			w.remove("lobby/log/a/2")
			c.abort()
		})
		if got := mustAppend(t, s, "a", 2, ""); got != put {
			t.Errorf("the revision is %d, want %d", got, put)
		}
	})
}

// The response is lost, and the retry comes when two snapshots include the entry.
func TestEntryThatWasTrimmedBeforeItsRetryIsInTheLog(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		s, other := w.mustBegin(), w.mustBegin()
		mustAppend(t, s, "a", 1, "")
		lost := make(chan int64)
		var isSecond atomic.Bool
		w.script(func(c *call, serve func()) {
			if isSecond.Swap(true) {
				serve()
				return
			}
			execute(c, serve)
			lost <- w.revision
			c.abort()
		})
		go func() {
			at := <-lost
			mustSave(t, other, at, "one")
			mustSave(t, other, mustAppend(t, other, "b", 1, ""), "two")
		}()
		mustAppend(t, s, "a", 2, "")
	})
}

func TestEndpointOfAnotherClusterKnowsNothingOfThePast(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		w.members[2].world = newWorld(t, "2")
		s := w.mustBegin()
		revision := mustAppend(t, s, "a", 1, "")
		c := s.began.clone()
		c.at = 2
		if wasPut, err := c.wasPut(t.Context(), s.log.entry("a", 1), revision); !wasPut || err != nil {
			t.Errorf("the entry was put: %v, %v", wasPut, err)
		}
	})
}

func TestBeginDoesNotWaitForThePast(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		w.script(func(c *call, serve func()) {
			if bytes.Contains(c.body, []byte(`"revision"`)) {
				c.hang()
			}
			serve()
		})
		mustTake(t, requestTimeout, requestTimeout, func() {
			_, err := w.newLog().Begin(t.Context(), "", Entry{Node: "a", Number: 1, Revision: 1})
			if !errors.Is(err, errUnreachable) {
				t.Errorf("got %v", err)
			}
		})
	})
}

// A stranger has put a node's next entry. What it says has no effect, so the node removes it.
func TestEntryIsAppendedAfterAStrangersWasDiscarded(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		s := w.mustBegin()
		mustAppend(t, s, "a", 1, "")
		strangers := w.put("lobby/log/a/2", "garbage")
		f := follow(t.Context(), s)
		f.mustRead(t, "a/1=", "a/2=garbage")
		s.Discard(t.Context(), Entry{Revision: strangers - 1, Node: "a", Number: 2}) // not this one
		time.AfterFunc(time.Minute, func() {
			s.Discard(t.Context(), Entry{Revision: strangers, Node: "a", Number: 2})
		})
		mustTake(t, time.Minute, time.Minute+retryDelay, func() { mustAppend(t, s, "a", 2, "x") })
		f.mustRead(t, "a/2 is damaged", "a/2=x")
	})
}

// restore restores a backup made when key was last changed.
func (w *world) restore(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.revision = w.keys[key].Modified
	history := w.history
	w.history = nil
	clear(w.keys)
	revision := w.revision
	for _, change := range history {
		if w.revision = change.kv.Modified; w.revision <= revision {
			if change.removed {
				w.apply(remove(change.kv.Key))
			} else {
				w.apply(put(change.kv.Key, change.kv.Value))
			}
		}
	}
	w.revision = revision
}

func TestBeginDetectsThatEtcdWasRestored(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		s := w.mustBegin()
		mustAppend(t, s, "a", 1, "")
		last := Entry{Node: "a", Number: 2, Revision: mustAppend(t, s, "a", 2, "")}
		mustAppend(t, s, "b", 1, "")
		check := func(what string, seen Entry, want bool) {
			t.Helper()
			s, err := w.newLog().Begin(t.Context(), "", seen)
			if err != nil || s.Restored != want {
				t.Errorf("%s: restored is %v, %v", what, s.Restored, err)
			}
		}
		check("a new process", Entry{}, false)
		check("nothing is missing", last, false)
		check("the entry is missing", Entry{Node: "a", Number: 3, Revision: last.Revision + 2}, true)
		check("another entry is in its place", Entry{Node: "a", Number: 2, Revision: last.Revision + 1}, true)
		w.put("lobby/log/a/2", "overwritten")
		check("the entry was changed", last, false)
		mustSave(t, s, last.Revision, "one")
		mustSave(t, s, last.Revision+1, "two")
		check("the entry was removed because a snapshot includes it", last, false)
	})
}
