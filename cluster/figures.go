package cluster

import (
	"time"

	"lobby/metrics"
)

// figures are what Run counts if Count was called.
type figures struct {
	read    int                // entries of the log
	latency *metrics.Histogram // seconds from sending an entry of this node to applying it
	sent    time.Time          // when the own entry that is being applied was sent; zero if none is
}

// noteApplied notes that the hub has received all steps of the entries read so far.
func (f *figures) noteApplied() {
	if f != nil && !f.sent.IsZero() {
		f.latency.Observe(time.Since(f.sent).Seconds())
		f.sent = time.Time{}
	}
}

// report is the request to append the node's figures to text.
type report struct {
	text *metrics.Text
	done chan struct{} // closed when they have been appended
}

// Count makes Run count for Report. Call it before Run.
func (n *Node) Count() {
	n.figures = &figures{latency: metrics.NewHistogram(
		0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)}
}

// Report appends the figures of a node to text, after Count. For a nil node, or one that has ended,
// the only figure is lobby_node_member, which is 0.
func (n *Node) Report(text *metrics.Text) {
	if n != nil {
		r := report{text, make(chan struct{})}
		select {
		case n.reports <- r:
			<-r.done
			return
		case <-n.ended:
		}
	}
	appendMember(text, 0)
}

func appendMember(text *metrics.Text, member float64) {
	const help = "Whether the node is part of the lobby."
	text.Gauge("lobby_node_member", help, metrics.Sample{Value: member})
}

func (n *Node) report(r report) {
	defer close(r.done)
	member := 0.0
	if n.isReady {
		member = 1
	}
	appendMember(r.text, member)
	appended := n.outbox.number
	if n.outbox.inFlight {
		appended--
	}
	r.text.Counter("lobby_entries_appended_total", "Entries that this node has appended to the log.",
		metrics.Sample{Value: float64(appended)})
	r.text.Counter("lobby_entries_read_total", "Entries that this node has read from the log.",
		metrics.Sample{Value: float64(n.figures.read)})
	r.text.Histogram("lobby_apply_seconds", "From appending an entry of this node to applying it.",
		n.figures.latency)
}
