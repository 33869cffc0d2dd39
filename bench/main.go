// Bench is a race between lobby and its peers, on this machine. It starts one server after
// another, loads each in the same way, and writes tables in Markdown and charts in SVG.
//
//	go run . -out ../docs/performance
//
// It can also take a survey, which measures a lobby on several machines beside one that is alone:
//
//	go run . -several -out ../docs/performance
//
// It runs on Linux only. ../docs/performance.md says what the figures mean.
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
	quick := flag.Bool("quick", false, "take at most two minutes, with little load, and leave out "+
		"what cargo would have to build")
	only := flag.String("sides", "", "race only these `sides`, separated by commas")
	rounds := flag.Int("rounds", 0, "measure everything `n` times")
	several := flag.Bool("several", false, "instead of the race, measure a lobby on several "+
		"machines beside one that is alone; takes at most 40 seconds with -quick")
	full := flag.Duration("full", 0, "with -several, measure etcd's memory after this `duration` "+
		"at full load")
	flag.Parse()
	if flag.NArg() > 0 {
		exitIf(fmt.Errorf("unexpected argument %q; the race takes only flags", flag.Arg(0)))
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if *several {
		if *only != "" {
			exitIf(errors.New("-several does not race the -sides; leave one of the flags out"))
		}
		exitIf(takeSurvey(ctx, chooseSurvey(*quick, *rounds, *full), *out))
		return
	}
	plan := fullPlan
	if *quick {
		plan = quickPlan
	}
	if *rounds > 0 {
		plan.rounds = *rounds
	}
	sides, err := chooseSides(*only, *quick)
	exitIf(err)
	exitIf(race(ctx, sides, plan, *out))
}

func exitIf(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// chooseSides returns the sides with the names in only, or all.
func chooseSides(only string, quick bool) ([]*side, error) {
	names := strings.FieldsFunc(only, func(r rune) bool { return r == ',' })
	var chosen []*side
	for _, s := range allSides() {
		switch {
		case len(names) > 0 && !slices.Contains(names, s.name):
		case len(names) == 0 && quick && s.needsCargo:
			fmt.Printf("%s: left out, because building it takes long\n", s.name)
		default:
			chosen = append(chosen, &s)
		}
	}
	if len(names) > len(chosen) {
		return nil, fmt.Errorf("-sides %s names a side that is none of %s", only, sideNames(allSides()))
	}
	return chosen, nil
}

func sideNames(sides []side) string {
	var names []string
	for _, s := range sides {
		names = append(names, s.name)
	}
	return strings.Join(names, ", ")
}

// race builds the sides, runs the plan, and writes what was measured to the folder out. Failures
// do not keep the others from being measured.
func race(ctx context.Context, sides []*side, p plan, out string) error {
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
	racing, skipped, err := buildAll(ctx, sides, dir)
	if err != nil {
		return err
	}
	results := &results{}
	failed := p.run(ctx, racing, dir, results)
	if ctx.Err() != nil {
		return errors.New("interrupted, so nothing was written")
	}
	report := report{plan: p, sides: racing, skipped: skipped, results: results, busy: busy}
	if out == "" {
		fmt.Print(report.markdown())
	} else if err := report.write(out); err != nil {
		return err
	}
	fmt.Printf("took %v\n", time.Since(begin).Round(time.Second))
	return failed
}

// raiseFileLimit raises this process's limit of open files as far as it goes, which its children
// inherit, and returns it.
func raiseFileLimit() (int, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	limit.Cur = limit.Max
	return int(min(limit.Max, 1<<30)), syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
}

// fit lowers the numbers of streams to what fits a limit of open files, and says so.
func (p *plan) fit(files int) {
	most := files * 2 / 3 // because servers keep files for other things
	for _, streams := range []*int{&p.few, &p.streams, &p.crowd, &p.storm} {
		if *streams > most {
			fmt.Printf("%d streams instead of %d, because a process may open %d files\n",
				most, *streams, files)
			*streams = most
		}
	}
}

// buildAll builds what can be built on this machine, and says why the others are skipped.
func buildAll(ctx context.Context, sides []*side, dir string) (built []*side, skipped []string,
	err error) {
	for _, s := range sides {
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

// run runs all stages in all rounds, in each of them the sides in turn.
func (p plan) run(ctx context.Context, sides []*side, dir string, results *results) error {
	var failures []error
	for round := range p.rounds {
		for _, stage := range stages(p) {
			fmt.Printf("round %d of %d: %s\n", round+1, p.rounds, stage.name)
			for i := range sides {
				s := sides[(round+i)%len(sides)] // so that none is always the first
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

// runStage runs a stage on a server that it starts and stops.
func (p plan) runStage(stage stage, s *side, dir string, results *results) error {
	server, err := startServer(s, dir, stage.announce)
	if err != nil {
		return err
	}
	stand := &stand{
		server:    server,
		announces: stage.announce || s.alwaysAnnounces,
		plan:      p,
		results:   results,
	}
	for _, step := range stage.steps(stand) {
		if err = step(); err != nil {
			break
		}
	}
	server.stop()
	if stand.streams != nil {
		stand.streams.close()
	}
	return err
}
