package main

import (
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

func TestChartHasABarForEachServerWithFigures(t *testing.T) {
	r := &results{}
	for _, v := range []float64{10, 20, 40} {
		r.record("load", "lobby", figure{seconds, v}, figure{lost, 0})
	}
	r.record("load", "a<b", figure{seconds, 500}, figure{lost, 7}, figure{reached, 89})
	for _, log := range []bool{false, true} {
		c := chart{title: "Seconds & more", log: log, rate: 100,
			series: []series{{"", "load", seconds}}}
		svg := c.svg(r, []string{"lobby", "absent", "a<b"})
		bars := 0
		for d := xml.NewDecoder(strings.NewReader(svg)); ; {
			token, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%v in %s", err, svg)
			}
			if e, ok := token.(xml.StartElement); ok && e.Name.Local == "rect" {
				bars++
			}
		}
		if bars != 2 {
			t.Errorf("log %v: %d bars, want 2", log, bars)
		}
		for _, want := range []string{"prefers-color-scheme: dark", "a&lt;b",
			"500 (lost 7.00 %) (at only 89.0/s)"} {
			if !strings.Contains(svg, want) {
				t.Errorf("log %v: the chart lacks %q", log, want)
			}
		}
	}
	if (chart{series: []series{{"", "other", seconds}}}).svg(r, []string{"lobby"}) != "" {
		t.Error("a chart of nothing was drawn")
	}
}

func TestAxisHasRoundTicksBetweenItsEnds(t *testing.T) {
	linear := axis{high: 45}
	if got, want := linear.ticks(), []float64{0, 10, 20, 30, 40}; !slices.Equal(got, want) {
		t.Errorf("the ticks are %v, want %v", got, want)
	}
	log := axis{log: true}
	log.low, log.high = 5, 5
	log.include(spread{median: 30, least: 3, most: 200})
	log.round()
	if got, want := log.ticks(), []float64{1, 10, 100}; !slices.Equal(got, want) {
		t.Errorf("the ticks are %v, want %v", got, want)
	}
	if log.x(1) != plotLeft || log.x(200) != plotRight || log.x(0.1) != plotLeft {
		t.Errorf("the ends are at %d and %d", log.x(1), log.x(200))
	}
}

func TestTableHasMediansWithTheirSpread(t *testing.T) {
	r := &results{}
	r.record("load", "lobby", figure{p50, 1}, figure{p99, 2})
	r.record("load", "lobby", figure{p50, 3}, figure{p99, 2})
	r.record("load", "bare", figure{p50, 9}, figure{p99, 10})
	want := "## load\n\n| | p50 ms | p99 ms |\n|---|--:|--:|\n" +
		"| lobby | 2.00 (1.00–3.00) | 2.00 |\n| bare | 9.00 | 10.0 |\n"
	if got := r.table("load").markdown([]string{"lobby", "absent", "bare"}); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
