package chain_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	"lobby/chain"
)

// One goroutine owns the chain. Readers, in their own goroutines, ask it where to start.
func Example() {
	c := chain.New(100, 15*time.Second)
	texts := make(chan string)
	starts := make(chan chan chain.Start)
	go func() {
		for {
			select {
			case text, ok := <-texts:
				if !ok {
					c.End()
					return
				}
				c.Append(text)
			case start := <-starts:
				start <- c.After("")
			case <-c.Due():
				c.Tick()
			}
		}
	}()
	ask := func(context.Context, string) (chain.Start, error) {
		start := make(chan chain.Start)
		starts <- start
		return <-start, nil
	}

	start, _ := ask(context.Background(), "")
	reader := chain.NewReader(start, ask)
	go func() {
		texts <- "The kettle boils."
		texts <- "Tea is ready."
		close(texts)
	}()
	for {
		data, err := reader.Next(context.Background())
		if err != nil {
			fmt.Println(err)
			return
		}
		for line := range strings.Lines(string(data)) {
			if strings.HasPrefix(line, "data: ") {
				fmt.Print(line)
			}
		}
	}
	// Output:
	// data: The kettle boils.
	// data: Tea is ready.
	// EOF
}
