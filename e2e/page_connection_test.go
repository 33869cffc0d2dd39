package e2e

// How the page keeps its connection, in each browser whose engine may differ: the way back, streams
// that die, six tabs, and what is said meanwhile.

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestPageInEveryBrowser(t *testing.T) {
	t.Parallel()
	for _, b := range everyBrowser {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			running := b.start(t)
			for _, test := range []struct {
				name string
				run  func(*testing.T, browser)
			}{
				{"the way back", testBack},
				{"the way back of a page that did not see it go", testBackUnseen},
				{"a stream that brings nothing any more", testDeadStream},
				{"quick messages stay apart and in order", testQuickMessages},
				{"a message that is not sent", testNotSent},
				{"what was said before", testHistory},
				{"six tabs", testSixTabs},
			} {
				t.Run(test.name, func(t *testing.T) {
					t.Parallel()
					test.run(t, running)
				})
			}
		})
	}
}

// Whoever goes elsewhere leaves, and whoever comes back is there once, and leaves for good.
func testBack(t *testing.T, b browser) {
	s := start(t, "-grace", "100ms")
	f := newFront(t, s)
	elsewhere := httptest.NewServer(http.HandlerFunc(
		func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "elsewhere") }))
	t.Cleanup(elsewhere.Close)
	s.do(t, "POST", "/users/bob", "")
	alice := visit(t, b, f.URL, "alice")
	alice.waitForPeople("alice", "bob")
	for range 2 {
		alice.must(alice.goTo(elsewhere.URL))
		waitForUsers(t, s, "bob")
		alice.must(alice.back())
		alice.waitFor(`document.getElementById("state")?.dataset.state === "live"`)
	}
	s.do(t, "POST", "/chat/bob", "one")
	s.do(t, "POST", "/chat/bob", "two")
	alice.waitFor(`document.getElementById("lines").textContent.includes("two")`)
	said := slices.DeleteFunc(alice.lines(), func(line string) bool {
		return !strings.HasPrefix(line, "said ")
	})
	if want := []string{"said bob one", "said bob two"}; !slices.Equal(said, want) {
		t.Errorf("what was said, after the way back: got %q, want %q", said, want)
	}
	f.waitForOpen(t, 1) // in WebKit, others may be there for a moment
	alice.click("#leave")
	waitForUsers(t, s, "bob")
	f.waitForOpen(t, 0)
}

// WebKit opens streams again that were open when the page went, even if the page closes them as it
// comes back. It has one all the same. (Pages of other machines, over plain HTTP, have no locks.)
func testBackUnseen(t *testing.T, b browser) {
	s := start(t)
	f := newFront(t, s)
	script := s.do(t, "GET", "/lobby.js", "").body
	f.setAnswer(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/lobby.js" {
			return false
		}
		w.Header().Set("Content-Type", "text/javascript")
		io.WriteString(w, `Object.defineProperty(navigator, "locks", { value: undefined });`+script)
		return true
	})
	alice := visit(t, b, f.URL, "alice")
	alice.waitForState("live")
	alice.do(`addEventListener("pagehide", (event) => event.stopImmediatePropagation(), true)`)
	alice.must(alice.goTo(s.url + "/users"))
	alice.must(alice.back())
	alice.waitFor(`document.getElementById("state")?.dataset.state === "live"`)
	time.Sleep(3500 * time.Millisecond) // the server lets streams wait 3 s before they open again
	for _, text := range []string{"one", "two"} {
		s.do(t, "POST", "/chat/alice", text)
	}
	alice.waitForLastLine("alicetwo")
	lines := alice.lines()
	if n := len(lines); !slices.Equal(lines[n-2:], []string{"said alice one", "said alice two"}) {
		t.Errorf("lines after the way back: got %q, want each once", lines)
	}
	f.waitForOpen(t, 1)
}

// A connection that something between swallows is found by what we say ourselves.
func testDeadStream(t *testing.T, b browser) {
	s := start(t)
	f := newFront(t, s)
	alice := visit(t, b, f.URL, "alice")
	alice.waitForState("live")
	s.do(t, "POST", "/users/bob", "")
	alice.waitForLines("came alice came in", "came bob came in")

	f.swallow()
	s.do(t, "POST", "/chat/bob", "can you hear me?")
	alice.write("#text", "hello")
	begin := time.Now()
	alice.press(enter)
	alice.waitForLines("came alice came in", "came bob came in", "said bob can you hear me?",
		"said alice hello")
	if took := time.Since(begin); took < 3*time.Second || took > 10*time.Second {
		t.Errorf("a stream that was swallowed was found after %v, want some 3 s", took)
	}
	if all, _ := f.asked(); all != 2 {
		t.Errorf("streams asked for: got %d, want 2", all)
	}

	// The network changes: either word of the browser is reason enough.
	for i, word := range []string{"offline", "online"} {
		f.swallow()
		s.do(t, "POST", "/chat/bob", word)
		alice.do(fmt.Sprintf(`dispatchEvent(new Event(%q))`, word))
		alice.waitForEnd(word)
		if all, _ := f.asked(); all != 3+i {
			t.Errorf("streams asked for, after %q: got %d, want %d", word, all, 3+i)
		}
	}
}

func testQuickMessages(t *testing.T, b browser) {
	s := start(t)
	f := newFront(t, s)
	var under, most atomic.Int32 // messages under way, and the most of them at once
	f.setAnswer(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost {
			most.Store(max(most.Load(), under.Add(1)))
			time.Sleep(300 * time.Millisecond) // a slow network
			under.Add(-1)
		}
		return false
	})
	alice := visit(t, b, f.URL, "alice")
	alice.waitForState("live")
	alice.do(`document.getElementById("text").focus()`)
	alice.press("o", "k", enter, "s", "o", enter, "y", "e", "s", enter, "?")
	alice.waitForLines("came alice came in", "said alice ok", "said alice so", "said alice yes")
	alice.waitFor(`document.getElementById("outbox").childElementCount === 0`)
	if got := eval[string](alice, `document.getElementById("text").value`); got != "?" {
		t.Errorf("the box: got %q, want what was typed after the last Enter, %q", got, "?")
	}
	if n := most.Load(); n != 1 {
		t.Errorf("messages under way at once: got %d, want 1", n)
	}
}

func testNotSent(t *testing.T, b browser) {
	s := start(t)
	alice := visit(t, b, s.url, "alice")
	alice.waitForState("live")
	s.kill()
	alice.waitFor(`document.getElementById("state").dataset.state !== "live"`)
	for _, text := range []string{"one", "two"} {
		alice.write("#text", text)
		alice.press(enter)
		alice.waitForError(text + "Perhaps not sent. The server can't be reached.")
	}
	start(t, "-addr", s.addr)
	alice.waitForState("live")
	// Until the gap and alice's arrival are there, the buttons move.
	alice.waitFor(`document.querySelectorAll("#lines .line").length === 3`)
	alice.click("#outbox li:nth-child(2) button:nth-of-type(1)") // again
	alice.waitForEnd("two")
	alice.waitFor(`document.querySelectorAll("#outbox li").length === 1`)
	alice.write("#text", "three")
	const height = `document.getElementById("text").getBoundingClientRect().height`
	oneLine := eval[float64](alice, height)
	alice.click("#outbox button:nth-of-type(2)") // back
	alice.waitFor(`document.querySelectorAll("#outbox li").length === 0`)
	if got := eval[float64](alice, height); got < oneLine+15 {
		t.Errorf("the box with two lines: %v px high, with one line %v px", got, oneLine)
	}
	alice.waitFor(`document.activeElement.id === "text"`)
	alice.waitFor(`document.activeElement.value === "one\nthree"`)
}

// A newcomer sees the last 100 events, as what they are, if the server still has them.
func testHistory(t *testing.T, b browser) {
	s := start(t, "-grace", "1m") // for a reload on a busy machine
	s.do(t, "POST", "/users/bob", "")
	for i := range 150 {
		s.do(t, "POST", "/chat/bob", fmt.Sprint(i))
	}
	alice := visit(t, b, s.url, "alice")
	var want []string
	for i := 50; i < 150; i++ {
		want = append(want, fmt.Sprint("said bob ", i))
	}
	want = append(want, "now ↑ before you came", "came alice came in")
	alice.waitForLines(want...)
	alice.waitForPeople("alice", "bob")
	if !eval[bool](alice, `[...document.querySelectorAll(".came")].every((line) =>
		getComputedStyle(line).position === "relative")`) { // or WebKit paints the arrows elsewhere
		t.Error("the arrow of an arrival is not positioned in its line")
	}
	const past = `[...document.querySelectorAll("#lines .past")].filter((row) =>
		!row.title && !row.querySelector("time")).length`
	if got := eval[int](alice, past); got != 100 {
		t.Errorf("lines from before, without a time: got %d, want 100", got)
	}
	s.do(t, "POST", "/chat/bob", "welcome")
	want = append(want, "said bob welcome")
	alice.waitForLines(want...)

	alice.must(alice.reload())
	want = slices.Delete(want[2:], 98, 99) // two more are older than that, and now is later
	alice.waitForLines(append(want, "now ↑ before you came")...)

	forgetful := start(t, "-history", "10")
	forgetful.do(t, "POST", "/users/bob", "")
	for i := range 50 {
		forgetful.do(t, "POST", "/chat/bob", fmt.Sprint(i))
	}
	alice.must(alice.goTo(forgetful.url))
	alice.join("alice")
	alice.waitForLines("came alice came in") // and no gap: she missed nothing
}

// Over HTTP/1.1 a browser has six connections to a host: five tabs have streams, and no more.
func testSixTabs(t *testing.T, b browser) {
	s := start(t, "-grace", "100ms")
	f := newFront(t, s)
	_, port, _ := strings.Cut(strings.TrimPrefix(f.URL, "http://"), ":")
	var tabs []*tab
	for i := range 5 {
		p := visit(t, b, f.URL, fmt.Sprint("user", i))
		p.waitForState("live")
		tabs = append(tabs, p)
	}
	sixth := visit(t, b, f.URL, "sixth")
	sixth.waitFor(`document.getElementById("full").innerText.includes("Five tabs are open")`)
	sixth.waitForState("waiting")
	seventh := visit(t, b, f.URL, "seventh")
	seventh.waitForState("waiting")
	if all, open := f.asked(); all != 5 || open != 5 {
		t.Errorf("streams of seven tabs: got %d, %d of them open, want 5", all, open)
	}

	// In each of the five one can speak.
	for i, p := range tabs {
		p.write("#text", fmt.Sprint("from ", i))
		p.press(enter)
		tabs[4].waitForEnd(fmt.Sprint("from ", i))
	}

	// The same server under another name has connections of its own.
	seventh.click("#elsewhere")
	seventh.waitFor(fmt.Sprintf(`location.host === "2.localhost:%s"`, port))
	seventh.waitFor(`document.getElementById("name")?.value === "seventh"`)
	seventh.press(enter)
	seventh.waitForState("live")

	// When a tab has gone, the one that waits joins by itself.
	tabs[2].must(tabs[2].goTo("about:blank"))
	sixth.waitForState("live")
	sixth.write("#text", "at last")
	sixth.press(enter)
	tabs[0].waitForEnd("at last")
	sixth.click("#leave")
	waitForUsers(t, s, "seventh", "user0", "user1", "user3", "user4")
	late := tabs[2]
	late.must(late.goTo(f.URL))
	late.join("late")
	late.waitForState("live")
}
