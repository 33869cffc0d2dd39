// Tests the commands and configurations in docs/several-machines.md that no other file tests.
package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const clusterPage = "../docs/several-machines.md"

// blocksOf returns the page's blocks of a language.
func blocksOf(t *testing.T, page, language string) (blocks []string) {
	t.Helper()
	return blocksIn(readFile(t, page), language)
}

// blocksIn returns the blocks of a language in a text.
func blocksIn(text, language string) (blocks []string) {
	for _, block := range strings.Split(text, "\n```"+language+"\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		blocks = append(blocks, block)
	}
	return blocks
}

// newIDs matches the epoch of an id or of the settings, which is new each time.
var newIDs = regexp.MustCompile(`(?m)\b([0-9a-z]{8})(-[0-9]+$|",)`)

// One bash runs the page's commands in a row, in a folder and on ports of its own. Each prints what
// the page shows, apart from the epoch, which is the same everywhere.
func TestClusterPageShowsWhatItsCommandsPrint(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"bash", "curl", "etcd", "etcdctl"} {
		needs(t, program)
	}
	starts := blocksOf(t, clusterPage, "sh")
	if len(starts) != 2 || !strings.HasPrefix(starts[1], "go build\nurls=") {
		t.Fatalf("%q: want a block that starts etcd and one that builds and starts nodes", starts)
	}
	const mark = "== next command"
	var script strings.Builder
	startNodes := strings.TrimPrefix(starts[1], "go build\n")
	fmt.Fprintf(&script, "%s\n{ %s\n} >nodes.log\n", starts[0], startNodes)
	script.WriteString("until [ $(grep -c ^Starting nodes.log) = 3 ]; do sleep 0.1; done\n" +
		"export ETCDCTL_ENDPOINTS=$urls\n")
	var commands, wanted []string
	for _, block := range blocksOf(t, clusterPage, "console") {
		for _, entry := range strings.Split("\n"+block, "\n$ ")[1:] {
			command, want, _ := strings.Cut(entry, "\n")
			commands, wanted = append(commands, command), append(wanted, strings.TrimSpace(want))
			fmt.Fprintf(&script, "echo; echo '%s'\n%s\n", mark, command)
		}
	}
	if len(commands) < 8 {
		t.Errorf("the page has only %d commands", len(commands))
	}
	script.WriteString("kill $(jobs -p); wait\n")

	dir := t.TempDir()
	if err := os.Symlink(binary, filepath.Join(dir, "lobby")); err != nil {
		t.Fatal(err)
	}
	out := runBash(t, dir, script.String())
	printed := strings.Split(out, mark+"\n")[1:]
	ids := newIDs.FindStringSubmatch(out)
	if len(printed) != len(commands) || ids == nil {
		t.Fatalf("%d commands printed %q", len(commands), printed)
	}
	for i, command := range commands {
		want := newIDs.ReplaceAllString(wanted[i], ids[1]+"$2")
		if got := strings.TrimSpace(printed[i]); got != want {
			t.Errorf("%s\nprinted\n%s\nthe page has\n%s", command, got, want)
		}
	}
}

// freePorts returns an address whose port lacks the last digit, and is free with 1, 2 or 3 there.
func freePorts(t *testing.T) (addr string) {
	t.Helper()
	for range 100 {
		addr = fmt.Sprint("127.0.0.1:", 1100+rand.N(2000)) // below the ports that the system gives out
		free := 0
		for i := 1; i <= 3; i++ {
			if listener, err := net.Listen("tcp", fmt.Sprint(addr, i)); err == nil {
				listener.Close()
				free++
			}
		}
		if free == 3 {
			return addr
		}
	}
	t.Fatal("found no three free ports in a row")
	return ""
}

// balancer is a proxy that the page puts in front of three nodes.
type balancer struct {
	proxy
	file     string // with its configuration, in the page's folder
	language string // of its block in docs/proxies.md
}

var balancers = []balancer{
	{nginx, "nginx.conf", "nginx"},
	{haproxy, "haproxy.cfg", "haproxy"},
}

// before puts the proxy in front of the nodes at three addresses, one of which is that of s, and
// returns the lobby as clients reach it through the proxy.
func (b balancer) before(t *testing.T, s *server, addrs ...string) *server {
	t.Helper()
	config := readFile(t, "../docs/several-machines/"+b.file)
	for i, addr := range addrs {
		shown := fmt.Sprintf("10.0.0.%d:8080", i+1)
		if !strings.Contains(config, shown) {
			t.Fatalf("%s has no %s", b.file, shown)
		}
		config = strings.ReplaceAll(config, shown, addr)
	}
	for i := 0; i < len(b.set); i += 2 {
		config = strings.ReplaceAll(config, b.set[i], b.set[i+1])
	}
	blocks := blocksOf(t, "../docs/proxies.md", b.language)
	if len(blocks) != 1 {
		t.Fatalf("docs/proxies.md has %d blocks of %s, want 1", len(blocks), b.language)
	}
	p := b.proxy // with this configuration in place of that block
	p.set = append([]string{blocks[0], config}, p.set...)
	return p.before(t, &server{cmd: s.cmd, exited: s.exited, addr: "127.0.0.1:8080"})
}

// When a node closes connections without a response, the proxies repeat GET on another node, but
// never a POST, which could take effect twice.
func TestBalancersRepeatOnlyGET(t *testing.T) {
	t.Parallel()
	for _, b := range balancers {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			s.do(t, "POST", "/users/alice", "")
			var broken atomic.Int32 // connections
			breaking := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method != "OPTIONS" { // HAProxy's health check
					broken.Add(1)
					panic(http.ErrAbortHandler)
				}
			}))
			t.Cleanup(breaking.Close)
			addr := strings.TrimPrefix(breaking.URL, "http://")
			lobby := b.before(t, s, addr, s.addr, s.addr)

			want := s.lastID(t)
			eventually(t, 20*time.Second, "three errors", func() bool {
				r, err := lobby.caller(t).call("POST", "/chat/alice", "hello")
				if err == nil && r.status == 200 {
					want = idPlus(t, want, 1)
				}
				return broken.Load() == 3
			})
			if got := s.lastID(t); got != want {
				t.Fatalf("the last event is %s, want %s after that many successful requests", got, want)
			}
			eventually(t, 20*time.Second, "three GETs to be repeated", func() bool {
				r, err := lobby.caller(t).call("GET", "/users", "")
				if err != nil || r.status != 200 {
					t.Fatalf("got %d, %v", r.status, err)
				}
				return broken.Load() == 6
			})
		})
	}
}

// Behind each proxy of the page, nodes can be stopped one after the other, and one killed: GET
// /users always succeeds, streams miss nothing, and each stop fails at most one change of each
// client.
func TestBalancersHideStoppedNodes(t *testing.T) {
	t.Parallel()
	for _, b := range balancers {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			nodes := startNodes(t, startEtcd(t, 3), 3, longHistory...)
			lobby := &node{
				server: b.before(t, nodes[1].server, nodes[0].addr, nodes[1].addr, nodes[2].addr),
			}
			listener := follow(t, "listener", lobby)
			crowd := startCrowd(t, "user", []*node{lobby}, 4, 0)
			for _, n := range nodes {
				time.Sleep(time.Second) // during which clients act
				n.stop(t)
				n.restart(t)
			}
			time.Sleep(time.Second)
			nodes[0].kill()
			time.Sleep(3 * time.Second)

			operations, failed := crowd.stop(), 0
			for _, o := range operations {
				if o.isAnswered() {
					continue
				}
				if failed++; o.kind == "list" {
					t.Errorf("GET /users: got %v", o)
				}
			}
			if most := (len(nodes) + 1) * len(crowd.actors); failed > most || len(operations) < 100 {
				t.Errorf("%d of %d operations failed, want at most %d", failed, len(operations), most)
			}
			events := mustBeOneHistory(t, nodes[1:], operations)
			mustHaveStayed(t, events, listener)
		})
	}
}

// The flags in the systemd unit and in the Deployment exist.
func TestClusterPageUsesExistingFlags(t *testing.T) {
	t.Parallel()
	const urls = "http://10.0.0.1:2379,http://10.0.0.2:2379"
	for file, line := range map[string]*regexp.Regexp{
		"lobby.service":   regexp.MustCompile(`(?m)^ExecStart=/usr/local/bin/lobby (.*)$`),
		"kubernetes.yaml": regexp.MustCompile(`(?m)^ +args: \[(.*)\]$`),
	} {
		found := line.FindStringSubmatch(readFile(t, "../docs/several-machines/"+file))
		if found == nil {
			t.Errorf("%s does not say how to start the server", file)
			continue
		}
		plain := strings.NewReplacer(",", "", `"`, "", "${ETCD}", urls, "$(ETCD)", urls)
		args := strings.Fields(plain.Replace(found[1]))
		if !slices.Contains(args, urls) {
			t.Errorf("%s starts the server with %q, want the URLs of etcd among them", file, args)
		}
		// With -h the server reads the flags before it and says what is wrong with them.
		if out, err := exec.Command(binary, append(args, "-h")...).CombinedOutput(); err != nil {
			t.Errorf("%s starts the server with %q: %v: %s", file, args, err, out)
		}
	}
}
