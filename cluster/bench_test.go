package cluster_test

// What belongs here: the cost of a node that only follows the others.

import (
	"context"
	"iter"
	"strings"
	"testing"

	"lobby/cluster"
	"lobby/etcd"
	"lobby/room"
)

// feed is a log of the entries that are sent to it.
type feed chan etcd.Entry

func (f feed) Entries(ctx context.Context, _ map[string]int) iter.Seq2[etcd.Entry, error] {
	return func(yield func(etcd.Entry, error) bool) {
		for {
			select {
			case entry := <-f:
				if !yield(entry, nil) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

func (f feed) Append(ctx context.Context, node string, number int, text []byte) (int64, error) {
	select {
	case f <- etcd.Entry{Revision: 1, Node: node, Number: number, Text: text}:
		return 1, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (f feed) SaveSnapshot(context.Context, int64, []byte, []string) error { return nil }

func (f feed) Discard(context.Context, etcd.Entry) {}

// BenchmarkFollow measures how a node reads entries of another one and gives them to its hub,
// without the work of the log and of the hub.
func BenchmarkFollow(b *testing.B) {
	const commands = 50 // in an entry
	log := make(feed)
	session := &etcd.Session{Settings: `{"version":2,"epoch":"log","history":4096,"maxUsers":100}`}
	settings := cluster.Settings{History: 4096, MaxUsers: 100}
	warn := func(sentence string) { b.Error(sentence) }
	node, err := cluster.NewNode(session, log, settings, warn)
	if err != nil {
		b.Fatal(err)
	}
	ended := make(chan struct{})
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		defer close(ended)
		node.Run(ctx)
	}()
	defer func() {
		stop()
		<-ended
	}()
	<-node.Steps()
	node.Results() <- room.StepResult{}

	log <- etcd.Entry{Node: "other", Number: 1, Text: []byte("register\x1f2\x1f\x1fepoch\x1e")}
	text := []byte(strings.Repeat("say\x1falice\x1fHow are you?\x1e", commands))
	b.ReportAllocs()
	for number := 2; b.Loop(); number++ {
		log <- etcd.Entry{Node: "other", Number: number, Text: text}
		if step := (<-node.Steps()).(room.Entry); len(step.Commands) != commands {
			b.Fatalf("%d commands arrived, want %d", len(step.Commands), commands)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/commands, "ns/command")
}
