package etcd

// What belongs here: tests of Entries, most of them with watches that fail.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestEntriesArriveInOrder(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		one, two := w.mustBegin(), w.mustBegin()
		mustAppend(t, one, "a", 1, "x")
		mustAppend(t, two, "b", 1, "y")
		f := follow(t.Context(), one)
		f.mustRead(t, "a/1=x", "b/1=y")
		mustAppend(t, two, "b", 2, "z")
		mustAppend(t, one, "a", 2, "")
		f.mustRead(t, "b/2=z", "a/2=")
		// A second loop over the same session yields the same entries.
		follow(t.Context(), one).mustRead(t, "a/1=x", "b/1=y", "b/2=z", "a/2=")
	})
}

func TestLongLogIsReadInPages(t *testing.T) {
	for _, test := range []struct{ entries, size, pages int }{
		{3 * maxPage, 1, 6}, // 64, 128, 256, 512, 512 and the rest
		{firstPage, 1, 1},
		{3 * firstPage, smallPage / firstPage, 3},
	} {
		inWorld(t, 1, func(t *testing.T, w *world) {
			s := w.mustBegin()
			text := strings.Repeat("x", test.size)
			var want []string
			for i := range test.entries {
				w.put(fmt.Sprint("lobby/log/a/", i+1), text)
				want = append(want, fmt.Sprintf("a/%d=%s", i+1, text))
			}
			before := w.requests("/v3/kv/txn")
			follow(t.Context(), s).mustRead(t, want...)
			if n := w.requests("/v3/kv/txn") - before; n != test.pages {
				t.Errorf("%d entries of %d bytes took %d pages, want %d", test.entries, test.size, n, test.pages)
			}
		})
	}
}

func TestPagesWithLargeValuesGetSmaller(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		s := w.mustBegin()
		s.log.maxResponse = 1 << 16
		large := strings.Repeat("x", 3<<16/8) // half a response, in base64
		for i := range 3 {
			w.put(fmt.Sprint("lobby/log/large/", i), large)
		}
		mustAppend(t, s, "a", 1, "x")
		f := follow(t.Context(), s)
		for range 2 { // large/0 is not an entry
			if e := f.next(t); e.Node != "large" || len(e.Text) != len(large) {
				t.Errorf("read %s/%d", e.Node, e.Number)
			}
		}
		f.mustRead(t, "a/1=x")
	})
}

// A gateway can reject etcd's response in the same words as a request.
func TestPagesThatAGatewayRejectsGetSmaller(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		s := w.mustBegin()
		for i := range 3 {
			mustAppend(t, s, "a", i+1, "x")
		}
		w.script(func(c *call, serve func()) {
			if asked := decode[transaction](c.body); c.path == "/v3/kv/txn" && asked.Success[0].Range.Limit > 1 {
				c.fail(http.StatusTooManyRequests, "grpc: received message larger than max (3 vs. 2)")
				return
			}
			serve()
		})
		follow(t.Context(), s).mustRead(t, "a/1=x", "a/2=x", "a/3=x")
	})
}

// The first member's proxy answers everything in the same way.
func TestIncompleteResponsesAreLeftToOtherEndpoints(t *testing.T) {
	for _, response := range []string{
		`{"header":{"revision":"9"},"succeeded":true,"responses":[{"response_range":{"more":true}}]}`,
		`{"header":{"revision":"9"},"succeeded":true,"responses":[{"response_range":{"more":true}},{},{},{}]}`,
		`{"header":{"revision":"9"},"succeeded":true}`,
		`{}`,
	} {
		inWorld(t, 2, func(t *testing.T, w *world) {
			s := w.mustBegin()
			var count atomic.Int64
			w.script(func(c *call, serve func()) {
				count.Add(1)
				c.say(response)
			}, 0)
			w.members[1].down = true
			time.AfterFunc(10*time.Second, func() { w.set(func() { w.members[1].down = false }) })
			f := follow(t.Context(), s)
			mustTake(t, 0, 11*time.Second, func() {
				mustAppend(t, s, "a", 1, "x")
				mustAppend(t, s, "a", 2, "y")
				f.mustRead(t, "a/1=x", "a/2=y")
				mustSave(t, s, 3, "one")
				mustSave(t, s, 4, "two") // it removes keys
			})
			if n := count.Load(); n > 2*100 {
				t.Errorf("%d requests were sent in 10s", n)
			}
		})
	}
}

func TestKeysThatAreNotEntriesAreSkipped(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		s := w.mustBegin()
		garbage := func() {
			for _, name := range []string{"", "a", "a/", "a/0", "a/-1", "a/01", "a/+1", "a/1/2", "A/1", "ä/1", "/1",
				"a/99999999999999999999", "a/x", "a b/1", "a-b/1"} {
				w.put("lobby/log/"+name, "garbage")
			}
			w.put("lobby/lof", "")
			w.put("lobby/logs/a/9", "")
			w.remove("lobby/log/a/x")
		}
		garbage()
		mustAppend(t, s, "a", 1, "x")
		f := follow(t.Context(), s)
		f.mustRead(t, "a/1=x")
		garbage()
		mustAppend(t, s, "a", 2, "y")
		f.mustRead(t, "a/2=y")
	})
}

// entry returns the line of a watch for an entry in the log.
func (w *world) entry(name string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return event(w.keys["lobby/log/"+name])
}

// failWatch replaces the first watch at the first member by script, which runs once the test calls
// begin.
func (w *world) failWatch(script func(c *call)) (begin func()) {
	begun := make(chan struct{})
	var isSecond atomic.Bool
	w.script(func(c *call, serve func()) {
		if c.path != "/v3/watch" || isSecond.Swap(true) {
			serve()
			return
		}
		<-begun
		script(c)
	}, 0)
	return func() { close(begun) }
}

func TestEntriesContinueAfterAWatchFails(t *testing.T) {
	for _, test := range []struct {
		name   string
		most   time.Duration           // within which a/2 must arrive
		script func(w *world, c *call) // runs once a/2 is in the log
	}{
		{"refused", retryDelay, func(w *world, c *call) { c.fail(503, "etcdserver: no leader") }},
		{"no head", maxLag, func(w *world, c *call) { c.hang() }},
		{"canceled", retryDelay, func(w *world, c *call) {
			c.say(created + `{"result":{"canceled":true,"cancel_reason":"leader lost"}}` + "\n")
			c.hang()
		}},
		{"error in the stream", retryDelay, func(w *world, c *call) {
			c.say(created + `{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader"}}` + "\n")
			c.hang()
		}},
		{"end", retryDelay, func(w *world, c *call) { c.say(created) }},
		{"half a message", retryDelay, func(w *world, c *call) {
			line := w.entry("a/2")
			c.say(created + line[:len(line)-20])
			c.abort()
		}},
		{"silence", maxLag, func(w *world, c *call) { c.say(created); c.hang() }},
		{"endless message", retryDelay, func(w *world, c *call) {
			c.say(created + `{"result":{"events":[{"kv":{"value":"`)
			c.say(strings.Repeat("A", 1<<16))
			c.hang()
		}},
		{"deletion", 0, func(w *world, c *call) {
			line := strings.Replace(w.entry("a/2"), `{"kv"`, `{"type":"DELETE","kv"`, 1)
			c.say(created + line + w.entry("a/2"))
			c.hang()
		}},
		{"no JSON", retryDelay, func(w *world, c *call) { c.say("<html>"); c.hang() }},
		{"repeated events", 0, func(w *world, c *call) {
			c.say(created + w.entry("a/1") + w.entry("a/2") + w.entry("a/2") + w.entry("a/1"))
			c.hang()
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			inWorld(t, 2, func(t *testing.T, w *world) {
				s := w.mustBegin()
				s.log.maxResponse = 1 << 16
				mustAppend(t, s, "a", 1, "x")
				begin := w.failWatch(func(c *call) { test.script(w, c) })
				f := follow(t.Context(), s)
				f.mustRead(t, "a/1=x")
				mustAppend(t, s, "a", 2, "y")
				begin()
				mustTake(t, 0, test.most, func() { f.mustRead(t, "a/2=y") })
				mustAppend(t, s, "a", 3, "z")
				f.mustRead(t, "a/3=z")
				synctest.Wait()
				if len(f) > 0 {
					t.Errorf("also read %v", <-f)
				}
			})
		})
	}
}

// Nothing else shows that the endpoint is failing, as this session appends nothing.
func TestWatchWithoutAHeadIsLeft(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		s, other := w.mustBegin(), w.mustBegin()
		w.failWatch(func(c *call) { c.hang() })()
		f := follow(t.Context(), s)
		synctest.Wait()
		mustAppend(t, other, "a", 1, "x")
		mustTake(t, requestTimeout, requestTimeout+retryDelay, func() { f.mustRead(t, "a/1=x") })
		err := s.log.Explain(errors.New("lost")).Error()
		if err != "lost: http://m0:2379: no response in time" {
			t.Errorf("the error is %q", err)
		}
	})
}

// The watch is the first request after the member has become one of another cluster.
func TestWatchOfAnotherClusterIsLeft(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		s := w.mustBegin()
		mustAppend(t, s, "a", 1, "x")
		w.script(func(c *call, serve func()) {
			if c.path != "/v3/watch" {
				serve()
				return
			}
			c.say(`{"result":{"header":{"cluster_id":"2","revision":"1"},"created":true}}` + "\n")
			c.hang()
		}, 0)
		f := follow(t.Context(), s)
		f.mustRead(t, "a/1=x")
		synctest.Wait() // until the watch is open
		s.appender.at = 1
		mustAppend(t, s, "a", 2, "y")
		mustTake(t, 0, retryDelay, func() { f.mustRead(t, "a/2=y") })
	})
}

func TestMemberWhoseWatchesFailIsAvoided(t *testing.T) {
	for name, script := range map[string]func(c *call){
		"silence": func(c *call) { c.say(created); c.hang() },
		"refused": func(c *call) { c.fail(503, "etcdserver: no leader") },
		"end":     func(c *call) { c.say(created) },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 2, func(t *testing.T, w *world) {
				s := w.mustBegin()
				var watches atomic.Int64
				w.script(func(c *call, serve func()) {
					if c.path == "/v3/watch" {
						watches.Add(1)
						script(c)
						return
					}
					serve()
				}, 0)
				f := follow(t.Context(), s)
				for i := range 10 {
					mustAppend(t, s, "a", i+1, "x")
					f.mustRead(t, fmt.Sprintf("a/%d=x", i+1))
				}
				if watches.Load() != 1 {
					t.Errorf("it received %d requests for a watch", watches.Load())
				}
			})
		})
	}
}

// Later acknowledgements do not extend the wait for an entry.
func TestSilentWatchIsNoticedWhileAppendsContinue(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		s := w.mustBegin()
		f := follow(t.Context(), s)
		mustAppend(t, s, "a", 1, "x")
		f.mustRead(t, "a/1=x")
		synctest.Wait() // until the watch is open
		w.set(func() { w.members[0].muted = true })
		go func() {
			for i := range 8 {
				mustAppend(t, s, "a", i+2, "x")
				time.Sleep(maxLag / 4)
			}
		}()
		mustTake(t, maxLag, maxLag, func() { f.mustRead(t, "a/2=x") })
		time.Sleep(maxLag)
	})
}

// The first member's watch is silent, and its other requests are stuck. Append then gets its
// response elsewhere, which makes the watch suspect sooner.
func TestWatchIsSuspectAtAnEndpointThatAppendHasLeft(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		s := w.mustBegin()
		f := follow(t.Context(), s)
		synctest.Wait()
		mustAppend(t, s, "a", 1, "x")
		f.mustRead(t, "a/1=x")
		synctest.Wait() // until the watch is open
		w.set(func() { w.members[0].script, w.members[0].muted = failures["stuck"], true })
		mustTake(t, slowAfter, slowAfter, func() { mustAppend(t, s, "a", 2, "y") })
		mustTake(t, maxLagAlone, maxLagAlone, func() { f.mustRead(t, "a/2=y") })
	})
}

func TestEntryMissingFromAWatchIsRead(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		s := w.mustBegin()
		mustAppend(t, s, "a", 1, "x")
		begin := w.failWatch(func(c *call) { c.say(created + w.entry("a/3")); c.hang() })
		f := follow(t.Context(), s)
		f.mustRead(t, "a/1=x")
		mustAppend(t, s, "a", 2, "y")
		mustAppend(t, s, "a", 3, "z")
		begin()
		f.mustRead(t, "a/2=y", "a/3=z")
	})
}

// Once a later entry has been yielded, the order is lost.
func TestMissingEntryNoticedTooLateEndsTheEntries(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		s := w.mustBegin()
		mustAppend(t, s, "a", 1, "x")
		begin := w.failWatch(func(c *call) { c.say(created + w.entry("b/1") + w.entry("a/3")); c.hang() })
		f := follow(t.Context(), s)
		f.mustRead(t, "a/1=x")
		mustAppend(t, s, "a", 2, "y")
		mustAppend(t, s, "b", 1, "b")
		mustAppend(t, s, "a", 3, "z")
		begin()
		f.mustRead(t, "b/1=b")
		f.mustEnd(t, ErrTrimmed)
	})
}

func TestEntryPutByHandIsNotMistakenForAMissingOne(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		s := w.mustBegin()
		f := follow(t.Context(), s)
		mustAppend(t, s, "a", 1, "x")
		w.put("lobby/log/a/1000", "forged")
		mustAppend(t, s, "a", 2, "y")
		w.put("lobby/log/a/999", "forged")
		mustAppend(t, s, "a", 3, "z")
		want := []string{"a/1=x", "a/1000=forged", "a/2=y", "a/999=forged", "a/3=z"}
		f.mustRead(t, want...)
		follow(t.Context(), s).mustRead(t, want...) // in pages
		w.put("lobby/log/a/50", "forged")           // two in a row, but not after a real one
		w.put("lobby/log/a/51", "forged")
		mustAppend(t, s, "a", 4, "end")
		want = append(want, "a/50=forged", "a/51=forged", "a/4=end")
		f.mustRead(t, want[5:]...)
		follow(t.Context(), s).mustRead(t, want...)
	})
}

// The log has the entries a/1, b/1, a/2, b/2, a/3, b/3 and a/4.
func TestDamageIsReportedAndFoundAtTheStart(t *testing.T) {
	for _, test := range []struct {
		name    string
		damage  func(w *world)
		reports string // what Entries yields while it happens
		missing string // the entry that a later reader misses
	}{
		{"an entry was changed", func(w *world) { w.put("lobby/log/a/2", "x") }, "a/2", "entry 2 of node a"},
		{"an entry was removed", func(w *world) { w.remove("lobby/log/a/2") }, "a/2", "entry 2 of node a"},
		{"the first one was changed", func(w *world) { w.put("lobby/log/a/1", "x") }, "a/1", "entry 1 of node a"},
		{"the first one was removed", func(w *world) { w.remove("lobby/log/b/1") }, "b/1", "entry 1 of node b"},
		{"the newest one was changed", func(w *world) { w.put("lobby/log/a/4", "") }, "a/4", "entry 4 of node a"},
		{"the newest one was removed", func(w *world) { w.remove("lobby/log/a/4") }, "a/4", "entry 4 of node a"},
		{"the last one of a dead node was changed", func(w *world) { w.put("lobby/log/b/3", "") }, "b/3", "entry 3 of node b"},
		{"the last one of a dead node was removed", func(w *world) { w.remove("lobby/log/b/3") }, "b/3", "entry 3 of node b"},
		{"an entry put by hand was changed", func(w *world) {
			w.put("lobby/log/b/4", "x")
			w.put("lobby/log/b/4", "y")
		}, "b/4", ""},
		{"an entry put by hand was removed", func(w *world) {
			w.put("lobby/log/zzz/1", "x")
			w.put("lobby/log/zzz/2", "x")
			w.remove("lobby/log/zzz/")
		}, "zzz/1", ""},
		{"nothing but numbers was changed", func(w *world) {
			w.put("lobby/nodes/b", "x")
			w.put("lobby/nodes/zzz", "1")
			w.put("lobby/log/zzz/2", "")
		}, "", ""},
		{"an entry of a removed node was removed", func(w *world) {
			w.remove("lobby/nodes/b")
			w.remove("lobby/log/b/2")
		}, "b/2", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			inWorld(t, 1, func(t *testing.T, w *world) {
				s := w.mustBegin()
				for i := range 4 {
					mustAppend(t, s, "a", i+1, "")
					if i < 3 {
						mustAppend(t, s, "b", i+1, "")
					}
				}
				f := follow(t.Context(), s)
				f.mustRead(t, "a/1=", "b/1=", "a/2=", "b/2=", "a/3=", "b/3=", "a/4=")
				test.damage(w)
				if test.reports != "" {
					for item := f.next(t); !item.Damaged; item = f.next(t) {
						if item.err != nil {
							t.Fatal(item.err)
						}
					}
				}
				synctest.Wait()
				for len(f) > 0 {
					<-f
				}
				if test.missing == "" {
					mustAppend(t, s, "a", 5, "end")
					f.mustRead(t, "a/5=end")
				}
				// While the later reader checks the numbers, a goes on.
				later := follow(t.Context(), w.mustBegin())
				w.script(func(c *call, serve func()) {
					serve()
					if test.missing != "" && c.path == "/v3/kv/txn" {
						w.set(func() {
							n := w.keys["lobby/nodes/a"].Version + 1
							w.transact(transaction{Success: []operation{
								put(fmt.Append(nil, "lobby/log/a/", n), nil), put([]byte("lobby/nodes/a"), fmt.Append(nil, n)),
							}})
						})
					}
				}, 0)
				item := later.next(t)
				for item.err == nil && item.Number != 5 {
					item = later.next(t)
				}
				isMissing := errors.Is(item.err, ErrIncomplete) && strings.HasSuffix(item.err.Error(), test.missing)
				if test.missing == "" && item.err != nil || test.missing != "" && !isMissing {
					t.Errorf("a later reader got %v, %v", item.Entry, item.err)
				}
				w.script(nil, 0)
				// The first reader has nothing to miss, whatever happens to its watch.
				for _, conn := range w.members[0].open {
					conn.Close()
				}
				mustAppend(t, w.mustBegin(), "c", 1, "x")
				for item = f.next(t); item.Node != "c"; item = f.next(t) {
					if item.err != nil {
						t.Fatal(item.err)
					}
				}
			})
		})
	}
}

// The snapshot says that node b was removed. The entries before its late one are not needed.
func TestLateEntryOfARemovedNodeMissesNothing(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		s := w.mustBegin()
		mustAppend(t, s, "b", 1, "x")
		mustSave(t, s, mustAppend(t, s, "a", 1, "y"), "snapshot")
		mustAppend(t, s, "b", 2, "late")
		follow(t.Context(), w.mustBegin()).mustRead(t, "b/2=late")
	})
}

// pointerTo returns a valid pointer.
func pointerTo(at, removed int64) string {
	return fmt.Sprintf(`{"at":%d,"removed":%d,"id":"x","sha256":%q}`, at, removed, sumOf(nil))
}

// One after the other, and by one request, while a watch runs and while none does.
func TestEveryRemovedEntryIsReported(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		s := w.mustBegin()
		for n := range 6 {
			mustAppend(t, s, "a", n+1, "")
		}
		begin := w.failWatch(func(c *call) { c.say(created + `{"result":{"canceled":true}}`) })
		f := follow(t.Context(), s)
		f.mustRead(t, "a/1=", "a/2=", "a/3=", "a/4=", "a/5=", "a/6=")
		w.remove("lobby/log/a/4")
		begin()
		f.mustRead(t, "a/4 is damaged")
		w.remove("lobby/log/a/5")
		w.remove("lobby/log/")
		f.mustRead(t, "a/5 is damaged", "a/1 is damaged", "a/2 is damaged", "a/3 is damaged", "a/6 is damaged")
	})
}

func TestEntryThatIsRemovedBetweenTwoPagesIsReported(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		s := w.mustBegin()
		for n := range firstPage + 1 {
			mustAppend(t, s, "a", n+1, "")
		}
		pages := 0
		w.script(func(c *call, serve func()) {
			if bytes.Contains(c.body, []byte("min_mod_revision")) {
				if pages++; pages == 2 {
					w.remove("lobby/log/a/5")
				}
			}
			serve()
		})
		f := follow(t.Context(), s)
		for n := range firstPage + 1 {
			f.mustRead(t, fmt.Sprintf("a/%d=", n+1))
		}
		f.mustRead(t, "a/5 is damaged")
	})
}

// The watch that follows a range shows again what the range no longer has.
func TestEntryThatIsRemovedBeforeItIsReadDoesNotStopTheOthers(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		s := w.mustBegin()
		f := follow(t.Context(), s)
		mustAppend(t, s, "a", 1, "")
		f.mustRead(t, "a/1=")
		w.set(func() {
			for _, change := range []operation{put([]byte("lobby/log/b/9"), nil), remove([]byte("lobby/log/b/9"))} {
				w.revision++
				w.apply(change)
			}
			w.wake()
		})
		f.mustRead(t, "b/9 is damaged")
		mustAppend(t, s, "a", 2, "")
		f.mustRead(t, "a/2=")
	})
}

// No Append puts several. A watch shows them as they were put, and a range in any order.
func TestKeysOfOneRevisionHaveOneOrder(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		watching := follow(t.Context(), w.mustBegin())
		w.put("lobby/log/z/1", "")
		watching.mustRead(t, "z/1=")
		w.set(func() {
			w.revision++
			w.apply(remove([]byte("lobby/log/z/1")))
			for _, key := range []string{"lobby/log/b/1", "lobby/log/a/1", "lobby/log/c/9"} {
				w.apply(put([]byte(key), nil))
			}
			w.wake()
		})
		watching.mustRead(t, "a/1=", "b/1=", "c/9=", "z/1 is damaged")
		w.put("lobby/log/d/1", "")
		watching.mustRead(t, "d/1=")
		follow(t.Context(), w.mustBegin()).mustRead(t, "a/1=", "b/1=", "c/9=", "d/1=")
	})
}

// A message, or a page, may end within a revision.
func TestRevisionThatIsReadInPartsHasOneOrder(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		var revision int64
		s := w.mustBegin()
		for n := range firstPage - 1 {
			mustAppend(t, s, "n", n+1, "")
		}
		fragment := func(key string) string {
			text := event(keyValue{Key: []byte(key), Created: revision, Modified: revision})
			return strings.Replace(text, `"events"`, `"fragment":true,"events"`, 1)
		}
		begin := w.failWatch(func(c *call) {
			c.say(created + fragment("lobby/log/c/1") + fragment("lobby/log/b/1"))
			c.abort()
		})
		watching := follow(t.Context(), s)
		synctest.Wait()
		w.set(func() {
			w.revision++
			for _, key := range []string{"lobby/log/c/1", "lobby/log/b/1", "lobby/log/a/1"} {
				w.apply(put([]byte(key), nil))
			}
			revision = w.revision
		})
		mustAppend(t, s, "n", firstPage, "")
		begin()
		for _, f := range []follower{watching, follow(t.Context(), w.mustBegin())} {
			for n := range firstPage - 1 {
				f.mustRead(t, fmt.Sprintf("n/%d=", n+1))
			}
			f.mustRead(t, "a/1=", "b/1=", "c/1=", fmt.Sprintf("n/%d=", firstPage))
		}
	})
}

// The entry that must be in the log was put and removed by a stranger, and etcd has forgotten both.
func TestStrangersEntryThatEtcdHasForgottenIsNotMissed(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		s := w.mustBegin()
		f := follow(t.Context(), s)
		w.put("lobby/log/x/1", "")
		f.mustRead(t, "x/1=")
		w.remove("lobby/log/x/1")
		f.mustRead(t, "x/1 is damaged")
		w.set(func() { w.compacted = w.revision + 1 })
		w.put("lobby/log/x/9", "") // out of order, so a page is read
		f.mustRead(t, "x/9=")
		mustAppend(t, s, "a", 1, "")
		f.mustRead(t, "a/1=")
	})
}

func TestEntriesDetectThatTheLogWasLost(t *testing.T) {
	for _, test := range []struct {
		name    string
		prepare func(w *world)
		want    error // context.Canceled if Entries goes on
	}{
		{"emptied", func(w *world) { w.remove("lobby/") }, ErrReplaced},
		{"recreated", func(w *world) { w.remove("lobby/"); w.mustBegin() }, ErrReplaced},
		{"restored", func(w *world) { w.restore("lobby/log/a/1") }, ErrRestored},
		{"restored, and then grown", func(w *world) {
			w.restore("lobby/log/a/1")
			w.put("x", "")
			w.put("x", "")
		}, ErrRestored},
		{"trimmed", func(w *world) {
			w.put("lobby/state", pointerTo(w.revision+9, w.revision+1))
		}, ErrTrimmed},
		{"trimmed, and then garbage as a pointer", func(w *world) {
			w.put("lobby/copy", pointerTo(w.revision+9, w.revision+1))
			w.put("lobby/state", "garbage")
		}, ErrTrimmed},
		{"trimmed up to here", func(w *world) {
			w.put("lobby/state", pointerTo(w.revision, w.revision))
		}, context.Canceled},
		{"nothing", func(w *world) {}, context.Canceled},
		{"garbage as a pointer", func(w *world) { w.put("lobby/state", "garbage") }, context.Canceled},
		{"garbage as a copy", func(w *world) { w.put("lobby/copy", "garbage") }, context.Canceled},
	} {
		t.Run(test.name, func(t *testing.T) {
			inWorld(t, 1, func(t *testing.T, w *world) {
				s := w.mustBegin()
				mustAppend(t, s, "a", 1, "x")
				mustAppend(t, s, "a", 2, "y")
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				begin := w.failWatch(func(c *call) { c.say(created) })
				f := follow(ctx, s)
				f.mustRead(t, "a/1=x", "a/2=y")
				test.prepare(w)
				begin()
				if errors.Is(test.want, context.Canceled) {
					time.Sleep(time.Second) // at least one more range
					cancel()
				}
				f.mustEnd(t, test.want)
			})
		})
	}
}

func TestCompactionUnderAWatchLosesNothing(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		s := w.mustBegin()
		begin := w.failWatch(func(c *call) {
			w.set(func() { w.compacted = w.revision; w.history = nil })
			w.mu.Lock()
			defer w.mu.Unlock()
			w.members[0].watch(c)
		})
		f := follow(t.Context(), s)
		synctest.Wait()
		mustAppend(t, s, "a", 1, "x")
		begin()
		time.Sleep(retryDelay)
		f.mustRead(t, "a/1=x")
		time.Sleep(time.Minute)
		if n := w.requests("/v3/watch"); n != 1 {
			t.Errorf("there were %d watches after the first, want 1", n)
		}
		mustAppend(t, s, "a", 2, "y")
		f.mustRead(t, "a/2=y")
	})
}

// If a watch began at a revision that was compacted long ago, it would be canceled again and again.
func TestWatchBeginsAfterACompaction(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		s := w.mustBegin()
		mustAppend(t, s, "a", 1, "x")
		for range 10 {
			w.put("other", "")
		}
		w.set(func() { w.compacted = w.revision })
		f := follow(t.Context(), s)
		f.mustRead(t, "a/1=x")
		time.Sleep(time.Minute)
		if n := w.requests("/v3/watch"); n != 1 {
			t.Errorf("there were %d watches, want 1", n)
		}
	})
}

func TestLeavingTheLoopClosesTheWatch(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		s := w.mustBegin()
		mustAppend(t, s, "a", 1, "x")
		for range s.Entries(t.Context(), nil) {
			break
		}
		go func() {
			time.Sleep(time.Second)
			mustAppend(t, s, "a", 2, "y")
		}()
		for e := range s.Entries(t.Context(), nil) {
			if e.Number == 2 {
				break
			}
		}
		synctest.Wait()
		w.set(func() {
			if w.watches != 0 {
				t.Errorf("%d watches are still open", w.watches)
			}
		})
	})
}

func TestEntriesWaitForEtcd(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		s := w.mustBegin()
		f := follow(t.Context(), s)
		mustAppend(t, s, "a", 1, "x")
		f.mustRead(t, "a/1=x")
		w.stop(0, 1, 2)
		time.Sleep(time.Minute)
		w.set(func() {
			for _, m := range w.members {
				m.down = false
			}
		})
		mustAppend(t, s, "a", 2, "y")
		f.mustRead(t, "a/2=y")
	})
}

// A stranger has put a node's next entries, which the node discards. Then a page is read.
func TestDiscardedEntriesOfAStrangerAreNotMissed(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		s := w.mustBegin()
		mustAppend(t, s, "a", 1, "x")
		f := follow(t.Context(), s)
		f.mustRead(t, "a/1=x")
		for n := 2; n <= 4; n++ {
			strangers := w.put(fmt.Sprint("lobby/log/a/", n), "garbage")
			f.mustRead(t, fmt.Sprintf("a/%d=garbage", n))
			s.Discard(t.Context(), Entry{Revision: strangers, Node: "a", Number: n})
			f.mustRead(t, fmt.Sprintf("a/%d is damaged", n))
		}
		w.put("lobby/log/a/999", "garbage") // out of order, so a page is read
		f.mustRead(t, "a/999=garbage")
		mustAppend(t, s, "a", 2, "y")
		f.mustRead(t, "a/2=y")
	})
}
