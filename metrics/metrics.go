// Package metrics writes figures in Prometheus's text format, without locks.
//
// A figure belongs to the goroutine that knows it, which reports it when asked. All figures
// together are a [Text], to which one owner after the other appends its own:
//
//	var text metrics.Text
//	text.Gauge("chat_users", "Users who are present.", metrics.Value{Is: 3})
//	text.Counter("chat_events_total", "Events.",
//		metrics.Value{Label: "kind", Of: "arrival", Is: 5},
//		metrics.Value{Label: "kind", Of: "message", Is: 8})
//
// Responses have no owner, because each is written by its own goroutine. The goroutine of a
// [Monitor] counts them.
package metrics

import (
	"slices"
	"strconv"
	"strings"
)

// ContentType is the Content-Type of a Text.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// Text holds figures in Prometheus's text format.
type Text []byte

// Value is one value of a figure, which may have several that differ in a label.
type Value struct {
	Label, Of string // the label's name and value; empty for a figure that has one value
	Is        float64
}

// Gauge appends a figure that goes up and down.
func (t *Text) Gauge(name, help string, values ...Value) { t.figure("gauge", name, help, values) }

// Counter appends a figure that only grows, until the process starts over.
func (t *Text) Counter(name, help string, values ...Value) {
	t.figure("counter", name, help, values)
}

func (t *Text) figure(kind, name, help string, values []Value) {
	t.head(kind, name, help)
	for _, v := range values {
		t.line(name, v)
	}
}

// Histogram appends a histogram.
func (t *Text) Histogram(name, help string, h *Histogram) {
	t.head("histogram", name, help)
	count := 0
	for i, n := range h.counts {
		count += n
		bound := "+Inf"
		if i < len(h.bounds) {
			bound = number(h.bounds[i])
		}
		t.line(name+"_bucket", Value{"le", bound, float64(count)})
	}
	t.line(name+"_sum", Value{Is: h.sum})
	t.line(name+"_count", Value{Is: float64(count)})
}

func (t *Text) head(kind, name, help string) {
	*t = append(*t, "# HELP "+name+" "+helpEscapes.Replace(help)+"\n# TYPE "+name+" "+kind+"\n"...)
}

func (t *Text) line(name string, v Value) {
	*t = append(*t, name...)
	if v.Label != "" {
		*t = append(*t, "{"+v.Label+`="`+labelEscapes.Replace(v.Of)+`"}`...)
	}
	*t = append(*t, " "+number(v.Is)+"\n"...)
}

func number(x float64) string { return strconv.FormatFloat(x, 'f', -1, 64) }

var (
	helpEscapes  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	labelEscapes = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

// Histogram counts observations by size. It belongs to one goroutine.
type Histogram struct {
	bounds []float64 // of the buckets, ascending
	counts []int     // of the observations up to each bound and above the one before, and of the rest
	sum    float64
}

// NewHistogram returns a Histogram whose buckets have these upper bounds, in ascending order.
func NewHistogram(bounds ...float64) *Histogram {
	return &Histogram{bounds: bounds, counts: make([]int, len(bounds)+1)}
}

// Observe counts an observation.
func (h *Histogram) Observe(x float64) {
	i, _ := slices.BinarySearch(h.bounds, x)
	h.counts[i]++
	h.sum += x
}
