package main

// This file measures how long a lobby on several machines takes to recover after a node or etcd's
// leader has died, and a fresh node to start.

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// The table of these measurements has a row for each.
const eventTitle = "Seconds"

func nodeDies(users int) string {
	return fmt.Sprintf("a node with %s users dies (kill -9), until all of them have left",
		thousands(users))
}

const leaderDies = "etcd's leader dies (kill -9) under load, until a node's next answer"

func nodeBegins(users int) string {
	return fmt.Sprintf("a fresh node starts under load among %s users, until it has answered "+
		"GET /users", thousands(users))
}

func (s *survey) recordSeconds(row string, took time.Duration) {
	s.results.record(eventTitle, row, figure{seconds, took.Seconds()})
}

const (
	// deathTime is how long the users of a dead node may stay.
	deathTime = 30 * time.Second

	// steadyTime is how long a load runs before something happens to it.
	steadyTime = 500 * time.Millisecond

	// backgroundClients is how many clients each node has in the background.
	backgroundClients = 16
)

// killNode kills a node with a crowd, and watches the crowd leave at another node.
func (s *survey) killNode(_ int, t *trio) error {
	watching, dying := &stand{server: t.nodes[0]}, &stand{server: t.nodes[1]}
	watcher := newRequest("GET", "/chat/watcher", host, "")
	seen, err := openStreams(watching.addr, 1, watching.streamStatus(),
		func(int) []byte { return watcher })
	if seen != nil {
		defer seen.close()
	}
	if err != nil {
		return err
	}
	crowd, err := openStreams(dying.addr, s.crowd, dying.streamStatus(), dying.streamRequest)
	if crowd != nil {
		defer crowd.close()
	}
	if err != nil {
		return err
	}
	n := int64(s.crowd)
	if err := seen.await("arrivals", &seen.delivered, n); err != nil {
		return err
	}
	begin := clock()
	t.nodes = slices.Delete(t.nodes, 1, 2)
	dying.stop()
	err = seen.awaitFor(deathTime, "arrivals and departures", &seen.delivered, 2*n)
	if err != nil {
		return err
	}
	s.recordSeconds(nodeDies(s.crowd), time.Duration(seen.lastDelivery.Load()-begin))
	return nil
}

// killLeaders kills etcd's leader under load, and records for each node how long it is silent then.
func (s *survey) killLeaders(_ int, t *trio) error {
	for range s.kills {
		leader, err := t.awaitLeader()
		if err != nil {
			return err
		}
		var killed time.Time
		loads, err := underLoad(t, func(loads []*backgroundLoad) error {
			killed = time.Now()
			leader.stop()
			// Answers that are under way may still come. Those that come later need another leader.
			if _, err := t.awaitLeader(); err != nil {
				return err
			}
			for _, load := range loads {
				load.awaitAnswer()
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, load := range loads {
			s.recordSeconds(leaderDies, longestSilence(load.answers, killed))
		}
		if err := errors.Join(leader.start(), t.awaitHealth()); err != nil {
			return err
		}
	}
	return nil
}

// startNodes starts fresh nodes under load, one after the other.
func (s *survey) startNodes(_ int, t *trio) error {
	if err := s.join(s.users-1, t.nodes[0]); err != nil { // the speaker is one, too
		return err
	}
	_, err := underLoad(t, func([]*backgroundLoad) error {
		for range s.starts {
			begin := time.Now()
			node, err := t.startNode()
			if err != nil {
				return err
			}
			if err := askOnce(node, requestOfList); err != nil {
				return err
			}
			s.recordSeconds(nodeBegins(s.users), time.Since(begin))
			node.stop()
		}
		return nil
	})
	return err
}

// askOnce sends one request, and returns when it is answered.
func askOnce(node *server, request []byte) error {
	r, err := newRequester(1, node.addr)
	if err != nil {
		return err
	}
	defer r.close()
	_, _, err = r.do(job{count: 1, request: func() []byte { return request }})
	return err
}

// A backgroundLoad is what some clients do at one node.
type backgroundLoad struct {
	last  atomic.Int64  // when the last answer came, by the clock
	ended chan struct{} // closed when no more come

	// Valid once ended is closed.
	answers []time.Time // when they came
	err     error
}

// underLoad does something while the speaker speaks at every node.
func underLoad(t *trio, do func([]*backgroundLoad) error) ([]*backgroundLoad, error) {
	if err := askOnce(t.nodes[0], requestToJoin); err != nil {
		return nil, err
	}
	stop := make(chan struct{})
	var loads []*backgroundLoad
	for _, node := range t.nodes {
		load := &backgroundLoad{ended: make(chan struct{})}
		loads = append(loads, load)
		go load.run(node, stop)
	}
	time.Sleep(steadyTime)
	err := do(loads)
	close(stop)
	for _, load := range loads {
		<-load.ended
		err = errors.Join(err, load.err)
	}
	return loads, err
}

// run speaks at a node until stop is closed.
func (l *backgroundLoad) run(node *server, stop <-chan struct{}) {
	defer close(l.ended)
	r, err := newRequester(backgroundClients, node.addr)
	if err != nil {
		l.err = err
		return
	}
	defer r.close()
	_, _, l.err = r.do(job{
		request: func() []byte { return requestToSay },
		stop:    stop,
		heard: func(_, now time.Time) {
			l.answers = append(l.answers, now)
			l.last.Store(clock())
		},
	})
}

// awaitAnswer waits until another answer has come, or none will.
func (l *backgroundLoad) awaitAnswer() {
	for now := clock(); l.last.Load() < now && !isClosed(l.ended); {
		time.Sleep(pollTime)
	}
}

// longestSilence returns the longest time for which no answer came, after a moment.
func longestSilence(answers []time.Time, after time.Time) (longest time.Duration) {
	last := after
	for _, answer := range answers {
		if answer.After(after) {
			longest = max(longest, answer.Sub(last))
			last = answer
		}
	}
	return longest
}
