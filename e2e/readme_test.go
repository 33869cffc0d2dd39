// Tests that the README's console sessions are real.
package e2e

import (
	"context"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// console is one command of a console block, and its output.
type console struct{ command, output string }

// consoles returns the commands of the README's console blocks, with the server's address in place
// of the default one.
func consoles(t *testing.T, s *server) (all []console) {
	for _, block := range strings.Split(readFile(t, "../README.md"), "```console\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		for _, entry := range strings.Split("\n"+block, "\n$ ")[1:] {
			command, output, _ := strings.Cut(entry, "\n")
			command = strings.ReplaceAll(command, "127.0.0.1:8080", s.addr)
			all = append(all, console{command, strings.TrimSpace(output)})
		}
	}
	return all
}

// The first command opens the stream and runs beside the others. What differs at every start is not
// compared.
func TestREADMEShowsWhatItsCommandsPrint(t *testing.T) {
	needs(t, "curl")
	s := start(t)
	all := consoles(t, s)
	if len(all) < 6 || !strings.HasPrefix(all[0].command, "curl -N ") {
		t.Fatalf("the README has %d commands, the first of which must be the stream", len(all))
	}

	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	shell := func(command string) *exec.Cmd {
		silent := strings.Replace(command, "curl", "exec curl -s", 1)
		return exec.CommandContext(ctx, "sh", "-c", silent)
	}
	listener := shell(all[0].command)
	var heard strings.Builder
	listener.Stdout = &heard
	if err := listener.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "bob to arrive", func() bool {
		return s.do(t, "GET", "/users", "").body == "Connected users:\nUser: bob"
	})
	for _, c := range all[1:] {
		got, err := shell(c.command).Output()
		if err != nil || string(got) != c.output {
			t.Errorf("%s printed %q (%v), the README has %q", c.command, got, err, c.output)
		}
	}
	s.stop(t) // ends the stream after all events
	if err := listener.Wait(); err != nil {
		t.Errorf("%s: %v", all[0].command, err)
	}
	fresh := regexp.MustCompile(`(?m)^(retry: )[0-9]{4}$|^(id: )[0-9a-z]{8,}(-)`)
	got := fresh.ReplaceAllString(strings.TrimSpace(heard.String()), "$1$2$3")
	if want := fresh.ReplaceAllString(all[0].output, "$1$2$3"); got != want {
		t.Errorf("%s printed\n%s\nthe README has\n%s", all[0].command, got, want)
	}
}
