// Here belongs how a List is written, in either form, by any number of goroutines.
package roster

import (
	"lobby/chat"

	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unsafe"
)

// wantBody returns the body of a List with these sorted names.
func wantBody(names []string, f Form) string {
	if f == FormText {
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

// checkList fails the test unless l has these sorted names, in both forms.
func checkList(t *testing.T, l *List, names []string) {
	t.Helper()
	for _, f := range []Form{FormText, FormJSON} {
		want := wantBody(names, f)
		if got := read(l, f); got != want {
			t.Errorf("%d names, form %d: got\n%.2000s\nwant\n%.2000s", len(names), f, got, want)
		}
		if got := l.Size(f); got != len(want) {
			t.Errorf("%d names, form %d: Size() = %d, want %d", len(names), f, got, len(want))
		}
		for piece := range l.Pieces(f) {
			if len(piece) == 0 || len(piece) > MaxPiece {
				t.Errorf("%d names, form %d: a piece of %d bytes", len(names), f, len(piece))
			}
		}
	}
}

func TestForms(t *testing.T) {
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
		l := r.Take()
		if got := read(l, FormText); got != test.text {
			t.Errorf("the text is\n%s\nwant\n%s", got, test.text)
		}
		if got := read(l, FormJSON); got != test.json {
			t.Errorf("the JSON is\n%s\nwant\n%s", got, test.json)
		}
		checkList(t, l, test.names)
	}
}

func TestListsOfAllSizes(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var r Roster
	var names []string
	for len(names) < 12_000 {
		name := oddName(random)
		if random.IntN(50) == 0 {
			name = strings.Repeat(name, 1+random.IntN(8)) // up to the longest name
		}
		if at, found := slices.BinarySearch(names, name); !found {
			names = slices.Insert(names, at, name)
			r.Add(name)
			if len(names)%500 == 1 {
				checkList(t, r.Take(), names)
			}
		}
	}
}

// TestListsAroundOnePiece takes the bodies byte by byte over the size of a piece.
func TestListsAroundOnePiece(t *testing.T) {
	for _, f := range []Form{FormText, FormJSON} {
		for _, fill := range []string{"x", `"`, "😀"} {
			var r Roster
			var names []string
			for i := 0; MaxPiece-r.Take().Size(f) > 300; i++ {
				names = append(names, fmt.Sprintf("%04d", i)+strings.Repeat(fill, 60))
				r.Add(names[i])
			}
			one, two := wantBody([]string{"a"}, f), wantBody([]string{"a", "b"}, f)
			room := MaxPiece - r.Take().Size(f) - (len(two) - len(one) - len("b"))
			for more := -3; more <= 3; more++ {
				last := strings.Repeat("~", room+more)
				r.Add(last)
				l, all := r.Take(), append(slices.Clone(names), last)
				checkList(t, l, all)
				text, json := len(wantBody(all, FormText)), len(wantBody(all, FormJSON))
				if long := max(text, json) > MaxPiece; l.Long() != long {
					t.Errorf("%d bytes of text, %d of JSON: Long() = %v", text, json, l.Long())
				}
				if size := []int{text, json}[f]; size != MaxPiece+more {
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
		checkList(t, r.Take(), names)
	})
}

func TestAShortBodyIsWrittenOnceAndOnlyInTheFormAskedFor(t *testing.T) {
	l := rosterOf(100, 20).Take()
	if l.Long() {
		t.Fatal("a list of 100 names is long")
	}
	var first []byte
	for piece := range l.Pieces(FormText) {
		first = piece
	}
	for piece := range l.Pieces(FormText) {
		if unsafe.SliceData(piece) != unsafe.SliceData(first) {
			t.Error("the second caller got another body")
		}
	}
	if l.bodies[FormJSON].bytes != nil {
		t.Error("JSON was written, but nobody asked for it")
	}
}

func TestAllocations(t *testing.T) {
	for _, test := range []struct {
		names int
		want  float64
	}{
		{100, 0},  // short: shared
		{5000, 1}, // long: one buffer for all pieces
	} {
		l := rosterOf(test.names, 20).Take()
		for _, f := range []Form{FormText, FormJSON} {
			read(l, f)
			size := 0
			got := testing.AllocsPerRun(10, func() {
				for piece := range l.Pieces(f) {
					size += len(piece)
				}
			})
			if got != test.want {
				t.Errorf("%d names, form %d: %v allocations, want %v", test.names, f, got, test.want)
			}
		}
	}
}

func TestPiecesCanBeLeft(t *testing.T) {
	for _, n := range []int{0, 100, 10_000} {
		l := rosterOf(n, 20).Take()
		for range l.Pieces(FormText) {
			break
		}
		if got, want := len(read(l, FormText)), l.Size(FormText); got != want {
			t.Errorf("%d names: after a reader left, the body has %d bytes, want %d", n, got, want)
		}
	}
}

// TestListsAreReadWhileTheRosterChanges lets the race detector look for what the
// owner changes though a List has it.
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
			l := r.Take()
			want := l.Size(FormText)
			for range 3 {
				reading++
				go func() {
					var err error
					if got := len(read(l, FormText)); got != want {
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

func BenchmarkList(b *testing.B) {
	for _, n := range []int{10, 1_000, 100_000} {
		for f, form := range []string{"text", "JSON"} {
			b.Run(fmt.Sprintf("names=%d/unchanged/%s", n, form), func(b *testing.B) {
				r := rosterOf(n, 20)
				for b.Loop() {
					send(r, Form(f))
				}
			})
			b.Run(fmt.Sprintf("names=%d/changed/%s", n, form), func(b *testing.B) {
				r := rosterOf(n, 20)
				for b.Loop() {
					r.Add("alice")
					send(r, Form(f))
					r.Remove("alice")
				}
			})
		}
	}
}

// send takes a List and reads it to its end.
func send(r *Roster, f Form) (size int) {
	l := r.Take()
	for piece := range l.Pieces(f) {
		size += len(piece)
	}
	r.Release(l)
	return size
}
