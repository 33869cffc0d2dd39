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
		{"a proxy buffers the stream", testHeldBack},
		{"over HTTP/2 seven tabs speak", testHTTP2},
		{"the page has a path prefix", testPrefix},
		{"the server is full for a while", testFull},
		{"a name is invalid", testName},
		{"a message is too long", testLongText},
		{"the response to a message is lost", testLostAnswer},
		{"the response to a message is late", testLateAnswer},
		{"text never becomes markup", testMarkup},
		{"a screen reader and a keyboard find everything", testAccessibility},
		{"a large font leaves room", testLargeFont},
		{"nothing vanishes on paper or in forced colors", testMedia},
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
	resumed := make(chan string, 10) // the Last-Event-ID of each request for a stream
	f.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if isStream(r) {
			resumed <- r.Header.Get("Last-Event-ID")
		}
		return false
	})
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
	first, second := <-resumed, <-resumed
	if first != "" || !strings.HasSuffix(second, "-1") || len(resumed) > 0 {
		t.Errorf("Last-Event-IDs: got %q, %q and %d more, want none, EPOCH-1 and no more",
			first, second, len(resumed))
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

// A buffering proxy holds back the head of a stream, or everything but the head.
func testHeldBack(t *testing.T, b browser) {
	for _, held := range []string{"head", "body"} {
		f := newFront(t, start(t))
		f.intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if !isStream(r) {
				return false
			}
			if held == "body" {
				w.Header().Set("Content-Type", "text/event-stream")
				http.NewResponseController(w).Flush()
			}
			<-r.Context().Done()
			return true
		})
		begin := time.Now()
		alice := visit(t, b, f.URL, "alice")
		alice.waitForText("notice-words", "The server responds, but its event stream does not arrive. "+
			"A proxy or antivirus may be buffering it.")
		if took := time.Since(begin); took < 5*time.Second {
			t.Errorf("the %s is held back: the page said so after %v, want 5 s", held, took)
		}
		alice.waitForState("connecting")
		f.intercept(nil)
		alice.click("#again")
		alice.waitForState("live")
		alice.waitFor(`document.getElementById("notice").hidden`)
	}
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
	alice := joined(t, b, start(t).url, "alice")
	alice.do(`((send) => {
		const arrival = new Promise((arrive) => (window.arrive = arrive));
		window.fetch = (...request) => send(...request).then((response) => arrival.then(() => response));
	})(fetch)`)
	alice.do(`(document.getElementById("text").value = "half \ud83d")`)
	alice.press(enter)
	alice.waitForLastLine("alicehalf \ufffd")
	alice.do(`arrive()`)
	alice.waitFor(`document.getElementById("outbox").childElementCount === 0`)
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
