package main

// This file measures how long a lobby on three nodes takes to recover from the death of a node or
// of etcd's leader, and how long a new node takes to start.

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

const leaderDies = "etcd's leader dies (kill -9) under load, until a node's next response"

func nodeStarts(users int) string {
	return fmt.Sprintf("a new node starts under load with %s users, until it has answered "+
		"GET /users", thousands(users))
}

func (b *clusterBench) recordSeconds(row string, took time.Duration) {
	b.results.record(eventTitle, row, figure{seconds, took.Seconds()})
}

const (
	// deathTime is how long the users of a dead node may stay.
	deathTime = 30 * time.Second

	// steadyTime is how long a load runs before something is killed or started.
	steadyTime = 500 * time.Millisecond

	// backgroundClients is the number of clients of each node in a background load.
	backgroundClients = 16
)

// killNode kills a node that has many users, and watches them leave on another node's stream.
func (b *clusterBench) killNode(_ int, c *cluster) error {
	watching, dying := &stand{process: c.nodes[0]}, &stand{process: c.nodes[1]}
	watcher := newRequest("GET", "/chat/watcher", host, "")
	seen, err := openStreams(watching.addr, 1, watching.streamStatus(),
		func(int) []byte { return watcher })
	if seen != nil {
		defer seen.close()
	}
	if err != nil {
		return err
	}
	crowd, err := openStreams(dying.addr, b.crowd, dying.streamStatus(), dying.streamRequest)
	if crowd != nil {
		defer crowd.close()
	}
	if err != nil {
		return err
	}
	n := int64(b.crowd)
	if err := seen.await("arrivals", &seen.delivered, n); err != nil {
		return err
	}
	begin := clock()
	c.nodes = slices.Delete(c.nodes, 1, 2)
	dying.stop()
	err = seen.awaitFor(deathTime, "arrivals and departures", &seen.delivered, 2*n)
	if err != nil {
		return err
	}
	b.recordSeconds(nodeDies(b.crowd), time.Duration(seen.lastDelivery.Load()-begin))
	return nil
}

// killLeaders kills etcd's leader under load, and records how long each node then sends no
// response.
func (b *clusterBench) killLeaders(_ int, c *cluster) error {
	for range b.kills {
		leader, err := c.awaitLeader()
		if err != nil {
			return err
		}
		var killed time.Time
		loads, err := underLoad(c, func(loads []*backgroundLoad) error {
			killed = time.Now()
			leader.stop()
			// Responses under way may still arrive. Later ones need another leader.
			if _, err := c.awaitLeader(); err != nil {
				return err
			}
			for _, load := range loads {
				load.awaitResponse()
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, load := range loads {
			b.recordSeconds(leaderDies, longestSilence(load.responses, killed))
		}
		if err := errors.Join(leader.start(), c.awaitHealth()); err != nil {
			return err
		}
	}
	return nil
}

// startNodes starts new nodes under load, one after another.
func (b *clusterBench) startNodes(_ int, c *cluster) error {
	if err := b.join(b.users-1, c.nodes[0]); err != nil { // The speaker is one of them.
		return err
	}
	_, err := underLoad(c, func([]*backgroundLoad) error {
		for range b.starts {
			begin := time.Now()
			node, err := c.startNode()
			if err != nil {
				return err
			}
			if err := askOnce(node, requestOfList); err != nil {
				return err
			}
			b.recordSeconds(nodeStarts(b.users), time.Since(begin))
			node.stop()
		}
		return nil
	})
	return err
}

// askOnce sends one request and waits for the response.
func askOnce(node *process, request []byte) error {
	r, err := newRequester(1, node.addr)
	if err != nil {
		return err
	}
	defer r.close()
	_, _, err = r.do(job{count: 1, request: func() []byte { return request }})
	return err
}

// A backgroundLoad sends messages to one node.
type backgroundLoad struct {
	last  atomic.Int64  // when the last response arrived, by the clock
	ended chan struct{} // closed when no more will arrive

	// Valid once ended is closed.
	responses []time.Time // when they arrived
	err       error
}

// underLoad calls do while the speaker sends messages to every node.
func underLoad(c *cluster, do func([]*backgroundLoad) error) ([]*backgroundLoad, error) {
	if err := askOnce(c.nodes[0], requestToJoin); err != nil {
		return nil, err
	}
	stop := make(chan struct{})
	var loads []*backgroundLoad
	for _, node := range c.nodes {
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

// run sends messages to a node until stop is closed.
func (l *backgroundLoad) run(node *process, stop <-chan struct{}) {
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
			l.responses = append(l.responses, now)
			l.last.Store(clock())
		},
	})
}

// awaitResponse waits until another response has arrived, or none will.
func (l *backgroundLoad) awaitResponse() {
	for now := clock(); l.last.Load() < now && !isClosed(l.ended); {
		time.Sleep(pollTime)
	}
}

// longestSilence returns the longest time without a response after a moment.
func longestSilence(responses []time.Time, after time.Time) (longest time.Duration) {
	last := after
	for _, response := range responses {
		if response.After(after) {
			longest = max(longest, response.Sub(last))
			last = response
		}
	}
	return longest
}
