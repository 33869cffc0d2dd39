package main

// This file tests what a survey needs: requests to several addresses, sums, the report, and etcd
// servers that start and die.

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestChooseSurvey(t *testing.T) {
	if got := chooseSurvey(false, 0, 0); got != fullSurvey {
		t.Errorf("without flags the plan is %+v, want %+v", got, fullSurvey)
	}
	want := quickSurvey
	want.rounds, want.full = 2, time.Minute
	if got := chooseSurvey(true, 2, time.Minute); got != want {
		t.Errorf("with all flags the plan is %+v, want %+v", got, want)
	}
}

func TestRequestsGoToAllAddresses(t *testing.T) {
	answer := make(chan int, 60)
	serve := func(i int) func(net.Listener) {
		return answerWith(func(w io.Writer) {
			answer <- i
			io.WriteString(w, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		}, true)
	}
	r, err := newRequester(3,
		listenFor(t, serve(0)), listenFor(t, serve(1)), listenFor(t, serve(2)))
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	// Each connection is closed after its answer; the next one goes to the same address.
	if _, _, err := r.do(job{count: 60, request: func() []byte {
		return newRequest("POST", "/", "localhost", "hello")
	}}); err != nil {
		t.Fatal(err)
	}
	var answered [3]int
	for range 60 {
		answered[<-answer]++
	}
	if slices.Min(answered[:]) < 2 {
		t.Errorf("the servers got %v requests, want more than the first for each", answered)
	}
}

func TestJobIsStoppedAndTimed(t *testing.T) {
	const delay = 5 * time.Millisecond
	addr := listenFor(t, answerWith(func(w io.Writer) {
		time.Sleep(delay)
		io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	}, false))
	stop, heard := make(chan struct{}), 0
	answered, err := doJob(t, addr, 2, job{count: 100, stop: stop, heard: func(sent, now time.Time) {
		if took := now.Sub(sent); took < delay {
			t.Errorf("an answer came %v after its request, want at least %v", took, delay)
		}
		if heard++; heard == 10 {
			close(stop)
		}
	}})
	if answered != heard || heard < 10 || heard > 11 || err != nil {
		t.Errorf("%d requests were answered, %d heard of, %v; want 10 or 11", answered, heard, err)
	}
}

func TestLongestSilence(t *testing.T) {
	at := func(milliseconds ...int) (times []time.Time) {
		for _, n := range milliseconds {
			times = append(times, time.UnixMilli(int64(n)))
		}
		return times
	}
	for _, c := range []struct {
		name    string
		answers []time.Time
		want    time.Duration
	}{
		{"no answers", nil, 0},
		{"only before", at(100, 900), 0},
		{"from the moment to the first answer", at(100, 1500, 1600), 500 * time.Millisecond},
		{"after answers on their way", at(999, 1001, 1002, 3002, 3003), 2 * time.Second},
	} {
		if got := longestSilence(c.answers, time.UnixMilli(1000)); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

func TestReportOfASurvey(t *testing.T) {
	p := fullSurvey
	r := surveyReport{plan: p, results: &results{}, etcd: "3.4.23", busy: "1"}
	for _, ratio := range []float64{0.3, 0.39, 0.5} {
		r.results.record(postTitle(500), oneOfThree, figure{timesAlone, ratio})
	}
	r.results.record(postTitle(50), oneOfThree, figure{timesAlone, 0.15})
	r.results.record(memoryTitle(p.full), etcdRSS, figure{amount, 401})
	r.results.record(followerTitle, postTitle(50), figure{cpuCommand, 5})
	folder := filepath.Join(t.TempDir(), "new")
	if err := r.write(folder); err != nil {
		t.Fatal(err)
	}
	got := readFile(filepath.Join(folder, "several.md"))
	for _, want := range []string{
		"## POST /chat/alice, 500 clients\n\n| | × alone |\n",
		"| through one of three nodes | 0.390 (0.300–0.500) |",
		"| POST /chat/alice, 500 clients | through one of three nodes | × alone " +
			"| at least 0.4 | 0.390 | missed |",
		"| × alone | at least 0.15 | 0.150 | kept |",
		"| CPU µs/command | at most 5 | 5.00 | kept |",
		"| figure | at most 400 | 401 | missed |",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the report lacks %q:\n%s", want, got)
		}
	}
	if n := strings.Count(got, "kept") + strings.Count(got, "missed"); n != 4 {
		t.Errorf("%d bounds are judged, want the 4 that were measured", n)
	}
	r.plan = quickSurvey
	if got := r.markdown(); strings.Contains(got, "kept") {
		t.Error("figures of a plan that is too short are judged")
	}
}

func TestSurveyIsSkippedWithoutEtcd(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := findEtcd(); !errors.As(err, new(skippedError)) {
		t.Errorf("got %v, want a reason to skip", err)
	}
	if err := takeSurvey(t.Context(), quickSurvey, t.TempDir()); err != nil {
		t.Errorf("got %v, want that it is skipped", err)
	}
}

// startEtcdsFor starts etcd servers for a test.
func startEtcdsFor(t *testing.T) *trio {
	t.Helper()
	if _, err := findEtcd(); err != nil {
		t.Skip(err)
	}
	servers := &trio{dir: t.TempDir()}
	t.Cleanup(servers.stop)
	if err := servers.startEtcds(); err != nil {
		t.Fatal(err)
	}
	return servers
}

func TestEtcdHasAnotherLeaderAfterAKill(t *testing.T) {
	servers := startEtcdsFor(t)
	first, err := servers.awaitLeader()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range servers.etcds {
		if s, err := e.status(); err != nil || (e == first) != (s.Leader == s.Header.Member) {
			t.Errorf("%v says that it is %s and %s leads, %v", e.addr, s.Header.Member, s.Leader, err)
		}
	}
	first.stop()
	if err := first.checkHealth(); err == nil {
		t.Error("a server that was killed is healthy")
	}
	if second, err := servers.awaitLeader(); err != nil || second == first {
		t.Errorf("the leader after the kill is %v, %v", second, err)
	}
	if err := errors.Join(first.start(), servers.awaitHealth()); err != nil {
		t.Error(err)
	}
	for name, measure := range map[string]func(*etcdServer) (int, error){
		"memory":          (*etcdServer).memory,
		"most memory":     (*etcdServer).mostMemory,
		"database's size": (*etcdServer).databaseSize,
	} {
		if n, err := servers.mostOf(measure)(); err != nil || n <= 0 {
			t.Errorf("%s: got %d, %v", name, n, err)
		}
	}
}

func TestEtcdThatSaysItIsNotHealthy(t *testing.T) {
	e := &etcdServer{server: &server{addr: listenFor(t, answerWith(func(w io.Writer) {
		io.WriteString(w, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
	}, true))}}
	if err := e.checkHealth(); err == nil {
		t.Error("it counts as healthy")
	}
}

func TestEtcdsEndWithNothingLeft(t *testing.T) {
	servers := startEtcdsFor(t)
	servers.stop()
	left, err := os.ReadDir(servers.dir)
	if err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
	for _, e := range servers.etcds {
		if e.cmd.ProcessState == nil {
			t.Error("an etcd server was not stopped")
		}
	}
}

func TestServerThatNeverStartedIsStopped(t *testing.T) {
	e := &etcdServer{server: &server{}, dir: "/nonexistent"}
	if err := e.start(); err == nil {
		t.Fatal("it started without a folder")
	}
	e.stop()
}
