package e2e

// Tests of how the page looks and is read aloud, and of how it copes with a crowd, in Chromium.

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/page"
)

func TestPictureOfThePageIsSmall(t *testing.T) {
	picture := readFile(t, "../docs/page.png")
	if limit := 150_000; len(picture) >= limit || !strings.HasPrefix(picture, "\x89PNG\r\n") {
		t.Errorf("docs/page.png: got %d bytes, want a PNG of less than %d", len(picture), limit)
	}
}

// The room has 5,000 users and 1,000 events per second. No other test runs meanwhile.
func TestPageStaysSmoothInACrowd(t *testing.T) {
	b := startChromium(t)
	s := start(t)
	for i := range 5000 {
		s.do(t, "POST", fmt.Sprintf("/users/user%04d", i), "")
	}
	alice := visit(t, b, s.url, "alice")
	alice.waitForText("count", "5,001")

	done := make(chan struct{})
	begin := time.Now()
	go func() {
		defer close(done)
		for i := range 10_000 {
			time.Sleep(time.Until(begin.Add(time.Duration(i) * time.Millisecond)))
			user := fmt.Sprintf("user%04d", i/20)
			switch i % 20 {
			case 0:
				s.do(t, "DELETE", "/users/"+user, "")
			case 10:
				s.do(t, "POST", "/users/"+user, "")
			default:
				s.do(t, "POST", "/chat/user4999", "hello")
			}
		}
	}()
	// The probe measures what a user waits for: an event is handled, and the next frame is drawn.
	const probe = `new Promise((responded) => setTimeout(() => {
		const begin = performance.now();
		setTimeout(() => requestAnimationFrame(() =>
			setTimeout(() => responded(performance.now() - begin))));
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
	t.Logf("10,000 events in %v; the page responded %d times: median %.0f ms, maximum %.0f ms",
		time.Since(begin), len(took), median, worst)
	if median > 100 {
		t.Errorf("the page responded within %.0f ms (median), want at most 100 ms", median)
	}

	first200 := []string{"alice"}
	for i := range 199 {
		first200 = append(first200, fmt.Sprintf("user%04d", i))
	}
	waitForValue(t, "people", first200, alice.people)
	alice.waitForText("others", "and 4,801 more")
	alice.write("#find", "R4998")
	waitForValue(t, "people found", []string{"user4998"}, alice.people)
	if got := eval[int](alice, `document.querySelectorAll("#lines li").length`); got != 500 {
		t.Errorf("lines on the page: got %d, want 500", got)
	}
	alice.expectNoComplaints()
}

func testAccessibility(t *testing.T, b browser) {
	s := start(t)
	visitor := visit(t, b, s.url, "")
	visitor.waitForAccessible("banner", "main", "heading Lobby", "textbox Your name", "button Join")

	alice := joined(t, b, s.url, "alice")
	alice.waitForAccessible(
		"banner", "main", "heading Lobby", "status", "button Leave",
		"region Conversation", "log Conversation",
		"form Send a message", "textbox Message", "button Send",
		"complementary 1 present", "heading 1 present", "group People present", "list", "listitem",
		"image Events per second over the last minute",
	)
	// The keyboard alone reaches every control, and the focus is visible.
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
		t.Errorf("controls that Tab reached with a visible focus: got %q, want %q", reached, want)
	}
}

// testLooks takes screenshots for a person to look at, and checks that nothing is cut off. To renew
// the picture in the README: cp screenshots/wide-light.png ../docs/page.png.
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
	ada.do(`window.ahead += 60_000`) // so that the next line starts a minute
	eventually(t, patience, "the page to reconnect, as after sleep", func() bool {
		all, _ := f.asked()
		return all == 2
	})
	ada.waitForState("live")
	for _, line := range [][2]string{
		{"grace", "Did you see that? No reload, no polling: it just appears."},
		{"edsger", "One goroutine owns all state. Everyone else asks it, over a channel."},
		{"ada", "And if my connection breaks?"},
		{"edsger", "Your browser asks for everything after the last event that it received."},
		{"edsger", "You miss nothing, and nothing arrives twice."},
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
}

func abs(n int) int { return max(n, -n) }

// look takes a screenshot, whose name ends with the color scheme, and fails the test if something
// is cut off.
func (p *tab) look(name string, width, height int) {
	p.t.Helper()
	p.must(p.resize(width, height))
	_, scheme, _ := strings.Cut(name, "-")
	p.emulate("", "prefers-color-scheme", scheme)
	if wide := eval[[]string](p, `[...document.querySelectorAll("html, #log, #log li")]
		.filter((part) => part.scrollWidth > part.clientWidth)
		.map((part) => part.textContent)`); len(wide) > 0 {
		p.t.Errorf("%s: wider than its container: %q", name, wide)
	}
	p.save(name)
}

// save writes a screenshot into e2e/screenshots.
func (p *tab) save(name string) {
	p.t.Helper()
	shot := call(p, page.CaptureScreenshot, page.CaptureScreenshotParams{})
	p.must(os.MkdirAll("screenshots", 0o755))
	p.must(os.WriteFile(filepath.Join("screenshots", name+".png"), []byte(shot.Data), 0o644))
}
