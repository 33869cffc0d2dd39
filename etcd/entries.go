package etcd

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// Pages have firstPage entries at first. The number doubles after a page of less than smallPage
	// bytes, up to maxPage, because etcd scans the whole log for each page. Whenever the same page has
	// to be asked for again, the number is divided by four, because someone may have put large values
	// into the lobby's keys.
	firstPage = 64
	maxPage   = 512
	smallPage = 1 << 20

	// maxLag is how long a watch may lack an entry that Append knows to be in the log, in addition to
	// the time that Append took, because where appending is slow, starting a watch is slow too.
	maxLag = 2 * time.Second

	// maxLagAlone applies instead if Append has moved to another endpoint, a sign that the watch's
	// endpoint is failing.
	maxLagAlone = 500 * time.Millisecond

	// maxNumbers bounds entryReader.numbers. Beyond it, all are forgotten and relearned.
	maxNumbers = 10_000
)

// Entry is one entry of the log.
type Entry struct {
	Revision int64
	Node     string
	Number   int
	Text     []byte

	// Damaged means that the entry was changed or removed after it had been appended: by someone, or
	// by a node because a snapshot includes it. Then Revision is that of the change, and Text is nil.
	Damaged bool
}

var (
	errStopped = errors.New("the caller has stopped reading entries")
	errOrder   = errors.New("the watch left out an entry, or this one is not the next of its node")
)

// Entries yields all entries after Session.At in order, without leaving one out, and then each new
// one as it arrives. It survives endpoints that fail. It ends with ctx's error, or with
// ErrReplaced, ErrRestored, ErrTrimmed or ErrIncomplete. It looks for these when it starts a watch,
// and when an entry is not the next of its node. While a watch is running, Append detects
// ErrReplaced and ErrRestored first. last has the number of each node's last entry up to
// Session.At.
func (s *Session) Entries(ctx context.Context, last map[string]int) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		r := &entryReader{session: s, client: s.began.clone(), yield: yield, position: s.At, floor: s.At,
			numbers: make(map[string]int)}
		maps.Copy(r.numbers, last)
		for {
			err := r.catchUp(ctx)
			if err == nil {
				err = r.watch(ctx)
			}
			switch err {
			case nil, errOrder:
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
	put      keyValue        // all that was put up to it, inOrder, was yielded or is gone
	watched  int64           // the revision up to which removals were noticed, or 0
	last     Entry           // the newest entry that must be in the log; without its text; see handle
	numbers  map[string]int  // by node, the number up to which no entry was missing
	floor    int64           // numbers may lack nodes that registered up to this revision
	acked    acknowledgement // the latest one from Append
}

// catchUp yields all entries that are in the log. Its transactions also read whether the log was
// replaced, restored or trimmed, and whether an entry is missing that was not yielded yet.
func (r *entryReader) catchUp(ctx context.Context) error {
	s, log := r.session, r.session.log
	only := int64(0) // if not 0, the next page has this revision alone, and all of it
	for limit := firstPage; ; {
		prefix, lobby, nodes := log.key("log/"), log.key("lobby"), log.key("nodes/")
		last := log.entry(r.last.Node, r.last.Number)
		seen := s.observe(0)
		isFirst := true
		page, err := r.client.hedge(ctx, slowAfter, func() transaction { // called for each attempt
			if !isFirst {
				limit = max(1, limit/4)
			}
			isFirst = false
			most := limit
			if only > 0 {
				most = 0
			}
			return transaction{Success: []operation{
				{Range: &rangeRequest{Key: prefix, End: after(prefix), MinModified: r.position + 1,
					MaxModified: only, SortTarget: "MOD", SortOrder: "ASCEND", Limit: most}},
				get(lobby),
				get(log.key("state")),
				get(log.key("copy")),
				stat(last),
				{Range: &rangeRequest{Key: nodes, End: after(nodes), KeysOnly: true, Limit: maxNumbers}},
			}}
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
		}
		if r.last.Revision > removed {
			if lost, err := r.client.lacks(ctx, page, r.last); lost || err != nil {
				return cmp.Or(err, ErrRestored)
			}
		}
		r.watched = cmp.Or(r.watched, page.Header.Revision)
		entries := page.first()
		slices.SortFunc(entries.KVs, inOrder)
		if only > 0 {
			only, entries.More = 0, true
		} else if entries.More { // The last revision may go on in the next page.
			last := lastRevision(entries.KVs)
			if last == 0 {
				only = entries.KVs[0].Modified
				continue
			}
			entries.KVs = entries.KVs[:last]
		}
		page.Responses[0].Range = entries
		if err := r.checkCounts(ctx, page); err != nil {
			return err
		}
		size := 0
		for _, kv := range entries.KVs {
			size += len(kv.Value)
			if err := r.handle(kv); err != nil {
				return err
			}
		}
		if !entries.More {
			r.position = max(r.position, page.Header.Revision)
			r.put = keyValue{Modified: r.position + 1}
			s.observe(r.position)
			return nil
		}
		if size < smallPage {
			limit = min(maxPage, 2*limit)
		}
	}
}

// lacks reports whether the log never had e, given a response with e's key and its node's count. A
// missing key proves nothing, because e may have been removed. The log had e if its node's count
// includes e or, in case someone else put e, if etcd's history has it.
func (c *client) lacks(ctx context.Context, r transactionResponse, e Entry) (bool, error) {
	key := c.log.entry(e.Node, e.Number)
	found, count := r.find(key), r.find(c.log.key("nodes/"+e.Node))
	if found.Created == e.Revision || found.Version == 0 && count.Version >= int64(e.Number) {
		return false, nil
	}
	wasPut, err := c.wasPut(ctx, key, e.Revision)
	return !wasPut, err
}

// wasPut reports whether etcd's history has a put of key at this revision.
func (c *client) wasPut(ctx context.Context, key []byte, revision int64) (bool, error) {
	read := stat(key)
	read.Range.Revision = revision
	response, err := c.hedge(ctx, slowAfter, same(transaction{Success: []operation{read}}))
	if hasMessage(err, noRevision) {
		return false, nil
	}
	return response.find(key).Modified == revision, err
}

// parse returns the node and number of an entry with this key, or false if it is not an entry.
func (r *entryReader) parse(key []byte) (node string, number int, ok bool) {
	name, _ := strings.CutPrefix(string(key), string(r.session.log.key("log/")))
	node, digits, _ := strings.Cut(name, "/")
	number, err := strconv.Atoi(digits)
	ok = err == nil && number > 0 && strconv.Itoa(number) == digits &&
		node != "" && strings.Trim(node, nodeBytes) == ""
	return node, number, ok
}

// inOrder compares keys by revision and name. Append puts one entry at a revision. If someone puts
// several, ranges and watches return them in different orders.
func inOrder(a, b keyValue) int {
	return cmp.Or(cmp.Compare(a.Modified, b.Modified), bytes.Compare(a.Key, b.Key))
}

// lastRevision returns the index of the first of kvs, in order, that has the last one's revision.
func lastRevision(kvs []keyValue) int {
	return slices.IndexFunc(kvs, func(kv keyValue) bool { return kv.Modified == kvs[len(kvs)-1].Modified })
}

// handle yields the entry in kv, as a damaged one if kv says that it was changed or removed. It
// skips what was yielded already, and keys that are not entries.
func (r *entryReader) handle(kv keyValue) error {
	r.position = max(r.position, kv.Modified)
	node, number, ok := r.parse(kv.Key)
	if !ok || !kv.isDamaged() && inOrder(kv, r.put) <= 0 {
		return nil
	}
	e := Entry{Revision: kv.Modified, Node: node, Number: number, Text: kv.Value}
	if kv.isDamaged() {
		e.Text, e.Damaged = nil, true
		if node == r.last.Node && number == r.last.Number {
			r.last = Entry{}
		}
	} else {
		r.put = kv
	}
	if !e.Damaged && number == r.numbers[node]+1 {
		if r.numbers[node] = number; len(r.numbers) > maxNumbers {
			clear(r.numbers)
			r.floor = r.position
		}
		r.last = Entry{Revision: kv.Modified, Node: node, Number: number}
	}
	if !r.yield(e, nil) {
		return errStopped
	}
	return nil
}

// isOutOfOrder reports whether kv is an entry that leaves out an earlier one of its node.
func (r *entryReader) isOutOfOrder(kv keyValue) bool {
	node, number, ok := r.parse(kv.Key)
	return ok && !kv.isDamaged() && inOrder(kv, r.put) > 0 && number > r.numbers[node]+1
}

// isDamaged reports whether an entry was changed after it had been put, or removed. Append never
// does either, and never puts an entry whose key exists.
func (kv keyValue) isDamaged() bool { return kv.Created != kv.Modified }

// checkCounts returns an error if the log lacks an entry that its node has counted. Someone must
// have changed or removed it, and a hub that applied only the rest would differ from the others.
func (r *entryReader) checkCounts(ctx context.Context, page transactionResponse) error {
	next, doubts := maps.Clone(r.numbers), map[string]bool{}
	count := func(node string) keyValue { return page.find(r.session.log.key("nodes/" + node)) }
	for _, kv := range page.first().KVs {
		node, number, ok := r.parse(kv.Key)
		last, isKnown := next[node]
		switch {
		case !ok || number <= last || kv.Modified <= r.position:
		case !kv.isDamaged() && number == last+1:
			next[node] = number
		case int64(number) > count(node).Version: // It was not put by its node.
		// A node that registered before floor may be missing in numbers, so that proves nothing.
		case isKnown || count(node).Created > r.floor:
			doubts[node] = true
		}
	}
	if !page.first().More {
		for node, last := range next {
			if count(node).Version > int64(last) {
				doubts[node] = true
			}
		}
	}
	for _, node := range slices.Sorted(maps.Keys(doubts)) {
		if err := r.checkNode(ctx, node, next[node]+1); err != nil {
			return err
		}
	}
	return nil
}

// checkNode checks whether node has put the entry with this number, which a page lacks, and returns
// an error if so. A forged count is no proof of that.
func (r *entryReader) checkNode(ctx context.Context, node string, number int) error {
	key, counter := r.session.log.entry(node, number), r.session.log.key("nodes/"+node)
	read := transaction{Success: []operation{stat(key), get(counter)}}
	response, err := r.client.hedge(ctx, slowAfter, same(read))
	if err != nil {
		return err
	}
	entry, count := response.find(key), response.find(counter)
	switch {
	case count.isForged() || count.Version < int64(number):
		return nil
	case entry.Version > 0 && !entry.isDamaged():
		return ErrTrimmed // The watch left it out, and a later entry was yielded already.
	}
	return fmt.Errorf("%w: entry %d of node %s", ErrIncomplete, number, node)
}

type watchMessage struct {
	Result struct {
		Header    header `json:"header"`
		Canceled  bool   `json:"canceled"`
		Compacted int64  `json:"compact_revision,string"` // if that is why it was canceled
		Fragment  bool   `json:"fragment"`                // whether the next message continues this one
		Events    []struct {
			KV keyValue `json:"kv"` // if it was removed, without the revision of its creation
		} `json:"events"`
	} `json:"result"`
	Error json.RawMessage `json:"error"`
}

// watch yields new entries as they arrive. When the watch has ended, failed or fallen behind, it
// moves to another endpoint and returns nil.
func (r *entryReader) watch(ctx context.Context) error {
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	prefix := r.session.log.key("log/")
	// The watch begins where the last one ended, because catchUp does not see removals.
	request := map[string]any{"create_request": map[string]any{
		"key": prefix, "range_end": after(prefix), "start_revision": r.watched + 1,
		"fragment": true, // lets etcd split long messages
	}}
	messages := make(chan watchMessage)
	go r.client.clone().receive(watching, request, messages)

	var pending []keyValue // of a revision of which there may be more
	var awaited int64      // the revision that must have arrived when late fires
	late := time.NewTimer(maxLag)
	late.Stop()
	for {
		// The timer waits for one acknowledged entry at a time, so that later ones do not put it off.
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
				pending = append(pending, event.KV)
			}
			slices.SortFunc(pending, inOrder)
			whole := len(pending)
			if message.Result.Fragment || !ok { // The last revision may go on in the next message.
				whole = max(0, lastRevision(pending))
			}
			for _, kv := range pending[:whole] {
				if r.isOutOfOrder(kv) {
					r.position = min(r.position, kv.Modified-1)
					return errOrder
				}
				if err := r.handle(kv); err != nil {
					return err
				}
			}
			if whole > 0 {
				r.watched = pending[whole-1].Modified
			}
			pending = slices.Delete(pending, 0, whole)
			r.session.observe(r.position)
			// The first message has no events, so another cluster is noticed before any event.
			cluster := message.Result.Header.Cluster
			if message.Result.Compacted > 0 {
				r.watched = 0 // etcd no longer has what it would show
			}
			if !ok || message.Result.Canceled || message.Error != nil || r.client.note(cluster, nil) != nil {
				r.client.move()
				pause(ctx)
				return nil
			}
		}
	}
}

// receive starts a watch at the current endpoint and sends its messages to messages, which it
// closes when the watch has ended.
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
