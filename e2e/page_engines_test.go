package e2e

// Tests of what may differ between engines, in each of them: the page's connection, its history and
// tabs, and what the user does with them.

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

func TestPageWorksInEveryEngine(t *testing.T) {
	t.Parallel()
	for _, b := range everyBrowser {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			running := b.start(t)
			for _, test := range []struct {
				name string
				run  func(*testing.T, browser)
			}{
				{"the user goes elsewhere and comes back", testBack},
				{"the user comes back to a page that did not see them go", testBackUnseen},
				{"a stream dies silently", testDeadStream},
				{"quick messages stay separate and in order", testQuickMessages},
				{"a message is not sent", testNotSent},
				{"a newcomer sees the last events", testHistory},
				{"the sixth tab waits", testSixTabs},
				{"new lines do not move what the user reads", testScrolledUp},
				{"a growing crowd keeps its row, focus and selection", testGrowingCrowd},
				{"copied lines read as a chat", testCopying},
				{"URLs are links", testLinks},
				{"the user's name stands out", testMention},
				{"messages are grouped, with times and days", testTimes},
				{"a newcomer to a busy room has missed nothing", testBusyNewcomer},
				{"the door does not wait for the script", testSlowScript},
				{"a new tab knows the name", testRememberedName},
				{"the draft and unsent messages survive a reload", testUnsent},
				{"the user joins under another name", testOtherName},
				{"a link in the room does not end it", testNameInHash},
				{"the user comes first in the list", testPeople},
				{"a screen reader hears what was said", testAnnouncements},
				{"large text leaves room", testLargeText},
				{"all lines are printed", testPrinting},
			} {
				t.Run(test.name, func(t *testing.T) {
					// WebKit's tabs share a window, where a tab loses its selection to another.
					if b.name != "WebKit" {
						t.Parallel()
					}
					test.run(t, running)
				})
			}
		})
	}
}

// A user who goes elsewhere leaves; one who comes back is present once, and can leave again.
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
		t.Errorf("messages after coming back: got %q, want %q", said, want)
	}
	f.waitForOpen(t, 1) // in WebKit, others may be open for a moment
	alice.click("#leave")
	waitForUsers(t, s, "bob")
	f.waitForOpen(t, 0)
}

// WebKit reopens streams that were open when the page was left, even if the page closes them when
// it is restored. Still only one stays. (Over plain http from another machine, it has no locks.)
func testBackUnseen(t *testing.T, b browser) {
	s := start(t)
	f := newFront(t, s)
	script := s.do(t, "GET", "/lobby.js", "").body
	f.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/lobby.js" {
			return false
		}
		w.Header().Set("Content-Type", "text/javascript")
		io.WriteString(w, `Object.defineProperty(navigator, "locks", { value: undefined });`+script)
		return true
	})
	alice := joined(t, b, f.URL, "alice")
	alice.do(`addEventListener("pagehide", (event) => event.stopImmediatePropagation(), true)`)
	alice.must(alice.goTo(s.url + "/users"))
	alice.must(alice.back())
	alice.waitFor(`document.getElementById("state")?.dataset.state === "live"`)
	time.Sleep(3500 * time.Millisecond) // longer than any retry of the server
	for _, text := range []string{"one", "two"} {
		s.do(t, "POST", "/chat/alice", text)
	}
	alice.waitForLastLine("alicetwo")
	lines := alice.lines()
	if n := len(lines); !slices.Equal(lines[n-2:], []string{"said alice one", "said alice two"}) {
		t.Errorf("lines after coming back: got %q, want each once", lines)
	}
	f.waitForOpen(t, 1)
}

// A connection that silently died is found by sending a message.
func testDeadStream(t *testing.T, b browser) {
	s := start(t)
	f := newFront(t, s)
	alice := joined(t, b, f.URL, "alice")
	s.do(t, "POST", "/users/bob", "")
	alice.waitForLines("joined alice joined", "joined bob joined")

	f.swallow()
	s.do(t, "POST", "/chat/bob", "can you hear me?")
	alice.write("#text", "hello")
	begin := time.Now()
	alice.press(enter)
	alice.waitForLines("joined alice joined", "joined bob joined", "said bob can you hear me?",
		"said alice hello")
	if took := time.Since(begin); took < 3*time.Second {
		t.Errorf("the stream was taken for dead after %v, want 3 s or more", took)
	}
	if all, _ := f.asked(); all != 2 {
		t.Errorf("streams requested: got %d, want 2", all)
	}

	for _, sign := range []string{ // that the network has changed, or that the computer slept
		`dispatchEvent(new Event("offline"))`,
		`dispatchEvent(new Event("online"))`,
		`document.dispatchEvent(new Event("resume"))`,
		`(Date.now = () => performance.timeOrigin + performance.now() + 60_000)`,
	} {
		f.swallow()
		s.do(t, "POST", "/chat/bob", sign)
		alice.do(sign)
		alice.waitForEnd(sign)
	}
}

func testQuickMessages(t *testing.T, b browser) {
	s := start(t)
	f := newFront(t, s)
	var under, most atomic.Int32 // messages in flight now, and at most
	f.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost {
			most.Store(max(most.Load(), under.Add(1)))
			time.Sleep(300 * time.Millisecond) // a slow network
			under.Add(-1)
		}
		return false
	})
	alice := joined(t, b, f.URL, "alice")
	alice.do(`document.getElementById("text").focus()`)
	alice.press("o", "k", enter, "s", "o", enter, "y", "e", "s", enter, "?")
	alice.waitForLines("joined alice joined", "said alice ok", "said alice so", "said alice yes")
	alice.waitFor(`document.getElementById("outbox").childElementCount === 0`)
	if got := eval[string](alice, `document.getElementById("text").value`); got != "?" {
		t.Errorf("the box: got %q, want %q, which was typed after the last Enter", got, "?")
	}
	if n := most.Load(); n != 1 {
		t.Errorf("messages in flight at once: got %d, want 1", n)
	}
}

func testNotSent(t *testing.T, b browser) {
	s := start(t)
	alice := joined(t, b, s.url, "alice")
	s.kill()
	alice.waitFor(`document.getElementById("state").dataset.state !== "live"`)
	for _, text := range []string{"one", "two"} {
		alice.write("#text", text)
		alice.press(enter)
		alice.waitForError(text + "May not have been sent. The server can't be reached.")
	}
	start(t, "-addr", s.addr)
	alice.waitForState("live")
	// The buttons move until the gap and alice's arrival are shown.
	alice.waitFor(`document.querySelectorAll("#lines .line").length === 3`)
	alice.click("#outbox li:nth-child(2) button:nth-of-type(1)") // Send again
	alice.waitForEnd("two")
	alice.waitFor(`document.querySelectorAll("#outbox li").length === 1`)
	alice.write("#text", "three")
	const height = `document.getElementById("text").getBoundingClientRect().height`
	oneLine := eval[float64](alice, height)
	alice.click("#outbox button:nth-of-type(2)") // Edit
	alice.waitFor(`document.querySelectorAll("#outbox li").length === 0`)
	if got := eval[float64](alice, height); got < oneLine+15 {
		t.Errorf("the box with two lines: %v px high, with one line %v px", got, oneLine)
	}
	alice.waitFor(`document.activeElement.id === "text"`)
	alice.waitFor(`document.activeElement.value === "one\nthree"`)
}

// A newcomer sees the last 100 events, marked as past, if the server still has them.
func testHistory(t *testing.T, b browser) {
	s := start(t, "-grace", "1m") // for a reload on a busy machine
	s.do(t, "POST", "/users/bob", "")
	say(t, s, "bob", numbers(0, 150)...)
	alice := visit(t, b, s.url, "alice")
	var want []string
	for _, text := range numbers(50, 100) {
		want = append(want, "said bob "+text)
	}
	want = append(want, "mark ↑ before you joined", "joined alice joined")
	alice.waitForLines(want...)
	alice.waitForPeople("alice", "bob")
	if !eval[bool](alice, `[...document.querySelectorAll(".joined")].every((line) =>
		getComputedStyle(line).position === "relative")`) { // or WebKit paints the arrow elsewhere
		t.Error("the arrow of an arrival is not positioned in its line")
	}
	if !eval[bool](alice, `[...document.querySelectorAll(".line, #people li")].every((row) =>
		getComputedStyle(row).contain === "content")`) { // or stacked marks are painted far above
		t.Error("a line may cover the lines of others")
	}
	const past = `[...document.querySelectorAll("#lines .past")].filter((row) =>
		!row.querySelector("time")).length`
	if got := eval[int](alice, past); got != 100 {
		t.Errorf("lines from before, without a time: got %d, want 100", got)
	}
	s.do(t, "POST", "/chat/bob", "welcome")
	want = append(want, "said bob welcome")
	alice.waitForLines(want...)

	alice.must(alice.reload())
	want = slices.Delete(want[2:], 98, 99) // two more are too old now, and the mark moves down
	alice.waitForLines(append(want, "mark ↑ before you joined")...)
}

// Over HTTP/1.1 a browser has six connections to a host, so at most five tabs open streams.
func testSixTabs(t *testing.T, b browser) {
	s := start(t, "-grace", "100ms")
	f := newFront(t, s)
	_, port, _ := strings.Cut(strings.TrimPrefix(f.URL, "http://"), ":")
	var tabs []*tab
	for i := range 5 {
		p := joined(t, b, f.URL, fmt.Sprint("user", i))
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

	// Each of the five can still send messages.
	for i, p := range tabs {
		p.write("#text", fmt.Sprint("from ", i))
		p.press(enter)
		tabs[4].waitForEnd(fmt.Sprint("from ", i))
	}

	// The same server under another name has its own connections.
	seventh.click("#elsewhere")
	seventh.waitFor(fmt.Sprintf(`location.host === "2.localhost:%s"`, port))
	seventh.waitFor(`document.getElementById("name")?.value === "seventh"`)
	seventh.press(enter)
	seventh.waitForState("live")

	// When a tab has gone, the waiting one joins automatically.
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
