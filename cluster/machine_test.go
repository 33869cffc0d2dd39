package cluster

// What belongs here: the helpers of this package's tests. They are a log in memory in a bubble of
// virtual time, nodes on it, and a stand-in for the hub of each node.

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lobby/chat"
	"lobby/etcd"
	"lobby/internal/memlog"
	"lobby/room"
)

var settings = Settings{History: 10, MaxUsers: 20}

// settingsKey is the content of the settings key. The tests call its epoch "first".
const settingsKey = `{"version":2,"epoch":"first","history":10,"maxUsers":20}`

// testLobby is a lobby in a bubble of virtual time.
type testLobby struct {
	*testing.T
	log      *memlog.Log
	begun    time.Time
	machines []*machine
	steps    atomic.Int64 // see step
}

// inLobby runs test in a bubble and then stops all machines.
func inLobby(t *testing.T, test func(l *testLobby)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := &testLobby{T: t, log: memlog.New(settingsKey), begun: time.Now()}
		defer func() {
			for _, m := range l.machines {
				m.kill()
			}
		}()
		test(l)
	})
}

// step separates what a test has read from what others write afterwards. After synctest.Wait, the
// race detector knows that their earlier writes are over, but not that the test reads before they
// continue.
func (l *testLobby) step() { l.steps.Add(1) }

// now returns the time since the bubble began.
func (l *testLobby) now() time.Duration { return time.Since(l.begun) }

// sleepUntil sleeps until a time since the bubble began, and waits for all that happens then.
func (l *testLobby) sleepUntil(at time.Duration) {
	l.Helper()
	if l.now() > at {
		l.Fatalf("it is %v already, too late to wait for %v", l.now(), at)
	}
	l.step()
	time.Sleep(at - l.now())
	synctest.Wait()
}

// put appends an entry that the test has made up.
func (l *testLobby) put(node string, number int, text string) (revision int64) {
	l.Helper()
	revision, err := l.log.Open().Append(l.Context(), node, number, []byte(text))
	if err != nil {
		l.Fatal(err)
	}
	return revision
}

// entries returns the entries in the log after a revision.
func (l *testLobby) entries(revision int64) (all []etcd.Entry) {
	l.Helper()
	view := l.log.Open()
	if view.At = revision; l.log.Len() == revision {
		return nil
	}
	for e, err := range view.Entries(l.Context(), nil) {
		if err != nil {
			l.Fatal(err)
		}
		if all = append(all, e); e.Revision == l.log.Len() {
			break
		}
	}
	return all
}

// fill appends an entry of node x that is so long that the entries after the last snapshot count
// size bytes.
func (l *testLobby) fill(number, size int) {
	l.Helper()
	_, at := l.log.Snapshot()
	for _, e := range l.entries(at) {
		size -= len(e.Text) + entryCost
	}
	l.put("x", number, long(size-entryCost))
	synctest.Wait()
}

// long returns the text of an entry of size bytes that has no effect.
func long(size int) string {
	return removalText(strings.Repeat("n", size-len(removalText("", 0))), 0)
}

// registered is the text of a registration that starts no new epoch.
func registered() string { return registrationText("", "unused") }

func registrationText(lost, epoch string) string {
	return string(content{registration: registration{lost, epoch}}.appendTo(nil))
}

func removalText(node string, last int) string {
	return string(content{removals: []removal{{node, last}}}.appendTo(nil))
}

// said is the text of an entry in which alice sends a message, which chat.ParseText need not
// accept.
func said(text string) string { return "say\x1falice\x1f" + text + "\x1e" }

// access is a node's access to the log. It records the node's calls, and delays them or makes them
// fail.
type access struct {
	*memlog.View
	lobby *testLobby
	isCut atomic.Bool // whether the node is cut off

	holdsEntries, holdsAppends, holdsSnapshots atomic.Bool // whether these calls have to wait

	// Errors of the calls; nil means none.
	refuseAppend   func(number int) error
	endEntries     func(e etcd.Entry) error
	refuseSnapshot func() error

	// answerAppend returns what Append returns. If both are zero, Append goes on.
	answerAppend func(number int, text []byte) (int64, error)

	isAppending atomic.Bool
	appends     []appended // the last one with each number
	rejected    int        // the number of the last one that was too large
	read        int        // number of entries
	saves       []saveCall
	discards    []string // NODE/NUMBER
}

var errTooLarge = fmt.Errorf("etcd says: %w", etcd.ErrTooLarge)

// atMost returns an answerAppend that rejects entries of more than this many bytes.
func atMost(bytes int) func(int, []byte) (int64, error) {
	return func(_ int, text []byte) (int64, error) {
		if len(text) > bytes {
			return 0, errTooLarge
		}
		return 0, nil
	}
}

// appended is a call of Append.
type appended struct {
	at   time.Duration
	text string
}

// saveCall is a call of SaveSnapshot.
type saveCall struct {
	at   int64
	gone []string
}

func (a *access) Discard(_ context.Context, e etcd.Entry) {
	a.lobby.step()
	a.discards = append(a.discards, fmt.Sprintf("%s/%d", e.Node, e.Number))
}

// wait waits while a flag is set. It returns false if ctx is done first.
func wait(ctx context.Context, flag *atomic.Bool) bool {
	for flag.Load() {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return false
		}
	}
	return true
}

func (a *access) Append(ctx context.Context, node string, number int, text []byte) (int64, error) {
	if !a.isAppending.CompareAndSwap(false, true) {
		a.lobby.Error("two entries are being appended at once")
	}
	defer a.isAppending.Store(false)
	a.lobby.step()
	if number == a.rejected {
		a.appends = a.appends[:number-1]
	}
	a.appends = append(a.appends, appended{a.lobby.now(), string(text)})
	if len(a.appends) != number {
		a.lobby.Errorf("call %d of Append is for entry %d", len(a.appends), number)
	}
	if a.refuseAppend != nil {
		if err := a.refuseAppend(number); err != nil {
			return 0, err
		}
	}
	if a.answerAppend != nil {
		if revision, err := a.answerAppend(number, text); revision > 0 || err != nil {
			if err == errTooLarge {
				a.rejected = number
			}
			return revision, err
		}
	}
	if !wait(ctx, &a.holdsAppends) {
		return 0, ctx.Err()
	}
	return a.View.Append(ctx, node, number, text)
}

func (a *access) Entries(ctx context.Context, last map[string]int) iter.Seq2[etcd.Entry, error] {
	return func(yield func(etcd.Entry, error) bool) {
		for e, err := range a.View.Entries(ctx, last) {
			if err == nil && !wait(ctx, &a.holdsEntries) {
				err = ctx.Err()
			}
			if err == nil && a.endEntries != nil {
				err = a.endEntries(e)
			}
			a.lobby.step()
			a.read++
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

func (a *access) SaveSnapshot(ctx context.Context, at int64, data []byte, gone []string) error {
	a.lobby.step()
	a.saves = append(a.saves, saveCall{at, gone})
	if a.refuseSnapshot != nil {
		if err := a.refuseSnapshot(); err != nil {
			return err
		}
	}
	if !wait(ctx, &a.holdsSnapshots) {
		return ctx.Err()
	}
	return a.View.SaveSnapshot(ctx, at, data, gone)
}

// machine is a node and a stand-in for its hub. The stand-in's state is the list of the steps that
// it was given. Tests read it only while all other goroutines wait.
type machine struct {
	*Node
	*access
	stop   context.CancelFunc // ends Run
	ended  chan struct{}      // closed when Run has returned
	left   chan struct{}      // closed when the hub has noticed that Run has returned
	reason error              // why Run has returned

	warnings []event
	steps    []event
	state    []string // what was applied since the log began
	hubEpoch string   // the epoch of the history, as the hub knows it
	restored room.Snapshot
	readyAt  time.Duration // 0 until the node is ready

	// What the hub does.
	pages      int                        // number of pages in its snapshots and removals
	padding    int                        // bytes added to each page of its snapshots
	restoreErr error                      // the result of a Restore
	onStep     func(m *machine, _ string) // is called with each step
}

// event is something that happened, in words.
type event struct {
	at   time.Duration
	what string
}

// newMachine returns a machine that has not started, whose node has this name.
func (l *testLobby) newMachine(name string) *machine {
	l.Helper()
	m := &machine{access: &access{View: l.log.Open(), lobby: l}, pages: 1}
	m.ended, m.left = make(chan struct{}), make(chan struct{})
	m.View.Cut = m.isCut.Load
	var err error
	m.Node, err = NewNode(m.Session, m.access, settings, func(sentence string) {
		l.step()
		m.warnings = append(m.warnings, event{l.now(), sentence})
	})
	if err != nil {
		l.Fatal(err)
	}
	m.name = name
	return m
}

// start starts a machine, and waits until nothing more happens at this time.
func (l *testLobby) start(m *machine) *machine {
	l.machines = append(l.machines, m)
	ctx, stop := context.WithCancel(context.Background())
	m.stop = stop
	go func() {
		defer close(m.ended)
		defer func() { // so that a node that panics does not end all tests
			if p := recover(); p != nil {
				l.Errorf("node %s panics: %v", m.name, p)
			}
		}()
		reason := m.Run(ctx)
		l.step()
		m.reason = reason
	}()
	go func() {
		defer close(m.left)
		for {
			select {
			case step := <-m.Steps():
				m.apply(step)
			case <-m.ended:
				return
			}
		}
	}()
	go func() {
		select {
		case <-m.Ready():
			l.step()
			m.readyAt = l.now()
		case <-m.ended:
		}
	}()
	synctest.Wait()
	return m
}

// mustStart starts a machine whose node is ready at once.
func (l *testLobby) mustStart(name string) *machine {
	l.Helper()
	m := l.start(l.newMachine(name))
	select {
	case <-m.Ready():
	default:
		l.Fatalf("node %s is not ready", name)
	}
	return m
}

// kill ends the node at once, as the end of its process would.
func (m *machine) kill() {
	m.stop()
	<-m.ended
	<-m.left
}

// apply does what a hub does with a step.
func (m *machine) apply(step room.Step) {
	m.lobby.step()
	note := func(format string, args ...any) {
		what := fmt.Sprintf(format, args...)
		m.steps = append(m.steps, event{m.lobby.now(), what})
		if m.onStep != nil {
			m.onStep(m, what)
		}
	}
	var result room.StepResult
	switch step := step.(type) {
	case room.Restore:
		m.restored = step.Snapshot
		m.hubEpoch, _, _ = strings.Cut(m.restored.LastID, "-")
		if m.restored.Events != "" {
			m.state = strings.Split(m.restored.Events, "\n")
		}
		note("restore %s", m.restored.LastID)
		result.Err = m.restoreErr
	case room.Entry:
		for _, c := range step.Commands {
			what := strings.TrimSpace(fmt.Sprintf("%s: %s %s %.100s", step.Node, c.Verb, c.Name, c.Text))
			m.state = append(m.state, what)
			note("%s", what)
		}
		return
	case room.RemoveNode:
		if step.After == "" {
			m.state = append(m.state, "remove "+step.Node)
		}
		note("remove %s%s", step.Node, after(step.After))
		result.Next = m.next(step.After)
	case room.NewEpoch:
		m.state = append(m.state, "new epoch")
		m.hubEpoch = step.Epoch
		note("new epoch %s", step.Epoch)
	case room.TakeSnapshot:
		if step.After == "" {
			result.Snapshot.LastID = fmt.Sprint(m.hubEpoch, "-", len(m.state))
			result.Snapshot.Events = strings.Join(m.state, "\n")
		}
		note("snapshot%s", after(step.After))
		name := "user-after-" + step.After + strings.Repeat("x", m.padding)
		result.Snapshot.Users = []room.Presence{{Name: name, Arrival: 1}}
		result.Next = m.next(step.After)
	case room.End:
		note("end %d", step.Unknown)
		return
	}
	m.Results() <- result
}

func after(name string) string {
	if name == "" {
		return ""
	}
	return " after " + name
}

// next returns where the page after another one starts: "1", "2" … or "" after the last.
func (m *machine) next(after string) string {
	var n int
	fmt.Sscan(after, &n)
	if n++; n == m.pages {
		return ""
	}
	return fmt.Sprint(n)
}

// say makes the hub send a command: alice says text.
func (m *machine) say(text string) {
	m.Commands() <- room.Command{
		Verb: room.Say, Name: chat.UncheckedName("alice"), Text: chat.UncheckedText(text),
	}
}

// expect fails the test unless the hub has had exactly these steps.
func (m *machine) expect(want ...string) {
	m.lobby.Helper()
	synctest.Wait()
	var got []string
	for _, step := range m.steps {
		got = append(got, step.what)
	}
	if !slices.Equal(got, want) {
		m.lobby.Errorf("the steps of node %s are %.2000q, want %.2000q", m.name, got, want)
	}
}

// when returns when the hub had a step for the first time, and fails the test if it never had it.
func (m *machine) when(what string) time.Duration {
	m.lobby.Helper()
	synctest.Wait()
	for _, step := range m.steps {
		if step.what == what {
			return step.at
		}
	}
	m.lobby.Fatalf("node %s has had no step %q: %.2000v", m.name, what, m.steps)
	return 0
}

// hasEnded reports whether the node has ended.
func (m *machine) hasEnded() bool {
	synctest.Wait()
	select {
	case <-m.ended:
		return true
	default:
		return false
	}
}

// mustRun fails the test if one of the nodes has ended.
func (l *testLobby) mustRun(machines ...*machine) {
	l.Helper()
	for _, m := range machines {
		if m.hasEnded() {
			l.Errorf("node %s has ended: %v", m.name, m.reason)
		}
	}
}

// mustEnd fails the test unless the node has ended for this reason, and has told its hub how many
// commands may still take effect.
func (m *machine) mustEnd(reason error, unknown int) {
	m.lobby.Helper()
	if !m.hasEnded() {
		m.lobby.Fatalf("node %s has not ended", m.name)
	}
	if m.reason != reason {
		m.lobby.Errorf("node %s has ended: %v, want %v", m.name, m.reason, reason)
	}
	if last := m.steps[len(m.steps)-1].what; last != fmt.Sprint("end ", unknown) {
		m.lobby.Errorf("the last step of node %s is %q, want end %d", m.name, last, unknown)
	}
}

// mustAgree fails the test unless all hubs have the same state.
func (l *testLobby) mustAgree(machines ...*machine) {
	l.Helper()
	synctest.Wait()
	for _, m := range machines[1:] {
		if !slices.Equal(m.state, machines[0].state) {
			l.Errorf("the state of node %s is %.2000q, and that of %s %.2000q",
				m.name, m.state, machines[0].name, machines[0].state)
		}
	}
}

// always returns a delay for a View.
func always(d time.Duration) func() time.Duration { return func() time.Duration { return d } }
