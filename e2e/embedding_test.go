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
// handler, in a separate module.
func TestHandlerInEachKindOfServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	page := readFile(t, "../docs/embedding.md")
	_, list, ok := strings.Cut(page, "cp -r ../lobby/{hub.go,handlers.go,")
	list, _, _ = strings.Cut(list, "}")
	if !ok {
		t.Fatal("docs/embedding.md does not say what to copy for the handler")
	}
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"hub.go", "handlers.go", "go.mod", "go.sum"} {
		write(name, readFile(t, "../"+name))
	}
	write("main.go", "package main\n\nfunc main() {}\n")
	write("servers_test.go", readFile(t, "testdata/embedding/servers_test.go"))
	for folder := range strings.SplitSeq(list, ",") {
		if err := os.CopyFS(filepath.Join(dir, folder), os.DirFS("../"+folder)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", ".")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
