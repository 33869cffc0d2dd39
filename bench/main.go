// Bench compares lobby with other servers on this machine. It starts one server after another, puts
// the same loads on each, and writes Markdown tables and SVG charts.
//
//	go run . -out ../docs/performance
//
// It also compares a lobby on three nodes with a single server:
//
//	go run . -cluster -out ../docs/performance
//
// It needs Linux. ../docs/performance.md explains the figures.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) == 4 && os.Args[1] == "peer" {
		exitIf(servePeer(os.Args[2], os.Args[3]))
		return
	}
	out := flag.String("out", "", "write the tables and charts to this `folder`; "+
		"without it, print the tables")
	quick := flag.Bool("quick", false, "take at most two minutes, with light loads, and leave out "+
		"what cargo would have to build")
	only := flag.String("servers", "", "compare only these `servers`, separated by commas")
	rounds := flag.Int("rounds", 0, "measure everything `n` times")
	cluster := flag.Bool("cluster", false, "compare a lobby on three nodes with a single server; "+
		"takes at most a minute with -quick")
	full := flag.Duration("full", 0, "with -cluster, measure etcd's memory after this `duration` "+
		"at full load")
	flag.Parse()
	if flag.NArg() > 0 {
		exitIf(fmt.Errorf("unexpected argument %q: bench takes only flags, which -h lists",
			flag.Arg(0)))
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if *cluster {
		if *only != "" {
			exitIf(errors.New("-cluster compares lobby with itself; leave out -servers"))
		}
		exitIf(benchCluster(ctx, chooseClusterPlan(*quick, *rounds, *full), *out))
		return
	}
	plan := fullPlan
	if *quick {
		plan = quickPlan
	}
	if *rounds > 0 {
		plan.rounds = *rounds
	}
	servers, err := chooseServers(*only, *quick)
	exitIf(err)
	exitIf(compare(ctx, servers, plan, *out))
}

func exitIf(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// chooseServers returns the servers named in only, or all of them.
func chooseServers(only string, quick bool) ([]*server, error) {
	names := strings.FieldsFunc(only, func(r rune) bool { return r == ',' })
	var chosen []*server
	for _, s := range allServers() {
		switch {
		case len(names) > 0 && !slices.Contains(names, s.name):
		case len(names) == 0 && quick && s.needsCargo:
			fmt.Printf("%s: left out, because it takes long to build\n", s.name)
		default:
			chosen = append(chosen, &s)
		}
	}
	if len(names) > len(chosen) {
		return nil, fmt.Errorf("-servers %s names an unknown server; there are %s",
			only, serverNames(allServers()))
	}
	return chosen, nil
}

func serverNames(servers []server) string {
	var names []string
	for _, s := range servers {
		names = append(names, s.name)
	}
	return strings.Join(names, ", ")
}

// compare builds the servers, runs the plan, and writes the report to the folder out. A server that
// fails does not keep the others from being measured.
func compare(ctx context.Context, servers []*server, p plan, out string) error {
	begin, busy := time.Now(), loadAverage()
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	files, err := raiseFileLimit()
	if err != nil {
		return err
	}
	p.fit(files)
	built, skipped, err := buildAll(ctx, servers, dir)
	if err != nil {
		return err
	}
	results := &results{}
	failed := p.run(ctx, built, dir, results)
	if ctx.Err() != nil {
		return errors.New("interrupted, so nothing was written")
	}
	report := report{plan: p, servers: built, skipped: skipped, results: results, busy: busy}
	if out == "" {
		fmt.Print(report.markdown())
	} else if err := report.write(out); err != nil {
		return err
	}
	fmt.Printf("took %v\n", time.Since(begin).Round(time.Second))
	return failed
}

// raiseFileLimit raises this process's limit on open files, which its children inherit, as far as
// possible, and returns it.
func raiseFileLimit() (int, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	limit.Cur = limit.Max
	return int(min(limit.Max, 1<<30)), syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
}

// fit lowers the numbers of streams to fit a limit on open files, and prints what it lowers.
func (p *plan) fit(files int) {
	most := files * 2 / 3 // because servers need files for other things
	few := &p.few
	for _, streams := range []*int{&few[0], &few[1], &few[2], &p.streams, &p.crowd, &p.storm} {
		if *streams > most {
			fmt.Printf("%d streams instead of %d, because a process may open %d files\n",
				most, *streams, files)
			*streams = most
		}
	}
}

// buildAll builds the servers that can be built on this machine, and says why it skips the others.
func buildAll(ctx context.Context, servers []*server, dir string) (
	built []*server, skipped []string, err error) {
	for _, s := range servers {
		if s.build == nil {
			built = append(built, s)
			continue
		}
		err := s.build(ctx, dir)
		if why := (skippedError{}); errors.As(err, &why) {
			skipped = append(skipped, fmt.Sprintf("%s: skipped, because %v", s.name, why))
			fmt.Println(skipped[len(skipped)-1])
			continue
		}
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", s.name, err)
		}
		built = append(built, s)
	}
	return built, skipped, nil
}

// run runs all stages in each round, and in each stage one server after another.
func (p plan) run(ctx context.Context, servers []*server, dir string, results *results) error {
	var failures []error
	for round := range p.rounds {
		for _, stage := range stages(p) {
			fmt.Printf("round %d of %d: %s\n", round+1, p.rounds, stage.name)
			for i := range servers {
				s := servers[(round+i)%len(servers)] // so that none is always the first
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if !stage.fits(s) {
					continue
				}
				if err := p.runStage(stage, s, dir, results); err != nil {
					err = fmt.Errorf("%s, %s: %w", s.name, stage.name, err)
					fmt.Fprintln(os.Stderr, err)
					failures = append(failures, err)
				}
			}
		}
	}
	return errors.Join(failures...)
}

// runStage starts a server, runs a stage on it, and stops it.
func (p plan) runStage(stage stage, s *server, dir string, results *results) error {
	process, err := startProcess(s, dir, stage.announce)
	if err != nil {
		return err
	}
	stand := &stand{
		process:   process,
		announces: stage.announce || s.alwaysAnnounces,
		plan:      p,
		results:   results,
	}
	for _, step := range stage.steps(stand) {
		if err = step(); err != nil {
			break
		}
	}
	process.stop()
	if stand.streams != nil {
		stand.streams.close()
	}
	return err
}
