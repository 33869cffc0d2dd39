package e2e

// What the tests of the page do with a tab, in whatever browser it is.

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// patience is how long the page may take for anything, on a machine that is busy with other
// things.
const patience = 30 * time.Second

// browser is a running browser with a profile of its own.
type browser interface {
	open(*testing.T) *tab // opens a tab in a window of its own; the test closes it
}

// everyBrowser are those whose engines differ.
var everyBrowser = []struct {
	name  string
	start func(*testing.T) browser
}{
	{"Chromium", startChromium},
	{"Firefox", startFirefox},
	{"WebKit", startWebKit},
}

// driver is how one tab of a browser is driven.
type driver interface {
	goTo(url string) error
	back() error
	reload() error
	run(script string) (string, error) // returns the text that a promise is fulfilled with
	keys(chords []string) error
	clickAt(x, y int) error
	resize(width, height int) error
	picture() ([]byte, error) // a PNG
	close()
}

// Keys that are no text, as WebDriver names them. A chord is keys that are pressed together.
const (
	tabulator = "\ue004"
	enter     = "\ue007"
	shift     = "\ue008"
	newLine   = shift + enter
)

// tab is a person's page.
type tab struct {
	t *testing.T
	driver
}

// newTab returns a tab, which the test closes.
func newTab(t *testing.T, d driver) *tab {
	t.Cleanup(d.close)
	return &tab{t, d}
}

// visit opens the page in a tab of its own, and joins unless the name is empty.
func visit(t *testing.T, b browser, url, name string) *tab {
	t.Helper()
	p := b.open(t)
	p.must(p.goTo(url))
	if name != "" {
		p.join(name)
	}
	return p
}

// join gives the name and presses Enter.
func (p *tab) join(name string) {
	p.t.Helper()
	p.write("#name", name)
	p.press(enter)
}

// must fails the test if the browser did not do what it was told.
func (p *tab) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// eval returns what the JavaScript expression is, once it is settled.
func eval[T any](p *tab, expression string) T {
	p.t.Helper()
	text, err := p.run(fmt.Sprintf(`(async () => JSON.stringify(await (%s)) ?? "null")()`, expression))
	if err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
	var value T
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		p.t.Fatalf("%s: %v: %s", expression, err, text)
	}
	return value
}

// do runs JavaScript, whatever comes of it.
func (p *tab) do(expression string) { p.t.Helper(); eval[any](p, "("+expression+", 0)") }

// press presses the keys of each chord together, one chord after another.
func (p *tab) press(chords ...string) { p.t.Helper(); p.must(p.keys(chords)) }

// write types text into what the selector names.
func (p *tab) write(selector, text string) {
	p.t.Helper()
	p.do(fmt.Sprintf(`document.querySelector(%q).focus()`, selector))
	p.press(strings.Split(text, "")...)
}

// fill puts text into what the selector names, as pasting does.
func (p *tab) fill(selector, text string) {
	p.t.Helper()
	p.do(fmt.Sprintf(`((box) => {
		box.focus();
		box.value = %q;
		box.dispatchEvent(new InputEvent("input", { bubbles: true }));
	})(document.querySelector(%q))`, text, selector))
}

// click clicks in the middle of what the selector names, once that is in sight.
func (p *tab) click(selector string) {
	p.t.Helper()
	p.waitFor(fmt.Sprintf(`document.querySelector(%q)?.getBoundingClientRect().width > 0`, selector))
	at := eval[[]float64](p, fmt.Sprintf(`(() => {
		const part = document.querySelector(%q);
		part.scrollIntoView({ block: "nearest" });
		const { x, y, width, height } = part.getBoundingClientRect();
		return [x + width / 2, y + height / 2];
	})()`, selector))
	p.must(p.clickAt(int(at[0]), int(at[1])))
}

// waitFor waits until the JavaScript condition is true.
func (p *tab) waitFor(condition string) {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	for !eval[bool](p, condition) {
		if time.Now().After(deadline) {
			p.t.Fatalf("not so within %v: %s; the page reads:\n%s",
				patience, condition, eval[string](p, `document.body.innerText`))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// waitForText waits until exactly that stands in the element with the id.
func (p *tab) waitForText(id, text string) {
	p.t.Helper()
	p.waitFor(fmt.Sprintf(`document.getElementById(%q).textContent === %q`, id, text))
}

// waitForLastLine waits until the last row of the conversation has exactly that text, without its
// time.
func (p *tab) waitForLastLine(text string) {
	p.t.Helper()
	p.waitFor(fmt.Sprintf(`[...document.getElementById("lines").lastChild?.childNodes ?? []]
		.filter((node) => node.localName !== "time")
		.map((node) => node.textContent).join("") === %q`, text))
}

// waitForEnd waits until the conversation ends with that text.
func (p *tab) waitForEnd(text string) {
	p.t.Helper()
	p.waitFor(fmt.Sprintf(
		`document.getElementById("lines").lastChild?.textContent.endsWith(%q)`, text))
}

// waitForError waits until the last of our messages stands as not sent, with that text and those
// words.
func (p *tab) waitForError(text string) {
	p.t.Helper()
	p.waitFor(fmt.Sprintf(
		`document.querySelector("#outbox li:last-child")?.textContent.startsWith(%q)`, text))
}

// waitForState waits until the connection is shown to be live, waiting, connecting, reconnecting
// or gone.
func (p *tab) waitForState(state string) {
	p.t.Helper()
	p.waitFor(fmt.Sprintf(`document.getElementById("state").dataset.state === %q`, state))
}

// waitForPeople waits until exactly those are listed.
func (p *tab) waitForPeople(names ...string) {
	p.t.Helper()
	p.waitForRows(p.people, names)
	p.waitForText("count", fmt.Sprint(len(names)))
}

// waitForLines waits until the conversation is exactly those lines, each its kind and its text.
func (p *tab) waitForLines(lines ...string) {
	p.t.Helper()
	p.waitForRows(p.lines, lines)
}

// lines returns the lines of the conversation without their times, each its kind and its text.
func (p *tab) lines() []string {
	p.t.Helper()
	const all = `[...document.querySelectorAll("#lines > .line, #lines > li > .line")]`
	return eval[[]string](p, all+`.map((line) =>
		line.classList[1] + " " + [...line.childNodes].filter((node) => node.localName !== "time")
			.map((node) => node.textContent.trim()).join(" "))`)
}

func (p *tab) people() []string {
	p.t.Helper()
	return eval[[]string](p,
		`[...document.querySelectorAll("#people li")].map((row) => row.textContent)`)
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

// save writes a picture of the page into e2e/screenshots, for a person to look at.
func (p *tab) save(name string) {
	p.t.Helper()
	picture, err := p.picture()
	p.must(err)
	p.must(os.MkdirAll("screenshots", 0o755))
	p.must(os.WriteFile(filepath.Join("screenshots", name+".png"), picture, 0o644))
}
