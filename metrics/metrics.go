// Package metrics writes figures in Prometheus's text format, without locks.
//
// A figure belongs to the goroutine that knows it, which reports it when asked. All figures
// together are a [Text], to which one owner after the other appends its own:
//
//	var text metrics.Text
//	text.Gauge("chat_users", "Users who are present.", metrics.Sample{Value: 3})
//	text.Counter("chat_events_total", "Events.",
//		metrics.Sample{Label: "kind", LabelValue: "arrival", Value: 5},
//		metrics.Sample{Label: "kind", LabelValue: "message", Value: 8})
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

// Sample is one value of a figure. A figure may have several, which differ in a label.
type Sample struct {
	Label, LabelValue string // empty for a figure that has one value
	Value             float64
}

// Gauge appends a figure that goes up and down.
func (t *Text) Gauge(name, help string, samples ...Sample) {
	t.figure("gauge", name, help, samples)
}

// Counter appends a figure that only grows, or starts over at zero.
func (t *Text) Counter(name, help string, samples ...Sample) {
	t.figure("counter", name, help, samples)
}

func (t *Text) figure(kind, name, help string, samples []Sample) {
	t.head(kind, name, help)
	for _, s := range samples {
		t.line(name, s)
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
		t.line(name+"_bucket", Sample{"le", bound, float64(count)})
	}
	t.line(name+"_sum", Sample{Value: h.sum})
	t.line(name+"_count", Sample{Value: float64(count)})
}

func (t *Text) head(kind, name, help string) {
	*t = append(*t, "# HELP "+name+" "+helpEscapes.Replace(help)+"\n# TYPE "+name+" "+kind+"\n"...)
}

func (t *Text) line(name string, s Sample) {
	*t = append(*t, name...)
	if s.Label != "" {
		*t = append(*t, "{"+s.Label+`="`+labelEscapes.Replace(s.LabelValue)+`"}`...)
	}
	*t = append(*t, " "+number(s.Value)+"\n"...)
}

func number(x float64) string { return strconv.FormatFloat(x, 'f', -1, 64) }

var (
	helpEscapes  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	labelEscapes = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

// Histogram counts observations by size. It belongs to one goroutine.
type Histogram struct {
	bounds []float64 // of the buckets, ascending
	counts []int     // observations in each bucket; the last element counts those above all bounds
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
