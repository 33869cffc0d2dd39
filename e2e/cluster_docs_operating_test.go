// Tests the tasks in docs/operating.md: a bash runs the commands of each.
package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const operatingPage = "../docs/operating.md"

// task is a task on the page, and what it must lead to.
type task struct {
	heading string
	name    string // of the test, if not the heading
	blocks  []int  // of the task's blocks of commands, those to run; nil for all

	before    string // commands that run before the task's first block
	between   string // commands that run before its second block
	after     string // commands that run after its last block
	etcdFlags string // of each etcd server

	users    string // that are present afterwards; alice joins beforehand
	newEpoch bool   // whether the history starts over
	starts   []int  // how many start-up lines each node prints; 0 if it prints one and ends
}

var tasks = []task{
	{heading: "Upgrade the lobby", blocks: []int{0}, users: "alice", starts: []int{2, 2, 2}},
	{heading: "Upgrade the lobby", name: "Upgrade the lobby to another version of the log",
		blocks: []int{1}, newEpoch: true, starts: []int{2, 2, 2}},
	{heading: "Add or remove a node", users: "alice", starts: []int{1, 1, 0}},
	{heading: "Change the URLs", users: "alice", starts: []int{2, 2, 2}},
	{heading: "Empty the lobby", newEpoch: true, starts: []int{2, 2, 2}},
	{heading: "An entry is missing and no node runs", before: `
head -c 4000 /dev/zero | tr '\0' x >text
curl -sZ -o /dev/null -d @text "http://127.0.0.1:8081/chat/alice?[1-1200]"
until etcdctl get lobby/state | grep -q sha256; do sleep 0.2; done
curl -s -X POST http://127.0.0.1:8081/users/bob
for i in 1 2 3; do stop n$i; done
etcdctl del $(etcdctl get --prefix lobby/log/ --sort-by=MODIFY --keys-only | grep log | tail -n 3 | head -n 1)
for i in 1 2 3; do start_node $i; done
for i in 1 2 3; do until grep -q "lacks an entry .*: entry .*; waiting" n$i.log; do sleep 0.2; done; done`,
		users: "alice", newEpoch: true, starts: []int{2, 2, 2}},
	{heading: "Upgrade etcd", users: "alice", starts: []int{1, 1, 1}},
	{heading: "Replace an etcd server", users: "alice", starts: []int{1, 1, 1}},
	{heading: "Back up and restore",
		between: "curl -s -X POST http://127.0.0.1:8081/users/bob",
		users:   "alice", newEpoch: true, starts: []int{2, 2, 2}},
	{heading: "Back up and restore", name: "Back up and restore while no node runs", between: `
curl -s -X POST http://127.0.0.1:8081/users/bob
for i in 1 2 3; do stop n$i; done`,
		after: removeSettings + `
for i in 1 2 3; do start_node $i; done`,
		users: "alice", newEpoch: true, starts: []int{2, 2, 2}},
	{heading: "etcd is full", etcdFlags: "--quota-backend-bytes 16000000", before: `
head -c 1000000 /dev/zero | tr '\0' x >large
while etcdctl put other/large <large; do :; done
for i in 1 2 3; do until grep -q "database space exceeded.*; waiting" n$i.log; do sleep 0.2; done; done`,
		users: "alice", starts: []int{2, 2, 2}},
	{heading: "Change the password", etcdFlags: "--bcrypt-cost 4", before: securityCommands + `
urls=http://lobby:PASSWORD@127.0.0.1:2371,http://lobby:PASSWORD@127.0.0.1:2372
restart_nodes
etcdctl auth enable
export ETCDCTL_USER=root:ROOTPASSWORD`,
		users: "alice", starts: []int{3, 3, 3}},
}

// securityCommands stands for those in docs/several-machines.md, except for the last one, which
// switches passwords on.
const securityCommands = "\nSECURITY COMMANDS\n"

// removeSettings is the command with which an operator asks for a new epoch.
const removeSettings = "etcdctl del " + settingsKey

// Each task is carried out on its own lobby, with three nodes and three etcd servers, whose
// commands are the page's too. Then all nodes must have the same events and users.
func TestTasksOfOperators(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"bash", "curl", "etcd", "etcdctl"} {
		needs(t, program)
	}
	if !strings.Contains(sectionOf(t, operatingPage, "Back up and restore"), "`"+removeSettings+"`") {
		t.Errorf("%s does not say which key to remove", operatingPage)
	}
	for _, task := range tasks {
		if task.name == "" {
			task.name = task.heading
		}
		t.Run(task.name, func(t *testing.T) {
			t.Parallel()
			task.carryOut(t)
		})
	}
}

// sectionOf returns the part of a page that follows a heading.
func sectionOf(t *testing.T, page, heading string) string {
	t.Helper()
	_, section, ok := strings.Cut(readFile(t, page), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("%s has no section %q", page, heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	return section
}

// commandsOf returns the blocks of commands in a section of the page.
func commandsOf(t *testing.T, heading string) []string {
	t.Helper()
	blocks := blocksIn(sectionOf(t, operatingPage, heading), "sh")
	if len(blocks) == 0 {
		t.Fatalf("%s has no commands in %q", operatingPage, heading)
	}
	return blocks
}

// etcdUserCommands returns the commands in docs/several-machines.md that create users of etcd. The
// last one switches passwords on.
func etcdUserCommands(t *testing.T) string {
	t.Helper()
	_, commands, _ := strings.Cut(sectionOf(t, clusterPage, "Security"), "\n    etcdctl user add root:")
	commands, _, _ = strings.Cut(commands, "\n\n")
	if !strings.HasSuffix(commands, "etcdctl auth enable") {
		t.Fatalf("%s does not say how to enable passwords", clusterPage)
	}
	return "etcdctl user add root:" + commands
}

const startEverything = `
export ETCDCTL_COMMAND_TIMEOUT=30s
serves() { until curl -sfo /dev/null http://127.0.0.1:808$1/users; do sleep 0.1; done; }
show() { for i in $1; do echo "== node $i"; serves $i; curl -si http://127.0.0.1:808$i/users; done; }
for i in 1 2 3; do start_etcd $i ETCD-FLAGS; done
until etcdctl endpoint health; do sleep 0.2; done
for i in 1 2 3; do start_node $i; done
for i in 1 2 3; do serves $i; done
curl -s -X POST http://127.0.0.1:8081/users/alice
show 1
`

var lastEventID = regexp.MustCompile(`(?m)^Last-Event-Id: ([0-9a-z]+)-([0-9]+)$`)

func (k *task) carryOut(t *testing.T) {
	clusters <- struct{}{}
	defer func() { <-clusters }()
	blocks, running := commandsOf(t, k.heading), ""
	var script strings.Builder
	script.WriteString("set -e\n" + commandsOf(t, "Before you start")[0] +
		strings.ReplaceAll(startEverything, "ETCD-FLAGS", k.etcdFlags) + k.before + "\n")
	for i, block := range blocks {
		if k.blocks == nil || slices.Contains(k.blocks, i) {
			script.WriteString(block)
		}
		if i == 0 {
			script.WriteString(k.between + "\n")
		}
	}
	script.WriteString(k.after + "\n")
	for i, starts := range k.starts {
		if starts > 0 {
			running += fmt.Sprint(" ", i+1)
		}
	}
	fmt.Fprintf(&script, "show '%s'\n", running)
	script.WriteString("kill $(jobs -p)\nwait\n")
	text := script.String()
	if strings.Contains(text, securityCommands) {
		users := strings.TrimSuffix(etcdUserCommands(t), "etcdctl auth enable")
		text = strings.ReplaceAll(text, securityCommands, "\n"+users)
	}

	dir := memoryDir(t)
	if err := os.Symlink(binary, filepath.Join(dir, "lobby")); err != nil {
		t.Fatal(err)
	}
	output := runBash(t, dir, text)
	shown := strings.Split(output, "== node ")[1:]
	if want := 1 + len(strings.Fields(running)); len(shown) != want {
		t.Fatalf("%d nodes answered, want %d:\n%s", len(shown), want, output)
	}
	first, last := lastEventID.FindStringSubmatch(shown[0]), []string(nil)
	for _, response := range shown[1:] {
		id := lastEventID.FindStringSubmatch(response)
		if id == nil || first == nil || last != nil && id[0] != last[0] {
			t.Fatalf("the nodes' responses differ or have no id:\n%s", output)
		}
		last = id
		_, users, _ := strings.Cut(response, "Connected users:\n")
		if got := strings.ReplaceAll(strings.TrimSpace(users), "User: ", ""); got != k.users {
			t.Errorf("the users are %q, want %q", got, k.users)
		}
	}
	if isNew := last[1] != first[1]; isNew != k.newEpoch {
		t.Errorf("the epoch is %s, and was %s", last[1], first[1])
	}
	for i, want := range k.starts {
		printed := readFile(t, filepath.Join(dir, fmt.Sprintf("n%d.log", i+1)))
		if got := strings.Count(printed, "Starting server at "); got != max(1, want) {
			t.Errorf("node %d started %d times, want %d:\n%s", i+1, got, want, printed)
		}
	}
}

// runBash runs commands in a folder and returns what they print. The ports of the page are replaced
// by free ones.
func runBash(t *testing.T, dir, script string) (output string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	ports := strings.NewReplacer("127.0.0.1:237", freePorts(t), "127.0.0.1:238", freePorts(t),
		"127.0.0.1:808", freePorts(t))
	cmd := exec.CommandContext(ctx, "bash", "-c", ports.Replace(script))
	cmd.Dir, cmd.WaitDelay = dir, 5*time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // all of them
	t.Cleanup(func() {
		if cmd.Process != nil {
			cmd.Cancel() // what a failed command left running
		}
	})
	var stdout, stderr lines
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		for i := range 3 {
			printed, _ := os.ReadFile(filepath.Join(dir, fmt.Sprintf("n%d.log", i+1)))
			t.Logf("node %d printed:\n%.2000s", i+1, printed)
		}
		t.Fatalf("bash: %v\nprinted:\n%.4000s\nand on standard error:\n%.4000s", err, &stdout, &stderr)
	}
	return strings.ReplaceAll(stdout.String(), "\r", "")
}

// With the page's configuration of nginx in front of etcd, a node responds without delay and saves
// snapshots, whose pieces are longer than nginx allows by default.
func TestNodesReachEtcdThroughNginx(t *testing.T) {
	t.Parallel()
	configs := blocksOf(t, operatingPage, "nginx")
	if len(configs) != 1 {
		t.Fatalf("%s has %d configurations of nginx, want 1", operatingPage, len(configs))
	}
	e := startEtcd(t, 1)
	config := strings.NewReplacer("listen 2378;", "listen LISTEN;", "2379", "8080").Replace(configs[0])
	p := nginx.with() // with this configuration in place of the one in docs/proxies.md
	p.set = append([]string{blocksOf(t, "../docs/proxies.md", "nginx")[0], config}, p.set...)
	m := e.members[0]
	front := p.before(t, &server{cmd: m.cmd, exited: m.exited, addr: m.client})
	n := startNode(t, front.url)
	n.do(t, "POST", "/users/alice", "")
	begin := time.Now()
	for range 10 {
		n.do(t, "POST", "/chat/alice", "hello")
	}
	if took := time.Since(begin); took > 4*time.Second {
		t.Errorf("10 responses took %v", took)
	}
	for i := range 10 { // 5 MiB; a snapshot is due after 4
		n.mustFlood(t, fmt.Sprint("flood-", i), 128)
	}
	eventually(t, startLimit, "a snapshot", func() bool {
		keys, _ := e.keys(t, snapshotKey)
		return slices.Contains(keys, snapshotKey)
	})
	if printed := n.errs.String(); printed != "" {
		t.Errorf("the node printed %q", printed)
	}
}
