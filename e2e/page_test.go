package e2e

// What a person sees and does on the page, in Chromium. What differs from engine to engine is in
// page_connection_test.go, and how it looks in page_looks_test.go.

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/page"
)

func TestPage(t *testing.T) {
	t.Parallel()
	b := startChromium(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, browser)
	}{
		{"two people meet", testMeeting},
		{"a reload makes no noise", testReload},
		{"a stream that got nothing yet is cut", testCut},
		{"the server restarts", testRestart},
		{"someone comes while the list is on its way", testSlowList},
		{"the list breaks off", testBrokenList},
		{"a proxy holds the stream back", testHeldBack},
		{"the page was frozen", testFrozen},
		{"HTTP/2 has no six connections", testHTTP2},
		{"the server is full for a while", testFull},
		{"a name that can't be", testName},
		{"a text that is too long", testLongText},
		{"a message whose answer is lost", testLostAnswer},
		{"a message whose answer is late", testLateAnswer},
		{"what was news before the list", testOldNews},
		{"text is text", testMarkup},
		{"a crowd is one line", testFolding},
		{"lines of one speaker stand together, with times", testGrouping},
		{"the title counts what nobody saw", testUnread},
		{"a reader of what was said is left in peace", testReading},
		{"accessibility tree", testAccessibility},
		{"looks", testLooks},
		{"looks outside the room", testLooksOutside},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			test.run(t, b)
		})
	}
}

func testMeeting(t *testing.T, b browser) {
	s := start(t, "-grace", "100ms")
	alice := visit(t, b, s.url, "alice")
	alice.waitForPeople("alice")
	alice.waitForLines("came alice came in")

	bob := visit(t, b, s.url, "bob")
	bob.waitForPeople("alice", "bob")
	alice.waitForPeople("alice", "bob")

	bob.write("#text", "hello")
	const composing = `document.activeElement.dispatchEvent(new KeyboardEvent("keydown",
		{ key: "Enter", isComposing: true, bubbles: true, cancelable: true }))`
	if !eval[bool](bob, composing) {
		t.Error("the page took an Enter that was meant for an input method")
	}
	bob.press(enter)
	alice.waitForLines("came alice came in", "came bob came in", "said bob hello")
	before := []string{"came alice came in", "now ↑ before you came"} // what bob sees of it
	bob.waitForLines(append(before, "came bob came in", "said bob hello")...)
	bob.waitFor(`document.getElementById("text").value === ""`)

	alice.write("#text", "one")
	alice.press(newLine)
	alice.write("#text", "two")
	alice.press(enter)
	bob.waitForLines(append(before, "came bob came in", "said bob hello", "said alice one\ntwo")...)

	bob.click("#leave")
	alice.waitForPeople("alice")
	alice.waitForLines("came alice came in", "came bob came in", "said bob hello",
		"said alice one\ntwo", "left bob left")
	bob.waitFor(`document.activeElement.id === "name" && document.activeElement.value === "bob"`)
	const noNotice = `new Promise((tell) =>
		setTimeout(() => tell(document.getElementById("notice").hidden), 3000))`
	if !eval[bool](bob, noNotice) { // nor at any of the page's ticks
		t.Error("bob, who has left, is told so")
	}

	s.do(t, "DELETE", "/users/alice", "")
	alice.waitForText("notice-words", "You are no longer in the chat.")
	alice.waitForPeople()
	alice.click("#again")
	alice.waitForPeople("alice")
	alice.waitFor(`document.getElementById("notice").hidden`)

	alice.expectNoComplaints()
	bob.expectNoComplaints()
}

func testReload(t *testing.T, b browser) {
	s := start(t)
	alice := visit(t, b, s.url, "alice")
	alice.waitForPeople("alice")
	bob := visit(t, b, s.url, "bob")
	bob.waitForPeople("alice", "bob")

	bob.must(bob.reload())
	bob.waitForState("live")
	bob.waitForPeople("alice", "bob")

	// A stream that ends after the reload began: when its user has left, bob's
	// grace would be over, too.
	carol := s.subscribe(t, "/chat/carol")
	carol.body.Close()
	alice.waitForLines("crowd 3 people came in, 1 person left")
	alice.expectNoComplaints()
	bob.expectNoComplaints()
}

// The browser comes back by itself after the id of the opening block, which came without an event.
func testCut(t *testing.T, b browser) {
	s := start(t)
	s.do(t, "POST", "/users/alice", "") // so that her stream begins without an event
	f := newFront(t, s)
	alice := visit(t, b, f.URL, "alice")
	alice.waitForState("live")
	lines := []string{"came alice came in", "now ↑ before you came"}
	alice.waitForLines(lines...)

	f.CloseClientConnections()
	for _, text := range []string{"one", "two"} {
		s.do(t, "POST", "/chat/alice", text)
	}
	s.do(t, "POST", "/users/bob", "")
	alice.waitForState("live")
	alice.waitForLines(append(lines, "said alice one", "said alice two", "came bob came in")...)
	alice.waitForPeople("alice", "bob")
	if got := f.resumedFrom(); !strings.HasSuffix(got, "-1") {
		t.Errorf("Last-Event-ID of the stream after the cut: got %q, want EPOCH-1", got)
	}
	if got, _ := f.asked(); got != 2 {
		t.Errorf("streams asked for by a page that was cut once: got %d, want 2", got)
	}
}

func testRestart(t *testing.T, b browser) {
	s := start(t)
	alice := visit(t, b, s.url, "alice")
	alice.waitForPeople("alice")
	s.do(t, "POST", "/users/bob", "")
	s.do(t, "POST", "/chat/bob", "before")
	const gap = "gap Something was missed here: the server no longer has it."
	lines := []string{"came alice came in", "came bob came in", "said bob before"}
	alice.waitForLines(lines...)

	// At first the server is back when the browser tries again, then not before
	// the page has found that it is gone.
	for _, state := range []string{"reconnecting", "gone"} {
		s.kill()
		alice.waitForState(state)
		s = start(t, "-addr", s.addr)
		s.do(t, "POST", "/users/carol", "")
		alice.waitForState("live")
		alice.waitForPeople("alice", "carol")
		text := "after " + state // which no line before has
		s.do(t, "POST", "/chat/carol", text)
		alice.waitForLastLine("carol" + text)
		lines = append(lines, gap, "came alice came in", "said carol "+text)
		got := slices.DeleteFunc(alice.lines(), func(line string) bool {
			return line == "came carol came in" // if she came after the page was back
		})
		if !slices.Equal(got, lines) {
			t.Errorf("lines after the page had been %s: got %q, want %q", state, got, lines)
		}
	}
}

func testSlowList(t *testing.T, b browser) {
	s := start(t, "-history", "2")
	f := newFront(t, s)
	alice := visit(t, b, f.URL, "alice")
	alice.waitForPeople("alice")

	asked, goOn := make(chan struct{}, 10), make(chan struct{})
	f.setAnswer(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/users" {
			return false
		}
		list := s.do(t, "GET", "/users", "", "Accept", "application/json")
		asked <- struct{}{}
		<-goOn
		w.Header().Set("Last-Event-ID", list.header.Get("Last-Event-ID"))
		io.WriteString(w, list.body)
		return true
	})
	f.CloseClientConnections()
	for _, name := range []string{"bob", "carol", "dave"} { // more than the history holds
		s.do(t, "POST", "/users/"+name, "")
	}
	await(t, asked, "the page to ask for the list after a gap")
	s.do(t, "POST", "/users/erin", "")
	s.do(t, "DELETE", "/users/carol", "")
	alice.waitForLastLine("erin came in" + "carol left")
	close(goOn)
	alice.waitForPeople("alice", "bob", "dave", "erin")
}

func testBrokenList(t *testing.T, b browser) {
	f := newFront(t, start(t))
	f.setAnswer(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/users" {
			return false
		}
		w.Header().Set("Content-Length", "1000")
		io.WriteString(w, `{"users":["bob",`)
		return true
	})
	alice := visit(t, b, f.URL, "alice")
	alice.waitForState("gone")
	alice.waitForText("notice-words", "The server can't be reached.")
}

// A proxy that collects what it hands on holds back the head of a stream, or all but that.
func testHeldBack(t *testing.T, b browser) {
	const words = "The server answers, but its stream does not get through. " +
		"Probably a proxy or a virus scanner holds it back."
	for _, held := range []string{"head", "body"} {
		f := newFront(t, start(t))
		f.setDeaf(held == "body")
		f.setAnswer(func(_ http.ResponseWriter, r *http.Request) bool {
			if held == "head" && isStream(r) {
				<-r.Context().Done()
			}
			return false
		})
		alice := visit(t, b, f.URL, "alice")
		begin := time.Now()
		alice.waitForText("notice-words", words)
		if took := time.Since(begin); took < 4*time.Second || took > 10*time.Second {
			t.Errorf("a stream whose %s is held back: the page says so after %v, want 5 s", held, took)
		}
		alice.waitForState("connecting")
		f.setAnswer(nil)
		f.setDeaf(false)
		alice.click("#again")
		alice.waitForState("live")
		alice.waitFor(`document.getElementById("notice").hidden`)
	}
}

// A page that did not run for a while reconnects when it runs again.
func testFrozen(t *testing.T, b browser) {
	f := newFront(t, start(t))
	alice := visit(t, b, f.URL, "alice")
	alice.waitForState("live")
	alice.do(`(Date.now = () => performance.timeOrigin + performance.now() + 60_000)`) // it slept
	f.waitForAsked(t, 2)
	alice.waitForState("live")

	for _, state := range []page.SetWebLifecycleStateState{
		page.SetWebLifecycleStateStateFrozen, page.SetWebLifecycleStateStateActive,
	} {
		call(alice, page.SetWebLifecycleState, page.SetWebLifecycleStateParams{State: state})
	}
	f.waitForAsked(t, 3)
	alice.waitForState("live")
	f.waitForOpen(t, 1)
}

// Over HTTP/2 one connection carries all streams, so tabs need no slots.
func testHTTP2(t *testing.T, b browser) {
	f := newUnstartedFront(t, start(t))
	f.EnableHTTP2 = true
	f.StartTLS()
	for i := range 7 {
		p := visit(t, b, f.URL, fmt.Sprint("user", i))
		p.waitForState("live")
	}
	f.waitForOpen(t, 7)
}

func testFull(t *testing.T, b browser) {
	s := start(t, "-max-streams", "1", "-grace", "100ms")
	bob := s.subscribe(t, "/chat/bob")
	alice := visit(t, b, s.url, "alice")
	alice.waitForState("reconnecting")
	alice.waitFor(`/^Reconnecting in \d+ s$/
		.test(document.getElementById("state").textContent.trim())`)
	refusal := s.do(t, "GET", "/chat/carol", "").body
	alice.waitForText("notice-words", refusal)
	bob.body.Close()
	alice.waitForState("live")
	alice.waitFor(`document.getElementById("notice").hidden`)
	alice.waitForPeople("alice")
}

func testName(t *testing.T, b browser) {
	s := start(t)
	somebody := visit(t, b, s.url, "")
	for name, words := range map[string]string{
		"two words":             "A name can't have a space or a slash in it.",
		"a/b":                   "A name can't have a space or a slash in it.",
		"..":                    "A name needs a character that is no dot.",
		strings.Repeat("🙂", 65): "A name has at most 64 characters. This one has 65.",
		"invisible\u202e":       "A name can't have invisible parts.",
	} {
		somebody.fill("#name", name)
		somebody.click("#join button")
		somebody.waitForText("name-error", words)
		somebody.fill("#name", "fine")
		somebody.waitForText("name-error", "") // since that no longer holds
	}
	somebody.expectNoComplaints()
	waitForUsers(t, s)

	somebody.fill("#name", "Ame\u0301lie") // as some keyboards compose it
	somebody.click("#join button")
	somebody.waitForPeople("Am\u00e9lie")
}

func testLongText(t *testing.T, b browser) {
	s := start(t)
	alice := visit(t, b, s.url, "alice")
	alice.waitForState("live")
	alice.fill("#text", strings.Repeat("é", 2000))
	alice.waitForText("text-left", "96 bytes left")
	alice.fill("#text", strings.Repeat("é", 2500))
	alice.waitForText("text-left", "904 bytes too long")
	alice.press(enter)
	alice.waitForText("send-error", "This is 904 bytes too long for one message.")
	alice.fill("#text", strings.Repeat("x\n", 40)+"x")
	alice.waitForText("send-error", "This has 41 lines. A message has at most 32.")
	alice.fill("#text", "short")
	alice.waitForText("send-error", "")
	alice.waitForText("text-left", "")
	alice.press(enter)
	alice.waitForLastLine("aliceshort")

	// What only the server knows to be wrong stands as not sent, with its words.
	const control = "bell\x02"
	refusal := s.do(t, "POST", "/chat/alice", control).body
	alice.fill("#text", control)
	alice.press(enter)
	alice.waitForError(control + "Not sent. " + strings.TrimSpace(refusal))
	alice.fill("#text", "and on")
	alice.press(enter)
	alice.waitForLastLine("aliceand on")
	alice.click("#leave")
	alice.waitFor(`document.getElementById("outbox").textContent === ""`)
}

// A message may be said although its answer is lost: then the stream brings it, once.
func testLostAnswer(t *testing.T, b browser) {
	s := start(t)
	f := newFront(t, s)
	alice := visit(t, b, f.URL, "alice")
	alice.waitForState("live")
	f.swallow() // or the stream would bring the message before the page gives up on the answer
	f.setAnswer(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost {
			return false
		}
		s.do(t, "POST", "/chat/alice", "was it said?")
		io.Copy(io.Discard, r.Body) // only then does net/http see the page go
		<-r.Context().Done()
		return true
	})
	alice.write("#text", "was it said?")
	alice.press(enter)
	alice.write("#text", "and this?")
	alice.press(enter) // it waits for its turn
	alice.waitForError("and this?Not sent. The server does not answer.")
	alice.waitForLines("came alice came in", "said alice was it said?")
	alice.waitFor(`document.getElementById("outbox").childElementCount === 1`)
}

// A message is known by its id if the server changed its text: half a character can't be sent.
func testLateAnswer(t *testing.T, b browser) {
	s := start(t)
	f := newFront(t, s)
	alice := visit(t, b, f.URL, "alice")
	alice.waitForState("live")
	goOn := make(chan struct{})
	f.setAnswer(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost {
			return false
		}
		body, _ := io.ReadAll(r.Body)
		answer := s.do(t, "POST", "/chat/alice", string(body))
		<-goOn
		w.Header().Set("Last-Event-ID", answer.header.Get("Last-Event-ID"))
		return true
	})
	alice.do(`(document.getElementById("text").value = "half \ud83d")`)
	alice.press(enter)
	alice.waitForLastLine("alicehalf \ufffd")
	close(goOn)
	alice.waitFor(`document.getElementById("outbox").childElementCount === 0`)
}

// The list counts, and not what the stream says of the time before it.
func testOldNews(t *testing.T, b browser) {
	f := newFront(t, start(t))
	f.setAnswer(func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.URL.Path == "/users":
			w.Header().Set("Last-Event-ID", "epoch-2")
			io.WriteString(w, `{"users":["alice"]}`)
		case isStream(r):
			w.Header().Set("Content-Type", "text/event-stream")
			io.WriteString(w, "id: epoch-1\ndata: User dave connected to the chat.\n\n")
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		default:
			return false
		}
		return true
	})
	alice := visit(t, b, f.URL, "alice")
	alice.waitForLines("came dave came in")
	alice.waitForPeople("alice")
}

func testMarkup(t *testing.T, b browser) {
	s := start(t)
	const name = "<b>eve&amp;"
	const text = `<img src=x onerror="document.title='hacked'">` +
		`<script>document.title='hacked'</script>&lt;`
	s.do(t, "POST", "/users/%3Cb%3Eeve&amp;", "")
	alice := visit(t, b, s.url, "alice")
	alice.waitForPeople(name, "alice")
	s.do(t, "POST", "/chat/%3Cb%3Eeve&amp;", text)
	alice.waitForLines("came "+name+" came in", "now ↑ before you came", "came alice came in",
		"said "+name+" "+text)
	got := eval[[]string](alice, `[...new Set([...document.querySelectorAll("#lines *, #people *")]
		.map((e) => e.localName))].sort()`)
	if want := []string{"bdi", "li", "p", "time"}; !slices.Equal(got, want) {
		t.Errorf("elements in what was said and in the list: got %q, want %q", got, want)
	}
	alice.expectNoComplaints()
}

func testFolding(t *testing.T, b browser) {
	s := start(t)
	s.do(t, "POST", "/users/bob", "")
	alice := visit(t, b, s.url, "alice")
	history := []string{"came bob came in", "now ↑ before you came"}
	alice.waitForLines(append(history, "came alice came in")...)
	for i := range 20 {
		s.do(t, "POST", fmt.Sprint("/users/user", i), "")
	}
	for i := range 3 {
		s.do(t, "DELETE", fmt.Sprint("/users/user", i), "")
	}
	alice.waitForLines(append(history, "crowd 21 people came in, 3 people left")...)
	hues := eval[[]float64](alice, `[...document.querySelectorAll("#people .name")]
		.filter((tag) => /^user[1-9]$/.test(tag.textContent))
		.map((tag) => Number(tag.style.getPropertyValue("--hue"))).sort((a, b) => a - b)`)
	for i := range hues[1:] {
		if hues[i+1]-hues[i] < 15 {
			t.Errorf("hues of names that differ little: got %.0f, want each 15 or more apart", hues)
		}
	}
	alice.click("summary")
	alice.waitFor(`document.querySelectorAll("details .line").length === 24`)
	s.do(t, "POST", "/users/late", "")
	alice.waitFor(`document.querySelector("details").lastChild.textContent === "late came in"`)
	s.do(t, "POST", "/chat/bob", "hello")
	s.do(t, "DELETE", "/users/late", "")
	alice.waitFor(`document.querySelector("#lines > :last-child").textContent === "late left"`)
	if n := eval[int](alice, `document.querySelectorAll("#lines > li").length`); n != 5 {
		t.Errorf("rows: got %d, want 5: bob, now, the crowd, what he said, who left", n)
	}
}

func testGrouping(t *testing.T, b browser) {
	s := start(t)
	for _, name := range []string{"bob", "carol"} {
		s.do(t, "POST", "/users/"+name, "")
	}
	alice := visit(t, b, s.url, "alice")
	alice.waitForState("live")
	alice.do(`(Date.now = () => new Date(2026, 0, 31, 14, 5).getTime())`)
	said := []string{"bob", "bob", "carol", "bob", "bob"}
	for i, name := range said {
		if i == 4 {
			alice.waitForLastLine("bob3")
			alice.do(`(Date.now = () => new Date(2026, 0, 31, 14, 6).getTime())`)
		}
		s.do(t, "POST", "/chat/"+name, fmt.Sprint(i))
	}
	alice.waitFor(`document.querySelectorAll("#lines .said").length === 5`)
	got := eval[[]string](alice, `[...document.querySelectorAll("#lines .said")].map((row) => [
		row.querySelector(".text").textContent,
		row.querySelector(".name").getBoundingClientRect().width > 0 &&
			getComputedStyle(row.querySelector(".name")).position !== "absolute" ? "named" : "",
		row.querySelector("time")?.textContent.match(/\d+.\d\d/)[0] ?? "",
		/2026|26/.test(row.title),
	].join(" "))`)
	for i := range got {
		got[i] = strings.Replace(got[i], "02:", "14:", 1) // with AM and PM
	}
	want := []string{"0 named 14:05 true", "1   true", "2 named  true", "3 named  true",
		"4 named 14:06 true"}
	if !slices.Equal(got, want) {
		t.Errorf("text, name, time and title of what was said: got %q, want %q", got, want)
	}
}

func testUnread(t *testing.T, b browser) {
	s := start(t)
	s.do(t, "POST", "/users/bob", "")
	alice := visit(t, b, s.url, "alice")
	alice.waitForState("live")
	alice.do(`Object.defineProperty(document, "hidden", { configurable: true, value: true })`)
	for range 3 {
		s.do(t, "POST", "/chat/bob", "hello")
	}
	s.do(t, "POST", "/chat/alice", "not news to alice")
	alice.waitFor(`document.title === "(3) alice · Lobby"`)
	for range 100 {
		s.do(t, "POST", "/chat/bob", "hello")
	}
	alice.waitFor(`document.title === "(99+) alice · Lobby"`)
	alice.do(`delete document.hidden`)
	alice.do(`document.dispatchEvent(new Event("visibilitychange"))`)
	alice.waitFor(`document.title === "alice · Lobby"`)
}

func testReading(t *testing.T, b browser) {
	s := start(t)
	s.do(t, "POST", "/users/bob", "")
	alice := visit(t, b, s.url, "alice")
	alice.waitForState("live")
	for i := range 100 {
		s.do(t, "POST", "/chat/bob", fmt.Sprint(i))
	}
	alice.waitFor(`document.querySelectorAll("#lines li").length === 103`) // with those of before
	alice.waitFor(`document.getElementById("log").scrollTop === 0`)

	const topRow = `[...document.querySelectorAll("#lines li")].find((row) =>
		row.getBoundingClientRect().bottom > document.getElementById("log").getBoundingClientRect().top
	).textContent`
	alice.do(`document.getElementById("log").scrollTop = -600`)
	before := eval[string](alice, topRow)
	for i := range 600 {
		s.do(t, "POST", "/chat/bob", fmt.Sprint("more ", i))
	}
	alice.waitForText("newer", "500+ new ↓")
	if got := eval[string](alice, topRow); got != before {
		t.Errorf("the first line in sight after 600 more were said: got %q, want %q", got, before)
	}

	alice.click("#newer")
	alice.waitForLastLine("bobmore 599")
	alice.waitFor(`document.getElementById("log").scrollTop === 0`)
	if got := eval[int](alice, `document.querySelectorAll("#lines li").length`); got != 500 {
		t.Errorf("lines on the page: got %d, want 500", got)
	}
}
