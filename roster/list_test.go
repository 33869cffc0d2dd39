package roster

// The output of a List belongs here: both forms, all sizes, any number of goroutines.

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"weak"

	"lobby/chat"
)

// wantBody returns the body of a List with these sorted names.
func wantBody(names []string, form Form) string {
	if form == Text {
		lines := make([]string, len(names))
		for i, name := range names {
			lines[i] = "User: " + name
		}
		return "Connected users:\n" + strings.Join(lines, "\n")
	}
	var body bytes.Buffer
	e := json.NewEncoder(&body)
	e.SetEscapeHTML(false)
	e.Encode(map[string][]string{"users": append([]string{}, names...)})
	return strings.TrimSuffix(body.String(), "\n")
}

// checkTake fails the test unless r's Lists have these sorted names, in both forms.
func checkTake(t *testing.T, r *Roster, names []string) {
	t.Helper()
	for _, form := range []Form{Text, JSON} {
		checkList(t, r.Take(form), names)
	}
}

// checkList fails the test unless l has these sorted names.
func checkList(t *testing.T, l *List, names []string) {
	t.Helper()
	want := wantBody(names, l.form)
	if got := read(l); got != want {
		t.Errorf("%d names, form %d: got\n%.2000s\nwant\n%.2000s", len(names), l.form, got, want)
	}
	if got := l.Size(); got != len(want) {
		t.Errorf("%d names, form %d: Size() = %d, want %d", len(names), l.form, got, len(want))
	}
	if got, want := l.Long(), len(want) > MaxPiece; got != want {
		t.Errorf("%d names, form %d: Long() = %v, want %v", len(names), l.form, got, want)
	}
	if !l.Long() && string(l.Body()) != want {
		t.Errorf("%d names, form %d: Body() differs from the piece", len(names), l.form)
	}
	for piece := range l.Pieces() {
		if len(piece) == 0 || len(piece) > MaxPiece {
			t.Errorf("%d names, form %d: a piece of %d bytes", len(names), l.form, len(piece))
		}
	}
}

func TestListHasTwoForms(t *testing.T) {
	for _, test := range []struct {
		names      []string
		text, json string
	}{
		{nil, "Connected users:\n", `{"users":[]}`},
		{[]string{"alice"}, "Connected users:\nUser: alice", `{"users":["alice"]}`},
		{
			[]string{"alice", "bob"},
			"Connected users:\nUser: alice\nUser: bob",
			`{"users":["alice","bob"]}`,
		},
		{
			[]string{`"\`, "<&>", "Zoë", "é", "😀"}, // sorted by bytes
			"Connected users:\nUser: \"\\\nUser: <&>\nUser: Zoë\nUser: é\nUser: 😀",
			`{"users":["\"\\","<&>","Zoë","é","😀"]}`,
		},
	} {
		var r Roster
		for _, name := range slices.Backward(test.names) {
			r.Add(name)
		}
		if got := read(r.Take(Text)); got != test.text {
			t.Errorf("the text is\n%s\nwant\n%s", got, test.text)
		}
		if got := read(r.Take(JSON)); got != test.json {
			t.Errorf("the JSON is\n%s\nwant\n%s", got, test.json)
		}
		checkTake(t, &r, test.names)
	}
}

// The sizes of these bodies exceed that of a piece by -3 to 3 bytes.
func TestListIsLongIfItsBodyIsLargerThanAPiece(t *testing.T) {
	for _, form := range []Form{Text, JSON} {
		for _, fill := range []string{"x", `"`, "😀"} {
			var r Roster
			var names []string
			for i := 0; MaxPiece-r.total.bodySize(form) > 300; i++ {
				names = append(names, fmt.Sprintf("%04d", i)+strings.Repeat(fill, 60))
				r.Add(names[i])
			}
			one, two := wantBody([]string{"a"}, form), wantBody([]string{"a", "b"}, form)
			room := MaxPiece - r.total.bodySize(form) - (len(two) - len(one) - len("b"))
			for more := -3; more <= 3; more++ {
				last := strings.Repeat("~", room+more)
				r.Add(last)
				checkTake(t, &r, append(slices.Clone(names), last))
				if size := r.Take(form).Size(); size != MaxPiece+more {
					t.Fatalf("the body has %d bytes, want %d", size, MaxPiece+more)
				}
				r.Remove(last)
			}
		}
	}
}

func FuzzList(f *testing.F) {
	f.Add("alice bob", 1)
	f.Add(`" \ \" <&> é 😀`, 100)
	f.Fuzz(func(t *testing.T, words string, repeat int) {
		var r Roster
		var names []string
		for i := range max(1, repeat%1000) {
			for word := range strings.FieldsSeq(words) {
				name, err := chat.ParseName(fmt.Sprint(i) + word)
				if err != nil {
					continue
				}
				if at, found := slices.BinarySearch(names, name.String()); !found {
					names = slices.Insert(names, at, name.String())
					r.Add(name.String())
				}
			}
		}
		checkTake(t, &r, names)
	})
}

func TestPiecesShareOneBuffer(t *testing.T) {
	for _, test := range []struct {
		names int
		want  float64 // allocations
	}{
		{100, 0},  // short: the first call has written the body
		{5000, 1}, // long: one buffer for all pieces
	} {
		for _, form := range []Form{Text, JSON} {
			l := rosterOf(test.names, 20).Take(form)
			size := 0
			got := testing.AllocsPerRun(10, func() {
				for piece := range l.Pieces() {
					size += len(piece)
				}
			})
			if got != test.want {
				t.Errorf("%d names, form %d: %v allocations, want %v", test.names, form, got, test.want)
			}
		}
	}
}

func TestReaderOfPiecesMayStopEarly(t *testing.T) {
	for _, n := range []int{0, 100, 10_000} {
		l := rosterOf(n, 20).Take(Text)
		for range l.Pieces() {
			break
		}
		if got, want := len(read(l)), l.Size(); got != want {
			t.Errorf("%d names: after a reader stopped, the body has %d bytes, want %d", n, got, want)
		}
	}
}

func TestShortListDoesNotRetainTheRosterOnceItsBodyIsWritten(t *testing.T) {
	r := rosterOf(100, 20)
	chunk := weak.Make(r.chunks[0])
	l := r.Take(Text)
	*r = Roster{}
	l.Body()
	runtime.GC()
	if chunk.Value() != nil {
		t.Error("a short List retains a chunk")
	}
	runtime.KeepAlive(l)
}

// The race detector looks for modifications of what a List refers to.
func TestListsAreReadWhileTheRosterChanges(t *testing.T) {
	for _, n := range []int{500, 5000} {
		random := rand.New(rand.NewPCG(uint64(n), 0))
		r := rosterOf(n, 20)
		done := make(chan error)
		reading := 0
		for range 40 {
			for range 20 {
				name := numbered(random.IntN(n), 20)
				r.Remove(name)
				r.Add(name)
				r.Add(name + "-")
				if random.IntN(2) == 0 {
					r.Remove(name + "-")
				}
			}
			l := r.Take(Text)
			want := l.Size()
			for range 3 {
				reading++
				go func() {
					var err error
					if got := len(read(l)); got != want {
						err = fmt.Errorf("read %d bytes, want %d", got, want)
					}
					done <- err
				}()
			}
		}
		for range reading {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
}
