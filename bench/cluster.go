package main

// This file compares a lobby on three nodes with a single server.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// A clusterPlan says how much to measure.
type clusterPlan struct {
	rounds int
	length time.Duration // of each load of requests
	crowd  int           // users with a stream on the node that is killed
	users  int           // in the lobby that a new node joins
	starts int           // of new nodes in each round
	kills  int           // of etcd's leader in each round
	full   time.Duration // of each load after which memory is measured, in the last round only
}

var (
	fullCluster = clusterPlan{rounds: 3, length: 3 * time.Second,
		crowd: 400, users: 100_000, starts: 3, kills: 3, full: 5 * time.Minute}
	quickCluster = clusterPlan{rounds: 1, length: 300 * time.Millisecond,
		crowd: 100, users: 1000, starts: 1, kills: 1, full: time.Second}
)

// chooseClusterPlan returns a plan. Zero for rounds or full means the plan's own value.
func chooseClusterPlan(quick bool, rounds int, full time.Duration) clusterPlan {
	p := fullCluster
	if quick {
		p = quickCluster
	}
	if rounds > 0 {
		p.rounds = rounds
	}
	if full > 0 {
		p.full = full
	}
	return p
}

// A clusterBench carries out a plan.
type clusterBench struct {
	clusterPlan
	ctx     context.Context
	dir     string // where the lobby's program is
	results *results
}

// benchCluster measures what the plan says, and writes the report to the folder out. A failure does
// not keep the rest from being measured.
func benchCluster(ctx context.Context, p clusterPlan, out string) error {
	begin, busy := time.Now(), loadAverage()
	version, err := findEtcd()
	if why := (skippedError{}); errors.As(err, &why) {
		fmt.Printf("cluster: skipped, because %v\n", why)
		return nil
	}
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if _, err := raiseFileLimit(); err != nil {
		return err
	}
	if err := buildLobby(ctx, dir); err != nil {
		return err
	}
	b := &clusterBench{p, ctx, dir, &results{}}
	failed := b.run()
	if ctx.Err() != nil {
		return errors.New("interrupted, so nothing was written")
	}
	report := clusterReport{plan: p, results: b.results, etcd: version, busy: busy}
	if out == "" {
		fmt.Print(report.markdown())
	} else if err := report.write(out); err != nil {
		return err
	}
	fmt.Printf("took %v\n", time.Since(begin).Round(time.Second))
	return failed
}

// run takes each measurement in each round, with a new lobby each time.
func (b *clusterBench) run() error {
	type measurement struct {
		name  string
		do    func(round int, c *cluster) error
		flags []string // of the nodes
	}
	all := []measurement{
		{name: "requests", do: b.requests},
		{name: "a node is killed", do: b.killNode},
		{name: "etcd's leader is killed", do: b.killLeaders},
		{name: "a new node", do: b.startNodes},
	}
	var failures []error
	measure := func(round int, m measurement) {
		if b.ctx.Err() != nil {
			return
		}
		fmt.Printf("round %d of %d: %s\n", round+1, b.rounds, m.name)
		c, err := startCluster(b.dir, m.flags...)
		if err == nil {
			err = m.do(round, c)
			c.stop()
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", m.name, err)
			fmt.Fprintln(os.Stderr, err)
			failures = append(failures, err)
		}
	}
	for round := range b.rounds {
		for _, m := range all {
			measure(round, m)
		}
	}
	for _, load := range memoryLoads {
		do := func(_ int, c *cluster) error { return b.memory(load, c) }
		measure(b.rounds-1, measurement{"memory", do, load.flags})
	}
	return errors.Join(failures...)
}

const (
	host    = "localhost" // the Host of requests; nodes accept every loopback name
	joiners = 500         // connections over which users are added
)

// join adds n users through a node.
func (b *clusterBench) join(n int, node *process) error {
	r, err := newRequester(min(n, joiners), node.addr)
	if err != nil {
		return err
	}
	defer r.close()
	i := 0
	_, _, err = r.do(job{count: n, stop: b.ctx.Done(), request: func() []byte {
		i++
		return newRequest("POST", fmt.Sprint("/users/user", i), host, "")
	}})
	return err
}
