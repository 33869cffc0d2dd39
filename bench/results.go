package main

// This file keeps the measured figures and writes them as Markdown tables.

import (
	"fmt"
	"slices"
	"strings"
)

// A figure is a number and the name of its column.
type figure struct {
	column string
	value  float64
}

// results are the tables, in the order in which their first figures were recorded.
type results struct {
	tables []*table
}

// A table holds the figures of one load, with a row for each server or for each way to reach it.
type table struct {
	title   string
	columns []string
	rows    []string           // in the order in which they were first recorded
	values  map[cell][]float64 // one or more from each round
}

type cell struct{ row, column string }

func (r *results) record(title, row string, figures ...figure) {
	t := r.table(title)
	if t == nil {
		t = &table{title: title, values: map[cell][]float64{}}
		for _, f := range figures {
			t.columns = append(t.columns, f.column)
		}
		r.tables = append(r.tables, t)
	}
	if !slices.Contains(t.rows, row) {
		t.rows = append(t.rows, row)
	}
	for _, f := range figures {
		at := cell{row, f.column}
		t.values[at] = append(t.values[at], f.value)
	}
}

// table returns the table with that title, or nil if there is none.
func (r *results) table(title string) *table {
	i := slices.IndexFunc(r.tables, func(t *table) bool { return t.title == title })
	if i < 0 {
		return nil
	}
	return r.tables[i]
}

// spread returns the spread of a row's figure over the rounds, if it was recorded.
func (t *table) spread(row, column string) (s spread, ok bool) {
	values := t.values[cell{row, column}]
	if len(values) == 0 {
		return spread{}, false
	}
	return spreadOf(values), true
}

// markdown returns the table with those of the rows that have figures in it.
func (t *table) markdown(rows []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "## %s\n\n| | %s |\n|---|%s\n", t.title, strings.Join(t.columns, " | "),
		strings.Repeat("--:|", len(t.columns)))
	for _, row := range rows {
		var cells []string
		for _, column := range t.columns {
			if s, ok := t.spread(row, column); ok {
				cells = append(cells, s.String())
			}
		}
		if len(cells) > 0 {
			fmt.Fprintf(&b, "| %s | %s |\n", row, strings.Join(cells, " | "))
		}
	}
	return b.String()
}
