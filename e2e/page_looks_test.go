package e2e

// How large the page is, how it looks and is read aloud, and how it bears a crowd, in Chromium.

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
)

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
	if limit := 40_000; size >= limit {
		t.Errorf("the page with all that it loads: got %d bytes, want less than %d", size, limit)
	}
}

// With 5,000 users and 1,000 events a second, the page stays smooth. No other test runs meanwhile.
func TestPageBearsACrowd(t *testing.T) {
	b := startChromium(t)
	const users, callers, each = 5000, 4, 2500
	s := start(t)
	for i := range users {
		s.do(t, "POST", fmt.Sprintf("/users/user%04d", i), "")
	}
	alice := visit(t, b, s.url, "alice")
	alice.waitForText("count", "5,001")

	done := make(chan struct{})
	var calls sync.WaitGroup
	begin := time.Now()
	for caller := range callers {
		calls.Go(func() {
			for i := range each {
				due := begin.Add(time.Duration(i) * callers * time.Millisecond) // 1000 a second in all
				time.Sleep(time.Until(due))
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
	// What someone who does something waits for: that it is handled, and that the frame that shows
	// it is drawn.
	const probe = `new Promise((answered) => setTimeout(() => {
		const begin = performance.now();
		setTimeout(() => requestAnimationFrame(() =>
			setTimeout(() => answered(performance.now() - begin))));
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
	t.Logf("%d events in %v; the page answered %d times, within %.0f ms, at the worst %.0f ms; %s",
		callers*each, time.Since(begin), len(took), median, worst, shown)
	if median > 100 {
		t.Errorf("the page answered within %.0f ms (median), want at most 100 ms", median)
	}

	var list struct{ Users []string }
	answer := s.do(t, "GET", "/users", "", "Accept", "application/json").body
	if err := json.Unmarshal([]byte(answer), &list); err != nil {
		t.Fatal(err)
	}
	alice.waitForRows(alice.people, list.Users[:200])
	alice.waitForText("others", fmt.Sprintf("and %s more", thousands(len(list.Users)-200)))
	alice.write("#find", "R4998")
	alice.waitForRows(alice.people, []string{"user4998"})
	if got := eval[int](alice, `document.querySelectorAll("#lines li").length`); got != 500 {
		t.Errorf("lines on the page: got %d, want 500", got)
	}
	alice.expectNoComplaints()
}

func testAccessibility(t *testing.T, b browser) {
	s := start(t)
	nobody := visit(t, b, s.url, "")
	nobody.waitForAccessible("banner", "main", "heading Lobby", "textbox Your name", "button Join")

	alice := visit(t, b, s.url, "alice")
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

// testLooks writes pictures of the page for a person to look at, and looks for what a program can
// see. The picture in the README is made by cp screenshots/wide-light.png ../docs/page.png.
func testLooks(t *testing.T, b browser) {
	s := start(t)
	for _, name := range []string{"barbara", "donald", "edsger", "grace", "ken", "metronome",
		"radia", "josé", "שירה"} {
		s.do(t, "POST", "/users/"+name, "")
	}
	f := newFront(t, s)
	ada := visit(t, b, f.URL, "")
	ada.look("join-light", 1280, 720)

	// The page's clock is the test's, so that a minute takes a second or two.
	call(ada, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{
		Source: `window.seconds = 0;
			performance.now = () => 1000 * window.seconds;
			window.ahead = new Date(2026, 0, 31, 14, 5).getTime() - Date.now();
			const now = Date.now;
			Date.now = () => now() + window.ahead;`,
	})
	ada.must(ada.reload())
	ada.join("ada")
	ada.waitForState("live")
	for second := range 60 {
		busy := max(0, 24-4*abs(second-20)) + max(0, 12-2*abs(second-42))
		for range 4 + second*7%5 + busy {
			s.do(t, "POST", "/chat/metronome", "tick")
		}
		last := fmt.Sprint("second ", second)
		s.do(t, "POST", "/chat/metronome", last)
		ada.waitForLastLine("metronome" + last)
		ada.do(`window.seconds++`)
	}
	ada.do(`window.ahead += 60_000`) // so that the next line begins a minute
	f.waitForAsked(t, 2)             // to the page, it slept
	ada.waitForState("live")
	for _, line := range [][2]string{
		{"grace", "Did you see that? No reload, no polling: it just appears."},
		{"edsger", "One goroutine owns all state. Everyone else asks it, over a channel."},
		{"ada", "And if my connection breaks?"},
		{"edsger", "Your browser asks for what came after the last event that it saw."},
		{"edsger", "You miss nothing, and nothing comes twice."},
		{"שירה", "זה עובד גם מימין לשמאל!"},
		{"josé", "¡Qué rápido!"},
	} {
		s.do(t, "POST", "/chat/"+line[0], line[1])
	}
	s.do(t, "DELETE", "/users/donald", "")
	for _, name := range []string{"linus", "margaret", "tim"} {
		s.do(t, "POST", "/users/"+name, "")
	}
	s.do(t, "POST", "/chat/ada", "Then I'll go and pull the plug.")
	ada.waitForLastLine("adaThen I'll go and pull the plug.")
	ada.do(`window.seconds++`)
	ada.waitForText("rate", "12")
	ada.look("wide-light", 1280, 760)
	ada.look("wide-dark", 1280, 760)
	ada.look("huge-light", 3840, 2160)
	ada.look("narrow-dark", 390, 844)
	ada.look("short-light", 740, 360)
	if high := eval[int](ada, `document.getElementById("log").clientHeight`); high < 150 {
		t.Errorf("the conversation on a screen of 360 px: got %d px, want 150 or more", high)
	}

	long := strings.Repeat("LongName", 8)
	s.do(t, "POST", "/users/"+long, "")
	s.do(t, "POST", "/chat/"+long, strings.Repeat("longtext", 20))
	ada.waitForLastLine(long + strings.Repeat("longtext", 20))
	ada.look("narrow-light", 320, 640)

	s.kill()
	ada.waitForState("gone")
	for _, text := range []string{"Is anybody there?", "Hello?"} {
		ada.write("#text", text)
		ada.press(enter)
		ada.waitForError(text + "Perhaps not sent. The server can't be reached.")
	}
	ada.look("not_sent-dark", 1280, 720)
	ada.look("not_sent-light", 320, 640)
	start(t, "-addr", s.addr)
	ada.waitForState("live")
	ada.waitFor(`document.querySelector("#lines .gap") !== null`)
	ada.look("gap-light", 390, 844)
}

func testLooksOutside(t *testing.T, b browser) {
	s := start(t)
	for i := range 5 {
		visit(t, b, s.url, fmt.Sprint("user", i)).waitForState("live")
	}
	sixth := visit(t, b, s.url, "sixth")
	sixth.waitFor(`!document.getElementById("full").hidden`)
	sixth.look("six_tabs-light", 1280, 720)
	sixth.look("six_tabs-dark", 320, 640)

	call(sixth, emulation.SetScriptExecutionDisabled,
		emulation.SetScriptExecutionDisabledParams{Value: true})
	sixth.must(sixth.goTo(s.url))
	sixth.save("noscript-dark")
}

func abs(n int) int { return max(n, -n) }

// look writes a picture of the page, whose name ends with the colour scheme, and fails the test if
// something on it can't be read.
func (p *tab) look(name string, width, height int) {
	p.t.Helper()
	p.must(p.resize(width, height))
	_, scheme, _ := strings.Cut(name, "-")
	call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	if wide := eval[[]string](p, `[...document.querySelectorAll("html, #log, #log li")]
		.filter((part) => part.scrollWidth > part.clientWidth)
		.map((part) => part.textContent)`); len(wide) > 0 {
		p.t.Errorf("%s: wider than what it is shown in: %q", name, wide)
	}
	if pale := eval[[]string](p, tooPale); len(pale) > 0 {
		p.t.Errorf("%s: contrast less than 4.5: %q", name, pale)
	}
	p.save(name)
}

// tooPale are the texts in sight whose contrast with what is behind them is less than WCAG 2 asks
// for at level AA.
const tooPale = `(() => {
	const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
	const rgba = (colour) => {
		pixel.clearRect(0, 0, 1, 1);
		pixel.fillStyle = colour;
		pixel.fillRect(0, 0, 1, 1);
		return pixel.getImageData(0, 0, 1, 1).data;
	};
	const luminance = (colour) => {
		const [r, g, b] = [...colour].map((c) =>
			c > 10 ? ((c / 255 + 0.055) / 1.055) ** 2.4 : c / 255 / 12.92);
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
		.filter((element) => element.checkVisibility())
		.filter((element) => [...element.childNodes].some((node) =>
			node.nodeType === 3 && node.data.trim()))
		.filter((element) => contrast(element) < 4.5)
		.map((element) => element.localName + " " + element.textContent);
})()`
