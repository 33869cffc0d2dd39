package e2e

// What the tests of the page do with a tab, in any browser.

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// patience is how long the page may take for anything, on a busy machine.
const patience = 30 * time.Second

// browser is a running browser with its own profile.
type browser interface {
	open(*testing.T) *tab // opens a tab in its own window, until the test ends
}

// everyBrowser lists one browser for each engine.
var everyBrowser = []struct {
	name  string
	start func(*testing.T) browser
}{
	{"Chromium", startChromium},
	{"Firefox", startFirefox},
	{"WebKit", startWebKit},
}

// driver controls one tab of a browser.
type driver interface {
	goTo(url string) error
	back() error
	reload() error
	run(script string) (string, error) // returns the string that a promise resolves to
	keys(chords []string) error
	clickAt(x, y int) error
	resize(width, height int) error
	close()
}

// Keys without text, as WebDriver names them. A chord is a string of keys pressed together.
const (
	tabulator = "\ue004"
	enter     = "\ue007"
	shift     = "\ue008"
	newLine   = shift + enter
)

// tab is a user's page.
type tab struct {
	t *testing.T
	driver
}

// newTab returns a tab, which is closed when the test ends.
func newTab(t *testing.T, d driver) *tab {
	t.Cleanup(d.close)
	return &tab{t, d}
}

// visit opens the page in a new tab, and joins unless the name is empty.
func visit(t *testing.T, b browser, url, name string) *tab {
	t.Helper()
	p := b.open(t)
	p.must(p.goTo(url))
	if name != "" {
		p.join(name)
	}
	return p
}

// joined opens the page in a new tab, joins, and waits for the stream.
func joined(t *testing.T, b browser, url, name string) *tab {
	t.Helper()
	p := visit(t, b, url, name)
	p.waitForState("live")
	return p
}

// join enters the name, in place of one that the page has remembered, and presses Enter.
func (p *tab) join(name string) {
	p.t.Helper()
	p.fill("#name", name)
	p.press(enter)
}

// must fails the test on an error of the browser.
func (p *tab) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// eval returns the value of a JavaScript expression, awaited if it is a promise.
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

// do evaluates JavaScript and ignores its value.
func (p *tab) do(expression string) { p.t.Helper(); eval[any](p, "("+expression+", 0)") }

// press presses the keys of each chord together, one chord after another.
func (p *tab) press(chords ...string) { p.t.Helper(); p.must(p.keys(chords)) }

// write types text into the element.
func (p *tab) write(selector, text string) {
	p.t.Helper()
	p.do(fmt.Sprintf(`document.querySelector(%q).focus()`, selector))
	p.press(strings.Split(text, "")...)
}

// fill puts text into the element, as pasting does.
func (p *tab) fill(selector, text string) {
	p.t.Helper()
	p.do(fmt.Sprintf(`((box) => {
		box.focus();
		box.value = %q;
		box.dispatchEvent(new InputEvent("input", { bubbles: true }));
	})(document.querySelector(%q))`, text, selector))
}

// click clicks in the middle of the element, once it is visible.
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
	waitForValue(p.t, condition, "true", func() string {
		const state = `(%s) ? "true" : "false; the page reads:\n" + document.body?.innerText`
		return eval[string](p, fmt.Sprintf(state, condition))
	})
}

// waitForText waits until the element with the id has exactly that text.
func (p *tab) waitForText(id, text string) {
	p.t.Helper()
	p.waitFor(fmt.Sprintf(`document.getElementById(%q).textContent === %q`, id, text))
}

// waitForLastLine waits until the last row of the conversation is exactly that text, without times.
func (p *tab) waitForLastLine(text string) {
	p.t.Helper()
	p.waitFor(fmt.Sprintf(`((row) => {
		row?.querySelectorAll("time").forEach((time) => time.remove());
		return row?.textContent === %q;
	})(document.getElementById("lines").lastChild?.cloneNode(true))`, text))
}

// waitForEnd waits until the conversation ends with that text.
func (p *tab) waitForEnd(text string) {
	p.t.Helper()
	p.waitFor(fmt.Sprintf(
		`document.getElementById("lines").lastChild?.textContent.endsWith(%q)`, text))
}

// waitForError waits until the user's last message is shown as not sent, with that text and error.
func (p *tab) waitForError(text string) {
	p.t.Helper()
	p.waitFor(fmt.Sprintf(
		`document.querySelector("#outbox li:last-child")?.textContent.startsWith(%q)`, text))
}

// waitForState waits until the page is waiting, connecting, live, reconnecting or gone.
func (p *tab) waitForState(state string) {
	p.t.Helper()
	p.waitFor(fmt.Sprintf(`document.getElementById("state").dataset.state === %q`, state))
}

// waitForPeople waits until the page lists exactly these users.
func (p *tab) waitForPeople(names ...string) {
	p.t.Helper()
	waitForValue(p.t, "people", names, p.people)
	p.waitForText("count", fmt.Sprint(len(names)))
}

// waitForLines waits until the conversation has exactly these lines, each a kind and a text.
func (p *tab) waitForLines(lines ...string) {
	p.t.Helper()
	waitForValue(p.t, "lines", lines, p.lines)
}

// lines returns the lines of the conversation without times, each a kind and a text.
func (p *tab) lines() []string {
	p.t.Helper()
	const all = `[...document.querySelectorAll("#lines > .line, #lines > li > .line")]`
	return eval[[]string](p, all+`.map((line) =>
		line.classList[1] + " " + [...line.childNodes].filter((node) => node.localName !== "time")
			.map((node) => node.textContent.trim()).filter(Boolean).join(" "))`)
}

func (p *tab) people() []string {
	p.t.Helper()
	return eval[[]string](p,
		`[...document.querySelectorAll("#people li")].map((row) => row.textContent)`)
}

// waitForValue waits until get returns want.
func waitForValue[T string | []string](t *testing.T, what string, want T, get func() T) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		got := get()
		if fmt.Sprintf("%q", got) == fmt.Sprintf("%q", want) { // nil and empty slices are equal
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s, after %v: got %q, want %q", what, patience, got, want)
		}
	}
}
