package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"strconv"
	"strings"
	"time"
)

const (
	// firstPage and maxPage bound how many entries are asked for at once. The number doubles after a
	// page of less than smallPage bytes, because etcd scans the whole log for each page. Whenever the
	// same page has to be asked for again, the number is divided by four, because someone may have
	// put large values into the lobby's keys.
	firstPage = 64
	maxPage   = 512
	smallPage = 1 << 20

	// maxLag is how long a watch may lack an entry that Append knows to be in the log, in addition to
	// the time that Append took: where all responses are slow, so is the beginning of a watch.
	maxLag = 2 * time.Second

	// maxLagAlone applies instead if Append has moved to another endpoint, a sign that the watch's
	// endpoint is failing.
	maxLagAlone = 500 * time.Millisecond

	// maxNumbers bounds how many nodes' numbers are kept. Beyond it, all are forgotten and relearned.
	maxNumbers = 10_000
)

// Entry is one entry of the log.
type Entry struct {
	Revision int64
	Node     string
	Number   int
	Text     []byte
}

var (
	errStopped = errors.New("the caller has stopped reading entries")
	errMissing = errors.New("the watch left out an entry")
)

// Entries yields all entries after Session.At, in order and without gaps, and then each new one as
// it arrives. It survives endpoints that fail. It ends with ctx's error, or with ErrReplaced,
// ErrRestored or ErrTrimmed. It looks for these when it starts a watch. While one is running,
// Append detects ErrReplaced and ErrRestored first, and a missing entry may reveal ErrTrimmed.
func (s *Session) Entries(ctx context.Context) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		r := &entryReader{
			session: s, client: s.began.clone(), yield: yield, position: s.At, numbers: map[string]int{},
		}
		for {
			err := r.catchUp(ctx)
			if err == nil {
				err = r.watch(ctx)
			}
			switch err {
			case nil, errMissing:
			case errStopped:
				return
			default:
				yield(Entry{}, err)
				return
			}
		}
	}
}

// entryReader is the state of one call of Entries.
type entryReader struct {
	session  *Session
	client   *client
	yield    func(Entry, error) bool
	position int64           // the revision up to which all entries were yielded
	last     keyValue        // the entry that was yielded last, without its value
	numbers  map[string]int  // by node, the number up to which no entry was missing
	acked    acknowledgement // the latest one from Append
}

// catchUp yields all entries that are in the log. Its transactions also read whether the log was
// replaced, restored or trimmed, so none of these goes unnoticed.
func (r *entryReader) catchUp(ctx context.Context) error {
	s, log := r.session, r.session.log
	for limit := firstPage; ; {
		prefix, lobby := log.key("log/"), log.key("lobby")
		seen := s.observe(0)
		isFirst := true
		page, err := r.client.hedge(ctx, slowAfter, func() transaction {
			if !isFirst {
				limit = max(1, limit/4)
			}
			isFirst = false
			t := transaction{Success: []operation{
				{Range: &rangeRequest{Key: prefix, End: after(prefix), MinModified: r.position + 1,
					SortTarget: "MOD", SortOrder: "ASCEND", Limit: limit}},
				get(lobby),
				get(log.key("state")),
				get(log.key("copy")),
			}}
			if r.last.Key != nil {
				t.Success = append(t.Success, stat(r.last.Key))
			}
			return t
		})
		if err != nil {
			return err
		}
		removed := log.pointer(page).Removed
		switch {
		case page.find(lobby).Created != s.Created:
			return ErrReplaced
		case page.Header.Revision < seen:
			return ErrRestored
		case removed > r.position:
			return ErrTrimmed
		case r.last.Modified > removed && page.find(r.last.Key).Created != r.last.Created:
			return ErrRestored
		}
		entries := page.first()
		size := 0
		for _, kv := range entries.KVs {
			size += len(kv.Value)
			if err := r.handle(ctx, kv); err != nil {
				return err
			}
		}
		if !entries.More {
			r.position = max(r.position, page.Header.Revision)
			s.observe(r.position)
			return nil
		}
		if size < smallPage {
			limit = min(maxPage, 2*limit)
		}
	}
}

// handle yields the entry in kv. It skips what was yielded already, and keys that are not entries.
func (r *entryReader) handle(ctx context.Context, kv keyValue) error {
	if kv.Modified <= r.position {
		return nil
	}
	name, _ := strings.CutPrefix(string(kv.Key), string(r.session.log.key("log/")))
	node, digits, _ := strings.Cut(name, "/")
	number, err := strconv.Atoi(digits)
	isEntry := err == nil && number > 0 && strconv.Itoa(number) == digits &&
		node != "" && strings.Trim(node, nodeBytes) == ""
	if isEntry {
		if err := r.checkNumber(ctx, node, number, kv.Modified); err != nil {
			return err
		}
	}
	r.position = kv.Modified
	if isEntry {
		r.last = keyValue{Key: kv.Key, Created: kv.Created, Modified: kv.Modified}
		if !r.yield(Entry{kv.Modified, node, number, kv.Value}, nil) {
			return errStopped
		}
	}
	return nil
}

// checkNumber returns an error if an entry is missing before entry number of node, which has the
// revision at. etcd promises that a watch leaves nothing out. But a node that missed an entry would
// differ from the others forever, so it is worth one request. If etcd has no such entry either,
// this one was written by hand; it is yielded, and the node skips it.
func (r *entryReader) checkNumber(ctx context.Context, node string, number int, at int64) error {
	last, isKnown := r.numbers[node]
	if isKnown && number > last+1 {
		key := r.session.log.key("log/" + node + "/" + strconv.Itoa(last+1))
		read := transaction{Success: []operation{stat(key)}}
		response, err := r.client.hedge(ctx, slowAfter, same(read))
		if err != nil {
			return err
		}
		if found := response.find(key); found.Version > 0 && found.Modified < at {
			if found.Modified <= r.position {
				return ErrTrimmed // a later entry was yielded already
			}
			return errMissing
		}
		return nil
	}
	if len(r.numbers) > maxNumbers {
		clear(r.numbers)
	}
	r.numbers[node] = max(last, number)
	return nil
}

type watchMessage struct {
	Result struct {
		Header   header `json:"header"`
		Canceled bool   `json:"canceled"`
		Events   []struct {
			Type string   `json:"type"` // absent for a put
			KV   keyValue `json:"kv"`
		} `json:"events"`
	} `json:"result"`
	Error json.RawMessage `json:"error"`
}

// watch yields new entries as they arrive. It returns nil after the watch has ended, failed or
// fallen behind, and has then moved to another endpoint.
func (r *entryReader) watch(ctx context.Context) error {
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	prefix := r.session.log.key("log/")
	request := map[string]any{"create_request": map[string]any{
		"key": prefix, "range_end": after(prefix), "start_revision": r.position + 1,
		"filters":  []string{"NODELETE"},
		"fragment": true, // lets etcd split long messages
	}}
	messages := make(chan watchMessage)
	go r.client.clone().receive(watching, request, messages)

	var awaited int64 // the revision that must have arrived when late fires
	late := time.NewTimer(maxLag)
	late.Stop()
	for {
		if r.position >= awaited {
			late.Stop()
			if awaited = r.acked.revision; r.position < awaited {
				allowed := maxLag + r.acked.took
				if r.acked.endpoint != r.client.at {
					allowed = maxLagAlone
				}
				late.Reset(allowed)
			}
		}
		select {
		case r.acked = <-r.session.appended:
		case <-late.C:
			if r.client.at == r.acked.endpoint {
				r.client.move()
			} else {
				r.client.at = r.acked.endpoint
			}
			return nil
		case message, ok := <-messages:
			for _, event := range message.Result.Events {
				if event.Type == "DELETE" {
					continue
				}
				if err := r.handle(ctx, event.KV); err != nil {
					return err
				}
			}
			r.session.observe(r.position)
			cluster := message.Result.Header.Cluster // the first message has no events
			if !ok || message.Result.Canceled || message.Error != nil || r.client.note(cluster, nil) != nil {
				r.client.move()
				pause(ctx)
				return nil
			}
		}
	}
}

// receive starts a watch at the current endpoint and sends its messages to messages, which it closes
// when the watch has ended.
func (c *client) receive(ctx context.Context, request any, messages chan<- watchMessage) {
	defer close(messages)
	response, err := c.send(ctx, "/v3/watch", request)
	if err != nil {
		c.note("", err)
		return
	}
	defer response.Body.Close()
	limited := &io.LimitedReader{R: response.Body}
	decoder := json.NewDecoder(limited)
	for {
		limited.N = c.log.maxResponse
		var message watchMessage
		if decoder.Decode(&message) != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case messages <- message:
		}
	}
}
