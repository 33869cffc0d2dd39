package e2e

// Tests of the door, and of what survives a reload, a new tab or another name.

import (
	"fmt"
	"net/http"
	"testing"
)

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

	// The focus stays on a button while the conversation grows.
	alice.do(`document.querySelector("#outbox button").focus()`)
	say(t, s, "alice", "more")
	alice.waitForLastLine("alicemore")
	alice.waitFor(`document.activeElement === document.querySelector("#outbox button")`)
}

func testOtherName(t *testing.T, b browser) {
	s := start(t, "-grace", "100ms")
	p := joined(t, b, s.url, "alice")
	p.click("#leave")
	p.fill("#name", "John Smith")
	p.do(`document.getElementById("name").focus()`)
	p.press(enter)
	p.waitForText("name-error", "A name can't contain spaces or slashes. Join as John-Smith")
	p.click("#name-error button")
	p.waitForPeople("John-Smith")
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
