package docs

// Tests of rules that the source of all packages follows, and of what the documents say about it.

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// program is a number of a program in embedding.md.
type program int

const (
	withTheHub program = iota + 1
	withTheHandler
	listener // a file that the one before may have
)

// code returns a program.
func (p program) code(t *testing.T) string {
	code, _, _ := strings.Cut(strings.Split(mustRead(t, "embedding.md"), "\n```go\n")[p], "```")
	return code
}

// embed makes a module of files and what embedding.md says to copy for a program. It returns the
// module's folder.
func embed(t *testing.T, p program, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
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
	list, _, _ := strings.Cut(strings.Split(page, "cp -r ../lobby/{")[p], "}")
	for name := range strings.SplitSeq(list, ",") {
		if strings.HasSuffix(name, ".go") {
			write(name, mustRead(t, "../"+name))
			continue
		}
		err := fs.WalkDir(os.DirFS(".."), name, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && !entry.IsDir() && !strings.HasSuffix(path, "_test.go") {
				write(path, mustRead(t, "../"+path))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range files {
		write(name, content)
	}
	mod := "module sample\n\ngo 1.26\n"
	if _, require, ok := strings.Cut(mustRead(t, "../go.mod"), "\nrequire "); ok && p != withTheHub {
		mod += "\nrequire " + require
		write("go.sum", mustRead(t, "../go.sum"))
	}
	write("go.mod", mod)
	return dir
}

func TestProgramWithTheHubRuns(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "run", ".")
	cmd.Dir = embed(t, withTheHub, map[string]string{"main.go": withTheHub.code(t)})
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{"data: User alice connected to the chat.", "data: alice: hello"} {
		if strings.Count(string(out), "\n"+want+"\n") != 1 {
			t.Errorf("it printed %q, want %q in it once", out, want)
		}
	}
}

func TestProgramWithTheHandlerRunsAndStops(t *testing.T) {
	files := map[string]string{"main.go": withTheHandler.code(t)}
	t.Run("as it is", func(t *testing.T) { runAndStop(t, files) })
	files["main.go"] = strings.Replace(
		files["main.go"], "server.ListenAndServe()", "serveLimited(server)", 1)
	files["listener.go"] = listener.code(t)
	t.Run("with the listener", func(t *testing.T) { runAndStop(t, files) })
}

func runAndStop(t *testing.T, files map[string]string) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // to find a free port
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	files = maps.Clone(files)
	files["main.go"] = strings.Replace(files["main.go"], "127.0.0.1:8080", l.Addr().String(), 1)
	dir := embed(t, withTheHandler, files)
	build := exec.CommandContext(t.Context(), "go", "build", "-o", "program", ".")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var stderr strings.Builder
	program := exec.CommandContext(t.Context(), filepath.Join(dir, "program"))
	program.Stderr = &stderr
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	defer program.Process.Kill()
	url := "http://" + l.Addr().String()
	get := func(path string) *http.Response {
		resp, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err == nil {
			conn.Close()
			break
		}
		if time.Since(begin) > 10*time.Second {
			t.Fatal(err)
		}
	}
	hello, err := io.ReadAll(get("/hello").Body)
	if err != nil || string(hello) != "hello\n" {
		t.Errorf("GET /hello: got %q, %v", hello, err)
	}
	if resp := get("/lobby/"); resp.Header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Errorf("the page has the type %q", resp.Header.Get("Content-Type"))
	}
	stream := get("/lobby/chat/bob")
	if resp, err := http.Post(url+"/lobby/chat/bob", "", strings.NewReader("hello")); err != nil {
		t.Fatal(err)
	} else if resp.StatusCode != http.StatusOK {
		t.Errorf("POST /lobby/chat/bob: got %s", resp.Status)
	}
	program.Process.Signal(syscall.SIGTERM)
	begin := time.Now()
	events, err := io.ReadAll(stream.Body)
	if err != nil || !strings.HasSuffix(string(events), "\ndata: bob: hello\n\n") {
		t.Errorf("the stream was %q and ended with %v", events, err)
	}
	if err := program.Wait(); err != nil || stderr.Len() > 0 || time.Since(begin) > 3*time.Second {
		t.Errorf("it ended with %v after %v: %s", err, time.Since(begin), stderr.String())
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
