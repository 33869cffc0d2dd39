// Here belongs what the page gains from https, and that it works at any path.
package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
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

func TestPageWorksUnderAPathPrefix(t *testing.T) {
	t.Parallel()
	s := start(t)
	target, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host
	}}
	mux := http.NewServeMux()
	mux.Handle("/some/lobby/", http.StripPrefix("/some/lobby", proxy))
	front := httptest.NewServer(mux)
	defer front.Close()
	defer front.CloseClientConnections()
	p := visit(t, startChromium(t), front.URL+"/some/lobby/", "alice")
	p.waitForState("live")
	p.write("#text", "hello")
	p.press(enter)
	p.waitFor(`document.querySelector("#lines").textContent.includes("hello")`)
	if got := eval[string](p, `document.querySelector("#curl code").textContent`); got !=
		"curl -N "+front.URL+"/some/lobby/chat" {
		t.Errorf("the page shows %q", got)
	}
}
