package e2e

// Tests of the door, and of what survives a reload, a new tab or another name.

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// The door is shown before the script has arrived, and a name that was begun stays.
func testSlowScript(t *testing.T, b browser) {
	if _, ok := b.(*webkit); ok {
		t.Skip("WebKit's driver waits until a page is complete")
	}
	f := newFront(t, start(t))
	arrive := make(chan struct{})
	f.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/lobby.js" {
			select {
			case <-arrive:
			case <-r.Context().Done():
			}
		}
		return false
	})
	p := b.open(t)
	loaded := make(chan error, 1)
	go func() { loaded <- p.goTo(f.URL) }()
	p.waitFor(`document.getElementById("name")?.checkVisibility()`)
	p.write("#name", "ali")
	close(arrive)
	p.must(<-loaded)
	const kept = `document.querySelector("#curl code")?.textContent !== "" &&
		document.getElementById("name")?.value === "ali"`
	p.waitFor(kept)
	p.must(p.goTo(f.URL + "/users"))
	p.must(p.back())
	p.waitFor(kept)
	if _, ok := b.(*firefox); ok { // Chromium forgets what was typed
		p.must(p.reload())
		p.waitFor(kept)
	}
}

func testRememberedName(t *testing.T, b browser) {
	s := start(t)
	joined(t, b, s.url, "alice")
	second := visit(t, b, s.url, "")
	second.waitFor(`document.getElementById("name").value === "alice"`)
	second.waitForText("name-note", "alice is already present. If you join, you share the name.")
	second.write("#name", "bob") // over the selected name
	second.waitForText("name-note", "")
	second.press(enter)
	second.waitForPeople("bob", "alice")
}

func testUnsent(t *testing.T, b browser) {
	s := start(t, "-grace", "1m")
	f := newFront(t, s)
	alice := joined(t, b, f.URL, "alice")
	say(t, s, "alice", "same")
	alice.waitForLastLine("alicesame")
	f.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost {
			panic(http.ErrAbortHandler)
		}
		return false
	})
	for _, text := range []string{"same", "other"} {
		alice.waitForState("live")
		alice.write("#text", text)
		alice.press(enter)
		alice.waitForError(text + "May not have been sent.")
	}
	alice.write("#text", "draft")
	f.intercept(nil)
	alice.must(alice.reload())
	alice.waitForState("live")
	alice.waitForError("otherMay not have been sent.")
	alice.waitFor(`document.querySelectorAll("#outbox li").length === 2`)
	alice.waitFor(`document.getElementById("text").value === "draft"`)

	// The focus stays on a button while another message changes.
	alice.do(`document.querySelector("#outbox button").focus()`)
	say(t, s, "alice", "other") // as if it had been sent after all
	alice.waitForLastLine("aliceother")
	alice.waitFor(`document.querySelectorAll("#outbox li").length === 1`)
	alice.waitFor(`document.activeElement === document.querySelector("#outbox button")`)
}

func testOtherName(t *testing.T, b browser) {
	s := start(t, "-grace", "1m")
	p := joined(t, b, s.url, "alice")
	p.do(`((wait) => { // so that the page does not remove the mark of who is leaving after 10 s
		window.setTimeout = (call, after) => after < 10_000 && wait(call, after);
	})(setTimeout)`)
	p.click("#leave")
	p.fill("#name", "John Smith")
	p.do(`document.getElementById("name").focus()`)
	p.press(enter)
	p.waitForText("name-error", "A name can't contain spaces or slashes. Join as John-Smith")
	p.click("#name-error button")
	p.waitForPeople("John-Smith", "alice")
	const leaving = `document.querySelector("#people .leaving")?.textContent`
	p.waitFor(leaving + ` === "alice"`)
	s.do(t, "DELETE", "/users/alice", "")
	p.waitForPeople("John-Smith")
	s.do(t, "POST", "/users/alice", "")
	p.waitForPeople("John-Smith", "alice")
	p.waitFor(leaving + ` === undefined`)
}

// A link to another name, followed in the room, does not take the user out of it.
func testNameInHash(t *testing.T, b browser) {
	s := start(t)
	alice := joined(t, b, s.url, "alice")
	alice.do(`(location.hash = "#name=bob")`)
	alice.waitFor(`history.state !== null`)
	alice.must(alice.reload())
	alice.waitForState("live")
	alice.waitForPeople("alice")
}

func testPeople(t *testing.T, b browser) {
	s := start(t)
	for _, name := range []string{"Zoe", "émile", "Carol", "bob", "zed"} {
		s.do(t, "POST", "/users/"+name, "")
	}
	mia := visit(t, b, s.url, "mia")
	mia.waitForPeople("mia", "bob", "Carol", "émile", "zed", "Zoe")
	for i := range 20 {
		s.do(t, "POST", fmt.Sprint("/users/user", i), "")
	}
	mia.waitForText("count", "26")
	hues := eval[[]float64](mia, `[...document.querySelectorAll("#people .name")]
		.filter((tag) => /^user[1-9]$/.test(tag.textContent))
		.map((tag) => Number(tag.style.getPropertyValue("--hue"))).sort((a, b) => a - b)`)
	for i := range hues[1:] {
		if hues[i+1]-hues[i] < 15 {
			t.Errorf("hues of similar names: got %.0f, want each 15 or more apart", hues)
		}
	}
	mia.fill("#find", "nobody")
	mia.waitForText("others", "Nobody matches.")
	mia.fill("#find", "ZO")
	waitForValue(t, "people found", []string{"Zoe"}, mia.people)
	mia.waitForText("others", "")
}

func TestPageDescribesItself(t *testing.T) {
	head, _, _ := strings.Cut(start(t).do(t, "GET", "/", "").body, "</head>")
	for _, part := range []string{
		`name="description"`, `property="og:title"`, `og:description"`, `name="color-scheme"`,
		`name="theme-color" media="(prefers-color-scheme: light)"`,
		`name="theme-color" media="(prefers-color-scheme: dark)"`,
	} {
		if !strings.Contains(head, part) {
			t.Errorf("the head of the page lacks %s", part)
		}
	}
}
