package docs

// Tests of rules that the source of all packages follows, and of what the documents say about it.

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestEmbeddingProgram runs the program of embedding.md in a module that contains nothing but what
// that page tells its reader to copy.
func TestEmbeddingProgram(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		content = strings.ReplaceAll(content, `"lobby/`, `"sample/`)
		if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	page := mustRead(t, "embedding.md")
	_, list, _ := strings.Cut(page, "cp -r ../lobby/{")
	list, _, _ = strings.Cut(list, "}")
	for name := range strings.SplitSeq(list, ",") {
		files := []string{name}
		if !strings.HasSuffix(name, ".go") {
			files, _ = filepath.Glob("../" + name + "/*.go")
		}
		for _, file := range files {
			file = strings.TrimPrefix(file, "../")
			if !strings.HasSuffix(file, "_test.go") {
				write(file, mustRead(t, "../"+file))
			}
		}
	}
	_, program, _ := strings.Cut(page, "\n```go\n")
	program, _, _ = strings.Cut(program, "```")
	write("main.go", program)
	write("go.mod", "module sample\n\ngo 1.26\n")
	cmd := exec.CommandContext(t.Context(), "go", "run", ".")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s\n%s", err, out, program)
	}
	for _, want := range []string{"data: User alice connected to the chat.", "data: alice: hello"} {
		if strings.Count(string(out), "\n"+want+"\n") != 1 {
			t.Errorf("it printed %q, want %q in it once", out, want)
		}
	}
}

// TestOnlyTestsLock reads the imports of every package of this module.
func TestOnlyTestsLock(t *testing.T) {
	read := 0
	err := fs.WalkDir(os.DirFS(".."), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && path != "." {
			if _, err := os.Stat(filepath.Join("..", path, "go.mod")); err == nil {
				return fs.SkipDir // another module
			}
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		name := filepath.Join("..", path)
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		read++
		for _, i := range file.Imports {
			if i.Path.Value == `"sync"` || i.Path.Value == `"sync/atomic"` {
				t.Errorf("%s imports %s", path, i.Path.Value)
			}
		}
		return nil
	})
	if err != nil || read < 5 {
		t.Errorf("read %d files: %v", read, err)
	}
}

// TestDocumentsQuoteTheSource looks for each block of code that names a file ("```go hub.go") in
// that file.
func TestDocumentsQuoteTheSource(t *testing.T) {
	names, _ := filepath.Glob("*.md")
	quotes := 0
	for _, name := range names {
		document := mustRead(t, name)
		for _, block := range strings.Split("\n"+document, "\n```go ")[1:] {
			file, quote, _ := strings.Cut(block, "\n")
			quote, _, _ = strings.Cut(quote, "```")
			source := mustRead(t, filepath.Join("..", file))
			if !strings.Contains(withoutIndent(source), withoutIndent("\n"+quote)) {
				t.Errorf("%s quotes lines that %s does not contain:\n%s", name, file, quote)
			}
			quotes++
		}
	}
	if quotes == 0 {
		t.Error("there are no quotes")
	}
}

// TestDiagramShowsTheChannels compares the README's diagram with the channels of a hub.
func TestDiagramShowsTheChannels(t *testing.T) {
	// A reader of the README need not know how long lists are given back, how the hub reports its
	// figures, or what connects the hubs of several machines.
	notShown := []string{"returns", "figures", "commands", "steps", "results"}
	_, diagram, _ := strings.Cut(mustRead(t, "../README.md"), "## How it works")
	diagram, _, _ = strings.Cut(diagram, "**One owner.**")
	file, err := parser.ParseFile(token.NewFileSet(), "../hub.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	shown := 0
	ast.Inspect(file, func(node ast.Node) bool {
		declared, ok := node.(*ast.TypeSpec)
		if !ok || declared.Name.Name != "Hub" {
			return true
		}
		for _, field := range declared.Type.(*ast.StructType).Fields.List {
			name := field.Names[0].Name
			if _, ok := field.Type.(*ast.ChanType); !ok || slices.Contains(notShown, name) {
				continue
			}
			shown++
			if !slices.Contains(strings.Fields(diagram), name) {
				t.Errorf("the README's diagram lacks the channel %s", name)
			}
		}
		return false
	})
	if shown < 2 {
		t.Errorf("the diagram has to show %d channels, want several", shown)
	}
}

func mustRead(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func withoutIndent(code string) string {
	lines := strings.Split(code, "\n")
	for i := range lines {
		lines[i] = strings.TrimLeft(lines[i], "\t")
	}
	return strings.Join(lines, "\n")
}
