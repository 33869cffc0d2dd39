package metrics

// What belongs here: the text format.

import (
	"math"
	"testing"
)

func TestText(t *testing.T) {
	h := NewHistogram(0.1, 1)
	for _, x := range []float64{0.05, 0.1, 0.5, 7} {
		h.Observe(x)
	}
	var text Text
	text.Gauge("users", "Users.", Sample{Value: 1_000_000})
	text.Counter("events_total", "A \\ and\na \"line\".",
		Sample{"kind", "a\\b\"c\nd", 2}, Sample{"kind", "", math.Inf(1)})
	text.Histogram("seconds", "Waits.", h)
	const want = `# HELP users Users.
# TYPE users gauge
users 1000000
# HELP events_total A \\ and\na "line".
# TYPE events_total counter
events_total{kind="a\\b\"c\nd"} 2
events_total{kind=""} +Inf
# HELP seconds Waits.
# TYPE seconds histogram
seconds_bucket{le="0.1"} 2
seconds_bucket{le="1"} 3
seconds_bucket{le="+Inf"} 4
seconds_sum 7.65
seconds_count 4
`
	if string(text) != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
}
