package e2e

// The drivers for Firefox, over WebDriver BiDi, and for WebKit, over classic WebDriver.

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
)

// fields are the members of a JSON object.
type fields map[string]any

// keyActions returns WebDriver's actions that press one chord after another.
func keyActions(chords []string) []fields {
	var actions []fields
	for _, chord := range chords {
		keys := strings.Split(chord, "")
		for _, key := range keys {
			actions = append(actions, fields{"type": "keyDown", "value": key})
		}
		for i := range keys {
			actions = append(actions, fields{"type": "keyUp", "value": keys[len(keys)-1-i]})
		}
	}
	return []fields{{"type": "key", "id": "keyboard", "actions": actions}}
}

// clickActions returns WebDriver's actions that click at a point of the window.
func clickActions(x, y int) []fields {
	return []fields{{"type": "pointer", "id": "mouse", "actions": []fields{
		{"type": "pointerMove", "x": x, "y": y},
		{"type": "pointerDown", "button": 0},
		{"type": "pointerUp", "button": 0},
	}}}
}

// startProgram runs a program until the test ends, and passes each line of its standard error to
// line. env lists additional variables, NAME=VALUE.
func startProgram(t *testing.T, line func(string), env []string, name string, args ...string) {
	t.Helper()
	program := exec.Command(name, args...)
	program.Env = append(os.Environ(), env...)
	stderr, err := program.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			line(lines.Text())
		}
		io.Copy(io.Discard, stderr) // after a line that is too long
	}()
	t.Cleanup(func() {
		program.Process.Signal(os.Interrupt)
		timer := time.AfterFunc(5*time.Second, func() { program.Process.Kill() })
		defer timer.Stop()
		<-read
		program.Wait()
	})
}

// firefox is a headless Firefox.
type firefox struct {
	conn *websocket.Conn

	gone chan struct{} // closed when the connection has ended

	mu        sync.Mutex
	lastID    int
	responses map[int]chan bidiResponse // by the command's id
}

type bidiResponse struct {
	ID      int
	Type    string
	Result  json.RawMessage
	Message string
}

// startFirefox starts a Firefox with its own profile, until the test ends.
func startFirefox(t *testing.T) browser {
	t.Helper()
	needs(t, "firefox-esr")
	home := t.TempDir()
	profile := filepath.Join(home, "profile")
	if err := os.CopyFS(profile, os.DirFS("testdata/page/firefox")); err != nil {
		t.Fatal(err)
	}
	url := make(chan string, 1)
	hear := func(line string) {
		if _, after, ok := strings.Cut(line, "WebDriver BiDi listening on "); ok {
			url <- after
		}
	}
	startProgram(t, hear, []string{"HOME=" + home}, "firefox-esr",
		"--headless", "--no-remote", "--profile", profile, "--remote-debugging-port=0")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	b := &firefox{gone: make(chan struct{}), responses: map[int]chan bidiResponse{}}
	select {
	case at := <-url:
		var err error
		if b.conn, _, err = websocket.Dial(ctx, at+"/session", nil); err != nil {
			t.Fatal(err)
		}
	case <-ctx.Done():
		t.Fatal("Firefox did not say where it listens")
	}
	t.Cleanup(func() {
		b.command("browser.close", fields{}, nil)
		b.conn.CloseNow()
	})
	b.conn.SetReadLimit(-1)
	go b.hear()
	if err := b.command("session.new", fields{"capabilities": fields{}}, nil); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *firefox) hear() {
	defer close(b.gone)
	for {
		var response bidiResponse
		if err := wsjson.Read(context.Background(), b.conn, &response); err != nil {
			return
		}
		b.mu.Lock()
		if waiting := b.responses[response.ID]; waiting != nil {
			waiting <- response
			delete(b.responses, response.ID)
		}
		b.mu.Unlock()
	}
}

// command runs a command of WebDriver BiDi and stores its result in result, unless that is nil.
func (b *firefox) command(method string, params fields, result any) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	responses := make(chan bidiResponse, 1)
	b.mu.Lock()
	b.lastID++
	id := b.lastID
	b.responses[id] = responses
	b.mu.Unlock()
	err := wsjson.Write(ctx, b.conn, fields{"id": id, "method": method, "params": params})
	if err != nil {
		return err
	}
	select {
	case response := <-responses:
		if response.Type != "success" {
			return fmt.Errorf("%s: %s", method, response.Message)
		}
		if result == nil {
			return nil
		}
		return json.Unmarshal(response.Result, result)
	case <-b.gone:
		return fmt.Errorf("%s: Firefox has gone", method)
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", method, ctx.Err())
	}
}

func (b *firefox) open(t *testing.T) *tab {
	t.Helper()
	var created struct{ Context string }
	if err := b.command("browsingContext.create", fields{"type": "window"}, &created); err != nil {
		t.Fatal(err)
	}
	return newTab(t, &firefoxTab{b, created.Context})
}

type firefoxTab struct {
	b       *firefox
	context string
}

// command runs a command in the tab.
func (f *firefoxTab) command(method string, params fields) error {
	params["context"] = f.context
	return f.b.command(method, params, nil)
}

func (f *firefoxTab) goTo(url string) error {
	return f.command("browsingContext.navigate", fields{"url": url, "wait": "complete"})
}

func (f *firefoxTab) back() error {
	return f.command("browsingContext.traverseHistory", fields{"delta": -1})
}

func (f *firefoxTab) reload() error {
	return f.command("browsingContext.reload", fields{"wait": "complete"})
}

func (f *firefoxTab) run(script string) (string, error) {
	var outcome struct {
		Result           struct{ Value string }
		ExceptionDetails struct{ Text string }
	}
	err := f.b.command("script.evaluate", fields{"expression": script, "awaitPromise": true,
		"target": fields{"context": f.context}, "userActivation": true}, &outcome)
	if err == nil && outcome.ExceptionDetails.Text != "" {
		err = errors.New(outcome.ExceptionDetails.Text)
	}
	return outcome.Result.Value, err
}

func (f *firefoxTab) keys(chords []string) error {
	return f.command("input.performActions", fields{"actions": keyActions(chords)})
}

func (f *firefoxTab) clickAt(x, y int) error {
	return f.command("input.performActions", fields{"actions": clickActions(x, y)})
}

func (f *firefoxTab) resize(width, height int) error {
	return f.command("browsingContext.setViewport",
		fields{"viewport": fields{"width": width, "height": height}})
}

func (f *firefoxTab) close() { f.command("browsingContext.close", fields{}) }

// webkit is WebKitGTK's MiniBrowser, on a virtual screen.
type webkit struct {
	session string // the URL of the session

	mu      sync.Mutex // held while a command runs
	first   string     // the initial window, which stays open
	current string     // the window that commands go to
}

// startWebKit starts a screen, a WebDriver and the browser, until the test ends.
func startWebKit(t *testing.T) browser {
	t.Helper()
	needs(t, "Xvfb")
	needs(t, "WebKitWebDriver")
	browsers, _ := filepath.Glob("/usr/lib/*/webkit2gtk-4.*/MiniBrowser")
	if len(browsers) == 0 {
		missing(t, "WebKitGTK's MiniBrowser is not installed")
	}
	ignore := func(string) {}
	display, addr := startXvfb(t), reserve(t)
	_, port, _ := strings.Cut(addr, ":")
	startProgram(t, ignore, []string{"DISPLAY=" + display, "HOME=" + t.TempDir(), "LANG=en_US.UTF-8"},
		"WebKitWebDriver", "--port="+port)
	w := &webkit{session: "http://" + addr + "/session"}
	var session struct{ SessionID string }
	options := fields{"binary": browsers[0], "args": []string{"--automation"}}
	begin := fields{"capabilities": fields{"alwaysMatch": fields{
		"webkitgtk:browserOptions": options}}}
	eventually(t, patience, "WebKit's driver to listen", func() bool {
		return w.command("POST", "", begin, &session) == nil
	})
	w.session += "/" + session.SessionID
	t.Cleanup(func() { w.command("DELETE", "", nil, nil) })
	if err := w.command("GET", "/window", nil, &w.first); err != nil {
		t.Fatal(err)
	}
	return w
}

// startXvfb starts a virtual screen, until the test ends, and returns its name.
func startXvfb(t *testing.T) string {
	t.Helper()
	// With -displayfd 2 it prints the number of its display on standard error.
	number := make(chan string, 1)
	hear := func(line string) {
		if _, err := strconv.Atoi(line); err == nil {
			number <- line
		}
	}
	startProgram(t, hear, nil, "Xvfb", "-displayfd", "2", "-screen", "0", "1600x1200x24",
		"-nolisten", "tcp")
	select {
	case n := <-number:
		return ":" + n
	case <-time.After(patience):
		t.Fatal("Xvfb did not start")
		return ""
	}
}

// command runs a command of WebDriver and stores its value in result, unless that is nil.
func (w *webkit) command(method, path string, params, result any) error {
	var body io.Reader
	if params != nil {
		encoded, err := json.Marshal(params)
		if err != nil {
			return err
		}
		body = bytes.NewReader(encoded)
	}
	req, err := http.NewRequest(method, w.session+path, body)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var response struct{ Value json.RawMessage }
	if err := json.NewDecoder(resp.Body).Decode(&response); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s", method, path, response.Value)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(response.Value, result)
}

// switchTo directs commands to a window. The caller holds mu.
func (w *webkit) switchTo(window string) error {
	if w.current == window {
		return nil
	}
	w.current = window
	return w.command("POST", "/window", fields{"handle": window}, nil)
}

func (w *webkit) open(t *testing.T) *tab {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	var created struct{ Handle string }
	err := w.switchTo(w.first) // the current one may have been closed
	if err == nil {
		err = w.command("POST", "/window/new", fields{"type": "window"}, &created)
	}
	if err != nil {
		t.Fatal(err)
	}
	return newTab(t, &webkitTab{w, created.Handle})
}

type webkitTab struct {
	w      *webkit
	window string
}

// command runs a command in the tab.
func (k *webkitTab) command(method, path string, params, result any) error {
	k.w.mu.Lock()
	defer k.w.mu.Unlock()
	if err := k.w.switchTo(k.window); err != nil {
		return err
	}
	return k.w.command(method, path, params, result)
}

func (k *webkitTab) goTo(url string) error {
	return k.command("POST", "/url", fields{"url": url}, nil)
}

func (k *webkitTab) back() error { return k.command("POST", "/back", fields{}, nil) }

func (k *webkitTab) reload() error { return k.command("POST", "/refresh", fields{}, nil) }

func (k *webkitTab) run(script string) (string, error) {
	var outcome struct{ Value, Error string }
	const settle = `const settled = arguments[arguments.length - 1];
		%s.then((value) => settled({ value }), (error) => settled({ error: String(error) }));`
	err := k.command("POST", "/execute/async",
		fields{"script": fmt.Sprintf(settle, script), "args": []any{}}, &outcome)
	if err == nil && outcome.Error != "" {
		err = errors.New(outcome.Error)
	}
	return outcome.Value, err
}

func (k *webkitTab) keys(chords []string) error {
	return k.command("POST", "/actions", fields{"actions": keyActions(chords)}, nil)
}

func (k *webkitTab) clickAt(x, y int) error {
	return k.command("POST", "/actions", fields{"actions": clickActions(x, y)}, nil)
}

func (k *webkitTab) resize(width, height int) error {
	return k.command("POST", "/window/rect", fields{"width": width, "height": height}, nil)
}

func (k *webkitTab) close() { k.command("DELETE", "/window", nil, nil) }
