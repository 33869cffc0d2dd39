package main

// This file draws bar charts as SVG, which are readable on a light and on a dark page.

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// A chart shows one or more figures of each server.
type chart struct {
	file   string
	title  string
	log    bool
	series []series
	rate   float64 // the requested messages/s, if the bars of servers that did not reach it say so
}

// A series is a column of a table.
type series struct {
	label  string // may be empty for a single series
	title  string // of the table
	column string
}

// charts returns the charts of a comparison.
func charts(p plan) []chart {
	flood, steady := fanOutTitle(p.streams, 0), fanOutTitle(p.streams, 1000)
	return []chart{
		{file: "deliveries.svg", title: "Deliveries/s to " + flood, log: true,
			series: []series{{"", flood, deliveries}}},
		{file: "latency.svg", title: "Milliseconds until delivery: " + steady, log: true, rate: 1000,
			series: []series{{"half of them", steady, p50}, {"99 of 100", steady, p99}}},
		{file: "storm.svg", title: "Seconds until " + stormTitle(p.storm), log: true,
			series: []series{{"", stormTitle(p.storm), seconds}}},
		{file: "memory.svg", title: "KB of memory for each of " + idleTitle(p.crowd),
			series: []series{{"", idleTitle(p.crowd), memory}}},
		{file: "requests.svg", title: "Server CPU µs for each request", series: []series{
			{"GET /users", listTitle(p.users), cpuRequest},
			{"POST /users/" + speaker, joinTitle, cpuRequest},
		}},
	}
}

// Sizes in pixels.
const (
	chartWidth = 760
	plotLeft   = 96
	plotRight  = 600 // the numbers are to its right
	plotTop    = 76
	barHeight  = 14
	groupGap   = 10
)

const chartStyle = `<style>
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.title { font-size: 15px; font-weight: 600; }
.faint { fill: #59636e; font-size: 11px; }
.grid { stroke: #d1d9e0; }
.spread { stroke: #1f2328; }
.bar { fill: #8c959f; }
.bar.second { fill: #c4cbd3; }
.lobby .bar { fill: #0969da; }
.lobby .bar.second { fill: #7cb3f2; }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc; }
.faint { fill: #9198a1; }
.grid { stroke: #3d444d; }
.spread { stroke: #f0f6fc; }
.bar { fill: #767e88; }
.bar.second { fill: #4b535d; }
.lobby .bar { fill: #4493f8; }
.lobby .bar.second { fill: #28599b; }
}
</style>
`

// svg draws the chart for the servers that have figures in it. It returns "" if none has.
func (c chart) svg(r *results, servers []string) string {
	axis := axis{log: c.log, low: math.Inf(1)}
	for _, s := range c.series {
		t := r.table(s.title)
		if t == nil {
			return ""
		}
		for _, server := range servers {
			if spread, ok := t.spread(server, s.column); ok && spread.median > 0 {
				axis.include(spread)
			}
		}
	}
	if math.IsInf(axis.low, 1) {
		return ""
	}
	axis.round()

	var body strings.Builder
	y := plotTop
	for _, server := range servers {
		var group strings.Builder
		top := y
		for i, s := range c.series {
			t := r.table(s.title)
			if spread, ok := t.spread(server, s.column); ok {
				note := ""
				if i == 0 {
					note = c.note(t, server)
				}
				c.bar(&group, y, i, spread, axis, note)
				y += barHeight
			}
		}
		if y == top {
			continue
		}
		class := "peer"
		if server == "lobby" {
			class = "lobby"
		}
		fmt.Fprintf(&body, "<g class=%q>\n%s", class, group.String())
		fmt.Fprintf(&body, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n</g>\n",
			plotLeft-8, (top+y)/2+5, html.EscapeString(server))
		y += groupGap
	}

	var b strings.Builder
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" "+
		"width=\"%[1]d\" height=\"%[2]d\" role=\"img\">\n", chartWidth, y+8)
	title := html.EscapeString(c.title)
	fmt.Fprintf(&b, "<title>%s</title>\n%s", title, chartStyle)
	fmt.Fprintf(&b, "<text class=\"title\" x=\"8\" y=\"20\">%s</text>\n", title)
	scale := "linear"
	if c.log {
		scale = "logarithmic"
	}
	fmt.Fprintf(&b, "<text class=\"faint\" x=\"8\" y=\"38\">medians, with lines from minimum to "+
		"maximum; the scale is %s</text>\n", scale)
	for _, tick := range axis.ticks() {
		x := axis.x(tick)
		fmt.Fprintf(&b, "<line class=\"grid\" x1=\"%d\" y1=\"%d\" x2=\"%[1]d\" y2=\"%[3]d\"/>\n",
			x, plotTop-6, y)
		fmt.Fprintf(&b, "<text class=\"faint\" x=\"%d\" y=\"%d\" text-anchor=\"middle\">%s</text>\n",
			x, plotTop-12, tickLabel(tick))
	}
	if len(c.series) > 1 {
		c.legend(&b)
	}
	b.WriteString(body.String() + "</svg>\n")
	return b.String()
}

// bar draws one bar with its number, and a line from the minimum to the maximum.
func (c chart) bar(b *strings.Builder, y, i int, s spread, axis axis, note string) {
	class := "bar"
	if i > 0 {
		class = "bar second"
	}
	fmt.Fprintf(b, "<rect class=%q x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\"/>\n",
		class, plotLeft, y, axis.x(s.median)-plotLeft, barHeight-1)
	if s.most > s.least {
		fmt.Fprintf(b, "<line class=\"spread\" x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%[2]d\"/>\n",
			axis.x(s.least), y+barHeight/2, axis.x(s.most))
	}
	fmt.Fprintf(b, "<text x=\"%d\" y=\"%d\">%s%s</text>\n",
		max(axis.x(s.median), axis.x(s.most))+6, y+barHeight-3, number(s.median), note)
}

// note says that a server lost messages, or that it did not reach nine tenths of the requested
// rate.
func (c chart) note(t *table, server string) (note string) {
	if s, ok := t.spread(server, lost); ok && s.median > 0 {
		note += " (lost " + number(s.median) + " %)"
	}
	if s, ok := t.spread(server, reached); ok && s.median < 0.9*c.rate {
		note += " (at only " + number(s.median) + "/s)"
	}
	return note
}

func (c chart) legend(b *strings.Builder) {
	x := plotRight - 20
	for i, s := range c.series {
		class := []string{"bar", "bar second"}[i]
		fmt.Fprintf(b, "<rect class=%q x=\"%d\" y=\"%d\" width=\"10\" height=\"10\"/>\n",
			class, x, 8+i*15)
		fmt.Fprintf(b, "<text class=\"faint\" x=\"%d\" y=\"%d\">%s</text>\n",
			x+15, 17+i*15, html.EscapeString(s.label))
	}
}

// An axis maps numbers to pixels.
type axis struct {
	log       bool
	low, high float64
}

func (a *axis) include(s spread) {
	a.low, a.high = min(a.low, s.least), max(a.high, s.most)
}

// round makes the axis begin at 0, or at a power of ten below the smallest number.
func (a *axis) round() {
	if !a.log {
		a.low = 0
		return
	}
	a.low = math.Pow(10, math.Floor(math.Log10(a.low)-0.1))
}

func (a axis) x(v float64) int {
	share := v / a.high
	if a.log {
		share = math.Log(max(v, a.low)/a.low) / math.Log(a.high/a.low)
	}
	return plotLeft + int(math.Round(share*(plotRight-plotLeft)))
}

// ticks returns where to draw lines: at powers of ten, or at a few round numbers.
func (a axis) ticks() (ticks []float64) {
	if a.log {
		for v := a.low; v <= a.high; v *= 10 {
			ticks = append(ticks, v)
		}
		return ticks
	}
	step := math.Pow(10, math.Floor(math.Log10(a.high)))
	for a.high/step < 3 {
		step /= 2
	}
	for i := 0; float64(i)*step <= a.high; i++ {
		ticks = append(ticks, float64(i)*step)
	}
	return ticks
}

// tickLabel formats a number without trailing zeros.
func tickLabel(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%g M", v/1e6)
	case v >= 1e3:
		return fmt.Sprintf("%g k", v/1e3)
	}
	return fmt.Sprintf("%.3g", v)
}
