// Package web serves the demo page: three files and an icon, embedded in the program.
package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"fmt"
	"net/http"
	"time"
)

//go:embed index.html lobby.css lobby.js icon.svg
var files embed.FS

// file is one of the page's files, ready to be served.
type file struct {
	contentType string
	content     []byte
	etag        string
}

// page holds the files by the path of their URL.
var page = map[string]file{
	"/":          read("index.html", "text/html; charset=utf-8"),
	"/lobby.css": read("lobby.css", "text/css; charset=utf-8"),
	"/lobby.js":  read("lobby.js", "text/javascript; charset=utf-8"),
	"/icon.svg":  read("icon.svg", "image/svg+xml"),
}

func read(name, contentType string) file {
	content, err := files.ReadFile(name)
	if err != nil {
		panic(err) // the list above differs from what is embedded
	}
	return file{contentType, content, fmt.Sprintf(`"%x"`, sha256.Sum256(content))}
}

// Paths returns the paths that the page is made of.
func Paths() (paths []string) {
	for path := range page {
		paths = append(paths, path)
	}
	return paths
}

// Has reports whether path is one of the page's.
func Has(path string) bool {
	_, ok := page[path]
	return ok
}

// Serve answers a GET or HEAD of one of the page's paths.
func Serve(w http.ResponseWriter, r *http.Request) {
	file := page[r.URL.Path]
	h := w.Header()
	h.Set("Content-Type", file.contentType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("ETag", file.etag)
	h.Set("Cache-Control", "no-cache") // which has a browser ask whether the file has changed
	h.Set("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(file.content))
}
