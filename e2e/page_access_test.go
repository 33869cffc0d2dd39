package e2e

// Tests of the page with a screen reader, large text and a high zoom, and with axe.

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
)

// setColorScheme makes Chromium prefer light or dark.
func (p *tab) setColorScheme(scheme string) {
	p.t.Helper()
	call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
}

func testAnnouncements(t *testing.T, b browser) {
	s := start(t)
	alice := joinWith(t, b, s, "bob", "carol")
	alice.do(`(window.heard = [], new MutationObserver(() =>
		window.heard.push(document.getElementById("announcement").textContent))
		.observe(document.getElementById("announcement"), { childList: true }))`)
	say(t, s, "bob", "hello")
	say(t, s, "carol", "hi")
	s.do(t, "POST", "/users/dave", "")
	alice.waitFor(`window.heard.join("\n").includes("bob: hello\ncarol: hi\ndave joined")`)
	say(t, s, "bob", numbers(0, 20)...)
	alice.waitFor(`window.heard.join("\n").includes("1 person spoke")`)
	const titled = `document.querySelectorAll("#lines .line[title], #lines li[title]").length`
	if n := eval[int](alice, titled); n > 0 {
		t.Errorf("%d lines are named by something other than their text", n)
	}
}

func testLargeText(t *testing.T, b browser) {
	s := start(t)
	s.do(t, "POST", "/users/bob", "")
	alice := b.open(t)
	alice.must(alice.goTo(s.url))
	width := func(id string) float64 {
		return eval[float64](alice, fmt.Sprintf(
			`document.getElementById(%q).getBoundingClientRect().width`, id))
	}
	alice.do(`document.documentElement.style.fontSize = "200%"`)
	alice.do(`document.body.style.maxWidth = "360px"`) // WebKit's windows can't be so narrow
	alice.must(alice.resize(360, 740))
	if got := width("name"); got < 200 {
		t.Errorf("the box for the name at 200 %%: got %v px, want 200 or more", got)
	}
	alice.join("alice")
	alice.waitForState("live")
	if got := width("text"); got < 200 {
		t.Errorf("the box for a message at 200 %%: got %v px, want 200 or more", got)
	}
	if _, ok := b.(*webkit); ok { // its windows can't be so low
		return
	}
	alice.do(`document.documentElement.style.fontSize = ""`)
	alice.must(alice.resize(320, 256)) // 1280 × 1024 at 400 %
	if high := eval[int](alice, `document.getElementById("log").clientHeight`); high < 150 {
		t.Errorf("the conversation at 400 %%: got %d px, want 150 or more", high)
	}
}

// axe looks for what makes a page hard to use, in each state of the page.
func testAxe(t *testing.T, b browser) {
	axe := readFile(t, filepath.Join(npmPackages(t), "node_modules/axe-core/axe.min.js"))
	check := func(p *tab, state string) {
		t.Helper()
		_, err := p.run(`(async () => { ` + axe + `; return ""; })()`)
		p.must(err)
		for _, scheme := range []string{"light", "dark"} {
			p.setColorScheme(scheme)
			if found := eval[[]string](p, `(async () => {
				const { violations } = await axe.run();
				return violations.flatMap(({ id, nodes }) => nodes.map(({ html }) => id + ": " + html));
			})()`); len(found) > 0 {
				t.Errorf("%s, %s: axe found\n%s", state, scheme, strings.Join(found, "\n"))
			}
		}
	}
	s := start(t)
	door := visit(t, b, s.url, "")
	check(door, "the door")
	door.fill("#name", "two words")
	door.click("#join button")
	check(door, "the door with an error")

	alice := joinWith(t, b, s, "bob")
	say(t, s, "bob", "hello alice", "see https://a.example/")
	say(t, s, "alice", "hi")
	alice.waitForLastLine("alicehi")
	check(alice, "the room")
	for i := range 30 {
		s.do(t, "POST", fmt.Sprint("/users/user", i), "")
	}
	alice.waitFor(`document.querySelector("summary")?.textContent === "30 people joined"`)
	alice.click("summary")
	alice.fill("#find", "nobody")
	check(alice, "a crowd")
	s.kill()
	alice.write("#text", "hello?")
	alice.press(enter)
	alice.waitForError("hello?")
	check(alice, "not sent")

	other := start(t)
	for i := range 5 {
		joined(t, b, other.url, fmt.Sprint("user", i))
	}
	sixth := visit(t, b, other.url, "sixth")
	sixth.waitFor(`!document.getElementById("full").hidden`)
	check(sixth, "full")
}
