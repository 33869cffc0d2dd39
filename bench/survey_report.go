package main

// This file puts together what was measured of several machines.

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A surveyReport is the outcome of a surveyPlan.
type surveyReport struct {
	plan    surveyPlan
	results *results
	etcd    string // its version
	busy    string // the machine's load average before
}

// A bound is the least or the most that the median of a figure is to be.
type bound struct {
	title, row, column string
	isLeast            bool // whether the limit is the least
	limit              float64
}

// bounds are what lobby on several machines was built to keep.
var bounds = []bound{
	{postTitle(50), oneOfThree, timesAlone, true, 0.15},
	{postTitle(500), oneOfThree, timesAlone, true, 0.4},
	{followerTitle, postTitle(50), cpuCommand, false, 5},
	{followerTitle, postTitle(500), cpuCommand, false, 5},
	{memoryTitle(5 * time.Minute), etcdRSS, amount, false, 400},
}

// markdown returns all tables.
func (r surveyReport) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Several machines in figures\n\n"+
		"Written by `bench`; [performance.md](../performance.md#several-machines) says what the "+
		"figures mean.\n\n"+
		"Measured in %s. Each load of requests took %v. All nodes, three etcd servers (%s, `%s`) "+
		"and the load shared %s\n",
		roundsText(r.plan.rounds), r.plan.length, r.etcd, strings.Join(etcdFlags, " "),
		machineText(r.busy))
	for _, t := range r.results.tables {
		b.WriteString("\n" + t.markdown(t.rows))
	}
	if r.plan.judged {
		b.WriteString("\n" + r.boundsTable())
	}
	return b.String()
}

// boundsTable says of each bound whether its figure keeps it.
func (r surveyReport) boundsTable() string {
	var b strings.Builder
	b.WriteString("## Bounds\n\n| | | | bound | median | |\n|---|---|---|--:|--:|---|\n")
	for _, x := range bounds {
		measured, ok := r.results.spread(x.title, x.row, x.column)
		if !ok {
			continue
		}
		words, kept := "at most ", measured.median <= x.limit
		if x.isLeast {
			words, kept = "at least ", measured.median >= x.limit
		}
		verdict := "missed"
		if kept {
			verdict = "kept"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s%v | %s | %s |\n",
			x.title, x.row, x.column, words, x.limit, number(measured.median), verdict)
	}
	return b.String()
}

// write writes the report's file to a folder.
func (r surveyReport) write(folder string) error {
	if err := os.MkdirAll(folder, 0o777); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, "several.md"), []byte(r.markdown()), 0o666)
}
