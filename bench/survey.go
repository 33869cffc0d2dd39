package main

// This file takes a survey: it measures a lobby on several machines beside one that is alone.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// A surveyPlan says how much is measured.
type surveyPlan struct {
	rounds int
	length time.Duration // of each load of requests
	crowd  int           // users with a stream on a node that is killed
	users  int           // in a lobby that a fresh node comes to
	starts int           // of fresh nodes in each round
	kills  int           // of etcd's leader in each round
	full   time.Duration // of the load after which memory is measured; that has one round
	judged bool          // whether the loads are long enough to compare figures with bounds
}

var (
	fullSurvey = surveyPlan{rounds: 3, length: 3 * time.Second,
		crowd: 400, users: 100_000, starts: 3, kills: 3, full: 5 * time.Minute, judged: true}
	quickSurvey = surveyPlan{rounds: 1, length: 300 * time.Millisecond,
		crowd: 100, users: 1000, starts: 1, kills: 1, full: time.Second}
)

// chooseSurvey returns a plan. The rounds and the duration of the full load are as usual if they
// are 0.
func chooseSurvey(quick bool, rounds int, full time.Duration) surveyPlan {
	p := fullSurvey
	if quick {
		p = quickSurvey
	}
	if rounds > 0 {
		p.rounds = rounds
	}
	if full > 0 {
		p.full = full
	}
	return p
}

// A survey is what carries out a plan.
type survey struct {
	surveyPlan
	ctx     context.Context
	dir     string // where the lobby's program is
	results *results
}

// takeSurvey measures what the plan says, and writes it to the folder out. Failures do not keep
// the rest from being measured.
func takeSurvey(ctx context.Context, p surveyPlan, out string) error {
	begin, busy := time.Now(), loadAverage()
	version, err := findEtcd()
	if why := (skippedError{}); errors.As(err, &why) {
		fmt.Printf("several machines: skipped, because %v\n", why)
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
	s := &survey{p, ctx, dir, &results{}}
	failed := s.run()
	if ctx.Err() != nil {
		return errors.New("interrupted, so nothing was written")
	}
	report := surveyReport{plan: p, results: s.results, etcd: version, busy: busy}
	if out == "" {
		fmt.Print(report.markdown())
	} else if err := report.write(out); err != nil {
		return err
	}
	fmt.Printf("took %v\n", time.Since(begin).Round(time.Second))
	return failed
}

// run does each measurement in each round, with a new lobby each time.
func (s *survey) run() error {
	type measurement struct {
		name string
		do   func(round int, t *trio) error
	}
	all := []measurement{
		{"requests", s.requests},
		{"a node is killed", s.killNode},
		{"etcd's leader is killed", s.killLeaders},
		{"a fresh node", s.startNodes},
	}
	var failures []error
	measure := func(round int, m measurement) {
		if s.ctx.Err() != nil {
			return
		}
		fmt.Printf("round %d of %d: %s\n", round+1, s.rounds, m.name)
		t, err := startTrio(s.dir)
		if err == nil {
			err = m.do(round, t)
			t.stop()
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", m.name, err)
			fmt.Fprintln(os.Stderr, err)
			failures = append(failures, err)
		}
	}
	for round := range s.rounds {
		for _, m := range all {
			measure(round, m)
		}
	}
	measure(s.rounds-1, measurement{"memory", s.memory})
	return errors.Join(failures...)
}

const (
	host    = "localhost" // the Host of requests; all nodes answer to every loopback name
	joiners = 500         // connections that users are added over
)

// join adds n users at a node.
func (s *survey) join(n int, node *server) error {
	r, err := newRequester(min(n, joiners), node.addr)
	if err != nil {
		return err
	}
	defer r.close()
	i := 0
	_, _, err = r.do(job{count: n, stop: s.ctx.Done(), request: func() []byte {
		i++
		return newRequest("POST", fmt.Sprint("/users/user", i), host, "")
	}})
	return err
}
