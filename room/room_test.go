package room

// What a command changes, and what its result says.

import (
	"slices"
	"strings"
	"testing"
	"time"

	"lobby/chat"
	"lobby/internal/ssetest"
)

var testConfig = Config{History: 100, MaxUsers: 2, KeepAlive: time.Hour}

// texts returns the texts of all events in a room's history.
func (r *Room) texts() []string {
	var p ssetest.Parser
	p.Write(r.Chain.History())
	return ssetest.Texts(p.Events)
}

func (r *Room) names() []string { return slices.Collect(r.Roster.NamesAfter("")) }

func TestUserIsPresentWhileAJoinOrAStreamKeepsThemPresent(t *testing.T) {
	alice := chat.UncheckedName("alice")
	join, leave := Command{Verb: Join, Name: alice}, Command{Verb: Leave, Name: alice}
	open, release := Command{Verb: Open, Name: alice}, Command{Verb: Release, Name: alice, Arrival: 1}
	for _, test := range []struct {
		name     string
		commands []Command
		events   int  // how many there are
		present  bool // whether alice is, in the end
	}{
		{"a join", []Command{join}, 1, true},
		{"a second join causes no event", []Command{join, join}, 1, true},
		{"a stream", []Command{open}, 1, true},
		{"the last stream", []Command{open, open, release}, 1, true},
		{"no stream any more", []Command{open, open, release, release}, 2, false},
		{"more is released than was open", []Command{open, release, release}, 2, false},
		{"a join after the stream", []Command{open, join, release}, 1, true},
		{"a stream after the join", []Command{join, open, release}, 1, true},
		{"a leave ends all", []Command{join, open, open, leave}, 2, false},
		{"a leave of nobody causes no event", []Command{leave}, 0, false},
		{"a stream of an earlier visit", []Command{open, leave, open, release}, 3, true},
	} {
		r := New(testConfig)
		for _, c := range test.commands {
			r.Apply("", c)
		}
		if events := r.texts(); len(events) != test.events || (len(r.names()) == 1) != test.present {
			t.Errorf("%s: the events are %q and the users %q", test.name, events, r.names())
		}
	}
}

func TestResultsSayWhatHappened(t *testing.T) {
	r := New(testConfig)
	alice, bob, carol := chat.UncheckedName("alice"), chat.UncheckedName("bob"), chat.UncheckedName("carol")
	hello := chat.UncheckedText("hello")
	for i, test := range []struct {
		command Command
		seq     uint64 // of the event that the result reflects
		isNew   bool
		err     error
	}{
		{Command{Verb: Say, Name: alice, Text: hello}, 0, false, ErrNotPresent},
		{Command{Verb: Leave, Name: alice}, 0, false, ErrNotPresent},
		{Command{Verb: Join, Name: alice}, 1, true, nil},
		{Command{Verb: Join, Name: alice}, 1, false, nil},
		{Command{Verb: Say, Name: alice, Text: hello}, 2, false, nil},
		{Command{Verb: Open, Name: bob}, 3, false, nil},
		{Command{Verb: Join, Name: carol}, 3, false, ErrTooManyUsers},
		{Command{Verb: Join, Name: bob}, 3, false, nil},
		{Command{Verb: Open, Name: carol}, 4, false, nil}, // MaxUsers does not limit streams
		{Command{Verb: Sync}, 4, false, nil},
		{Command{Verb: Leave, Name: bob}, 5, false, nil},
	} {
		result := r.Apply("", test.command)
		if result.ID.Seq() != test.seq || result.IsNew != test.isNew || result.Err != test.err {
			t.Errorf("command %d (%s): got event %v, new %t, %v",
				i, test.command.Verb, result.ID, result.IsNew, result.Err)
		}
	}
	want := []string{
		"User alice connected to the chat.", "alice: hello", "User bob connected to the chat.",
		"User carol connected to the chat.", "User bob disconnected from the chat.",
	}
	if got := r.texts(); !slices.Equal(got, want) {
		t.Errorf("the events are %q, want %q", got, want)
	}
	list := r.Apply("", Command{Verb: List}).List
	if body := string(list.Body()); !strings.HasSuffix(body, "User: alice\nUser: carol") {
		t.Errorf("the list is %q", body)
	}
}

func TestStreamsCountForTheNodeThatTheyAreOn(t *testing.T) {
	r, alice := New(testConfig), chat.UncheckedName("alice")
	visit := Visit{alice, r.Apply("a", Command{Verb: Open, Name: alice}).Arrival}
	release := Command{Verb: Release, Name: alice, Arrival: visit.Arrival}
	r.Apply("b", release) // has none
	r.Apply("b", Command{Verb: Open, Name: alice})
	r.Apply("a", release)
	if !r.IsCurrent(visit) {
		t.Error("alice has left, although she has a stream on b")
	}
	r.Apply("b", release)
	if r.IsCurrent(visit) {
		t.Error("alice is present without a stream")
	}
}

func TestCountsAreOfWhatHappened(t *testing.T) {
	r := New(Config{History: 1, MaxUsers: 10, KeepAlive: time.Minute})
	alice, hello := chat.UncheckedName("alice"), chat.UncheckedText("hello")
	join, say := Command{Verb: Join, Name: alice}, Command{Verb: Say, Name: alice, Text: hello}
	r.Apply("", join) // nobody counts
	r.Counts = &Counts{}
	for _, c := range []Command{
		join, say, say, {Verb: Leave, Name: alice}, say, {Verb: Leave, Name: alice},
		{Verb: Open, Name: alice}, {Verb: Watch, LastEventID: "unknown-1"}, {Verb: List},
		{Verb: Release, Name: alice, Arrival: 5},
	} {
		r.Apply("", c)
	}
	first := r.Chain.LastID().String()
	r.CatchUp(first)
	r.Apply("", join)
	r.Apply("", say)
	r.CatchUp(first) // the history lacks an event after it
	want := Counts{Arrivals: 2, Departures: 2, Messages: 3, Lags: 2, Gaps: 2}
	if *r.Counts != want || r.Users() != 1 {
		t.Errorf("got %+v and %d users, want %+v and 1", *r.Counts, r.Users(), want)
	}
}
