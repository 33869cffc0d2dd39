package web

// Tests of how the page's files are served, and of their size. Tests of what the page does belong
// in e2e/.

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestServe(t *testing.T) {
	for path, contentType := range map[string]string{
		"/":          "text/html; charset=utf-8",
		"/lobby.css": "text/css; charset=utf-8",
		"/lobby.js":  "text/javascript; charset=utf-8",
		"/icon.svg":  "image/svg+xml",
	} {
		w := httptest.NewRecorder()
		Serve(w, httptest.NewRequest("GET", path, nil))
		if w.Code != http.StatusOK || w.Body.Len() == 0 || !Has(path) {
			t.Errorf("GET %s: %d with %d bytes", path, w.Code, w.Body.Len())
		}
		for name, want := range map[string]string{
			"Content-Type":           contentType,
			"X-Content-Type-Options": "nosniff",
			"Cache-Control":          "no-cache",
			"Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; " +
				"frame-ancestors 'none'",
		} {
			if got := w.Header().Get(name); got != want {
				t.Errorf("GET %s: %s: %q, want %q", path, name, got, want)
			}
		}
		again := httptest.NewRequest("GET", path, nil)
		again.Header.Set("If-None-Match", w.Header().Get("ETag"))
		w = httptest.NewRecorder()
		if Serve(w, again); w.Code != http.StatusNotModified {
			t.Errorf("GET %s again: %d, want 304", path, w.Code)
		}
	}
	if n := len(Paths()); n != 4 || Has("/index.html") {
		t.Errorf("the page has %d paths, want the 4 above", n)
	}
}

func TestPageIsSmall(t *testing.T) {
	const maxBytes, maxCompressed = 44_000, 16_000
	size, compressed := 0, 0
	for _, file := range page {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		w.Write(file.content)
		w.Close()
		size, compressed = size+len(file.content), compressed+b.Len()
	}
	if size > maxBytes || compressed > maxCompressed {
		t.Errorf("the page has %d bytes, or %d compressed, want at most %d and %d",
			size, compressed, maxBytes, maxCompressed)
	}
	t.Logf("%d bytes, %d compressed", size, compressed)
}
