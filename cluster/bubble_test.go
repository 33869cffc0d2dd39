package cluster

// What belongs here: what the other tests of this package are made of. That is a log in memory in a
// bubble of virtual time, nodes on it, and one for each node that stands in for its hub.

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
)

var settings = Settings{History: 10, MaxUsers: 20}

// firstKey is what the first key of the lobby says, which the tests call "first" after its epoch.
const firstKey = `{"version":1,"epoch":"first","history":10,"maxUsers":20}`

// bubble is a lobby's log in virtual time, and the lives on it.
type bubble struct {
	*testing.T
	log   *memlog.Log
	start time.Time
	lives []*life
	steps atomic.Int64 // see step
}

// inBubble runs test, and then ends all lives.
func inBubble(t *testing.T, test func(b *bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{T: t, log: memlog.New(firstKey), start: time.Now()}
		defer func() {
			for _, l := range b.lives {
				l.kill()
			}
		}()
		test(b)
	})
}

// step stands between what a test has looked at and what others write down later. After
// synctest.Wait the race detector knows that what they did is over, but not that the test looks
// before they go on.
func (b *bubble) step() { b.steps.Add(1) }

// sleepUntil sleeps until so much time has passed in the bubble, and all that happens then is over.
func (b *bubble) sleepUntil(at time.Duration) {
	b.Helper()
	if past := time.Since(b.start); past > at {
		b.Fatalf("it is %v already, too late to wait for %v", past, at)
	}
	b.step()
	time.Sleep(time.Until(b.start.Add(at)))
	synctest.Wait()
}

// put appends an entry that the test has made up.
func (b *bubble) put(node string, number int, text string) (revision int64) {
	b.Helper()
	revision, err := b.log.Open().Append(b.Context(), node, number, []byte(text))
	if err != nil {
		b.Fatal(err)
	}
	return revision
}

// entries returns the entries that are in the log after a revision.
func (b *bubble) entries(revision int64) (all []etcd.Entry) {
	b.Helper()
	view := b.log.Open()
	if view.At = revision; b.log.Len() == revision {
		return nil
	}
	for e, err := range view.Entries(b.Context()) {
		if err != nil {
			b.Fatal(err)
		}
		if all = append(all, e); e.Revision == b.log.Len() {
			break
		}
	}
	return all
}

// fill has node x make an entry so long that what follows the last saved state counts size bytes.
func (b *bubble) fill(number, size int) {
	b.Helper()
	_, at := b.log.State()
	for _, e := range b.entries(at) {
		size -= len(e.Text) + entryCost
	}
	b.put("x", number, long(size-entryCost))
	synctest.Wait()
}

// long returns the text of an entry of so many bytes, which is not that of a message, because those
// take longer to read.
func long(size int) string {
	const begin, end = "shut\x1falice\x1f", "\x1e"
	return begin + strings.Repeat("x", size-len(begin)-len(end)) + end
}

// greeting is the text of a hello that loses nothing.
func greeting() string { return helloText(version, "", "unused") }

func helloText(version int, lost, epoch string) string {
	return string(news{version: version, lost: lost, epoch: epoch}.appendTo(nil))
}

func buryText(node string, last int) string {
	return string(news{burial: node, last: last}.appendTo(nil))
}

// said is the text of an entry in which alice says something that ParseText need not allow.
func said(text string) string { return "say\x1falice\x1f" + text + "\x1e" }

// access is a node's access to the log. It takes note of what the node does, and fails as the test
// wants.
type access struct {
	*memlog.View
	test  *bubble
	isCut atomic.Bool // whether the node is cut off

	holdsEntries, holdsAppends, holdsSaves atomic.Bool // whether what is in the name has to wait

	// What Append, Entries and Save answer; nil if they do as usual.
	refuseAppend func(number int) error
	endEntries   func(e etcd.Entry) error
	refuseSave   func() error

	isAppending atomic.Bool
	appends     []appended
	read        int // entries
	saves       []saving
}

// appended is a call of Append.
type appended struct {
	at   time.Duration
	text string
}

// saving is a call of Save.
type saving struct {
	at    int64
	state []byte
	gone  []string
}

// wait waits while a flag is set, and reports whether ctx is not done.
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
		a.test.Error("two entries are being appended at once")
	}
	defer a.isAppending.Store(false)
	a.test.step()
	a.appends = append(a.appends, appended{time.Since(a.test.start), string(text)})
	if len(a.appends) != number {
		a.test.Errorf("call %d of Append is for entry %d", len(a.appends), number)
	}
	if a.refuseAppend != nil {
		if err := a.refuseAppend(number); err != nil {
			return 0, err
		}
	}
	if !wait(ctx, &a.holdsAppends) {
		return 0, ctx.Err()
	}
	return a.View.Append(ctx, node, number, text)
}

func (a *access) Entries(ctx context.Context) iter.Seq2[etcd.Entry, error] {
	return func(yield func(etcd.Entry, error) bool) {
		for e, err := range a.View.Entries(ctx) {
			if err == nil && !wait(ctx, &a.holdsEntries) {
				err = ctx.Err()
			}
			if err == nil && a.endEntries != nil {
				err = a.endEntries(e)
			}
			a.test.step()
			a.read++
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

func (a *access) SaveSnapshot(ctx context.Context, at int64, state []byte, gone []string) error {
	a.test.step()
	a.saves = append(a.saves, saving{at, state, gone})
	if a.refuseSave != nil {
		if err := a.refuseSave(); err != nil {
			return err
		}
	}
	if !wait(ctx, &a.holdsSaves) {
		return ctx.Err()
	}
	return a.View.SaveSnapshot(ctx, at, state, gone)
}

// life is a node, and one who stands in for its hub: it writes its turns down, and what it has
// written is its state. Tests look at that when everybody else waits.
type life struct {
	*Node
	*access
	stop   context.CancelFunc // ends Run
	ended  chan struct{}      // closed when Run has returned
	left   chan struct{}      // closed when the hub has noticed that
	reason error              // why Run has returned

	warnings []turn
	turns    []turn
	state    []string // what was carried out since the log began
	hubEpoch string   // of the history, as the hub knows it
	loaded   chat.State
	readyAt  time.Duration // 0 until the node is ready

	// What the hub does.
	pages     int                     // how many parts it needs for a turn that has parts
	loadError error                   // the answer to Load
	onTurn    func(l *life, _ string) // is called with each turn
}

// turn is something that happened, in words.
type turn struct {
	at   time.Duration
	what string
}

// newLife returns a life that has not begun, of a node with this name.
func (b *bubble) newLife(name string) *life {
	b.Helper()
	l := &life{access: &access{View: b.log.Open(), test: b}, pages: 1}
	l.ended, l.left = make(chan struct{}), make(chan struct{})
	l.View.Cut = l.isCut.Load
	var err error
	l.Node, err = NewNode(l.Session, l.access, settings, func(sentence string) {
		b.step()
		l.warnings = append(l.warnings, turn{time.Since(b.start), sentence})
	})
	if err != nil {
		b.Fatal(err)
	}
	l.name = name
	return l
}

// begin begins a life, and waits until nothing more happens at this time.
func (b *bubble) begin(l *life) *life {
	b.lives = append(b.lives, l)
	ctx, stop := context.WithCancel(context.Background())
	l.stop = stop
	go func() {
		defer close(l.ended)
		defer func() { // so that a node that fails does not end all tests
			if p := recover(); p != nil {
				b.Errorf("node %s panics: %v", l.name, p)
			}
		}()
		reason := l.Run(ctx)
		b.step()
		l.reason = reason
	}()
	go func() {
		defer close(l.left)
		for {
			select {
			case t := <-l.Steps():
				l.hear(t)
			case <-l.ended:
				return
			}
		}
	}()
	go func() {
		select {
		case <-l.Ready():
			b.step()
			l.readyAt = time.Since(b.start)
		case <-l.ended:
		}
	}()
	synctest.Wait()
	return l
}

// mustBegin begins a life, whose node is ready at once.
func (b *bubble) mustBegin(name string) *life {
	b.Helper()
	l := b.begin(b.newLife(name))
	select {
	case <-l.Ready():
	default:
		b.Fatalf("node %s is not ready", name)
	}
	return l
}

// kill ends the node at once, as the end of its process would.
func (l *life) kill() {
	l.stop()
	<-l.ended
	<-l.left
}

// hear does what a hub does with a turn.
func (l *life) hear(t chat.Turn) {
	l.test.step()
	note := func(format string, args ...any) {
		what := fmt.Sprintf(format, args...)
		l.turns = append(l.turns, turn{time.Since(l.test.start), what})
		if l.onTurn != nil {
			l.onTurn(l, what)
		}
	}
	switch t := t.(type) {
	case chat.Load:
		l.loaded = t.State
		l.hubEpoch, _, _ = strings.Cut(t.State.LastID, "-")
		if len(t.State.Events) > 0 {
			l.state = strings.Split(string(t.State.Events), "\n")
		}
		note("load %s", t.State.LastID)
		t.Done <- l.loadError
	case chat.Entry:
		for _, c := range t.Commands {
			what := strings.TrimSpace(fmt.Sprintf("%s: %s %s %.100s", t.Node, c.Do, c.Name, c.Text))
			l.state = append(l.state, what)
			note("%s", what)
		}
	case chat.Burial:
		if t.After == "" {
			l.state = append(l.state, "bury "+t.Node)
		}
		note("bury %s%s", t.Node, part(t.Page))
		t.Done <- chat.Result{Next: l.next(t.Page)}
	case chat.Renewal:
		l.state = append(l.state, "renew")
		l.hubEpoch = t.Epoch
		note("renew %s", t.Epoch)
	case chat.Save:
		note("save%s", part(t.Page))
		result := chat.Result{Next: l.next(t.Page)}
		result.State.Users = []chat.Here{{Name: mustName(l.test, "user-after-"+t.After), Arrival: "a-1"}}
		if t.After == "" {
			result.State.LastID = fmt.Sprint(l.hubEpoch, "-", len(l.state))
			result.State.Events = []byte(strings.Join(l.state, "\n"))
		}
		t.Done <- result
	case chat.End:
		note("end %d", t.Unknown)
	}
}

func part(p chat.Page) string {
	if p.After == "" {
		return ""
	}
	return " after " + p.After
}

// next returns the end of a page: "1", "2" …
func (l *life) next(p chat.Page) string {
	var n int
	fmt.Sscan(p.After, &n)
	if n++; n == l.pages {
		return ""
	}
	return fmt.Sprint(n)
}

func mustName(t testing.TB, s string) chat.Name {
	t.Helper()
	name, err := chat.ParseName(s)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// say has the hub send a command: alice says text.
func (l *life) say(text string) {
	l.test.Helper()
	parsed, err := chat.ParseText(text)
	if err != nil {
		l.test.Fatal(err)
	}
	l.Commands() <- chat.Command{Do: chat.Say, Name: mustName(l.test, "alice"), Text: parsed}
}

// expect fails the test unless the hub has had precisely these turns.
func (l *life) expect(want ...string) {
	l.test.Helper()
	synctest.Wait()
	var got []string
	for _, t := range l.turns {
		got = append(got, t.what)
	}
	if !slices.Equal(got, want) {
		l.test.Errorf("the turns of node %s are %.2000q, want %.2000q", l.name, got, want)
	}
}

// when returns when the hub had a turn for the first time, and fails the test if it has had none.
func (l *life) when(what string) time.Duration {
	l.test.Helper()
	synctest.Wait()
	for _, t := range l.turns {
		if t.what == what {
			return t.at
		}
	}
	l.test.Fatalf("node %s has had no turn %q: %.2000v", l.name, what, l.turns)
	return 0
}

// isOver reports whether the life has ended.
func (l *life) isOver() bool {
	synctest.Wait()
	select {
	case <-l.ended:
		return true
	default:
		return false
	}
}

// mustLive fails the test if one of the lives has ended.
func (b *bubble) mustLive(lives ...*life) {
	b.Helper()
	for _, l := range lives {
		if l.isOver() {
			b.Errorf("the life of node %s has ended: %v", l.name, l.reason)
		}
	}
}

// mustEnd fails the test unless the life has ended for this reason, and has said how many commands
// may have their turn yet.
func (l *life) mustEnd(reason error, unknown int) {
	l.test.Helper()
	if !l.isOver() {
		l.test.Fatalf("the life of node %s has not ended", l.name)
	}
	if l.reason != reason {
		l.test.Errorf("the life of node %s has ended: %v, want %v", l.name, l.reason, reason)
	}
	if last := l.turns[len(l.turns)-1].what; last != fmt.Sprint("end ", unknown) {
		l.test.Errorf("the last turn of node %s is %q, want end %d", l.name, last, unknown)
	}
}

// mustAgree fails the test unless all hubs have the same state.
func (b *bubble) mustAgree(lives ...*life) {
	b.Helper()
	synctest.Wait()
	for _, l := range lives[1:] {
		if !slices.Equal(l.state, lives[0].state) {
			b.Errorf("the state of node %s is %.2000q, and that of %s %.2000q",
				l.name, l.state, lives[0].name, lives[0].state)
		}
	}
}

// always returns a delay for a View.
func always(d time.Duration) func() time.Duration { return func() time.Duration { return d } }
