package main

// This file writes the report about a lobby on three nodes.

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A clusterReport is the outcome of a clusterPlan.
type clusterReport struct {
	plan    clusterPlan
	results *results
	etcd    string // its version
	busy    string // the machine's load average beforehand
}

// markdown returns all tables.
func (r clusterReport) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Several machines in figures\n\n"+
		"Written by `bench`; [performance.md](../performance.md#several-machines) explains the "+
		"figures.\n\n"+
		"%s",
		wrapped(fmt.Sprintf("Measured in %s. Each load of requests ran for %v. Three nodes, three "+
			"etcd servers (%s, `%s`) and the load shared %s On machines of their own, nodes do not "+
			"compete for processors, and every entry crosses a network.",
			roundsText(r.plan.rounds), r.plan.length, r.etcd, strings.Join(etcdFlags, " "),
			machineText(r.busy))))
	for _, t := range r.results.tables {
		b.WriteString("\n" + t.markdown(t.rows))
	}
	return b.String()
}

// write writes the report to a folder.
func (r clusterReport) write(folder string) error {
	if err := os.MkdirAll(folder, 0o777); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, "cluster.md"), []byte(r.markdown()), 0o666)
}
