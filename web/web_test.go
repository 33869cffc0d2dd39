package web

// What belongs here: how the page's files are served. What the page does is tested in e2e/.

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestServe(t *testing.T) {
	for _, path := range Paths() {
		w := httptest.NewRecorder()
		Serve(w, httptest.NewRequest("GET", path, nil))
		if w.Code != http.StatusOK || w.Body.Len() == 0 || !Has(path) {
			t.Errorf("GET %s: %d with %d bytes", path, w.Code, w.Body.Len())
		}
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache",
			"Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
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
	if Has("/index.html") {
		t.Error("the page has two paths")
	}
}

func TestPageIsSmall(t *testing.T) {
	const most = 40 << 10 // bytes
	size := 0
	for _, file := range page {
		size += len(file.content)
		if strings.HasPrefix(file.contentType, "text/") && !strings.HasSuffix(file.contentType, "; charset=utf-8") {
			t.Errorf("%q does not say its charset", file.contentType)
		}
	}
	if size > most {
		t.Errorf("the page is %d bytes, want at most %d", size, most)
	}
}
