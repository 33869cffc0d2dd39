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
	// firstPage and maxPage are how many entries are asked for at once. After a page of less than
	// smallPage bytes it is twice as many, because etcd reads the whole log for each page; each time
	// that it has to be asked for again a quarter, because somebody may have put large values into
	// the lobby's keys.
	firstPage = 64
	maxPage   = 512
	smallPage = 1 << 20

	// lagTime is how long a watch may lack what an append has acknowledged.
	lagTime = 2 * time.Second

	// otherLagTime is the same if Append has left the watch's endpoint, which it does not do
	// without a reason.
	otherLagTime = 500 * time.Millisecond

	// maxNumbers is how many nodes' last numbers are kept at most; beyond it they are learnt anew.
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
	errStopped = errors.New("whoever ranges over the entries has had enough")
	errHole    = errors.New("a watch has left an entry out")
)

// Entries returns the entries after Session.At, in order and without a hole, and goes on for ever.
// It survives endpoints that fail. It ends with an error: ctx's, ErrReplaced, ErrRestored or
// ErrTrimmed. What became of the log shows when a watch begins; while one goes well, Append notices
// first.
func (s *Session) Entries(ctx context.Context) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		r := &reader{session: s, client: s.began.clone(), yield: yield, position: s.At, numbers: map[string]int{}}
		for {
			err := r.catchUp(ctx)
			if err == nil {
				err = r.watch(ctx)
			}
			switch err {
			case nil, errHole:
			case errStopped:
				return
			default:
				yield(Entry{}, err)
				return
			}
		}
	}
}

// reader reads the entries for one call of Entries.
type reader struct {
	session  *Session
	client   *client
	yield    func(Entry, error) bool
	position int64           // the revision up to which all entries were yielded
	last     keyValue        // the entry that was yielded last, without its value
	numbers  map[string]int  // by node, the highest number up to which no entry was missing
	acked    acknowledgement // the last of Append
}

// catchUp yields all entries that are in the log. What it needs to know of the lobby it reads in
// the same transactions, so a log that was replaced, restored or trimmed never goes unnoticed.
func (r *reader) catchUp(ctx context.Context) error {
	s, log := r.session, r.session.log
	for limit := firstPage; ; {
		prefix, lobby := log.key("log/"), log.key("lobby")
		last := r.last.Key
		if last == nil {
			last = lobby // there is no last entry yet, so what is found does not matter
		}
		seen := s.see(0)
		isFirst := true
		page, err := insist[transactionAnswer](ctx, r.client, requestTime, "/v3/kv/txn", func() any {
			if !isFirst {
				limit = max(1, limit/4)
			}
			isFirst = false
			return transaction{Success: []operation{
				{Range: &rangeRequest{Key: prefix, End: after(prefix), MinModified: r.position + 1,
					SortTarget: "MOD", SortOrder: "ASCEND", Limit: limit}},
				get(lobby),
				get(log.key("state")),
				{Range: &rangeRequest{Key: last, KeysOnly: true}},
			}}
		})
		if err != nil {
			return err
		}
		removed := parsePointer(page.read(2).first().Value).Removed
		switch {
		case page.read(1).first().Created != s.Created:
			return ErrReplaced
		case page.Header.Revision < seen:
			return ErrRestored
		case removed > r.position:
			return ErrTrimmed
		case r.last.Modified > removed && page.read(3).first().Created != r.last.Created:
			return ErrRestored
		}
		entries := page.read(0)
		size := 0
		for _, kv := range entries.KVs {
			size += len(kv.Value)
			if err := r.take(ctx, kv); err != nil {
				return err
			}
		}
		if !entries.More {
			r.position = max(r.position, page.Header.Revision)
			s.see(r.position)
			return nil
		}
		if size < smallPage {
			limit = min(maxPage, 2*limit)
		}
	}
}

// take yields what stands in kv if that is an entry and comes next. Anything else is skipped.
func (r *reader) take(ctx context.Context, kv keyValue) error {
	if kv.Modified <= r.position {
		return nil
	}
	name, _ := strings.CutPrefix(string(kv.Key), string(r.session.log.key("log/")))
	node, count, _ := strings.Cut(name, "/")
	number, err := strconv.Atoi(count)
	isEntry := err == nil && number > 0 && strconv.Itoa(number) == count &&
		node != "" && !strings.ContainsFunc(node, isNotOfNode)
	if isEntry {
		if err := r.check(ctx, node, number, kv.Modified); err != nil {
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

func isNotOfNode(c rune) bool {
	return !('0' <= c && c <= '9' || 'a' <= c && c <= 'z')
}

// check looks for a hole before entry number of node, which has come with a revision. etcd promises
// that a watch leaves nothing out, but a node that missed an entry would differ from the others for
// ever, so it is worth a question. There may be no entry before this one either: then somebody has
// put this one there by hand, and it is for the caller to skip it.
func (r *reader) check(ctx context.Context, node string, number int, revision int64) error {
	last, isKnown := r.numbers[node]
	if isKnown && number > last+1 {
		key := r.session.log.key("log/" + node + "/" + strconv.Itoa(last+1))
		answer, err := insist[rangeAnswer](ctx, r.client, requestTime, "/v3/kv/range", always(rangeRequest{Key: key, KeysOnly: true}))
		if err != nil {
			return err
		}
		if found := answer.first(); found.Version > 0 && found.Modified < revision {
			if found.Modified <= r.position {
				return ErrTrimmed // what came after it was yielded already
			}
			return errHole
		}
		return nil
	}
	if len(r.numbers) > maxNumbers {
		clear(r.numbers)
	}
	r.numbers[node] = max(last, number)
	return nil
}

type watchRequest struct {
	Create struct {
		Key      []byte   `json:"key"`
		End      []byte   `json:"range_end"`
		Start    int64    `json:"start_revision"`
		Filters  []string `json:"filters"`
		Fragment bool     `json:"fragment"` // long answers come in parts
	} `json:"create_request"`
}

type watchMessage struct {
	Result struct {
		Canceled bool `json:"canceled"`
		Events   []struct {
			Type string   `json:"type"` // missing for a put
			KV   keyValue `json:"kv"`
		} `json:"events"`
	} `json:"result"`
	Error json.RawMessage `json:"error"`
}

// watch yields the entries that come into the log. It returns nil when the watch has ended, has
// failed or lags behind; then it has moved on to another endpoint.
func (r *reader) watch(ctx context.Context) error {
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	var request watchRequest
	request.Create.Key = r.session.log.key("log/")
	request.Create.End = after(request.Create.Key)
	request.Create.Start = r.position + 1
	request.Create.Filters = []string{"NODELETE"}
	request.Create.Fragment = true
	head := time.AfterFunc(requestTime, cancel)
	response, err := r.client.send(watching, "/v3/watch", request)
	head.Stop()
	if err != nil {
		r.client.move()
		pause(ctx)
		return nil
	}
	messages := make(chan watchMessage)
	go receive(watching, response.Body, r.session.log.maxAnswer, messages)

	var awaited int64 // the revision that must have come when late fires; none if it has come
	late := time.NewTimer(lagTime)
	late.Stop()
	for {
		if r.position >= awaited {
			late.Stop()
			if awaited = r.acked.revision; r.position < awaited {
				late.Reset(r.patience())
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
				if err := r.take(ctx, event.KV); err != nil {
					return err
				}
			}
			r.session.see(r.position)
			if !ok || message.Result.Canceled || message.Error != nil {
				r.client.move()
				pause(ctx)
				return nil
			}
		}
	}
}

// patience returns how long the watch may lack what was acknowledged last.
func (r *reader) patience() time.Duration {
	if r.acked.endpoint != r.client.at {
		return otherLagTime
	}
	return lagTime
}

// receive sends on what comes from a watch, and closes messages when there is no more.
func receive(ctx context.Context, body io.ReadCloser, maxMessage int64, messages chan<- watchMessage) {
	defer close(messages)
	defer body.Close()
	limited := &io.LimitedReader{R: body}
	decoder := json.NewDecoder(limited)
	for {
		limited.N = maxMessage
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
