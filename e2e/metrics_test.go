// Here belongs what -metrics adds: the figures, and the address where they are.
package e2e

import (
	"fmt"
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
		{"HEAD /metrics", nil, 200},
		{"GET /metrics", h{"Host", "stats.example"}, 200},
		{"GET /metrics", h{"Host", "evil.example"}, 421},
		{"GET /metrics", h{"Sec-Fetch-Site", "cross-site"}, 403},
		{"POST /metrics", nil, 405},
		{"POST /users/alice", nil, 404},
		{"GET /", nil, 404},
	} {
		if r := m.send(t, c.line, "", c.headers...); r.status != c.status {
			t.Errorf("%s with %q: got %d %q, want %d", c.line, c.headers, r.status, r.body, c.status)
		}
	}
	s.mustRefuse(t, 404, "GET /metrics", "")
}

// What the figures of a node are is tested beside package cluster.
func TestMetricsOfANode(t *testing.T) {
	t.Parallel()
	addr := reserve(t)
	n := startNode(t, startEtcd(t, 1).url(), "-metrics", addr)
	n.do(t, "POST", "/users/alice", "")
	n.says(t, "alice", "hello")
	mustShow(t, addr, "lobby_node_member 1", `lobby_events_total{kind="message"} 1`)
	figures := metrics(t, addr)
	for _, name := range []string{
		"lobby_entries_appended_total", "lobby_entries_read_total", "lobby_apply_seconds_count",
	} {
		if figure(t, figures, name) < 2 { // of at least three
			t.Errorf("%s is less than 2 in\n%s", name, figures)
		}
	}
	mustBeInDocs(t, figures)
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
