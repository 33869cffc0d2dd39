package main

import (
	"os/exec"
	"strings"
	"testing"
)

func TestServersAreChosenByName(t *testing.T) {
	for _, c := range []struct {
		only  string
		quick bool
		want  string // the first and the last
	}{
		{"", false, "lobby warp"},
		{"", true, "lobby nchan"},
		{"bare,lobby", false, "lobby bare"},
		{"axum", true, "axum axum"},
	} {
		servers, err := chooseServers(c.only, c.quick)
		if err != nil {
			t.Fatal(err)
		}
		if got := servers[0].name + " " + servers[len(servers)-1].name; got != c.want {
			t.Errorf("-servers %q, quick %v: got %q, want %q", c.only, c.quick, got, c.want)
		}
	}
	if _, err := chooseServers("lobby,nothing", false); err == nil {
		t.Error("an unknown server was chosen")
	}
}

func TestPlanFitsTheLimitOfFiles(t *testing.T) {
	p := plan{few: [3]int{1, 100, 201}, streams: 200, crowd: 300, storm: 400}
	p.fit(300)
	if want := (plan{few: [3]int{1, 100, 200}, streams: 200, crowd: 200, storm: 200}); p != want {
		t.Errorf("with 300 files the plan is %+v, want %+v", p, want)
	}
}

func TestServerThatDoesNotStartIsAnError(t *testing.T) {
	for name, s := range map[string]server{
		"prints nothing":  {prints: true},
		"accepts nothing": {},
	} {
		s.command = func(start) (*exec.Cmd, error) { return exec.Command("true"), nil }
		if _, err := startProcess(&s, t.TempDir(), false); err == nil {
			t.Errorf("%s: no error", name)
		} else if !strings.Contains(err.Error(), "it did not start") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
