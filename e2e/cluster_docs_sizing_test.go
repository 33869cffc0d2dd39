// Tests that docs/sizing.md calculates with the figures that were measured.
package e2e

import (
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// cells returns the cells of a line of a table.
func cells(line string) (all []string) {
	for cell := range strings.SplitSeq(strings.Trim(strings.TrimSpace(line), "|"), "|") {
		all = append(all, strings.TrimSpace(cell))
	}
	return all
}

// amount parses figures such as "8.30 (7.20–9.00)", "13,000" and "13.4 k (11.2 k–15.2 k)".
func amount(t *testing.T, cell string) float64 {
	t.Helper()
	text, _, _ := strings.Cut(cell, " (")
	digits, isThousands := strings.CutSuffix(strings.ReplaceAll(text, ",", ""), " k")
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil {
		t.Fatalf("%q is not a figure", cell)
	}
	if isThousands {
		n *= 1000
	}
	return n
}

// measured returns a figure of a table that bench wrote.
func measured(t *testing.T, file, title, row, column string) float64 {
	t.Helper()
	table := strings.Split(sectionOf(t, filepath.Join("../docs", file), title), "\n")
	at := -1
	for _, line := range table {
		c := cells(line)
		if at < 0 {
			at = slices.Index(c, column)
		} else if c[0] == row {
			return amount(t, c[at])
		}
	}
	t.Fatalf("%s has no %q, %q in %q", file, row, column, title)
	return 0
}

// The page may round and machines differ a little, but if a figure has changed by half, so have the
// page's results.
func TestSizingPageUsesMeasuredFigures(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`^\[(.*)\]\((performance/[a-z]+\.md)\)$`)
	compared := 0
	for line := range strings.Lines(sectionOf(t, "../docs/sizing.md", "What is measured")) {
		c := cells(line)
		if len(c) != 5 || !link.MatchString(c[3]) {
			continue
		}
		source := link.FindStringSubmatch(c[3])
		comma := strings.LastIndex(c[4], ", ")
		got, want := amount(t, c[1]), measured(t, source[2], source[1], c[4][:comma], c[4][comma+2:])
		if got > 1.5*want || want > 1.5*got {
			t.Errorf("%s is %v, but was measured as %v: calculate the page again", c[0], got, want)
		}
		compared++
	}
	if compared < 8 {
		t.Errorf("the page has only %d measured figures", compared)
	}
}
