package main

// This file measures requests to a lobby on several machines, and to one that is alone.

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A way is one to send requests to a lobby.
type way struct {
	row            string
	to             []netip.AddrPort
	lobbies, etcds []*server
	followers      []*server // nodes that are not asked
}

// The rows of the tables of requests.
const (
	alone      = "alone"
	oneOfThree = "through one of three nodes"
	allThree   = "through all three nodes"
)

// Columns of those tables, besides those of the race.
const (
	timesAlone = "× alone"
	cpuLobbies = "lobby CPU µs/request"
	cpuEtcds   = "etcd CPU µs/request"
	cpuCommand = "CPU µs/command"
)

// A requestLoad is a request that so many clients send, each as soon as it has its last answer.
type requestLoad struct {
	title   string
	clients int
	request []byte
	orders  bool // whether the request is a command that all nodes carry out
}

func postTitle(clients int) string {
	return fmt.Sprintf("POST /chat/%s, %d clients", speaker, clients)
}

const (
	lookTitle     = "GET /users with one user, 50 clients"
	followerTitle = "Processor time of a node that only follows"
)

var (
	requestToJoin = newRequest("POST", "/users/"+speaker, host, "")
	requestToSay  = newRequest("POST", "/chat/"+speaker, host, "hello")
	requestOfList = newRequest("GET", "/users", host, "")

	requestLoads = []requestLoad{
		{postTitle(50), 50, requestToSay, true},
		{postTitle(500), 500, requestToSay, true},
		{lookTitle, 50, requestOfList, false},
	}
)

// An outcome is what a load has measured in one way.
type outcome struct {
	rate     float64 // requests per second
	figures  []figure
	follower float64 // processor time of a node that only follows, in µs per request
}

// requests sends the requests of each load in each of the ways in turn.
func (s *survey) requests(round int, t *trio) error {
	side := lobbySide()
	single, err := startServer(&side, s.dir, false)
	if err != nil {
		return err
	}
	defer single.stop()
	for _, node := range []*server{single, t.nodes[0]} {
		if err := askOnce(node, requestToJoin); err != nil {
			return err
		}
	}
	ways := []way{
		{row: alone, to: []netip.AddrPort{single.addr}, lobbies: []*server{single}},
		{row: oneOfThree, to: addrsOf(t.nodes[:1]), lobbies: t.nodes, etcds: t.etcdServers(),
			followers: t.nodes[1:]},
		{row: allThree, to: addrsOf(t.nodes), lobbies: t.nodes, etcds: t.etcdServers()},
	}
	followed := map[string]float64{}
	for _, load := range requestLoads {
		outcomes := map[string]outcome{}
		for i := range ways {
			w := ways[(round+i)%len(ways)] // so that none is always the first
			if outcomes[w.row], err = s.send(load, w); err != nil {
				return fmt.Errorf("%s, %s: %w", load.title, w.row, err)
			}
		}
		for _, w := range ways {
			o := outcomes[w.row]
			ratio := figure{timesAlone, o.rate / outcomes[alone].rate}
			s.results.record(load.title, w.row, slices.Insert(o.figures, 1, ratio)...)
		}
		followed[load.title] = outcomes[oneOfThree].follower
	}
	for _, load := range requestLoads {
		if load.orders {
			s.results.record(followerTitle, load.title, figure{cpuCommand, followed[load.title]})
		}
	}
	return nil
}

// send sends the requests of a load in one way.
func (s *survey) send(load requestLoad, w way) (o outcome, err error) {
	r, err := newRequester(load.clients, w.to...)
	if err != nil {
		return o, err
	}
	defer r.close()
	groups := [][]*server{w.lobbies, w.etcds, w.followers}
	before, err := cpuOf(groups)
	if err != nil {
		return o, err
	}
	var latencies []float64
	answered, took, err := r.do(job{
		request: func() []byte { return load.request },
		length:  s.length,
		stop:    s.ctx.Done(),
		heard:   func(sent, now time.Time) { latencies = append(latencies, millis(now.Sub(sent))) },
	})
	if err != nil {
		return o, err
	}
	after, err := cpuOf(groups)
	if err != nil {
		return o, err
	}
	perRequest := func(group int) float64 {
		return micros(after[group]-before[group]) / float64(max(answered, 1))
	}
	slices.Sort(latencies)
	o.rate = float64(answered) / took.Seconds()
	o.figures = []figure{
		{requests, o.rate},
		{p50, quantile(latencies, 0.5)},
		{p99, quantile(latencies, 0.99)},
		{cpuLobbies, perRequest(0)},
		{cpuEtcds, perRequest(1)},
	}
	o.follower = perRequest(2) / float64(max(len(w.followers), 1))
	return o, nil
}

// cpuOf returns the processor time that each group of servers has used.
func cpuOf(groups [][]*server) ([]time.Duration, error) {
	used := make([]time.Duration, len(groups))
	for i, group := range groups {
		for _, s := range group {
			cpu, err := s.cpu()
			if err != nil {
				return nil, err
			}
			used[i] += cpu
		}
	}
	return used, nil
}

// The table of memory has a row for each figure.
const (
	amount    = "figure"
	fullRate  = "requests/s"
	etcdRSS   = "MB of memory of the etcd server that has most"
	etcdPeak  = "the same, at its highest"
	etcdDisk  = "MB of its database on disk"
	askedRSS  = "MB of memory of the node that is asked"
	followRSS = "MB of memory of a node that only follows"

	// fullClients are so many that more of them would not make more requests a second.
	fullClients = 500
)

func memoryTitle(full time.Duration) string {
	return fmt.Sprintf("After %v of POST /chat/%s, %d clients through one of three nodes",
		strings.Replace(full.String(), "m0s", "m", 1), speaker, fullClients)
}

// memory records how much memory everything takes after a long time at full load.
func (s *survey) memory(_ int, t *trio) error {
	if err := askOnce(t.nodes[0], requestToJoin); err != nil {
		return err
	}
	r, err := newRequester(fullClients, t.nodes[0].addr)
	if err != nil {
		return err
	}
	defer r.close()
	answered, took, err := r.do(job{
		request: func() []byte { return requestToSay },
		length:  s.full,
		stop:    s.ctx.Done(),
	})
	if err != nil {
		return err
	}
	asked, follower := t.nodes[0], t.nodes[1]
	rows := []struct {
		name string
		of   func() (int, error)
	}{
		{etcdRSS, t.mostOf((*etcdServer).memory)},
		{etcdPeak, t.mostOf((*etcdServer).mostMemory)},
		{etcdDisk, t.mostOf((*etcdServer).databaseSize)},
		{askedRSS, asked.memory},
		{followRSS, follower.memory},
	}
	title := memoryTitle(s.full)
	s.results.record(title, fullRate, figure{amount, float64(answered) / took.Seconds()})
	for _, row := range rows {
		bytes, err := row.of()
		if err != nil {
			return err
		}
		s.results.record(title, row.name, figure{amount, float64(bytes) / 1e6})
	}
	return nil
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
