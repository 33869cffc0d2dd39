// Here belongs the handler in other programs than this one.
package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The tests in testdata/embedding run beside the files that docs/embedding.md says to copy for the
// handler, in a module of their own.
func TestHandlerInEachKindOfServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	page, err := os.ReadFile("../docs/embedding.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, ok := strings.Cut(string(page), "cp -r ../lobby/{hub.go,handlers.go,")
	list, _, _ = strings.Cut(list, "}")
	if !ok {
		t.Fatal("docs/embedding.md does not say what to copy for the handler")
	}
	files := []string{"../hub.go", "../handlers.go", "../go.sum", "testdata/embedding/servers_test.go"}
	for _, file := range files {
		copyFile(t, file, filepath.Join(dir, filepath.Base(file)), "", "")
	}
	for folder := range strings.SplitSeq(list, ",") {
		if err := os.CopyFS(filepath.Join(dir, folder), os.DirFS("../"+folder)); err != nil {
			t.Fatal(err)
		}
	}
	mod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(dir, "go.mod"), mod, 0o666)
	os.WriteFile(filepath.Join(dir, "main.go"), []byte("package main\n\nfunc main() {}\n"), 0o666)
	cmd := exec.CommandContext(t.Context(), "go", "test", ".")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
