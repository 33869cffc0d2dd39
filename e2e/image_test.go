// Here belongs the image of docs/Dockerfile.
package e2e

import (
	"debug/elf"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"testing"
)

// An image from scratch has no C library, and no program that loads one.
func TestProgramOfTheImageNeedsNoLibrary(t *testing.T) {
	if runtime.GOOS != "linux" {
		missing(t, "images are for Linux")
	}
	build := regexp.MustCompile(`(?m)^RUN (CGO_ENABLED=0 go build .*) -o /lobby \.$`).
		FindStringSubmatch(readFile(t, "../docs/Dockerfile"))
	if build == nil {
		t.Fatal("docs/Dockerfile does not build the program")
	}
	program := filepath.Join(t.TempDir(), "lobby")
	cmd := exec.Command("sh", "-c", build[1]+` -o "$0" .`, program)
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	file, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("the program has a %v", p.Type)
		}
	}
}
