package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/fetch"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// patience is how long the page may take for anything, on a machine that is
// busy with other things.
const patience = 30 * time.Second

func TestPageIsSmallAndSelfContained(t *testing.T) {
	s := start(t)
	size := 0
	for path, contentType := range map[string]string{
		"/":          "text/html; charset=utf-8",
		"/lobby.css": "text/css; charset=utf-8",
		"/lobby.js":  "text/javascript; charset=utf-8",
		"/icon.svg":  "image/svg+xml",
	} {
		r := s.do(t, "GET", path, "")
		if got := r.header.Get("Content-Type"); r.status != 200 || got != contentType {
			t.Errorf("GET %s: got %d %q, want 200 %q", path, r.status, got, contentType)
		}
		if path == "/" {
			want := "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
			if got := r.header.Get("Content-Security-Policy"); got != want {
				t.Errorf("Content-Security-Policy: got %q, want %q", got, want)
			}
		}
		size += len(r.body)
	}
	picture, err := os.ReadFile("../docs/page.png")
	if err != nil {
		t.Fatal(err)
	}
	if limit := 150_000; len(picture) >= limit || !bytes.HasPrefix(picture, []byte("\x89PNG\r\n")) {
		t.Errorf("the picture of the page: got %d bytes, want a PNG of less than %d", len(picture), limit)
	}
	if limit := 30_000; size >= limit {
		t.Errorf("the page with all that it loads: got %d bytes, want less than %d", size, limit)
	}
}

func TestPage(t *testing.T) {
	b := startBrowser(t)

	t.Run("two people meet", b.testMeeting)
	t.Run("a reload makes no noise", b.testReload)
	t.Run("a stream that got nothing yet is cut", b.testCut)
	t.Run("the server restarts", b.testRestart)
	t.Run("someone comes while the list is on its way", b.testSlowList)
	t.Run("the list breaks off", b.testBrokenList)
	t.Run("the news of our arrival is late", b.testLateArrival)
	t.Run("the server is full for a while", b.testFull)
	t.Run("a name that is none", b.testName)
	t.Run("what can't be sent stays in the box", b.testSendingFails)
	t.Run("text is text", b.testMarkup)
	t.Run("a reader of what was said is left in peace", b.testReading)
	t.Run("5000 users and 1000 events a second", b.testCrowd)
	t.Run("accessibility tree", b.testAccessibility)
	t.Run("looks", b.testLooks)
}

func (b browser) testMeeting(t *testing.T) {
	s := start(t, "-grace", "100ms")
	alice := b.visit(t, s.url, "alice")
	alice.waitForPeople("alice")
	alice.waitForLines("came alice came in")

	bob := b.visit(t, s.url, "bob")
	bob.waitForPeople("alice", "bob")
	alice.waitForPeople("alice", "bob")

	bob.write("#text", "hello")
	if !eval[bool](bob, `document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", isComposing: true, bubbles: true, cancelable: true }))`) {
		t.Error("the page took an Enter that was meant for an input method")
	}
	bob.press(enter)
	alice.waitForLines("came alice came in", "came bob came in", "said bob hello")
	bob.waitForLines("came bob came in", "said bob hello")
	bob.waitFor(`document.getElementById("text").value === ""`)

	alice.write("#text", "one")
	alice.press(newLine)
	alice.write("#text", "two")
	alice.press(enter)
	bob.waitForLines("came bob came in", "said bob hello", "said alice one\ntwo")

	bob.click("#leave")
	alice.waitForPeople("alice")
	alice.waitForLines("came alice came in", "came bob came in", "said bob hello", "said alice one\ntwo", "left bob left")
	bob.waitFor(`document.activeElement.id === "name" && document.activeElement.value === "bob"`)
	const noNotice = `new Promise((tell) => setTimeout(() => tell(document.getElementById("notice").hidden), 3000))`
	if !eval[bool](bob, noNotice) { // nor at any of the page's ticks
		t.Error("bob, who has left, is told so")
	}

	s.do(t, "DELETE", "/users/alice", "")
	alice.waitFor(`document.getElementById("notice").innerText.includes("You are no longer in the chat.")`)
	alice.waitForPeople()
	alice.click("#again")
	alice.waitForPeople("alice")
	alice.waitFor(`document.getElementById("notice").hidden`)

	alice.expectNoComplaints()
	bob.expectNoComplaints()
}

func (b browser) testReload(t *testing.T) {
	t.Parallel() // most of it is waiting
	s := start(t)
	alice := b.visit(t, s.url, "alice")
	alice.waitForPeople("alice")
	bob := b.visit(t, s.url, "bob")
	bob.waitForLines("came bob came in")

	bob.do(chromedp.Reload())
	bob.waitForState("live")
	bob.waitForPeople("alice", "bob")

	// A stream that ends after the reload began: when its user has left, bob's
	// grace would be over, too.
	carol := s.subscribe(t, "/chat/carol")
	carol.body.Close()
	alice.waitForLines("came alice came in", "came bob came in", "came carol came in", "left carol left")
	alice.expectNoComplaints()
	bob.expectNoComplaints()
}

func (b browser) testCut(t *testing.T) {
	t.Parallel() // most of it is waiting
	s := start(t)
	s.do(t, "POST", "/users/alice", "") // so that her stream begins without an event
	w := newWire(t, s.addr)
	alice := b.visit(t, w.url, "alice")
	alice.waitForState("live")
	alice.waitForLines()

	w.cut()
	for _, text := range []string{"one", "two"} {
		s.do(t, "POST", "/chat/alice", text)
	}
	s.do(t, "POST", "/users/bob", "")
	alice.waitForState("live")
	alice.waitForLines("said alice one", "said alice two", "came bob came in")
	alice.waitForPeople("alice", "bob")
	if got := w.resumedFrom(); !strings.HasSuffix(got, "-1") {
		t.Errorf("Last-Event-ID of the stream after the cut: got %q, want that of the opening block, EPOCH-1", got)
	}

	alice.do(chromedp.Evaluate[chromedp.Void](`dispatchEvent(new Event("online"))`))
	alice.waitForState("live")
	s.do(t, "POST", "/chat/bob", "three")
	alice.waitForLines("said alice one", "said alice two", "came bob came in", "said bob three")
	if got := w.streams("alice"); got != 3 {
		t.Errorf("streams asked for by a page that was cut once and then changed its network: got %d, want 3", got)
	}
}

func (b browser) testRestart(t *testing.T) {
	t.Parallel() // most of it is waiting
	s := start(t)
	alice := b.visit(t, s.url, "alice")
	alice.waitForPeople("alice")
	s.do(t, "POST", "/users/bob", "")
	s.do(t, "POST", "/chat/bob", "before")
	const gap = "gap Something was missed here: the server could not tell us everything that happened."
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
		alice.waitFor(fmt.Sprintf(`document.getElementById("lines").lastChild.textContent === %q`, "carol"+text))
		lines = append(lines, gap, "came alice came in", "said carol "+text)
		got := slices.DeleteFunc(alice.lines(), func(line string) bool {
			return line == "came carol came in" // where she came after the page was back
		})
		if !slices.Equal(got, lines) {
			t.Errorf("lines after the page had been %s: got %q, want %q", state, got, lines)
		}
	}
}

func (b browser) testSlowList(t *testing.T) {
	t.Parallel() // most of it is waiting
	s := start(t, "-history", "2")
	w := newWire(t, s.addr)
	alice := b.visit(t, w.url, "alice")
	alice.waitForPeople("alice")

	lists := make(chan fetch.RequestID, 10)
	if err := chromedp.Listen(alice.ctx, func(event any) {
		if e, ok := event.(*fetch.EventRequestPaused); ok {
			lists <- e.RequestID
		}
	}); err != nil {
		t.Fatal(err)
	}
	call(alice, fetch.Enable, fetch.EnableParams{
		Patterns: []*fetch.RequestPattern{{URLPattern: "*/users", RequestStage: fetch.RequestStageResponse}},
	})
	w.cut()
	for _, name := range []string{"bob", "carol", "dave"} { // more than the history holds
		s.do(t, "POST", "/users/"+name, "")
	}
	var list fetch.RequestID
	select {
	case list = <-lists:
	case <-time.After(patience):
		t.Fatal("the page did not ask for the list after a gap")
	}
	s.do(t, "POST", "/users/erin", "")
	s.do(t, "DELETE", "/users/carol", "")
	alice.waitFor(`document.getElementById("lines").lastChild.textContent === "carol left"`)
	call(alice, fetch.ContinueRequest, fetch.ContinueRequestParams{RequestID: list})
	alice.waitForPeople("alice", "bob", "dave", "erin")
}

func (b browser) testBrokenList(t *testing.T) {
	t.Parallel() // most of it is waiting
	s := start(t)
	front := frontOf(t, s, "/users", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		io.WriteString(w, `{"users":["bob",`)
	})
	alice := b.visit(t, front, "alice")
	alice.waitForState("gone")
	alice.waitFor(`document.getElementById("notice-words").textContent === "The server can't be reached."`)
}

func (b browser) testLateArrival(t *testing.T) {
	t.Parallel() // most of it is waiting
	s := start(t)
	front := frontOf(t, s, "/chat/alice", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, "id: early-0\n\n")
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	alice := b.visit(t, front, "alice")
	alice.waitFor(`document.getElementById("notice-words").textContent === "You are no longer in the chat."`)
	const atFirstTick = `new Promise((tell) => {
		const [again, line, state, notice] = ["again", "line", "state", "notice"].map((id) => document.getElementById(id));
		again.click();
		new MutationObserver(() => state.dataset.state === "live" && tell(notice.hidden)).observe(line, { attributes: true });
	})`
	if !eval[bool](alice, atFirstTick) {
		t.Error("alice, who has just joined again, is told that she is no longer in the chat")
	}
	alice.waitFor(`!document.getElementById("notice").hidden`) // she still is not
}

func (b browser) testFull(t *testing.T) {
	t.Parallel() // most of it is waiting
	s := start(t, "-max-streams", "1", "-grace", "100ms")
	bob := s.subscribe(t, "/chat/bob")
	alice := b.visit(t, s.url, "alice")
	alice.waitForState("reconnecting")
	alice.waitFor(`/^Reconnecting in \d+ s$/.test(document.getElementById("state").textContent.trim())`)
	refusal := s.do(t, "GET", "/chat/carol", "").body
	alice.waitFor(fmt.Sprintf(`document.getElementById("notice-words").textContent === %q`, refusal))
	bob.body.Close()
	alice.waitForState("live")
	alice.waitFor(`document.getElementById("notice").hidden`)
	alice.waitForPeople("alice")
}

func (b browser) testName(t *testing.T) {
	s := start(t)
	nobody := b.visit(t, s.url, "")
	for _, name := range []string{"two words", "a/b", "..", strings.Repeat("x", 65), "invisible\u202e"} {
		nobody.do(chromedp.SetValue(chromedp.CSS("#name"), name))
		nobody.click("#join button")
		nobody.waitFor(`document.getElementById("name-error").textContent.startsWith("A name is 1 to 64")`)
		nobody.do(chromedp.Evaluate[chromedp.Void](`document.getElementById("name-error").textContent = ""`))
	}
	nobody.expectNoComplaints()
	if r := s.do(t, "GET", "/users", ""); r.body != "Connected users:\n" {
		t.Errorf("users: got %q, want nobody", r.body)
	}
}

func (b browser) testSendingFails(t *testing.T) {
	t.Parallel() // most of it is waiting
	s := start(t)
	alice := b.visit(t, s.url, "alice")
	alice.waitForState("live")
	long := strings.Repeat("x", 5000)
	alice.do(chromedp.SetValue(chromedp.CSS("#text"), long))
	alice.click("#send button")
	refusal := s.do(t, "POST", "/chat/alice", long).body
	alice.waitFor(fmt.Sprintf(`document.getElementById("send-error").textContent === %q`, "Not sent. "+refusal))
	alice.do(chromedp.SetValue(chromedp.CSS("#text"), "short"))
	s.kill()
	alice.click("#send button")
	alice.waitFor(`document.getElementById("send-error").textContent === "Not sent. The server can't be reached."`)
	alice.waitFor(`document.getElementById("text").value === "short"`)
	start(t, "-addr", s.addr)
	alice.waitForState("live")
	alice.click("#send button")
	alice.waitFor(`document.getElementById("text").value === "" && document.getElementById("send-error").textContent === ""`)

	alice.do(chromedp.SetValue(chromedp.CSS("#text"), long))
	alice.click("#send button")
	alice.waitFor(`document.getElementById("send-error").textContent !== ""`)
	alice.click("#leave")
	alice.waitFor(`document.getElementById("send-error").textContent === ""`)
}

func (b browser) testMarkup(t *testing.T) {
	s := start(t)
	const name, text = "<b>eve&amp;", `<img src=x onerror="document.title='hacked'"><script>document.title='hacked'</script>&lt;`
	s.do(t, "POST", "/users/%3Cb%3Eeve&amp;", "")
	alice := b.visit(t, s.url, "alice")
	alice.waitForPeople(name, "alice")
	s.do(t, "POST", "/chat/%3Cb%3Eeve&amp;", text)
	alice.waitForLines("came alice came in", "said "+name+" "+text)
	got := eval[[]string](alice, `[...new Set([...document.querySelectorAll("#lines *, #people *")].map((e) => e.localName))].sort()`)
	if want := []string{"bdi", "li", "p"}; !slices.Equal(got, want) {
		t.Errorf("elements in what was said and in the list: got %q, want %q", got, want)
	}
	alice.expectNoComplaints()
}

func (b browser) testReading(t *testing.T) {
	s := start(t)
	s.do(t, "POST", "/users/bob", "")
	alice := b.visit(t, s.url, "alice")
	alice.waitForState("live")
	for i := range 100 {
		s.do(t, "POST", "/chat/bob", fmt.Sprint(i))
	}
	alice.waitFor(`document.querySelectorAll("#lines li").length === 101 && document.getElementById("log").scrollTop === 0`)

	const topRow = `[...document.querySelectorAll("#lines li")].find((row) => row.getBoundingClientRect().bottom > document.getElementById("log").getBoundingClientRect().top).textContent`
	alice.do(chromedp.Evaluate[chromedp.Void](`document.getElementById("log").scrollTop = -600`))
	before := eval[string](alice, topRow)
	for i := range 600 {
		s.do(t, "POST", "/chat/bob", fmt.Sprint("more ", i))
	}
	alice.waitFor(`document.getElementById("newer").innerText === "500+ new ↓"`)
	if got := eval[string](alice, topRow); got != before {
		t.Errorf("the first line in sight after 600 more were said: got %q, want %q", got, before)
	}

	alice.click("#newer")
	alice.waitFor(`document.getElementById("lines").lastChild.textContent === "bobmore 599" && document.getElementById("log").scrollTop === 0`)
	if got := eval[int](alice, `document.querySelectorAll("#lines li").length`); got != 500 {
		t.Errorf("lines on the page: got %d, want 500", got)
	}
}

func (b browser) testCrowd(t *testing.T) {
	const users, callers, each = 5000, 4, 2500
	s := start(t)
	for i := range users {
		s.do(t, "POST", fmt.Sprintf("/users/user%04d", i), "")
	}
	alice := b.visit(t, s.url, "alice")
	alice.waitFor(`document.getElementById("count").textContent === "5,001"`)

	done := make(chan struct{})
	var calls sync.WaitGroup
	begin := time.Now()
	for caller := range callers {
		calls.Go(func() {
			for i := range each {
				time.Sleep(time.Until(begin.Add(time.Duration(i) * callers * time.Millisecond))) // 1000 a second in all
				user := fmt.Sprintf("user%04d", caller*users/callers+i/20)
				switch i % 20 {
				case 0:
					s.do(t, "DELETE", "/users/"+user, "")
				case 10:
					s.do(t, "POST", "/users/"+user, "")
				default:
					s.do(t, "POST", fmt.Sprintf("/chat/user%04d", users-1), "hello")
				}
			}
		})
	}
	go func() {
		calls.Wait()
		close(done)
	}()
	// What someone who does something waits for: that it is handled, and that the
	// frame that shows it is drawn.
	const probe = `new Promise((answered) => setTimeout(() => {
		const begin = performance.now();
		setTimeout(() => requestAnimationFrame(() => setTimeout(() => answered(performance.now() - begin))));
	}, 50))`
	var took []float64
	for loaded := true; loaded; {
		took = append(took, eval[float64](alice, probe))
		select {
		case <-done:
			loaded = false
		default:
		}
	}
	slices.Sort(took)
	median, worst := took[len(took)/2], took[len(took)-1]
	shown := eval[string](alice, `document.getElementById("peak").textContent`)
	t.Logf("%d events in %v; the page answered within %.0f ms, at the worst %.0f ms, of %d times; %s",
		callers*each, time.Since(begin), median, worst, len(took), shown)
	if median > 100 {
		t.Errorf("the page answered within %.0f ms (median), want at most 100 ms", median)
	}

	var list struct{ Users []string }
	if err := json.Unmarshal([]byte(s.do(t, "GET", "/users", "", "Accept", "application/json").body), &list); err != nil {
		t.Fatal(err)
	}
	alice.waitForRows(alice.people, list.Users[:200])
	alice.waitFor(fmt.Sprintf(`document.getElementById("others").textContent === "and %s more"`, thousands(len(list.Users)-200)))
	alice.write("#find", "R4998")
	alice.waitForRows(alice.people, []string{"user4998"})
	if got := eval[int](alice, `document.querySelectorAll("#lines li").length`); got != 500 {
		t.Errorf("lines on the page: got %d, want 500", got)
	}
	alice.expectNoComplaints()
}

func (b browser) testAccessibility(t *testing.T) {
	s := start(t)
	nobody := b.visit(t, s.url, "")
	nobody.waitForAccessible("banner", "main", "heading Lobby", "textbox Your name", "button Join")

	alice := b.visit(t, s.url, "alice")
	alice.waitForState("live")
	alice.waitForAccessible(
		"banner", "main", "heading Lobby", "status", "button Leave",
		"region Conversation", "log Conversation", "form Speak", "textbox Message", "button Send",
		"complementary 1 here", "heading 1 here", "group Who is here", "list", "listitem",
		"image Events per second over the last minute",
	)
	// With the keyboard alone, every control can be reached, and shows that it was.
	want := []string{"leave", "log", "text", "send", "people-box"}
	slices.Sort(want)
	var reached []string
	for range 8 {
		alice.press(tabulator)
		reached = append(reached, eval[string](alice, `(() => {
			const here = document.activeElement;
			return getComputedStyle(here).outlineStyle === "solid" ? here.id || here.parentNode.id : "";
		})()`))
	}
	slices.Sort(reached)
	reached = slices.DeleteFunc(slices.Compact(reached), func(id string) bool { return id == "" })
	if !slices.Equal(reached, want) {
		t.Errorf("controls that the tabulator reached and showed: got %q, want %q", reached, want)
	}
}

// thousands writes n, of four digits, as the page does.
func thousands(n int) string { return fmt.Sprintf("%d,%03d", n/1000, n%1000) }

// testLooks writes pictures of the page for a person to look at, and looks for
// what a program can see. The picture near the top of the README is made by
// cp screenshots/wide-light.png ../docs/page.png.
func (b browser) testLooks(t *testing.T) {
	t.Parallel() // most of it is waiting
	s := start(t)
	for _, name := range []string{"barbara", "donald", "edsger", "grace", "ken", "metronome", "radia", "josé", "שירה"} {
		s.do(t, "POST", "/users/"+name, "")
	}
	ada := b.visit(t, s.url, "")
	ada.look("join-light", 1280, 720)

	// The page's clock is the test's, so that a minute takes a second or two.
	call(ada, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{
		Source: `window.seconds = 0; performance.now = () => 1000 * window.seconds;`,
	})
	ada.do(chromedp.Reload())
	ada.write("#name", "ada")
	ada.press(enter)
	ada.waitForState("live")
	for second := range 60 {
		for range 4 + second*7%5 + max(0, 24-4*abs(second-20)) + max(0, 12-2*abs(second-42)) {
			s.do(t, "POST", "/chat/metronome", "tick")
		}
		last := fmt.Sprint("second ", second)
		s.do(t, "POST", "/chat/metronome", last)
		ada.waitFor(fmt.Sprintf(`document.getElementById("lines").lastChild?.lastChild.textContent === %q`, last))
		ada.do(chromedp.Evaluate[chromedp.Void](`window.seconds++`))
	}
	for _, line := range [][2]string{
		{"grace", "Did you see that? No reload, no polling: it just appears."},
		{"edsger", "One goroutine owns all state. Everyone else asks it, over a channel."},
		{"ada", "And if my connection breaks?"},
		{"edsger", "Your browser asks for what came after the last event that it saw.\nYou miss nothing, and nothing comes twice."},
		{"שירה", "זה עובד גם מימין לשמאל!"},
		{"josé", "¡Qué rápido!"},
		{"ada", "Then I'll go and pull the plug."},
	} {
		s.do(t, "POST", "/chat/"+line[0], line[1])
	}
	s.do(t, "DELETE", "/users/donald", "")
	s.do(t, "POST", "/users/linus", "")
	ada.waitFor(`document.getElementById("lines").lastChild.textContent === "linus came in"`)
	ada.do(chromedp.Evaluate[chromedp.Void](`window.seconds++`))
	ada.waitFor(`document.getElementById("rate").textContent === "9"`)
	ada.look("wide-light", 1280, 760)
	ada.look("wide-dark", 1280, 760)
	ada.look("huge-light", 3840, 2160)
	ada.look("narrow-dark", 390, 844)

	long := strings.Repeat("LongName", 8)
	s.do(t, "POST", "/users/"+long, "")
	s.do(t, "POST", "/chat/"+long, strings.Repeat("longtext", 20))
	ada.waitFor(`document.getElementById("lines").lastChild.textContent.endsWith("longtext")`)
	ada.look("narrow-light", 320, 640)

	s.kill()
	ada.waitForState("gone")
	ada.look("gone-dark", 1280, 720)
	ada.look("gone-light", 320, 640)
	start(t, "-addr", s.addr)
	ada.waitForState("live")
	ada.waitFor(`document.querySelector("#lines .gap") !== null`)
	ada.look("gap-light", 390, 844)
}

func abs(n int) int { return max(n, -n) }

// look writes a picture of the page, whose name ends with the colour scheme, and
// fails the test where something on it can't be read.
func (p *tab) look(name string, width, height int64) {
	p.t.Helper()
	p.do(chromedp.EmulateViewport(width, height))
	_, scheme, _ := strings.Cut(name, "-")
	call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	if wide := eval[[]string](p, `[...document.querySelectorAll("html, #log, #lines li")]
		.filter((part) => part.scrollWidth > part.clientWidth).map((part) => part.textContent)`); len(wide) > 0 {
		p.t.Errorf("%s: wider than what it is shown in: %q", name, wide)
	}
	if pale := eval[[]string](p, tooPale); len(pale) > 0 {
		p.t.Errorf("%s: contrast less than 4.5: %q", name, pale)
	}
	picture, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Fatal(err)
	}
	if err := os.MkdirAll("screenshots", 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("screenshots", name+".png"), picture, 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// tooPale are the texts in sight whose contrast with what is behind them is
// less than WCAG 2 asks for at level AA.
const tooPale = `(() => {
	const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
	const rgba = (colour) => {
		pixel.clearRect(0, 0, 1, 1);
		pixel.fillStyle = colour;
		pixel.fillRect(0, 0, 1, 1);
		return pixel.getImageData(0, 0, 1, 1).data;
	};
	const luminance = (colour) => {
		const [r, g, b] = [...colour].map((c) => (c > 10 ? ((c / 255 + 0.055) / 1.055) ** 2.4 : c / 255 / 12.92));
		return 0.2126 * r + 0.7152 * g + 0.0722 * b;
	};
	const behind = (element) => {
		const colour = rgba(getComputedStyle(element).backgroundColor);
		return colour[3] === 255 ? colour : behind(element.parentElement);
	};
	const contrast = (element) => {
		const [a, b] = [rgba(getComputedStyle(element).color), behind(element)].map(luminance);
		return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
	};
	return [...document.querySelectorAll("body *")]
		.filter((element) => element.checkVisibility() && [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
		.filter((element) => contrast(element) < 4.5)
		.map((element) => element.localName + " " + element.textContent);
})()`

// browser is a Chromium whose tabs share nothing: each is another person's.
type browser struct{ ctx context.Context }

// startBrowser starts the one browser of a test, which ends it.
func startBrowser(t *testing.T) browser {
	t.Helper()
	program := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			program = path
			break
		}
	}
	if program == "" {
		missing(t, "chromium is not installed")
	}
	ctx, stop := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(program),
		chromedp.UserDataDir(t.TempDir()),
		chromedp.NoSandbox, // which root can't have
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
	)...)
	t.Cleanup(stop)
	ctx, _ = chromedp.NewContext(ctx)
	t.Cleanup(func() { chromedp.Cancel(ctx) })
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("starting %s: %v", program, err)
	}
	return browser{ctx}
}

// tab is a person's page.
type tab struct {
	t          *testing.T
	ctx        context.Context
	mu         sync.Mutex
	complaints []string // of the browser: errors on the console, requests that failed
}

// frontOf returns the URL of a server that answers at path as told, and hands on
// all else to s.
func frontOf(t *testing.T, s *server, path string, answer http.HandlerFunc) string {
	t.Helper()
	target, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc(path, answer)
	mux.Handle("/", httputil.NewSingleHostReverseProxy(target))
	front := httptest.NewServer(mux)
	t.Cleanup(func() {
		front.CloseClientConnections()
		front.Close()
	})
	return front.URL
}

// visit opens the page in a tab of a person's own, and joins unless the name is
// empty. The test closes it.
func (b browser) visit(t *testing.T, url, name string) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	p := &tab{t: t, ctx: ctx}
	if err := chromedp.Listen(ctx, p.hear); err != nil {
		t.Fatal(err)
	}
	p.do(chromedp.Navigate(url))
	if name != "" {
		p.write("#name", name)
		p.press(enter)
	}
	return p
}

func (p *tab) hear(event any) {
	complaint := ""
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		complaint = "exception: " + e.ExceptionDetails.Text
	case *runtime.EventConsoleAPICalled:
		complaint = "console: " + string(e.Type)
	case *log.EventEntryAdded:
		complaint = "log: " + e.Entry.Text + " " + e.Entry.URL
	case *network.EventLoadingFailed:
		if !e.Canceled {
			complaint = "request failed: " + e.ErrorText
		}
	case *network.EventResponseReceived:
		if e.Response.Status >= 400 {
			complaint = fmt.Sprintf("%s: status %d", e.Response.URL, e.Response.Status)
		}
	}
	if complaint != "" {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.complaints = append(p.complaints, complaint)
	}
}

// expectNoComplaints fails the test where the browser had something to say.
func (p *tab) expectNoComplaints() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.complaints) > 0 {
		p.t.Errorf("the browser complained: %q", p.complaints)
	}
}

func (p *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		p.t.Fatal(err)
	}
}

// key is one of a keyboard.
type key struct {
	name, text string
	code       int64
	modifiers  chromedp.Modifier
}

var (
	tabulator = key{name: "Tab", code: 9}
	enter     = key{name: "Enter", text: "\r", code: 13}
	newLine   = key{name: "Enter", text: "\r", code: 13, modifiers: chromedp.ModifierShift}
)

// press presses a key as a keyboard does: the text comes of itself unless the
// page prevents that (which chromedp.KeyEvent does not heed).
func (p *tab) press(k key) {
	p.t.Helper()
	down := input.DispatchKeyEventParams{
		Type: input.DispatchKeyEventTypeKeyDown, Key: k.name, Code: k.name, Text: k.text,
		WindowsVirtualKeyCode: k.code, Modifiers: int64(k.modifiers),
	}
	up := down
	up.Type, up.Text = input.DispatchKeyEventTypeKeyUp, ""
	call(p, input.DispatchKeyEvent, down)
	call(p, input.DispatchKeyEvent, up)
}

// call has the browser do something that chromedp has no action for.
func call[P, R any](p *tab, command cdp.Command[P, R], params P) R {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	result, err := chromedp.Call(ctx, command, params)
	if err != nil {
		p.t.Fatal(err)
	}
	return result
}

func (p *tab) write(selector, text string) {
	p.t.Helper()
	p.do(chromedp.SendKeys(chromedp.CSS(selector), text))
}

func (p *tab) click(selector string) {
	p.t.Helper()
	p.do(chromedp.Click(chromedp.CSS(selector), chromedp.NodeVisible))
}

// eval returns what the JavaScript expression is, once it is settled.
func eval[T any](p *tab, expression string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
	return value
}

// waitFor waits until the JavaScript condition is true.
func (p *tab) waitFor(condition string) {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	for !eval[bool](p, condition) {
		if time.Now().After(deadline) {
			p.t.Fatalf("not so within %v: %s; the page reads:\n%s", patience, condition, eval[string](p, `document.body.innerText`))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// waitForState waits until the connection is shown to be live, connecting,
// reconnecting or gone.
func (p *tab) waitForState(state string) {
	p.t.Helper()
	p.waitFor(fmt.Sprintf(`document.getElementById("state").dataset.state === %q`, state))
}

// waitForPeople waits until exactly those are listed.
func (p *tab) waitForPeople(names ...string) {
	p.t.Helper()
	p.waitForRows(p.people, names)
	p.waitFor(fmt.Sprintf(`document.getElementById("count").textContent === "%d"`, len(names)))
}

// waitForLines waits until the conversation is exactly those lines, each its
// kind and its text.
func (p *tab) waitForLines(lines ...string) {
	p.t.Helper()
	p.waitForRows(p.lines, lines)
}

func (p *tab) lines() []string {
	p.t.Helper()
	return eval[[]string](p, `[...document.querySelectorAll("#lines li")].map((row) =>
		row.classList[0] + " " + [...row.childNodes].map((node) => node.textContent.trim()).join(" "))`)
}

func (p *tab) people() []string {
	p.t.Helper()
	return eval[[]string](p, `[...document.querySelectorAll("#people li")].map((row) => row.textContent)`)
}

func (p *tab) waitForRows(rows func() []string, want []string) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		got := rows()
		if slices.Equal(got, want) {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("after %v: got %q, want %q", patience, got, want)
		}
	}
}

// waitForAccessible waits until the accessibility tree has nodes with each of
// those roles and names.
func (p *tab) waitForAccessible(want ...string) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		var got []string
		for _, node := range call(p, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{}).Nodes {
			if node.Ignored || node.Role == nil || node.Name == nil {
				continue
			}
			var role, name string
			if err := errors.Join(json.Unmarshal(node.Role.Value, &role), json.Unmarshal(node.Name.Value, &name)); err != nil {
				p.t.Fatal(err)
			}
			got = append(got, strings.TrimSpace(role+" "+name))
		}
		missing := slices.DeleteFunc(slices.Clone(want), func(node string) bool { return slices.Contains(got, node) })
		if len(missing) == 0 {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("the accessibility tree lacks %q; it has %q", missing, got)
		}
	}
}

// wire stands between a page and the server, and can be cut.
type wire struct {
	url string

	mu    sync.Mutex
	conns []net.Conn
	heads strings.Builder // all that the page sent
}

// newWire lays a wire to the server at addr. The test takes it away.
func newWire(t *testing.T, addr string) *wire {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{url: "http://" + listener.Addr().String()}
	t.Cleanup(func() { listener.Close(); w.cut() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", addr)
			if err != nil {
				conn.Close()
				continue
			}
			w.mu.Lock()
			w.conns = append(w.conns, conn, up)
			w.mu.Unlock()
			go func() { io.Copy(io.MultiWriter(up, w), conn); up.Close() }()
			go func() { io.Copy(conn, up); conn.Close() }()
		}
	}()
	return w
}

// Write takes note of what the page sent.
func (w *wire) Write(data []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.heads.Write(data)
}

// cut ends all connections that there are. New ones get through.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, conn := range w.conns {
		conn.Close()
	}
	w.conns = nil
}

// streams returns how often the page asked for the user's stream.
func (w *wire) streams(user string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Count(w.heads.String(), "GET /chat/"+user+"?")
}

// resumedFrom returns the last header Last-Event-ID that the page sent.
func (w *wire) resumedFrom() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	heads := w.heads.String()
	const header = "\r\nLast-Event-ID: "
	at := strings.LastIndex(heads, header)
	if at < 0 {
		return ""
	}
	id, _, _ := strings.Cut(heads[at+len(header):], "\r\n")
	return id
}
