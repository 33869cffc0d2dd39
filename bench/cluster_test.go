package main

// This file tests what -cluster needs: requests to several addresses, the report, and etcd servers
// that are started and killed.

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

func TestClusterPlanFollowsTheFlags(t *testing.T) {
	if got := chooseClusterPlan(false, 0, 0); got != fullCluster {
		t.Errorf("without flags the plan is %+v, want %+v", got, fullCluster)
	}
	want := quickCluster
	want.rounds, want.full = 2, time.Minute
	if got := chooseClusterPlan(true, 2, time.Minute); got != want {
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
	// Each connection is closed after its response; the next one goes to the same address.
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
		t.Errorf("the servers received %v requests, want more than one each", answered)
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
			t.Errorf("a response arrived %v after its request, want at least %v", took, delay)
		}
		if heard++; heard == 10 {
			close(stop)
		}
	}})
	if answered != heard || heard < 10 || heard > 11 || err != nil {
		t.Errorf("%d requests were answered, %d heard of, %v; want 10 or 11", answered, heard, err)
	}
}

func TestLongestSilenceBeginsAtTheKillOrAResponse(t *testing.T) {
	at := func(milliseconds ...int) (times []time.Time) {
		for _, n := range milliseconds {
			times = append(times, time.UnixMilli(int64(n)))
		}
		return times
	}
	for _, c := range []struct {
		name      string
		responses []time.Time
		want      time.Duration
	}{
		{"no responses", nil, 0},
		{"only before", at(100, 900), 0},
		{"from the kill to the first response", at(100, 1500, 1600), 500 * time.Millisecond},
		{"after responses that were under way", at(999, 1001, 1002, 3002, 3003), 2 * time.Second},
	} {
		if got := longestSilence(c.responses, time.UnixMilli(1000)); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

func TestClusterReportHasTheTables(t *testing.T) {
	r := clusterReport{plan: fullCluster, results: &results{}, etcd: "3.4.23", busy: "1"}
	for _, ratio := range []float64{0.3, 0.39, 0.5} {
		r.results.record(postTitle(500), oneOfThree, figure{timesSingle, ratio})
	}
	folder := filepath.Join(t.TempDir(), "new")
	if err := r.write(folder); err != nil {
		t.Fatal(err)
	}
	got := readFile(filepath.Join(folder, "cluster.md"))
	for _, want := range []string{
		"etcd servers (3.4.23, `--snapshot-count 5000`)",
		"## POST /chat/alice, 500 clients\n\n| | × single |\n",
		"| through one of three nodes | 0.390 (0.300–0.500) |",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the report lacks %q:\n%s", want, got)
		}
	}
}

func TestClusterIsSkippedWithoutEtcd(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := findEtcd(); !errors.As(err, new(skippedError)) {
		t.Errorf("got %v, want a reason to skip", err)
	}
	if err := benchCluster(t.Context(), quickCluster, t.TempDir()); err != nil {
		t.Errorf("got %v, want no error", err)
	}
}

func TestEtcdServersHaveAnotherLeaderAfterAKillAndLeaveNothingBehind(t *testing.T) {
	if _, err := findEtcd(); err != nil {
		t.Skip(err)
	}
	servers := &cluster{dir: t.TempDir()}
	t.Cleanup(servers.stop)
	if err := servers.startEtcds(); err != nil {
		t.Fatal(err)
	}
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
	servers.stop()
	if left, err := os.ReadDir(servers.dir); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
	for _, e := range servers.etcds {
		if e.cmd.ProcessState == nil {
			t.Error("an etcd server was not stopped")
		}
	}
}

func TestEtcdThatReportsAnErrorIsNotHealthy(t *testing.T) {
	e := &etcdServer{process: &process{addr: listenFor(t, answerWith(func(w io.Writer) {
		io.WriteString(w, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
	}, true))}}
	if err := e.checkHealth(); err == nil {
		t.Error("it counts as healthy")
	}
}

func TestEtcdThatNeverStartedCanBeStopped(t *testing.T) {
	e := &etcdServer{process: &process{}, dir: "/nonexistent"}
	if err := e.start(); err == nil {
		t.Fatal("it started without a folder")
	}
	e.stop()
}
