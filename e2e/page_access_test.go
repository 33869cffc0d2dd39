package e2e

// Tests of the page with a screen reader, large text, a high zoom and forced colors, on paper, and
// with axe.

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
)

// emulate sets the medium and one media feature, in Chromium.
func (p *tab) emulate(medium, feature, value string) {
	p.t.Helper()
	call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Media: medium,
		Features: []*emulation.MediaFeature{{Name: feature, Value: value}}})
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

// The user has set the browser's font to twice its size, on a phone.
func testLargeFont(t *testing.T, b browser) {
	s := start(t)
	p := b.open(t)
	call(p, page.SetFontSizes, page.SetFontSizesParams{FontSizes: &page.FontSizes{Standard: 32}})
	p.must(p.goTo(s.url))
	p.join("alice")
	p.waitForState("live")
	say(t, s, "alice", numbers(0, 20)...)
	p.waitForLastLine("aliceline 19")
	p.look("large_text-light", 360, 740)
	if high := eval[int](p, `document.getElementById("log").clientHeight`); high < 400 {
		t.Errorf("the conversation at 200 %%: got %d px, want 400 or more", high)
	}
}

func testPrinting(t *testing.T, b browser) {
	s := start(t)
	alice := joinWith(t, b, s, "bob")
	for range 60 {
		say(t, s, "bob", "hello")
		say(t, s, "alice", "hi")
	}
	alice.waitFor(`document.querySelectorAll("#lines .said").length === 120`)
	switch d := alice.driver.(type) {
	case *chromiumTab: // fails to print a page that does not exist
		call(alice, page.PrintToPDF, page.PrintToPDFParams{PageRanges: "5"})
	case *firefoxTab: // prints an empty page instead
		var fifth, none struct{ Data string }
		for number, data := range map[int]any{5: &fifth, 500: &none} {
			alice.must(d.b.command("browsingContext.print",
				fields{"context": d.context, "pageRanges": []int{number}}, data))
		}
		if len(fifth.Data) < 2*len(none.Data) {
			t.Error("the fifth page of 120 lines is empty")
		}
	default:
		t.Skip("WebKit's driver can't print")
	}
}

func testMedia(t *testing.T, b browser) {
	s := start(t)
	alice := joinWith(t, b, s, "bob")
	say(t, s, "bob", "hello")
	say(t, s, "alice", "hi")
	alice.waitForLastLine("alicehi")

	// Forced colors drop backgrounds: the dots are borders, and the user's own lines have one.
	alice.emulate("", "forced-colors", "active")
	for part, want := range map[string]string{
		`document.getElementById("state"), "::before"`:            "solid",
		`document.querySelector("#people li"), "::before"`:        "solid",
		`document.querySelector("#lines .mine .text")`:            "solid",
		`document.querySelector("#lines .said:not(.mine) .text")`: "none",
	} {
		if got := eval[string](alice, `getComputedStyle(`+part+`).borderTopStyle`); got != want {
			t.Errorf("the border of %s: got %q, want %q", part, got, want)
		}
	}
	alice.save("forced_colors")

	// Paper is black on white, without controls.
	alice.emulate("print", "prefers-color-scheme", "dark")
	shown := eval[[]string](alice, `[...document.querySelectorAll(
		"button, textarea, aside, #text-hint, #state")]
		.filter((part) => part.checkVisibility()).map((part) => part.id || part.localName)`)
	if len(shown) > 0 {
		t.Errorf("controls that are printed: %q", shown)
	}
	colors := eval[[]string](alice, `[...new Set([...document.querySelectorAll("#lines .line *")]
		.map((part) => getComputedStyle(part).color))]`)
	if !slices.Equal(colors, []string{"rgb(0, 0, 0)"}) {
		t.Errorf("colors that are printed: %q, want black", colors)
	}
	alice.save("print")
}

// axe looks for what makes a page hard to use, in each state of the page.
func testAxe(t *testing.T, b browser) {
	axe := readFile(t, filepath.Join(npmPackages(t), "node_modules/axe-core/axe.min.js"))
	check := func(p *tab, state string) {
		t.Helper()
		_, err := p.run(`(async () => { ` + axe + `; return ""; })()`)
		p.must(err)
		for _, scheme := range []string{"light", "dark"} {
			p.emulate("", "prefers-color-scheme", scheme)
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
	alice.look("not_sent-dark", 1280, 720)

	other := start(t)
	for i := range 5 {
		joined(t, b, other.url, fmt.Sprint("user", i))
	}
	sixth := visit(t, b, other.url, "sixth")
	sixth.waitFor(`!document.getElementById("full").hidden`)
	check(sixth, "full")
	sixth.look("six_tabs-light", 1280, 720)
	call(sixth, emulation.SetScriptExecutionDisabled,
		emulation.SetScriptExecutionDisabledParams{Value: true})
	sixth.must(sixth.goTo(other.url))
	sixth.look("noscript-dark", 320, 640)
}
