package e2e

// The driver for Chromium, over the DevTools protocol, and what only Chromium can show: its
// complaints and its accessibility tree.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// chromium is a headless Chromium.
type chromium struct{ ctx context.Context }

// startChromium starts a Chromium with its own profile, until the test ends.
func startChromium(t *testing.T) browser {
	t.Helper()
	program := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			program = path
			break
		}
	}
	if program == "" {
		missing(t, "chromium is not installed")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(program),
		chromedp.UserDataDir(t.TempDir()),
		chromedp.NoSandbox, // root can't have a sandbox
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("ignore-certificate-errors", true),
	)
	ctx, stop := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stop)
	ctx, _ = chromedp.NewContext(ctx)
	t.Cleanup(func() { chromedp.Cancel(ctx) })
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("starting %s: %v", program, err)
	}
	return chromium{ctx}
}

func (b chromium) open(t *testing.T) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx, chromedp.WithNewWindow(true))
	c := &chromiumTab{ctx: ctx, cancel: cancel}
	if err := chromedp.Listen(ctx, c.hear); err != nil {
		t.Fatal(err)
	}
	if err := c.resize(1280, 720); err != nil {
		t.Fatal(err)
	}
	return newTab(t, c)
}

type chromiumTab struct {
	ctx    context.Context
	cancel func()

	mu         sync.Mutex
	complaints []string // errors on the console, requests that failed
}

func (c *chromiumTab) do(actions ...chromedp.Action[chromedp.Void]) error {
	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()
	return chromedp.Do(ctx, actions...)
}

func (c *chromiumTab) goTo(url string) error { return c.do(chromedp.Navigate(url)) }

func (c *chromiumTab) back() error {
	history, err := callChromium(c, page.GetNavigationHistory, cdp.Empty{})
	if err != nil {
		return err
	}
	entry := history.Entries[history.CurrentIndex-1]
	_, err = callChromium(c, page.NavigateToHistoryEntry,
		page.NavigateToHistoryEntryParams{EntryID: entry.ID})
	return err
}

func (c *chromiumTab) reload() error { return c.do(chromedp.Reload()) }

func (c *chromiumTab) run(script string) (string, error) {
	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[string](script, chromedp.EvalAwaitPromise))
}

// keys presses keys as a keyboard does: the browser inserts a key's text unless the page prevents
// that, which chromedp.KeyEvent ignores.
func (c *chromiumTab) keys(chords []string) error {
	for _, chord := range chords {
		key, hasShift := strings.CutPrefix(chord, shift)
		down := input.DispatchKeyEventParams{
			Type: input.DispatchKeyEventTypeKeyDown, Key: key, Text: key}
		switch key {
		case enter:
			down.Key, down.Text, down.WindowsVirtualKeyCode = "Enter", "\r", 13
		case tabulator:
			down.Key, down.Text, down.WindowsVirtualKeyCode = "Tab", "", 9
		}
		if hasShift {
			down.Modifiers = int64(chromedp.ModifierShift)
		}
		up := down
		up.Type, up.Text = input.DispatchKeyEventTypeKeyUp, ""
		for _, event := range []input.DispatchKeyEventParams{down, up} {
			if _, err := callChromium(c, input.DispatchKeyEvent, event); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *chromiumTab) clickAt(x, y int) error {
	return c.do(chromedp.MouseClickXY(float64(x), float64(y)))
}

func (c *chromiumTab) resize(width, height int) error {
	return c.do(chromedp.EmulateViewport(int64(width), int64(height)))
}

func (c *chromiumTab) close() { c.cancel() }

// callChromium runs a command for which chromedp has no action.
func callChromium[P, R any](c *chromiumTab, command cdp.Command[P, R], params P) (R, error) {
	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()
	return chromedp.Call(ctx, command, params)
}

// call is callChromium, but fails the test on an error.
func call[P, R any](p *tab, command cdp.Command[P, R], params P) R {
	p.t.Helper()
	result, err := callChromium(p.driver.(*chromiumTab), command, params)
	if err != nil {
		p.t.Fatal(err)
	}
	return result
}

func (c *chromiumTab) hear(event any) {
	complaint := ""
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		complaint = "exception: " + e.ExceptionDetails.Text
	case *runtime.EventConsoleAPICalled:
		complaint = "console: " + string(e.Type)
	case *log.EventEntryAdded:
		complaint = "log: " + e.Entry.Text + " " + e.Entry.URL
	case *network.EventLoadingFailed:
		if !e.Canceled {
			complaint = "request failed: " + e.ErrorText
		}
	case *network.EventResponseReceived:
		if e.Response.Status >= 400 {
			complaint = fmt.Sprintf("%s: status %d", e.Response.URL, e.Response.Status)
		}
	}
	if complaint != "" {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.complaints = append(c.complaints, complaint)
	}
}

// expectNoComplaints fails the test if Chromium reported errors or failed requests.
func (p *tab) expectNoComplaints() {
	p.t.Helper()
	c := p.driver.(*chromiumTab)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.complaints) > 0 {
		p.t.Errorf("the browser complained: %q", c.complaints)
	}
}

// waitForAccessible waits until the accessibility tree has a node for each role and name.
func (p *tab) waitForAccessible(want ...string) {
	p.t.Helper()
	waitForValue(p.t, "nodes missing from the accessibility tree", nil, func() []string {
		var got []string
		tree := call(p, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
		for _, node := range tree.Nodes {
			if node.Ignored || node.Role == nil || node.Name == nil {
				continue
			}
			var role, name string
			if err := errors.Join(json.Unmarshal(node.Role.Value, &role),
				json.Unmarshal(node.Name.Value, &name)); err != nil {
				p.t.Fatal(err)
			}
			got = append(got, strings.TrimSpace(role+" "+name))
		}
		return slices.DeleteFunc(slices.Clone(want), func(node string) bool {
			return slices.Contains(got, node)
		})
	})
}
