package main

// This file has the loads. They are the same for every server, and record what they measure.

import (
	"errors"
	"fmt"
	"time"
)

// A plan says how much to measure. Its numbers of streams are lowered if the machine's limit on
// open files requires it.
type plan struct {
	rounds  int
	length  time.Duration // of each load that does not end by itself
	few     [3]int        // streams, for fan-outs to few
	streams int           // streams, for a fan-out at several rates
	crowd   int           // streams, for their memory and a fan-out to many
	storm   int           // streams that are announced
	users   int           // in the list that is requested
}

var (
	fullPlan = plan{rounds: 3, length: 2 * time.Second,
		few: [3]int{10, 100, 300}, streams: 1000, crowd: 9000, storm: 1000, users: 1000}
	quickPlan = plan{rounds: 1, length: 300 * time.Millisecond,
		few: [3]int{5, 10, 20}, streams: 200, crowd: 500, storm: 200, users: 1000}
)

const (
	publishers = 4  // connections for messages
	clients    = 32 // connections for other requests

	// maxUnderWay is the largest number of deliveries under way, so that the memory of a server
	// that responds before it delivers stays bounded.
	maxUnderWay = 4_000_000
	// maxMessages is the largest number of messages under way, fewer than the servers' histories
	// hold.
	maxMessages = 1000
)

// A stage is a sequence of steps for one process of a server.
type stage struct {
	name     string
	announce bool // whether each new stream is announced
	fits     func(*server) bool
	steps    func(*stand) []step
}

// A step is a load, or prepares one.
type step func() error

// stages returns all stages, in the order of the tables.
func stages(p plan) []stage {
	all := func(*server) bool { return true }
	var stages []stage
	for _, n := range p.few {
		few := func(s *stand) []step {
			return []step{s.admit, s.open(n), s.fanOut(1000), s.fanOut(0)}
		}
		stages = append(stages, stage{fmt.Sprintf("fan-out to %d", n), false, all, few})
	}
	return append(stages, []stage{
		{fmt.Sprintf("fan-out to %d", p.streams), false, all, func(s *stand) []step {
			return []step{s.admit, s.open(p.streams), s.fanOut(50), s.fanOut(1000), s.fanOut(0)}
		}},
		{"crowd", false, all, func(s *stand) []step {
			open := s.open(p.crowd)
			if s.announces {
				open = s.storm(p.crowd)
			}
			return []step{s.admit, open, s.idle, s.fanOut(0)}
		}},
		{"storm", true, func(s *server) bool { return !s.neverAnnounces }, func(s *stand) []step {
			return []step{s.storm(p.storm)}
		}},
		{"requests", false, func(s *server) bool { return s.hasUsers }, func(s *stand) []step {
			return []step{s.populate(p.users), s.list(p.users), s.rejoin}
		}},
	}...)
}

// Columns of the tables.
const (
	reached     = "messages/s"
	deliveries  = "deliveries/s"
	p50         = "p50 ms"
	p99         = "p99 ms"
	cpuDelivery = "CPU µs/delivery"
	lost        = "lost %"
	seconds     = "seconds"
	memory      = "KB/stream"
	requests    = "requests/s"
	cpuRequest  = "CPU µs/request"
)

// A stand is one server under load, with the results of measuring it.
type stand struct {
	*process
	announces bool
	plan      plan
	results   *results
	streams   *streams // nil until they are opened
	before    int      // the server's memory before that
}

// open returns a step that opens n streams and waits until they are announced, if they are.
func (s *stand) open(n int) step {
	return func() (err error) {
		if s.before, err = s.memory(); err != nil {
			return err
		}
		s.streams, err = openStreams(s.addr, n, s.streamStatus(), s.streamRequest)
		if err != nil || !s.announces {
			return err
		}
		return s.streams.await("announcements", &s.streams.delivered, announcements(n))
	}
}

// announcements returns the number of deliveries that announce each of n streams to itself and to
// all streams before it.
func announcements(n int) int64 { return int64(n) * int64(n+1) / 2 }

func (s *stand) streamStatus() string {
	if s.webSocket {
		return "HTTP/1.1 101"
	}
	return "HTTP/1.1 200"
}

func (s *stand) streamRequest(i int) []byte {
	fields := "Accept: text/event-stream\r\n"
	if s.webSocket {
		fields = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
			"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
	}
	return fmt.Appendf(nil, "GET /chat/%s HTTP/1.1\r\nHost: %s\r\n%s\r\n", listener(i), s.addr, fields)
}

// join adds users to the server.
func (s *stand) join(names ...string) error {
	r, err := newRequester(1, s.addr)
	if err != nil {
		return err
	}
	defer r.close()
	i := -1
	_, _, err = r.do(job{count: len(names), request: func() []byte {
		i++
		return newRequest("POST", "/users/"+names[i], s.addr.String(), "")
	}})
	return err
}

// admit adds the speaker if the server has users.
func (s *stand) admit() error {
	if s.hasUsers {
		return s.join(speaker)
	}
	return nil
}

func fanOutTitle(streams int, rate float64) string {
	if rate == 0 {
		return fmt.Sprintf("%s streams, messages as fast as they are accepted", thousands(streams))
	}
	return fmt.Sprintf("%s streams, %s messages/s", thousands(streams), thousands(int(rate)))
}

// fanOut returns a step that publishes at a rate, or as fast as messages are accepted if it is 0.
func (s *stand) fanOut(rate float64) step {
	return func() error {
		r, err := newRequester(publishers, s.addr)
		if err != nil {
			return err
		}
		defer r.close()
		var (
			n       = int64(len(s.streams.fds))
			before  = s.streams.delivered.Load()
			message = newStamped(s.addr.String(), s.prefixed)
			begin   = clock()
		)
		s.streams.takeLatencies()
		usage, err := s.cpu()
		if err != nil {
			return err
		}
		answered, took, err := r.do(job{
			length:  s.plan.length,
			rate:    rate,
			request: func() []byte { return message.at(clock()) },
			hold: func(sent int) bool {
				underWay := int64(sent)*n - s.streams.delivered.Load() + before
				return underWay >= min(maxUnderWay, maxMessages*n)
			},
		})
		if err != nil {
			return err
		}
		want := int64(answered) * n
		missing := s.streams.await("deliveries", &s.streams.delivered, before+want)
		got := s.streams.delivered.Load() - before
		if got > want {
			return fmt.Errorf("%d deliveries of %d messages arrived, want %d", got, answered, want)
		}
		used, err := s.cpu()
		if err != nil {
			return err
		}
		latencies := s.streams.takeLatencies()
		s.record(fanOutTitle(int(n), rate),
			figure{reached, float64(answered) / took.Seconds()},
			figure{deliveries, perSecond(got, s.streams.lastDelivery.Load()-begin)},
			figure{p50, quantile(latencies, 0.5)},
			figure{p99, quantile(latencies, 0.99)},
			figure{cpuDelivery, micros(used-usage) / float64(max(got, 1))},
			figure{lost, 100 * float64(want-got) / float64(max(want, 1))},
		)
		return s.forgive(missing)
	}
}

// forgive returns nil instead of an error about lost messages if the server may lose some, because
// the table shows them.
func (s *stand) forgive(err error) error {
	if lost := (*lostError)(nil); s.mayLose && errors.As(err, &lost) {
		return nil
	}
	return err
}

func idleTitle(streams int) string {
	return fmt.Sprintf("%s idle streams", thousands(streams))
}

// idle records the memory for each stream.
func (s *stand) idle() error {
	after, err := s.memory()
	if err != nil {
		return err
	}
	n := len(s.streams.fds)
	s.record(idleTitle(n), figure{memory, float64(after-s.before) / 1000 / float64(n)})
	return nil
}

func stormTitle(streams int) string {
	return fmt.Sprintf("%s streams open one after another, each announced to all",
		thousands(streams))
}

// storm returns a step that opens n streams, each of which is announced.
func (s *stand) storm(n int) step {
	return func() error {
		usage, err := s.cpu()
		if err != nil {
			return err
		}
		begin := clock()
		if err := s.forgive(s.open(n)()); err != nil {
			return err
		}
		used, err := s.cpu()
		if err != nil {
			return err
		}
		want, got := announcements(n), s.streams.delivered.Load()
		if got > want {
			return fmt.Errorf("%d announcements arrived, want %d", got, want)
		}
		took := s.streams.lastDelivery.Load() - begin
		s.record(stormTitle(n),
			figure{seconds, float64(took) / 1e9},
			figure{deliveries, perSecond(got, took)},
			figure{cpuDelivery, micros(used-usage) / float64(max(got, 1))},
			figure{lost, 100 * float64(want-got) / float64(want)},
		)
		return nil
	}
}

func listTitle(users int) string {
	return fmt.Sprintf("GET /users with %s users, %d connections", thousands(users), clients)
}

var joinTitle = fmt.Sprintf("POST /users/%s, who is already present, %d connections",
	speaker, clients)

// populate returns a step that adds n users, one of whom is the speaker.
func (s *stand) populate(n int) step {
	names := []string{speaker}
	for i := range n - 1 {
		names = append(names, fmt.Sprint("user", i))
	}
	return func() error { return s.join(names...) }
}

// list returns a step that requests the list of users.
func (s *stand) list(users int) step {
	return func() error {
		return s.request(listTitle(users), newRequest("GET", "/users", s.addr.String(), ""))
	}
}

// rejoin adds a user who is already present.
func (s *stand) rejoin() error {
	return s.request(joinTitle, newRequest("POST", "/users/"+speaker, s.addr.String(), ""))
}

// request repeats one request over several connections.
func (s *stand) request(title string, request []byte) error {
	r, err := newRequester(clients, s.addr)
	if err != nil {
		return err
	}
	defer r.close()
	before, err := s.cpu()
	if err != nil {
		return err
	}
	answered, took, err := r.do(job{
		length:  s.plan.length,
		request: func() []byte { return request },
	})
	if err != nil {
		return err
	}
	after, err := s.cpu()
	if err != nil {
		return err
	}
	s.record(title,
		figure{requests, float64(answered) / took.Seconds()},
		figure{cpuRequest, micros(after-before) / float64(max(answered, 1))},
	)
	return nil
}

func (s *stand) record(title string, figures ...figure) {
	s.results.record(title, s.name, figures...)
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// perSecond returns the rate of n events in a time.
func perSecond(n, nanoseconds int64) float64 {
	return float64(n) * 1e9 / float64(max(nanoseconds, 1))
}
