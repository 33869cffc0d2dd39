// Package web serves the demo page: three files and an icon, embedded in the program.
package web

import (
	"crypto/sha256"
	"embed"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

//go:embed index.html lobby.css lobby.js icon.svg
var files embed.FS

// file is one of the page's files, ready to be served.
type file struct {
	contentType string
	content     []byte
	etag        string
}

// page holds the files by URL path.
var page = map[string]file{
	"/":          read("index.html", "text/html; charset=utf-8"),
	"/lobby.css": read("lobby.css", "text/css; charset=utf-8"),
	"/lobby.js":  read("lobby.js", "text/javascript; charset=utf-8"),
	"/icon.svg":  read("icon.svg", "image/svg+xml"),
}

func read(name, contentType string) file {
	content, err := files.ReadFile(name)
	if err != nil {
		panic(err) // the list above differs from the embedded files
	}
	return file{contentType, content, fmt.Sprintf(`"%x"`, sha256.Sum256(content))}
}

// Paths returns the paths of the page's files.
func Paths() (paths []string) {
	for path := range page {
		paths = append(paths, path)
	}
	return paths
}

// Has reports whether path is that of one of the page's files.
func Has(path string) bool {
	_, ok := page[path]
	return ok
}

// policy lets the page load nothing from other origins, and no other page embed it.
const policy = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Serve responds to a GET or HEAD of one of the page's files. http.ServeContent would do more than
// is good here: thousands of ranges in one request cost it 70 ms and 800 KB.
func Serve(w http.ResponseWriter, r *http.Request) {
	file := page[r.URL.Path]
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("ETag", file.etag)
	h.Set("Cache-Control", "no-cache") // browsers revalidate with the ETag
	h.Set("Content-Security-Policy", policy)
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	for _, etags := range r.Header.Values("If-None-Match") {
		// An ETag is a quoted hash, so it matches wherever it is: alone, in a list, or after W/.
		if etags == "*" || strings.Contains(etags, file.etag) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	h.Set("Content-Type", file.contentType)
	h.Set("Content-Length", strconv.Itoa(len(file.content)))
	if r.Method != http.MethodHead {
		w.Write(file.content)
	}
}
