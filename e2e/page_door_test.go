package e2e

// Tests of the door, and of what survives a reload, a new tab or another name.

import (
	"fmt"
	"net/http"
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
	p.waitFor(`document.querySelector("#curl code").textContent !== ""`)
	p.waitFor(`document.getElementById("name").value === "ali"`)
	p.must(p.goTo(f.URL + "/users"))
	p.must(p.back())
	p.waitFor(`document.querySelector("#curl code")?.textContent.startsWith("curl")`)
	p.waitFor(`document.getElementById("name").value === "ali"`)
	if _, ok := b.(*firefox); ok { // Chromium forgets what was typed
		p.must(p.reload())
		p.waitFor(`document.querySelector("#curl code").textContent !== ""`)
		p.waitFor(`document.getElementById("name").value === "ali"`)
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
	say(t, s, "alice", "other") // as if it had been sent after all
	alice.waitForLastLine("aliceother")
	alice.waitFor(`document.querySelectorAll("#outbox li").length === 1`)

	// The focus stays on a button while another message changes.
	alice.do(`document.querySelector("#outbox button").focus()`)
	say(t, s, "alice", "more")
	alice.waitForLastLine("alicemore")
	alice.waitFor(`document.activeElement === document.querySelector("#outbox button")`)
	f.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost {
			http.Error(w, "No.", http.StatusBadRequest)
			return true
		}
		return false
	})
	alice.do(`(document.getElementById("text").value = "third",
		document.getElementById("send").dispatchEvent(new Event("submit", { cancelable: true })),
		document.querySelector("#outbox button").focus())`)
	alice.waitForError("thirdNot sent. No.")
	alice.waitFor(`document.activeElement === document.querySelector("#outbox button")`)
}

func testOtherName(t *testing.T, b browser) {
	s := start(t, "-grace", "9s") // the page marks who is leaving for at most 10 s
	p := joined(t, b, s.url, "alice")
	p.click("#leave")
	p.fill("#name", "John Smith")
	p.do(`document.getElementById("name").focus()`)
	p.press(enter)
	p.waitForText("name-error", "A name can't contain spaces or slashes. Join as John-Smith")
	p.click("#name-error button")
	p.waitForPeople("John-Smith", "alice")
	p.waitFor(`document.querySelector("#people .leaving")?.textContent === "alice"`)
	p.waitForPeople("John-Smith")
	s.do(t, "POST", "/users/alice", "")
	p.waitForPeople("John-Smith", "alice")
	if eval[bool](p, `document.querySelector("#people .leaving") !== null`) {
		t.Error("a user who has come back is marked as leaving")
	}
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
	mia.fill("#find", "nobody")
	mia.waitForText("others", "Nobody matches.")
	mia.fill("#find", "ZO")
	waitForValue(t, "people found", []string{"Zoe"}, mia.people)
	mia.waitForText("others", "")
}
