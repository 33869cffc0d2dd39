package main

// This file writes the report of a comparison: the tables, and how they were measured.

import (
	"fmt"
	"go/doc/comment"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// A report is the outcome of a comparison.
type report struct {
	plan    plan
	servers []*server
	skipped []string
	results *results
	busy    string // the machine's load average beforehand
}

func (r report) names() (names []string) {
	for _, s := range r.servers {
		names = append(names, s.name)
	}
	return names
}

// markdown returns all tables.
func (r report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Performance in figures\n\n"+
		"Written by `bench`; [performance.md](../performance.md) explains the figures.\n\n"+
		"%s\n",
		wrapped(fmt.Sprintf("Measured in %s. Each load ran for %v. Server and load shared %s",
			roundsText(r.plan.rounds), r.plan.length, machineText(r.busy))))
	b.WriteString("| server | version | what it is |\n|---|---|---|\n")
	for _, s := range r.servers {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", s.name, s.version, s.about)
	}
	for _, line := range r.skipped {
		fmt.Fprintf(&b, "\n%s.\n", line)
	}
	for _, t := range r.results.tables {
		b.WriteString("\n" + t.markdown(r.names()))
	}
	return b.String()
}

// wrapped returns a paragraph in lines of at most 100 columns.
func wrapped(text string) []byte {
	printer := comment.Printer{TextWidth: 100}
	return printer.Text(new(comment.Parser).Parse(text))
}

// roundsText says how many rounds there were.
func roundsText(rounds int) string {
	if rounds == 1 {
		return "one round"
	}
	return fmt.Sprintf("%d rounds: the median, with the minimum and the maximum", rounds)
}

// machineText describes the machine.
func machineText(busy string) string {
	return fmt.Sprintf("%d cores and %s of memory; the load average beforehand was %s. "+
		"Built with %s.", runtime.NumCPU(), memorySize(), busy, runtime.Version())
}

// memorySize returns the size of the machine's memory.
func memorySize() string {
	var kib float64
	if _, err := fmt.Sscanf(readFile("/proc/meminfo"), "MemTotal: %f kB", &kib); err != nil {
		return "an unknown amount"
	}
	return fmt.Sprintf("%.0f GiB", kib/(1<<20))
}

// loadAverage returns the average number of runnable processes in the last minute.
func loadAverage() string {
	average, _, _ := strings.Cut(readFile("/proc/loadavg"), " ")
	return average
}

// readFile returns a file's content, or "" if it cannot be read.
func readFile(name string) string {
	content, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	return string(content)
}

// write writes the report's files to a folder.
func (r report) write(folder string) error {
	if err := os.MkdirAll(folder, 0o777); err != nil {
		return err
	}
	files := map[string]string{"table.md": r.markdown()}
	for _, c := range charts(r.plan) {
		if svg := c.svg(r.results, r.names()); svg != "" {
			files[c.file] = svg
		}
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o666); err != nil {
			return err
		}
	}
	return nil
}
