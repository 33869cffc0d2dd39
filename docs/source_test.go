package docs

// What belongs here: rules about the source of all packages, and that documents say what is true
// of it.

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

// TestHeaderProgram builds and runs the program in hub.go's header comment in a module that has
// nothing but hub.go, chain/ and chat/.
func TestHeaderProgram(t *testing.T) {
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
	chainFiles, _ := filepath.Glob("../chain/*.go")
	chatFiles, _ := filepath.Glob("../chat/*.go")
	rosterFiles, _ := filepath.Glob("../roster/*.go")
	for _, name := range slices.Concat(chainFiles, chatFiles, rosterFiles, []string{"../hub.go"}) {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		write(strings.TrimPrefix(name, "../"), mustRead(t, name))
	}
	header, _, _ := strings.Cut(mustRead(t, "../hub.go"), "\npackage main")
	var program strings.Builder
	for line := range strings.Lines(header) {
		if code, ok := strings.CutPrefix(line, "//\t"); ok {
			program.WriteString(code)
		}
	}
	write("main.go", program.String())
	write("go.mod", "module sample\n\ngo 1.26\n")
	cmd := exec.CommandContext(t.Context(), "go", "run", ".")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s\n%s", err, out, program.String())
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
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", path), nil, parser.ImportsOnly)
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

// TestDocumentsQuoteTheSource looks for each block of code that names a file, such as "```go
// hub.go", in that file.
func TestDocumentsQuoteTheSource(t *testing.T) {
	names, _ := filepath.Glob("*.md")
	quotes := 0
	for _, name := range names {
		document := mustRead(t, name)
		for _, block := range strings.Split("\n"+document, "\n```go ")[1:] {
			file, quote, _ := strings.Cut(block, "\n")
			quote, _, _ = strings.Cut(quote, "```")
			if !strings.Contains(withoutIndent(mustRead(t, filepath.Join("..", file))), withoutIndent("\n"+quote)) {
				t.Errorf("%s quotes lines that %s does not have:\n%s", name, file, quote)
			}
			quotes++
		}
	}
	if quotes == 0 {
		t.Error("there are no quotes")
	}
}

// TestDiagramHasAllChannels compares the README's diagram with the hub's channels.
func TestDiagramHasAllChannels(t *testing.T) {
	_, diagram, _ := strings.Cut(mustRead(t, "../README.md"), "## How it works")
	diagram, _, _ = strings.Cut(diagram, "**One owner.**")
	file, err := parser.ParseFile(token.NewFileSet(), "../hub.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	channels := 0
	ast.Inspect(file, func(node ast.Node) bool {
		declared, ok := node.(*ast.TypeSpec)
		if !ok || declared.Name.Name != "Hub" {
			return true
		}
		for _, field := range declared.Type.(*ast.StructType).Fields.List {
			if _, ok := field.Type.(*ast.ChanType); !ok {
				continue
			}
			channels++
			if name := field.Names[0].Name; !slices.Contains(strings.Fields(diagram), name) {
				t.Errorf("the README's diagram lacks the channel %s", name)
			}
		}
		return false
	})
	if channels < 2 {
		t.Errorf("the hub has %d channels", channels)
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
