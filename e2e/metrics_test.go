// Here belongs what -metrics adds: the figures, and the address where they are.
package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// metrics returns what GET /metrics returns at addr.
func metrics(t testing.TB, addr string) string {
	t.Helper()
	resp, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	r, err := readWhole(resp)
	if err != nil || r.status != 200 ||
		r.header.Get("Content-Type") != "text/plain; version=0.0.4; charset=utf-8" {
		t.Fatalf("GET /metrics: got %d %v, %v", r.status, r.header, err)
	}
	return r.body
}

// mustShow waits until the figures at addr include lines.
func mustShow(t testing.TB, addr string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		eventually(t, 10*time.Second, line, func() bool {
			return strings.Contains("\n"+metrics(t, addr), "\n"+line+"\n")
		})
	}
}

func TestMetricsCountWhatHappens(t *testing.T) {
	t.Parallel()
	addr := reserve(t)
	s := start(t, "-metrics", addr, "-grace", "0", "-max-users", "3", "-max-streams", "2",
		"-history", "10")
	mustShow(t, addr, "lobby_users 0", "lobby_streams 0", `lobby_responses_total{class="2xx"} 0`,
		`lobby_rejections_total{limit="streams"} 0`, `lobby_events_total{kind="arrival"} 0`)
	s.do(t, "POST", "/users/alice", "")
	bob := s.subscribe(t, "/chat/bob")
	carl := s.subscribe(t, "/chat/carl")
	s.do(t, "POST", "/chat/alice", "hello")
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/users/dave", "", 503},
		{"GET", "/chat/dave", "", 503},
		{"POST", "/chat/alice", strings.Repeat("x", 5000), 413},
		{"GET", "/nosuch", "", 404},
		{"DELETE", "/users/alice", "", 200},
	} {
		if r := s.do(t, c.method, c.path, c.body); r.status != c.status {
			t.Errorf("%s %s: got %d", c.method, c.path, r.status)
		}
	}
	s.do(t, "GET", "/users", "", "X", strings.Repeat("x", 17<<10))
	mustShow(t, addr, "lobby_users 2", "lobby_streams 2",
		`lobby_events_total{kind="arrival"} 3`, `lobby_events_total{kind="departure"} 1`,
		`lobby_events_total{kind="message"} 1`,
		`lobby_responses_total{class="2xx"} 5`, `lobby_responses_total{class="4xx"} 3`,
		`lobby_responses_total{class="5xx"} 2`,
		`lobby_rejections_total{limit="users"} 1`, `lobby_rejections_total{limit="streams"} 1`,
		`lobby_rejections_total{limit="body"} 1`, `lobby_rejections_total{limit="head"} 1`,
		"lobby_gaps_total 0")
	bob.body.Close()
	mustShow(t, addr, "lobby_streams 1", `lobby_events_total{kind="departure"} 2`)
	back := s.subscribe(t, "/chat/bob", "Last-Event-ID", "unknown-1")
	if !back.readOpening(t) {
		t.Error("an unknown id does not count as a gap")
	}
	mustShow(t, addr, "lobby_gaps_total 1", "lobby_lags_total 0")
	back.body.Close()
	carl.body.Close()
	mustShow(t, addr, "lobby_users 0", "lobby_streams 0")
	if figures := metrics(t, addr); strings.Contains(figures, "alice") {
		t.Errorf("the figures name a user:\n%s", figures)
	}
}

func TestMetricsCountConnectionsAndThoseTurnedAway(t *testing.T) {
	t.Parallel()
	addr := reserve(t)
	s := startWithFiles(t, 80, "-metrics", addr)
	mustShow(t, addr, "lobby_connections 0")
	var conns []net.Conn
	for range 60 { // more than there are places for
		conn := s.dial(t)
		fmt.Fprint(conn, "G") // of a head that the server waits for
		conns = append(conns, conn)
	}
	conns[0].Close()
	rejected := 0
	for _, conn := range conns[1:] {
		if response, _ := io.ReadAll(conn); strings.HasPrefix(string(response), "HTTP/1.1 503") {
			rejected++
		}
	}
	if rejected == 0 {
		t.Fatal("no connection was rejected")
	}
	mustShow(t, addr, fmt.Sprintf(`lobby_rejections_total{limit="connections"} %d`, rejected),
		fmt.Sprintf(`lobby_responses_total{class="5xx"} %d`, rejected))
	for n := range 3 {
		s.dial(t).Write([]byte("G"))
		mustShow(t, addr, fmt.Sprintf("lobby_connections %d", n+1))
	}
}

// The address for metrics has the rules of -addr, and does nothing but show them.
func TestAddressForMetricsShowsOnlyMetrics(t *testing.T) {
	t.Parallel()
	addr := reserve(t)
	s := start(t, "-metrics", addr, "-host", "stats.example")
	m := &server{url: "http://" + addr, addr: addr}
	for _, c := range []struct {
		line    string
		headers h
		status  int
	}{
		{"GET /metrics", nil, 200},
		{"HEAD /metrics", nil, 200},
		{"OPTIONS /metrics", nil, 200},
		{"GET /metrics", h{"Host", "stats.example"}, 200},
		{"GET /metrics", h{"Host", "evil.example"}, 421},
		{"GET /metrics", h{"Sec-Fetch-Site", "cross-site"}, 403},
		{"POST /metrics", nil, 405},
		{"GET /users", nil, 404},
		{"POST /users/alice", nil, 404},
		{"GET /chat", nil, 404},
		{"GET /", nil, 404},
	} {
		if r := m.send(t, c.line, "", c.headers...); r.status != c.status {
			t.Errorf("%s with %q: got %d %q, want %d", c.line, c.headers, r.status, r.body, c.status)
		}
	}
	if r := s.do(t, "GET", "/metrics", ""); r.status != 404 {
		t.Errorf("GET /metrics at -addr: got %d", r.status)
	}
}

func TestMetricsOfANode(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 1)
	addr := reserve(t)
	n := startNode(t, e.url(), "-metrics", addr)
	other := startNode(t, e.url())
	for range 10 {
		n.do(t, "POST", "/users/alice", "")
		other.do(t, "DELETE", "/users/alice", "")
	}
	mustShow(t, addr, "lobby_node_member 1", "lobby_users 0",
		`lobby_events_total{kind="arrival"} 10`, `lobby_events_total{kind="departure"} 10`)
	figures := metrics(t, addr)
	appended, read := figure(t, figures, "lobby_entries_appended_total"),
		figure(t, figures, "lobby_entries_read_total")
	if appended < 11 || read < appended+11 {
		t.Errorf("%d entries were appended and %d read, want at least 11 and 22", appended, read)
	}
	if count := figure(t, figures, "lobby_apply_seconds_count"); count < 11 {
		t.Errorf("%d entries were applied, want at least 11", count)
	}
	mustBeInDocs(t, figures)
	e.kill(0)
	eventually(t, 20*time.Second, "the node to have left", func() bool {
		return figure(t, metrics(t, addr), "lobby_node_member") == 0
	})
}

// figure returns the value of a figure without labels.
func figure(t testing.TB, figures, name string) (value int) {
	t.Helper()
	_, after, ok := strings.Cut(figures, "\n"+name+" ")
	if _, err := fmt.Sscan(after, &value); !ok || err != nil {
		t.Fatalf("there is no %s in\n%s", name, figures)
	}
	return value
}

// mustBeInDocs compares all figures of a node with docs/metrics.md, and has promtool check both.
func mustBeInDocs(t testing.TB, figures string) {
	t.Helper()
	find := func(pattern, text string) (names []string) {
		for _, match := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
			names = append(names, match[1])
		}
		slices.Sort(names)
		return names
	}
	page := readFile(t, "../docs/metrics.md")
	got := find(`# TYPE (\w+) `, figures)
	if want := find("(?m)^\\| `(\\w+)", page); !slices.Equal(got, want) {
		t.Errorf("the figures are %q, and docs/metrics.md has %q", got, want)
	}
	_, rules, _ := strings.Cut(page, "```yaml\ngroups:")
	rules, _, _ = strings.Cut(rules, "```")
	file := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(file, []byte("groups:"+rules), 0o666); err != nil {
		t.Fatal(err)
	}
	needs(t, "promtool")
	if out, err := exec.Command("promtool", "check", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("promtool check rules: %v\n%s", err, out)
	}
	check := exec.Command("promtool", "check", "metrics")
	check.Stdin = strings.NewReader(figures)
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}
