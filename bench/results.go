package main

// This file keeps what was measured, and writes it as tables in Markdown.

import (
	"fmt"
	"slices"
	"strings"
)

// A figure is one number under the name of its column.
type figure struct {
	column string
	value  float64
}

// results are what was measured, in the order in which it came first.
type results struct {
	tables []*table
}

// A table is what one load measured of each side.
type table struct {
	title   string
	columns []string
	rows    []string           // in the order in which they came first
	values  map[cell][]float64 // one of each round, or a few
}

type cell struct{ side, column string }

func (r *results) record(title, side string, figures ...figure) {
	t := r.table(title)
	if t == nil {
		t = &table{title: title, values: map[cell][]float64{}}
		for _, f := range figures {
			t.columns = append(t.columns, f.column)
		}
		r.tables = append(r.tables, t)
	}
	if !slices.Contains(t.rows, side) {
		t.rows = append(t.rows, side)
	}
	for _, f := range figures {
		at := cell{side, f.column}
		t.values[at] = append(t.values[at], f.value)
	}
}

// table returns the table of that title, or nil if nothing was recorded under it.
func (r *results) table(title string) *table {
	i := slices.IndexFunc(r.tables, func(t *table) bool { return t.title == title })
	if i < 0 {
		return nil
	}
	return r.tables[i]
}

// spread returns what the rounds gave for a figure, if anything.
func (r *results) spread(title, side, column string) (s spread, ok bool) {
	t := r.table(title)
	if t == nil {
		return spread{}, false
	}
	return t.spread(side, column)
}

// spread returns what the rounds gave for a side, if anything.
func (t *table) spread(side, column string) (s spread, ok bool) {
	values := t.values[cell{side, column}]
	if len(values) == 0 {
		return spread{}, false
	}
	return spreadOf(values), true
}

// markdown returns the table with a row for each of sides that has something in it.
func (t *table) markdown(sides []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "## %s\n\n| | %s |\n|---|%s\n", t.title, strings.Join(t.columns, " | "),
		strings.Repeat("--:|", len(t.columns)))
	for _, side := range sides {
		var cells []string
		for _, column := range t.columns {
			if s, ok := t.spread(side, column); ok {
				cells = append(cells, s.String())
			}
		}
		if len(cells) > 0 {
			fmt.Fprintf(&b, "| %s | %s |\n", side, strings.Join(cells, " | "))
		}
	}
	return b.String()
}
