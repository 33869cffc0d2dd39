package e2e

// Tests of how users read the conversation: long ones, copied, on touch, and with names, links and
// times in it. Tests of how its lines come about belong in page_test.go.

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// joinWith opens the page for alice once these users have been added.
func joinWith(t *testing.T, b browser, s *server, users ...string) *tab {
	t.Helper()
	for _, name := range users {
		s.do(t, "POST", "/users/"+name, "")
	}
	return joined(t, b, s.url, "alice")
}

// say sends messages in the user's name.
func say(t *testing.T, s *server, name string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if r := s.do(t, "POST", "/chat/"+name, text); r.status != http.StatusOK {
			t.Fatalf("%s said %q: got %d %q", name, text, r.status, r.body)
		}
	}
}

// numbers returns first, first+1, … as texts.
func numbers(first, count int) []string {
	var texts []string
	for i := range count {
		texts = append(texts, fmt.Sprint("line ", first+i))
	}
	return texts
}

func testScrolledUp(t *testing.T, b browser) {
	s := start(t)
	alice := joinWith(t, b, s, "bob")
	say(t, s, "bob", numbers(0, 60)...)
	alice.waitForLastLine("bobline 59")
	alice.waitFor(`document.getElementById("newer").hidden`)
	alice.fill("#text", "1\n2\n3\n4\n5\n6")
	alice.do(`document.getElementById("log").scrollTop = -300`)
	alice.waitForText("newer", "Newest ↓")
	const firstInSight = `[...document.querySelectorAll("#lines li")].find((row) =>
		row.getBoundingClientRect().bottom > document.getElementById("log").getBoundingClientRect().top
	).textContent`
	before := eval[string](alice, firstInSight)
	say(t, s, "bob", numbers(60, 1200)...)
	alice.waitForText("newer", "1,200 new ↓")
	if got := eval[string](alice, firstInSight); got != before {
		t.Errorf("the first line in sight after 1,200 messages: got %q, want %q", got, before)
	}
	if gap := eval[float64](alice, `document.getElementById("send").getBoundingClientRect().top -
		document.getElementById("newer").getBoundingClientRect().bottom`); gap < 0 {
		t.Errorf("the button for new lines covers %v px of the form", -gap)
	}

	alice.do(`document.getElementById("log").scrollTop = 0`)
	alice.waitFor(`document.querySelector(".gap")?.textContent === "800 more lines are not shown."`)
	alice.waitFor(`document.querySelector(".gap").previousSibling.textContent.includes("line 59")`)
	if !eval[bool](alice, `(() => { // the last line that was in sight, in sight still
		const row = document.querySelector(".gap").previousSibling.getBoundingClientRect();
		const log = document.getElementById("log").getBoundingClientRect();
		return row.bottom > log.top && row.top < log.bottom;
	})()`) {
		t.Error("the line that was being read is out of sight")
	}
	alice.click("#newer")
	alice.waitForLastLine("bobline 1259")
	alice.waitFor(`document.getElementById("newer").hidden`)
}

// The row of a crowd must not move while it grows, or a click on it fails and its focus is lost.
func testGrowingCrowd(t *testing.T, b browser) {
	s := start(t)
	alice := joinWith(t, b, s)
	join := func(first, count int) {
		for i := range count {
			s.do(t, "POST", fmt.Sprint("/users/user", first+i), "")
		}
		alice.waitFor(fmt.Sprintf(`document.querySelector("summary")?.textContent === "%d people joined"`,
			first+count+1))
	}
	join(0, 10)
	alice.do(`new MutationObserver((changes) => {
		for (const { removedNodes } of changes) if (removedNodes.length > 0) window.moved = true;
	}).observe(document.getElementById("lines"), { childList: true })`)
	alice.do(`document.querySelector("summary").focus()`)
	join(10, 10)
	alice.waitFor(`document.activeElement.localName === "summary"`)
	alice.click("summary")
	alice.waitFor(`document.querySelectorAll("details .line").length === 21`)
	alice.do(`document.querySelector("summary").focus()`)
	alice.do(`getSelection().selectAllChildren(document.querySelectorAll("details .name")[5])`)
	alice.waitFor(`getSelection().toString() === "user4"`)
	join(20, 600)
	alice.waitFor(`document.querySelectorAll("details .line").length === 621`) // all of them
	if got := eval[string](alice, `getSelection().getRangeAt(0).toString()`); got != "user4" {
		t.Errorf("the selection in a crowd that grew: got %q, want %q", got, "user4")
	}
	alice.waitFor(`document.activeElement.localName === "summary" && !window.moved`)
	alice.click("summary")
	alice.waitFor(`document.querySelectorAll("details .line").length === 0`)
}

// copied returns what the user gets by copying from one node to another.
func (p *tab) copied(from, to string) string {
	p.t.Helper()
	return eval[string](p, fmt.Sprintf(`(() => {
		getSelection().setBaseAndExtent(%s, %s);
		let copied = "";
		const clipboardData = { setData: (type, text) => (copied = text) };
		const copy = new Event("copy", { bubbles: true, cancelable: true });
		const isDefault = document.getElementById("lines")
			.dispatchEvent(Object.assign(copy, { clipboardData }));
		return isDefault ? getSelection().toString() : copied;
	})()`, from, to))
}

func testCopying(t *testing.T, b browser) {
	s := start(t)
	alice := joinWith(t, b, s, "bob")
	say(t, s, "bob", "hello", "all\nof you")
	s.do(t, "POST", "/users/carol", "")
	alice.waitForLastLine("carol joined")
	const first, last = `document.querySelector("#lines .said").firstChild, 0`,
		`document.querySelector("#lines > :last-child"), 1`
	said := func(i int) string {
		return fmt.Sprintf(`document.querySelectorAll("#lines .text")[%d]`, i)
	}
	times := regexp.MustCompile(` \d\d:\d\d( [AP]M)?:`)
	for _, test := range []struct{ from, to, want string }{
		{first, last, "bob TIME: hello\nbob TIME: all\nof you\ncarol joined"},
		{first, said(0) + ", 1", "bob TIME: hello"},
		{said(0) + ".firstChild, 1", said(1) + ".firstChild, 3", "bob TIME: ello\nbob TIME: all"},
		{said(0) + ".firstChild, 1", said(0) + ".firstChild, 3", "el"},
		{said(0) + ".firstChild, 0", said(1) + ".parentNode, 0", "hello"},            // a triple click
		{said(1) + ".parentNode, 0", said(1) + ", 1", "all\nof you"},                 // a hidden name
		{first, `document.querySelector("#lines .said .name").firstChild, 3`, "bob"}, // only a name
	} {
		got := times.ReplaceAllString(alice.copied(test.from, test.to), " TIME:")
		if got != test.want {
			t.Errorf("copied from %s to %s: got %q, want %q", test.from, test.to, got, test.want)
		}
	}
}

func testLinks(t *testing.T, b browser) {
	s := start(t)
	alice := joinWith(t, b, s, "bob")
	say(t, s, "bob", "See https://a.example/x?y=1&z=(2)#f. Or (HTTP://b.example/), "+
		"not javascript:alert(1) or ftp://c.example or https://")
	alice.waitFor(`document.querySelectorAll("#lines .text").length === 1`)
	got := eval[[]string](alice, `[...document.querySelectorAll("#lines .text a")].map((link) =>
		[link.textContent, link.href, link.target, link.rel].join(" "))`)
	const rel = "_blank noopener noreferrer nofollow"
	want := []string{
		"https://a.example/x?y=1&z=(2)#f https://a.example/x?y=1&z=(2)#f " + rel,
		"HTTP://b.example/ http://b.example/ " + rel,
	}
	if !slices.Equal(got, want) {
		t.Errorf("links: got %q, want %q", got, want)
	}
}

func testMention(t *testing.T, b browser) {
	s := start(t)
	alice := joinWith(t, b, s, "bob")
	alice.do(`Object.defineProperty(document, "hidden", { configurable: true, value: true })`)
	say(t, s, "alice", "I, alice")
	say(t, s, "bob", "hello", "Alice, are you malice?", "well")
	alice.waitFor(`document.title === "(3) bob mentions you · Lobby"`)
	alice.do(`delete document.hidden`)
	alice.do(`document.dispatchEvent(new Event("visibilitychange"))`)
	alice.waitForLines("joined bob joined", "mark ↑ before you joined", "joined alice joined",
		"said alice I, alice", "mark ↓ new since you looked away", "said bob hello",
		"said bob Alice, are you malice?", "said bob well")
	alice.waitFor(`document.title === "alice · Lobby"`)
	marks := eval[[]string](alice,
		`[...document.querySelectorAll("#lines mark")].map((mark) => mark.textContent)`)
	if want := []string{"Alice"}; !slices.Equal(marks, want) {
		t.Errorf("marked: got %q, want %q", marks, want)
	}
}

func testTimes(t *testing.T, b browser) {
	s := start(t)
	alice := joinWith(t, b, s, "bob", "carol")
	// A clock that jumps forward by 5 s would make the page reconnect.
	at := func(day, hour, minute, second int) {
		alice.do(fmt.Sprintf(`(Date.now = () => new Date(2020, 0, %d, %d, %d, %d).getTime())`,
			day, hour, minute, second))
	}
	at(30, 23, 59, 58)
	say(t, s, "bob", "late")
	alice.waitForLastLine("boblate")
	at(31, 0, 0, 0)
	say(t, s, "bob", "early")
	alice.waitForLastLine("bobearly")
	lines := alice.lines()
	mark := lines[len(lines)-2]
	if !strings.HasPrefix(mark, "mark ") || !strings.Contains(mark, "31") {
		t.Errorf("lines around midnight: got %q, want a line for the new day", lines)
	}

	// A time is visible on the first message of each minute, and on others that are touched.
	moveAway := func() { alice.must(alice.clickAt(1, 1)) } // or hovering shows a time
	moveAway()
	at(30, 14, 5, 58)
	say(t, s, "bob", "0", "1")
	say(t, s, "carol", "2")
	say(t, s, "bob", "3")
	alice.waitForLastLine("bob3")
	at(30, 14, 6, 0)
	say(t, s, "bob", "4")
	alice.waitForLastLine("bob4")
	got := eval[[]string](alice, `[...document.querySelectorAll("#lines .said")].slice(2).map((row) => [
		row.querySelector(".text").textContent,
		getComputedStyle(row.querySelector(".name")).position === "absolute" ? "follows" : "named",
		getComputedStyle(row.querySelector("time")).opacity,
		row.querySelector("time").title.includes("2020"),
	].join(" "))`)
	want := []string{"0 named 1 true", "1 follows 0 true", "2 named 0 true", "3 named 0 true",
		"4 named 1 true"}
	if !slices.Equal(got, want) {
		t.Errorf("text, name, visibility of the time and full time: got %q, want %q", got, want)
	}
	alice.click("#lines .follows .text")
	moveAway()
	alice.waitFor(`getComputedStyle(document.querySelector("#lines .follows time")).opacity === "1"`)
}

// A newcomer has missed nothing, even if more happens on the way than the history holds.
func testBusyNewcomer(t *testing.T, b browser) {
	s := start(t, "-history", "50")
	s.do(t, "POST", "/users/bob", "")
	say(t, s, "bob", numbers(0, 60)...)
	f := newFront(t, s)
	f.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if isStream(r) {
			say(t, s, "bob", numbers(60, 60)...)
		}
		return false
	})
	alice := joined(t, b, f.URL, "alice")
	alice.waitForLines("joined alice joined")
	alice.waitForPeople("alice", "bob")
}
