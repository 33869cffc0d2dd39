package web

// Tests of how the page's files are served, and of their size. What the page does is tested in
// e2e/.

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
)

// serve returns the response to a request with one header, which may be empty.
func serve(method, path, name, value string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	if name != "" {
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	Serve(w, r)
	return w
}

func TestFilesAreServedWithTheirHeaders(t *testing.T) {
	for path, file := range page {
		get := serve("GET", path, "", "")
		if get.Code != http.StatusOK || !bytes.Equal(get.Body.Bytes(), file.content) || !Has(path) {
			t.Errorf("GET %s: %d with %d bytes", path, get.Code, get.Body.Len())
		}
		head := serve("HEAD", path, "", "")
		if head.Code != http.StatusOK || head.Body.Len() > 0 {
			t.Errorf("HEAD %s: %d with %d bytes", path, head.Code, head.Body.Len())
		}
		for name, want := range map[string]string{
			"Content-Type":                 file.contentType,
			"Content-Length":               strconv.Itoa(len(file.content)),
			"X-Content-Type-Options":       "nosniff",
			"Cache-Control":                "no-cache",
			"Content-Security-Policy":      policy,
			"Cross-Origin-Resource-Policy": "same-origin",
		} {
			if got := get.Header().Get(name); got != want || head.Header().Get(name) != want {
				t.Errorf("GET %s: %s: %q, want %q, as in HEAD", path, name, got, want)
			}
		}
	}
	if Has("/index.html") {
		t.Error("the page has two paths")
	}
}

func TestUnchangedFilesAreNotSentAgain(t *testing.T) {
	etag := serve("GET", "/", "", "").Header().Get("ETag")
	for _, match := range []string{
		etag, "W/" + etag, `"other", ` + etag, `W/"other",W/` + etag + `,"third"`, "*",
	} {
		w := serve("GET", "/", "If-None-Match", match)
		got := w.Header().Get("ETag")
		if w.Code != http.StatusNotModified || w.Body.Len() > 0 || got != etag {
			t.Errorf("If-None-Match: %s: %d with %d bytes, ETag %s", match, w.Code, w.Body.Len(), got)
		}
	}
	other := serve("GET", "/lobby.js", "", "").Header().Get("ETag")
	for _, match := range []string{other, strings.Trim(etag, `"`), `""`, ""} {
		if w := serve("GET", "/", "If-None-Match", match); w.Code != http.StatusOK {
			t.Errorf("If-None-Match: %s: %d, want 200", match, w.Code)
		}
	}
}

func TestRangesAreIgnored(t *testing.T) {
	const path = "/lobby.js"
	plain := serve("GET", path, "", "")
	many := "bytes=" + strings.Repeat("-1,", 5300) + "-1"
	for _, ranges := range []string{"bytes=0-1", "bytes=99999999-", many} {
		w := serve("GET", path, "Range", ranges)
		if w.Code != http.StatusOK || !bytes.Equal(w.Body.Bytes(), plain.Body.Bytes()) ||
			w.Header().Get("Content-Type") != plain.Header().Get("Content-Type") {
			t.Errorf("Range: %.20s: %d with %d bytes", ranges, w.Code, w.Body.Len())
		}
	}
}

func TestPageIsSmall(t *testing.T) {
	size := 0
	var compressed bytes.Buffer
	for _, file := range page {
		size += len(file.content)
		w := gzip.NewWriter(&compressed)
		w.Write(file.content)
		w.Close()
	}
	if size > 44_000 || compressed.Len() > 16_000 {
		t.Errorf("the page has %d bytes, or %d compressed, want at most 44,000 and 16,000",
			size, compressed.Len())
	}
}
