package chain

// What belongs here: events as bytes, their ids, how they are gathered, and how readers read them,
// all in bubbles of virtual time.

import (
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"lobby/internal/ssetest"
)

const (
	defaultHistory   = 4096
	defaultKeepAlive = 15 * time.Second

	// aMoment is longer than events of a few readers are ever gathered.
	aMoment = 10 * maxRounds * minRound
)

// bubble is a chain in virtual time whose owner runs the tasks of a test.
type bubble struct {
	*testing.T
	chain *Chain
	tasks chan func()
}

func inBubble(t *testing.T, history int, keepAlive time.Duration, test func(b *bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{t, New(history, keepAlive), make(chan func())}
		go func() {
			for {
				select {
				case task, ok := <-b.tasks:
					if !ok {
						return
					}
					task()
				case <-b.chain.Due():
					b.chain.Tick()
				}
			}
		}()
		test(b)
		close(b.tasks)
	})
}

// own runs task in the owner's goroutine.
func (b *bubble) own(task func()) {
	done := make(chan struct{})
	b.tasks <- func() { task(); close(done) }
	<-done
}

func (b *bubble) append(text string) { b.own(func() { b.chain.Append(text) }) }

// appendApart appends the texts "0", "1" … up to n of them, each in its own batch.
func (b *bubble) appendApart(n int) (texts []string) {
	for i := range n {
		time.Sleep(aMoment)
		texts = append(texts, fmt.Sprint(i))
		b.append(texts[i])
	}
	return texts
}

func (b *bubble) after(_ context.Context, lastEventID string) (start Start, err error) {
	b.own(func() { start = b.chain.After(lastEventID) })
	return start, nil
}

// open returns a reader whose opening block has been read.
func (b *bubble) open(lastEventID string) *Reader {
	start, _ := b.after(b.Context(), lastEventID)
	r := NewReader(start, b.after)
	r.Next(b.Context())
	return r
}

// read returns what r can read at this moment: texts, and the id to reconnect with.
func (b *bubble) read(r *Reader) (texts []string, lastID string) {
	var p ssetest.Parser
	p.ReadNow(r)
	return ssetest.Texts(p.Events), p.LastID
}

// expect fails the test unless these texts are exactly what r can read at this moment.
func (b *bubble) expect(r *Reader, texts ...string) {
	b.Helper()
	if got, _ := b.read(r); !slices.Equal(got, texts) {
		b.Fatalf("the reader got %q, want %q", got, texts)
	}
}

func TestCommentIsSentOnlyAfterASilence(t *testing.T) {
	inBubble(t, defaultHistory, defaultKeepAlive, func(b *bubble) {
		r := b.open("")
		for range 2 {
			time.Sleep(defaultKeepAlive - 1)
			b.expect(r)
			time.Sleep(time.Nanosecond)
			b.expect(r, "(comment)")
		}
		time.Sleep(10 * time.Second)
		b.append("hello")
		b.expect(r, "hello")
		for range 2 {
			time.Sleep(defaultKeepAlive - 1)
			b.expect(r)
			time.Sleep(time.Nanosecond)
			b.expect(r, "(comment)")
		}
		b.append("at once after a comment")
		b.expect(r, "at once after a comment")
	})
}

// The keep-alive interval is shorter here than the time for which events are gathered.
func TestShortKeepAliveDelaysNeitherEventsNorComments(t *testing.T) {
	const keepAlive = time.Millisecond
	inBubble(t, defaultHistory, keepAlive, func(b *bubble) {
		b.own(func() { b.chain.Readers = 1_000_000 })
		r := b.open("")
		b.append("one")
		b.append("two")
		b.expect(r, "one")
		time.Sleep(keepAlive)
		b.expect(r, "two")
		time.Sleep(keepAlive)
		b.expect(r, "(comment)")
	})
}

// Twice as many events add one round, and no number of them adds more than maxRounds.
func TestGatheringTimeGrowsSlowlyWithTheNumberOfEvents(t *testing.T) {
	const round = minRound // without readers
	for _, c := range []struct {
		events int
		want   time.Duration
	}{
		{1, round}, {2, 2 * round}, {4, 3 * round}, {8, 4 * round}, {16, 5 * round},
		{32, 6 * round}, {64, 7 * round}, {65, 7 * round}, {300, 7 * round},
	} {
		inBubble(t, defaultHistory, defaultKeepAlive, func(b *bubble) {
			r := b.open("")
			b.append("at once")
			batch := slices.Repeat([]string{"more"}, c.events)
			for _, text := range batch {
				b.append(text)
			}
			b.expect(r, "at once")
			time.Sleep(round)
			b.expect(r, batch...)
			b.append("last")
			time.Sleep(c.want - 1)
			b.append("too late to start the time again")
			b.expect(r)
			time.Sleep(time.Nanosecond)
			b.expect(r, "last", "too late to start the time again")
		})
	}
}

func TestRoundIsTheTimeToDeliverABatchToAllReaders(t *testing.T) {
	for _, c := range []struct {
		readers, processors int
		want                time.Duration
	}{
		{0, 1, 50 * time.Microsecond},
		{10, 1, 95 * time.Microsecond},
		{1_000, 2, 2_300 * time.Microsecond},
		{10_000, 8, 5_675 * time.Microsecond},
	} {
		inBubble(t, defaultHistory, defaultKeepAlive, func(b *bubble) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(c.processors))
			b.own(func() { b.chain.Readers = c.readers })
			r := b.open("")
			b.append("one")
			b.append("two")
			time.Sleep(c.want - 1)
			b.expect(r, "one")
			time.Sleep(time.Nanosecond)
			b.expect(r, "two")
		})
	}
}

// Some systems round short timers up, to as much as 15 ms. Here nothing calls Tick at all.
func TestEventAfterTheGatheringTimeDoesNotWaitForALateTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(defaultHistory, defaultKeepAlive)
		b := &bubble{T: t, chain: c}
		r := NewReader(c.After(""), nil)
		r.Next(t.Context())
		c.Append("one")
		c.Append("two")
		b.expect(r, "one")
		time.Sleep(minRound)
		c.Append("three")
		b.expect(r, "two", "three")
	})
}

func TestFullBatchIsSentAtOnce(t *testing.T) {
	inBubble(t, defaultHistory, defaultKeepAlive, func(b *bubble) {
		text := strings.Repeat("x", 4<<10)
		r := b.open("")
		begin := time.Now()
		const events = 100
		for range events {
			b.append(text)
		}
		for got := 0; got < events-maxBatch/len(text); { // The others may still be gathered.
			data, _ := r.Next(b.Context())
			if len(data) > maxBatch {
				t.Fatalf("%d bytes at once, want at most %d", len(data), maxBatch)
			}
			got += strings.Count(string(data), text)
		}
		if waited := time.Since(begin); waited > 0 {
			t.Errorf("full batches were delayed for %v", waited)
		}
	})
}

func TestLateReaderGetsSealedBatchesWithoutWaiting(t *testing.T) {
	inBubble(t, defaultHistory, defaultKeepAlive, func(b *bubble) {
		r := b.open("")
		texts := b.appendApart(4)
		synctest.Wait()
		data, _ := r.Next(b.Context())
		for _, want := range texts[1:3] {
			if data = r.More(len(data)); !strings.Contains(string(data), "data: "+want+"\n") {
				t.Errorf("More returned %q, want event %s", data, want)
			}
		}
		if data := r.More(len(data) - 1); data != nil {
			t.Errorf("More returned %q, which is longer than the limit", data)
		}
		b.expect(r, texts[3])
		if data := r.More(maxBatch); data != nil {
			t.Errorf("More returned %q, although everything was read", data)
		}
		time.Sleep(aMoment)
		b.append("and nothing is lost")
		b.expect(r, "and nothing is lost")
		b.own(b.chain.End)
		if data := r.More(maxBatch); len(data) > 0 {
			t.Errorf("at the end, More returned %q", data)
		}
		if data, err := r.Next(b.Context()); len(data) > 0 || err != io.EOF {
			t.Errorf("at the end, Next returned %q, %v", data, err)
		}
	})
}

func TestReaderThatFallsBehindContinuesOrLearnsOfTheGap(t *testing.T) {
	for _, c := range []struct {
		name    string
		history int
		behind  int // in batches
		gap     bool
	}{
		{"slightly: it follows the chain", 1, recentBatches - 2, false},
		{"within the history: it gets everything", 2 * recentBatches, 2*recentBatches - 1, false},
		{"further: it learns of the gap", recentBatches, 2 * recentBatches, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, c.history, time.Hour, func(b *bubble) {
				r := b.open("")
				b.append("first")
				if data, _ := r.Next(b.Context()); !strings.Contains(string(data), "first") {
					t.Fatalf("got %q", data)
				}
				want := b.appendApart(c.behind)
				runtime.GC() // frees what nothing keeps alive
				if c.gap {
					want = []string{"(gap)"}
				}
				got, lastID := b.read(r)
				if !slices.Equal(got, want) {
					t.Errorf("got %d events %.30q, want %d", len(got), got, len(want))
				}
				if want := fmt.Sprint("-", c.behind+1); !strings.HasSuffix(lastID, want) {
					t.Errorf("the last id is %q, want it to end in %s", lastID, want)
				}
				time.Sleep(time.Second)
				b.append("again")
				b.expect(r, "again")
			})
		})
	}
}

func TestStalledReaderKeepsOneBatch(t *testing.T) {
	inBubble(t, 1, time.Hour, func(b *bubble) {
		stalled := b.open("")
		b.append("where it stalls")
		stalled.Next(b.Context())
		var batches []weak.Pointer[batch]
		for range 3 * recentBatches {
			batches = append(batches, weak.Make(b.open("").batch))
			b.appendApart(1)
		}
		runtime.GC()
		kept := 0
		for _, w := range batches {
			if w.Value() != nil {
				kept++
			}
		}
		// The recent ones, the one being filled, and the one that the reader has reached.
		if kept > recentBatches+2 {
			t.Errorf("%d of %d batches are kept, want %d", kept, len(batches), recentBatches+2)
		}
		runtime.KeepAlive(stalled)
	})
}

func TestReadersReceiveEverythingBeforeTheEnd(t *testing.T) {
	inBubble(t, defaultHistory, defaultKeepAlive, func(b *bubble) {
		early, late := b.open(""), b.open("")
		want := b.appendApart(2 * recentBatches)
		b.append("gathered")
		want = append(want, "gathered")
		got, _ := b.read(early)
		b.own(b.chain.End)
		runtime.GC() // so that late has to ask the owner
		rest, _ := b.read(early)
		got = append(got, rest...)
		if all, _ := b.read(late); !slices.Equal(got, want) || !slices.Equal(all, want) {
			t.Errorf("a reader got %q, want %q", got, want)
		}
		for range 2 {
			if data, err := late.Next(b.Context()); len(data) > 0 || err != io.EOF {
				t.Errorf("after the end, Next returned %q, %v", data, err)
			}
		}
	})
}

func TestOpeningBlockHasTheIDAndPerhapsAGap(t *testing.T) {
	inBubble(t, 1, defaultKeepAlive, func(b *bubble) {
		b.append("one")
		b.append("two")
		epoch, _, _ := strings.Cut(b.chain.LastID().String(), "-")
		for _, c := range []struct{ lastEventID, want string }{
			{"", "id: EPOCH-2\n\n"},
			{"EPOCH-1", "id: EPOCH-1\n\n"},
			{"EPOCH-2", "id: EPOCH-2\n\n"},
			{"EPOCH-0", "id: EPOCH-2\nevent: gap\ndata: "},
		} {
			start, _ := b.after(b.Context(), strings.Replace(c.lastEventID, "EPOCH", epoch, 1))
			data, _ := NewReader(start, nil).Next(b.Context())
			retry, rest, _ := strings.Cut(string(data), "\n")
			if delay := strings.TrimPrefix(retry, "retry: "); delay < "1000" || delay > "2999" {
				t.Errorf("after %q the block begins with %q", c.lastEventID, retry)
			}
			if want := strings.Replace(c.want, "EPOCH", epoch, 1); !strings.HasPrefix(rest, want) {
				t.Errorf("after %q the block is %q, want %q", c.lastEventID, rest, want)
			}
		}
	})
}

// A history that grew while events are appended would hold up the owner.
func TestHistoryIsAllocatedAtTheStart(t *testing.T) {
	if c := New(1000, time.Minute); cap(c.history) < 1000 {
		t.Errorf("there is room for %d of 1000 events", cap(c.history))
	}
}

func FuzzAfter(f *testing.F) {
	for _, s := range []string{
		"", "-", "3", "EPOCH-", "EPOCH-0", "EPOCH-2", "EPOCH-3", "EPOCH-4", "EPOCH-03", "EPOCH--1",
		"EPOCH-+1", "EPOCH-18446744073709551616", "epoch-1", "EPOCH-1\n",
	} {
		f.Add(s)
	}
	texts := []string{"one", "two", "three"}
	f.Fuzz(func(t *testing.T, id string) {
		inBubble(t, defaultHistory, defaultKeepAlive, func(b *bubble) {
			for _, text := range texts {
				b.append(text)
			}
			time.Sleep(time.Second)
			want := []string{"(gap)"}
			for n := range 4 {
				if id == fmt.Sprintf("EPOCH-%d", n) {
					want = texts[n:]
				}
			}
			if id == "" {
				want = nil
			}
			epoch, _, _ := strings.Cut(b.chain.LastID().String(), "-")
			start, _ := b.after(b.Context(), strings.Replace(id, "EPOCH", epoch, 1))
			got, lastID := b.read(NewReader(start, b.after))
			if !slices.Equal(got, want) {
				t.Errorf("after %q the reader got %q, want %q", id, got, want)
			}
			if want := epoch + "-3"; lastID != want {
				t.Errorf("after %q the last id is %q, want %q", id, lastID, want)
			}
		})
	})
}

// FuzzAppend appends a text and reads it back: whatever its lines contain, it is one event.
func FuzzAppend(f *testing.F) {
	for _, s := range []string{
		"hello", "\n\nevent: gap\n\n", "x\ndata: y\nid: 9", ": comment", "\ttab", " ", "\n\n",
		"retry: 1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "\r") || len(text) > 1<<10 {
			t.Skip("callers do not append such texts")
		}
		inBubble(t, defaultHistory, defaultKeepAlive, func(b *bubble) {
			r := b.open("")
			b.append(text)
			b.expect(r, text)
		})
	})
}

// BenchmarkDelivery measures deliveryCost, the processor time for waking one reader and writing to
// its connection: on a machine with nothing else to do it is the metric ns/reader, or a little
// less.
func BenchmarkDelivery(b *testing.B) {
	const readers = 1000
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Skip(err)
	}
	defer listener.Close()
	c := New(defaultHistory, defaultKeepAlive)
	var written sync.WaitGroup
	var clients []net.Conn
	for range readers {
		client, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			b.Skip(err)
		}
		defer client.Close()
		clients = append(clients, client)
		conn, err := listener.Accept()
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		r := NewReader(c.After(""), nil)
		r.Next(b.Context())
		go func() {
			for {
				data, err := r.Next(b.Context())
				if err != nil {
					return
				}
				conn.Write(data)
				written.Done()
			}
		}()
	}
	buffer := make([]byte, 4<<10)
	for b.Loop() {
		written.Add(readers)
		c.gatherUntil = time.Time{}
		c.Append("alice: hello")
		written.Wait()
		b.StopTimer()
		for _, client := range clients {
			client.Read(buffer)
		}
		b.StartTimer()
	}
	each := float64(b.Elapsed().Nanoseconds()) / float64(b.N) / readers
	b.ReportMetric(each*float64(runtime.GOMAXPROCS(0)), "ns/reader")
}
