// Here belongs what the page gains from https, and that it works at any path.
package e2e

import (
	"fmt"
	"testing"
)

// Over HTTP/2 all tabs share one connection, so no tab has to wait for another to close.
func TestEightTabsSpeakOverHTTPS(t *testing.T) {
	t.Parallel()
	s := startSecure(t)
	b := startChromium(t)
	var tabs []*tab
	for n := range 8 {
		tabs = append(tabs, visit(t, b, s.url+"/", fmt.Sprint("user", n)))
	}
	for n, p := range tabs {
		text := fmt.Sprint("I am number ", n)
		p.write("#text", text)
		p.press(enter)
		for _, other := range tabs {
			other.waitFor(fmt.Sprintf(`document.querySelector("#lines").textContent.includes(%q)`, text))
		}
	}
}
