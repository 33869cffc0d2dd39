package e2e

// Tests of what a user sees and does on the page, in Chromium. What may differ between engines is
// tested in page_engines_test.go, and how the page looks in page_looks_test.go.

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/page"
)

func TestPageShowsAndDoes(t *testing.T) {
	t.Parallel()
	b := startChromium(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, browser)
	}{
		{"two people meet", testMeeting},
		{"a reload causes no events", testReload},
		{"a stream is cut before its first event", testCut},
		{"the server restarts", testRestart},
		{"a user joins while the list is on its way", testSlowList},
		{"the list is incomplete", testBrokenList},
		{"a proxy buffers the stream", testHeldBack},
		{"the page was frozen", testFrozen},
		{"over HTTP/2 seven tabs speak", testHTTP2},
		{"the page has a path prefix", testPrefix},
		{"the server is full for a while", testFull},
		{"a name is invalid", testName},
		{"a message is too long", testLongText},
		{"the response to a message is lost", testLostAnswer},
		{"the response to a message is late", testLateAnswer},
		{"the list counts, not the events before it", testOldNews},
		{"text never becomes markup", testMarkup},
		{"arrivals in a row become one line", testFolding},
		{"messages of one user in a row are grouped, with times", testGrouping},
		{"the title counts unread messages", testUnread},
		{"new lines do not move what the user reads", testReading},
		{"a screen reader and a keyboard find everything", testAccessibility},
		{"axe finds nothing", testAxe},
		{"nothing is cut off", testLooks},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel() // mostly waiting
			test.run(t, b)
		})
	}
}

func testMeeting(t *testing.T, b browser) {
	s := start(t, "-grace", "100ms")
	alice := visit(t, b, s.url, "alice")
	alice.waitForPeople("alice")
	alice.waitForLines("joined alice joined")

	bob := visit(t, b, s.url, "bob")
	bob.waitForPeople("bob", "alice")
	alice.waitForPeople("alice", "bob")

	bob.write("#text", "hello")
	const composing = `document.activeElement.dispatchEvent(new KeyboardEvent("keydown",
		{ key: "Enter", isComposing: true, bubbles: true, cancelable: true }))`
	if !eval[bool](bob, composing) {
		t.Error("the page handled an Enter that was meant for an input method")
	}
	bob.press(enter)
	alice.waitForLines("joined alice joined", "joined bob joined", "said bob hello")
	before := []string{"joined alice joined", "mark ↑ before you joined"} // what bob sees of it
	bob.waitForLines(append(before, "joined bob joined", "said bob hello")...)
	bob.waitFor(`document.getElementById("text").value === ""`)

	alice.write("#text", "one")
	alice.press(newLine)
	alice.write("#text", "two")
	alice.press(enter)
	bob.waitForLines(append(before, "joined bob joined", "said bob hello", "said alice one\ntwo")...)

	bob.click("#leave")
	alice.waitForPeople("alice")
	alice.waitForLines("joined alice joined", "joined bob joined", "said bob hello",
		"said alice one\ntwo", "left bob left")
	bob.waitFor(`document.activeElement.id === "name" && document.activeElement.value === "bob"`)
	const noNotice = `new Promise((tell) =>
		setTimeout(() => tell(document.getElementById("notice").hidden), 3000))`
	if !eval[bool](bob, noNotice) { // nor at a later tick of the page
		t.Error("a user who has left sees a notice")
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
	bob.waitForPeople("bob", "alice")

	bob.must(bob.reload())
	bob.waitForState("live")
	bob.waitForPeople("bob", "alice")

	// This stream ends after the reload began, so when its user has left, bob's grace period would
	// have expired, too.
	carol := s.subscribe(t, "/chat/carol")
	carol.body.Close()
	alice.waitForLines("crowd 3 people joined, 1 person left")
	alice.expectNoComplaints()
	bob.expectNoComplaints()
}

// The browser resumes by itself from the id of the opening block, which had no event.
func testCut(t *testing.T, b browser) {
	s := start(t)
	s.do(t, "POST", "/users/alice", "") // so that her stream starts without an event
	f := newFront(t, s)
	alice := joined(t, b, f.URL, "alice")
	lines := []string{"joined alice joined", "mark ↑ before you joined"}
	alice.waitForLines(lines...)

	f.CloseClientConnections()
	for _, text := range []string{"one", "two"} {
		s.do(t, "POST", "/chat/alice", text)
	}
	s.do(t, "POST", "/users/bob", "")
	alice.waitForState("live")
	alice.waitForLines(append(lines, "said alice one", "said alice two", "joined bob joined")...)
	alice.waitForPeople("alice", "bob")
	if got := f.resumedFrom(t); !strings.HasSuffix(got, "-1") {
		t.Errorf("Last-Event-ID of the stream after the cut: got %q, want EPOCH-1", got)
	}
	if got, _ := f.asked(); got != 2 {
		t.Errorf("streams requested by a page whose stream was cut once: got %d, want 2", got)
	}
}

func testRestart(t *testing.T, b browser) {
	s := start(t)
	alice := visit(t, b, s.url, "alice")
	alice.waitForPeople("alice")
	s.do(t, "POST", "/users/bob", "")
	s.do(t, "POST", "/chat/bob", "before")
	const gap = "gap Some messages are missing: the server no longer has them."
	lines := []string{"joined alice joined", "joined bob joined", "said bob before"}
	alice.waitForLines(lines...)

	// The first time, the server is back before the browser reconnects; the second time, only after
	// the page has found that it is gone.
	for _, state := range []string{"reconnecting", "gone"} {
		s.kill()
		alice.waitForState(state)
		s = start(t, "-addr", s.addr)
		s.do(t, "POST", "/users/carol", "")
		alice.waitForState("live")
		alice.waitForPeople("alice", "carol")
		text := "after " + state // unlike all earlier lines
		s.do(t, "POST", "/chat/carol", text)
		alice.waitForLastLine("carol" + text)
		lines = append(lines, gap, "joined alice joined", "said carol "+text)
		got := slices.DeleteFunc(alice.lines(), func(line string) bool {
			return line == "joined carol joined" // if she joined after the page had reconnected
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
	release := sync.OnceFunc(func() { close(goOn) })
	defer release()
	f.intercept(func(w http.ResponseWriter, r *http.Request) bool {
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
	alice.waitForLastLine("erin joined" + "carol left")
	release()
	alice.waitForPeople("alice", "bob", "dave", "erin")
}

func testBrokenList(t *testing.T, b browser) {
	f := newFront(t, start(t))
	f.intercept(func(w http.ResponseWriter, r *http.Request) bool {
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

// A buffering proxy holds back the head of a stream, or everything but the head.
func testHeldBack(t *testing.T, b browser) {
	const words = "The server responds, but its event stream does not arrive. " +
		"A proxy or antivirus may be buffering it."
	for _, held := range []string{"head", "body"} {
		f := newFront(t, start(t))
		f.setDeaf(held == "body")
		f.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
			if held == "head" && isStream(r) {
				<-r.Context().Done()
			}
			return false
		})
		alice := visit(t, b, f.URL, "alice")
		begin := time.Now()
		alice.waitForText("notice-words", words)
		if took := time.Since(begin); took < 4*time.Second || took > 10*time.Second {
			t.Errorf("the %s of the stream is held back: the page said so after %v, want 5 s", held, took)
		}
		alice.waitForState("connecting")
		f.intercept(nil)
		f.setDeaf(false)
		alice.click("#again")
		alice.waitForState("live")
		alice.waitFor(`document.getElementById("notice").hidden`)
	}
}

// A page that was suspended reconnects when it runs again.
func testFrozen(t *testing.T, b browser) {
	f := newFront(t, start(t))
	alice := joined(t, b, f.URL, "alice")
	// As after sleep:
	alice.do(`(Date.now = () => performance.timeOrigin + performance.now() + 60_000)`)
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

// Over HTTP/2 one connection carries all streams, so no tab has to wait for another to close.
func testHTTP2(t *testing.T, b browser) {
	s := startSecure(t)
	var tabs []*tab
	for i := range 7 {
		tabs = append(tabs, joined(t, b, s.url, fmt.Sprint("user", i)))
	}
	for i, p := range tabs {
		text := fmt.Sprint("from ", i)
		p.write("#text", text)
		p.press(enter)
		for _, other := range tabs {
			other.waitForEnd(text)
		}
	}
}

func testPrefix(t *testing.T, b browser) {
	prefixed := httptest.NewServer(http.StripPrefix("/room", newFront(t, start(t)).Config.Handler))
	t.Cleanup(func() { prefixed.CloseClientConnections(); prefixed.Close() })
	alice := visit(t, b, prefixed.URL+"/room/", "alice")
	alice.waitForPeople("alice")
	alice.write("#text", "hello")
	alice.press(enter)
	alice.waitForLastLine("alicehello")
	alice.waitFor(fmt.Sprintf(
		`document.querySelector("#curl code").textContent === "curl -N %s/room/chat"`,
		prefixed.URL))
	alice.expectNoComplaints()
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
	visitor := visit(t, b, s.url, "")
	for name, words := range map[string]string{
		"a/\u202e":              "A name can't contain spaces or slashes.",
		"  ":                    "A name can't be empty, “.” or “..”.",
		"..":                    "A name can't be empty, “.” or “..”.",
		strings.Repeat("🙂", 65): "A name has at most 64 characters; this one has 65.",
		"invisible\u202e":       "A name can't contain invisible characters.",
	} {
		visitor.fill("#name", name)
		visitor.click("#join button")
		visitor.waitForText("name-error", words)
		visitor.fill("#name", "fine")
		visitor.waitForText("name-error", "") // the error no longer applies
	}
	visitor.expectNoComplaints()
	waitForUsers(t, s)

	visitor.fill("#name", "Ame\u0301lie") // as some keyboards compose it
	visitor.click("#join button")
	visitor.waitForPeople("Am\u00e9lie")
}

func testLongText(t *testing.T, b browser) {
	s := start(t)
	alice := joined(t, b, s.url, "alice")
	alice.fill("#text", strings.Repeat("é", 2000))
	alice.waitForText("text-left", "96 bytes left")
	alice.fill("#text", strings.Repeat("é", 2500))
	alice.waitForText("text-left", "904 bytes too long")
	alice.press(enter)
	alice.waitForText("send-error", "This is 904 bytes too long for one message.")
	alice.fill("#text", strings.Repeat("x\n", 40)+"x")
	alice.waitForText("send-error", "This has 41 lines; a message has at most 32.")
	alice.fill("#text", "short")
	alice.waitForText("send-error", "")
	alice.waitForText("text-left", "")
	alice.press(enter)
	alice.waitForLastLine("aliceshort")

	// What only the server can reject is shown as not sent, with the server's sentence.
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

// A message may take effect although its response is lost: then the stream brings it, once.
func testLostAnswer(t *testing.T, b browser) {
	s := start(t)
	f := newFront(t, s)
	alice := joined(t, b, f.URL, "alice")
	f.swallow() // or the stream would bring the message before the request times out
	f.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost {
			return false
		}
		s.do(t, "POST", "/chat/alice", "was it sent?")
		io.Copy(io.Discard, r.Body) // only then does net/http notice that the client has gone
		<-r.Context().Done()
		return true
	})
	alice.write("#text", "was it sent?")
	alice.press(enter)
	alice.write("#text", "and this?")
	alice.press(enter) // this message waits for the first
	alice.waitForError("and this?Not sent. The server does not respond.")
	alice.waitForLines("joined alice joined", "said alice was it sent?")
	alice.waitFor(`document.getElementById("outbox").childElementCount === 1`)
}

// A message is recognized by its id if its text was changed: half a surrogate pair can't be sent.
func testLateAnswer(t *testing.T, b browser) {
	s := start(t)
	f := newFront(t, s)
	alice := joined(t, b, f.URL, "alice")
	goOn := make(chan struct{})
	release := sync.OnceFunc(func() { close(goOn) })
	defer release()
	f.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost {
			return false
		}
		body, _ := io.ReadAll(r.Body)
		response := s.do(t, "POST", "/chat/alice", string(body))
		<-goOn
		w.Header().Set("Last-Event-ID", response.header.Get("Last-Event-ID"))
		return true
	})
	alice.do(`(document.getElementById("text").value = "half \ud83d")`)
	alice.press(enter)
	alice.waitForLastLine("alicehalf \ufffd")
	release()
	alice.waitFor(`document.getElementById("outbox").childElementCount === 0`)
}

// Events that the list already reflects do not change it.
func testOldNews(t *testing.T, b browser) {
	f := newFront(t, start(t))
	f.intercept(func(w http.ResponseWriter, r *http.Request) bool {
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
	alice.waitForLines("joined dave joined")
	alice.waitForPeople("alice")
}

func testMarkup(t *testing.T, b browser) {
	s := start(t)
	const name = "<b>eve&amp;"
	const text = `<img src=x onerror="document.title='hacked'">` +
		`<script>document.title='hacked'</script>&lt;`
	s.do(t, "POST", "/users/%3Cb%3Eeve&amp;", "")
	alice := visit(t, b, s.url, "alice")
	alice.waitForPeople("alice", name)
	s.do(t, "POST", "/chat/%3Cb%3Eeve&amp;", text)
	alice.waitForLines("joined "+name+" joined", "mark ↑ before you joined", "joined alice joined",
		"said "+name+" "+text)
	got := eval[[]string](alice, `[...new Set([...document.querySelectorAll("#lines *, #people *")]
		.map((e) => e.localName))].sort()`)
	if want := []string{"bdi", "li", "p", "time"}; !slices.Equal(got, want) {
		t.Errorf("elements in the conversation and the list: got %q, want %q", got, want)
	}
	alice.expectNoComplaints()
}

func testFolding(t *testing.T, b browser) {
	s := start(t)
	s.do(t, "POST", "/users/bob", "")
	alice := visit(t, b, s.url, "alice")
	history := []string{"joined bob joined", "mark ↑ before you joined"}
	alice.waitForLines(append(history, "joined alice joined")...)
	for i := range 20 {
		s.do(t, "POST", fmt.Sprint("/users/user", i), "")
	}
	for i := range 3 {
		s.do(t, "DELETE", fmt.Sprint("/users/user", i), "")
	}
	alice.waitForLines(append(history, "crowd 21 people joined, 3 people left")...)
	hues := eval[[]float64](alice, `[...document.querySelectorAll("#people .name")]
		.filter((tag) => /^user[1-9]$/.test(tag.textContent))
		.map((tag) => Number(tag.style.getPropertyValue("--hue"))).sort((a, b) => a - b)`)
	for i := range hues[1:] {
		if hues[i+1]-hues[i] < 15 {
			t.Errorf("hues of similar names: got %.0f, want each 15 or more apart", hues)
		}
	}
	alice.click("summary")
	alice.waitFor(`document.querySelectorAll("details .line").length === 24`)
	s.do(t, "POST", "/users/late", "")
	alice.waitFor(`document.querySelector("details").innerText.includes("late joined")`)
	s.do(t, "POST", "/chat/bob", "hello")
	s.do(t, "DELETE", "/users/late", "")
	alice.waitForLastLine("late left")
	if n := eval[int](alice, `document.querySelectorAll("#lines > li").length`); n != 5 {
		t.Errorf("rows: got %d, want 5: bob, the mark, the crowd, his message, the departure", n)
	}
}

func testGrouping(t *testing.T, b browser) {
	s := start(t)
	alice := joinWith(t, b, s, "bob", "carol")
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
		getComputedStyle(row.querySelector("time")).opacity === "1" ?
			row.querySelector("time").textContent.match(/\d+.\d\d/)[0] : "",
		/2026|26/.test(row.querySelector("time")?.title),
	].join(" "))`)
	for i := range got {
		got[i] = strings.Replace(got[i], "02:", "14:", 1) // with AM and PM
	}
	want := []string{"0 named 14:05 true", "1   true", "2 named  true", "3 named  true",
		"4 named 14:06 true"}
	if !slices.Equal(got, want) {
		t.Errorf("text, name, visible time and full time of the messages: got %q, want %q", got, want)
	}
}

func testUnread(t *testing.T, b browser) {
	s := start(t)
	alice := joinWith(t, b, s, "bob")
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
	alice := joinWith(t, b, s, "bob")
	for i := range 100 {
		s.do(t, "POST", "/chat/bob", fmt.Sprint(i))
	}
	alice.waitFor(`document.querySelectorAll("#lines li").length === 103`) // with the earlier ones
	alice.waitFor(`document.getElementById("log").scrollTop === 0`)

	const topRow = `[...document.querySelectorAll("#lines li")].find((row) =>
		row.getBoundingClientRect().bottom > document.getElementById("log").getBoundingClientRect().top
	).textContent`
	alice.do(`document.getElementById("log").scrollTop = -600`)
	before := eval[string](alice, topRow)
	for i := range 600 {
		s.do(t, "POST", "/chat/bob", fmt.Sprint("more ", i))
	}
	alice.waitForText("newer", "600 new ↓")
	if got := eval[string](alice, topRow); got != before {
		t.Errorf("the first line in sight after 600 more messages: got %q, want %q", got, before)
	}

	alice.click("#newer")
	alice.waitForLastLine("bobmore 599")
	alice.waitFor(`document.getElementById("log").scrollTop === 0`)
	if got := eval[int](alice, `document.querySelectorAll("#lines li").length`); got != 500 {
		t.Errorf("lines on the page: got %d, want 500", got)
	}
}
