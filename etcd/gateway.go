package etcd

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	// dialTimeout is how long connecting to an endpoint may take.
	dialTimeout = time.Second

	// slowAfter is how long an endpoint may take to respond before the next one is asked as well. It
	// is short because a server does not respond at all until it notices that its leader has died:
	// with 1.5 s the silence after such a death often exceeded 3 s.
	slowAfter = 700 * time.Millisecond

	// requestTimeout is how long to wait for an endpoint's response. For requests that are large or
	// not urgent, such as the pieces of a snapshot, it takes the place of slowAfter too.
	requestTimeout = 5 * time.Second

	// retryDelay is how long to wait after an endpoint has failed.
	retryDelay = 100 * time.Millisecond

	// maxResponse is enough for firstPage of the longest entries, which are 133 KiB. A page that is
	// longer is asked for again with a lower limit.
	maxResponse = 16 << 20
)

// The following types are the parts of etcd's JSON API that this package uses. Keys and values are
// in base64, which is how encoding/json encodes []byte, and 64-bit numbers are strings.

type keyValue struct {
	Key      []byte `json:"key"`
	Value    []byte `json:"value"`
	Created  int64  `json:"create_revision,string"`
	Modified int64  `json:"mod_revision,string"`
	Version  int64  `json:"version,string"` // number of puts since the key was created
}

type rangeRequest struct {
	Key         []byte `json:"key"`
	End         []byte `json:"range_end,omitempty"`
	Limit       int    `json:"limit,omitempty"`
	SortOrder   string `json:"sort_order,omitempty"`
	SortTarget  string `json:"sort_target,omitempty"`
	MinModified int64  `json:"min_mod_revision,omitempty"`
	MaxModified int64  `json:"max_mod_revision,omitempty"`
	KeysOnly    bool   `json:"keys_only,omitempty"`
	Revision    int64  `json:"revision,omitempty"` // the one at which to read; 0 for the current one
}

type rangeResponse struct {
	KVs  []keyValue `json:"kvs"`
	More bool       `json:"more"` // whether Limit cut it short
}

type putRequest struct {
	Key   []byte `json:"key"`
	Value []byte `json:"value"`
}

// operation is a step of a transaction. Exactly one of its fields is set.
type operation struct {
	Range  *rangeRequest `json:"request_range,omitempty"`
	Put    *putRequest   `json:"request_put,omitempty"`
	Delete *rangeRequest `json:"request_delete_range,omitempty"`
}

func get(key []byte) operation        { return operation{Range: &rangeRequest{Key: key}} }
func put(key, value []byte) operation { return operation{Put: &putRequest{key, value}} }
func remove(key []byte) operation     { return operation{Delete: &rangeRequest{Key: key}} }

// stat is get without the value.
func stat(key []byte) operation { return operation{Range: &rangeRequest{Key: key, KeysOnly: true}} }

// after returns the end of the range of keys that begin with prefix, whose last byte is a slash.
func after(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	end[len(end)-1]++
	return end
}

// compare is a condition of a transaction: a property of a key has a certain value. All properties
// of a key that does not exist are 0.
type compare struct {
	Key      []byte `json:"key"`
	Target   string `json:"target"` // says which of the following counts
	Version  int64  `json:"version,omitempty"`
	Created  int64  `json:"create_revision,omitempty"`
	Modified int64  `json:"mod_revision,omitempty"`
}

func versionIs(key []byte, n int64) compare  { return compare{key, "VERSION", n, 0, 0} }
func createdIs(key []byte, n int64) compare  { return compare{key, "CREATE", 0, n, 0} }
func modifiedIs(key []byte, n int64) compare { return compare{key, "MOD", 0, 0, n} }

// transaction executes Success if all conditions hold, and Failure otherwise.
type transaction struct {
	Compare []compare   `json:"compare,omitempty"`
	Success []operation `json:"success,omitempty"`
	Failure []operation `json:"failure,omitempty"`
}

type header struct {
	Cluster  string `json:"cluster_id"`
	Revision int64  `json:"revision,string"`
}

type transactionResponse struct {
	Header    header `json:"header"`
	Succeeded bool   `json:"succeeded"`
	Responses []struct {
		Range rangeResponse `json:"response_range"`
	} `json:"responses"`
}

// first returns the response to the first operation, which is a range.
func (r transactionResponse) first() rangeResponse {
	if len(r.Responses) == 0 {
		return rangeResponse{}
	}
	return r.Responses[0].Range
}

// find returns the key as one of the ranges returned it, or a zero keyValue if none did.
func (r transactionResponse) find(key []byte) keyValue {
	for _, response := range r.Responses {
		for _, kv := range response.Range.KVs {
			if bytes.Equal(kv.Key, key) {
				return kv
			}
		}
	}
	return keyValue{}
}

type authentication struct {
	Name     string `json:"name,omitempty"`
	Password string `json:"password,omitempty"`
	Token    string `json:"token,omitempty"` // only in the response
}

// gatewayError is an error response of etcd.
type gatewayError struct {
	Status  int    `json:"-"`
	Message string `json:"message"`
}

func (e *gatewayError) Error() string {
	return fmt.Sprintf("%s (status %d)", strings.TrimPrefix(e.Message, "etcdserver: "), e.Status)
}

// ErrTooLarge is matched by errors with which etcd, or a proxy in front of it, rejects a request
// that it might accept in smaller parts.
var ErrTooLarge = errors.New("the request is too large")

func (e *gatewayError) Is(target error) bool {
	return target == ErrTooLarge && (e.Status == http.StatusRequestEntityTooLarge ||
		hasMessage(e, "request is too large", "message larger than max", "too many operations in txn"))
}

// noToken takes the place of a token while authentication is switched off. It is never sent,
// because etcd 3.4 then rejects requests with any token.
const noToken = "none"

var (
	errTooLong = errors.New("the response is too long")
	errForeign = errors.New("left out, as it belongs to a different etcd cluster than most URLs")
)

// client sends requests to one endpoint after another. It belongs to one goroutine, so that no
// request waits for that of another.
type client struct {
	log    *Log
	at     int      // index of the endpoint to ask next; after a success, the one that responded
	tokens []string // by endpoint, from authenticate; empty if there is none yet, or noToken
}

func (l *Log) client(at int) *client {
	return &client{l, at, make([]string, len(l.config.Endpoints))}
}

// clone returns a client for another goroutine, with the same endpoint and the same tokens, because
// creating a token costs etcd a tenth of a second of processor time.
func (c *client) clone() *client {
	return &client{c.log, c.at, slices.Clone(c.tokens)}
}

// move makes the next endpoint the current one.
func (c *client) move() { c.at = (c.at + 1) % len(c.tokens) }

// pause waits for retryDelay, or until ctx is done.
func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(retryDelay):
	}
}

// hedge sends a transaction to one endpoint after another until one of them responds. It goes on to
// the next one retryDelay after a failure, or if there is no response within the time slow. A slow
// endpoint may still respond after that, and a stalled one delays nothing for long. Each endpoint
// is sent what request returns at that moment. The only errors are ctx's and those that one
// endpoint decides: a change is too large (ErrTooLarge; another endpoint may have executed it), or
// etcd does not have the revision at which to read.
func (c *client) hedge(
	ctx context.Context, slow time.Duration, request func() transaction,
) (response transactionResponse, err error) {
	type try struct {
		number   int
		client   *client
		request  transaction
		response transactionResponse
		err      error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tries := make(chan try)
	next := time.NewTimer(0)
	defer next.Stop()
	for started := 0; ; {
		select {
		case <-next.C:
			started++
			t := try{number: started, client: c.clone(), request: request()}
			go func() {
				t.err = t.client.ask(ctx, requestTimeout, "/v3/kv/txn", t.request, &t.response)
				first := t.response.first()
				isIncomplete := t.response.Header.Cluster == "" || first.More && len(first.KVs) == 0
				if t.err == nil && isIncomplete { // because of a broken proxy
					t.err = errors.New("the response is incomplete")
				}
				t.err = t.client.note(t.response.Header.Cluster, t.err)
				select {
				case tries <- t:
				case <-ctx.Done():
				}
			}()
			c.move()
			next.Reset(slow)
		case t := <-tries:
			// Only changes have conditions. A read that is too large is repeated with a lower limit.
			isTooLarge := t.request.Compare != nil && errors.Is(t.err, ErrTooLarge)
			if t.err == nil || isTooLarge || hasMessage(t.err, noRevision) && t.client.note("", nil) == nil {
				*c = *t.client
				return t.response, t.err
			}
			if t.number == started {
				next.Reset(retryDelay)
			}
		case <-ctx.Done():
			return response, ctx.Err()
		}
	}
}

// same makes hedge send the same transaction to every endpoint.
func same(t transaction) func() transaction { return func() transaction { return t } }

// ask sends the request in to the current endpoint and decodes the response into out.
func (c *client) ask(ctx context.Context, timeout time.Duration, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	response, err := c.send(ctx, path, in)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, c.log.maxResponse+1))
	if err != nil {
		return err
	}
	if int64(len(body)) > c.log.maxResponse {
		return errTooLong
	}
	return json.Unmarshal(body, out)
}

// send is post, preceded by authenticate if that is necessary.
func (c *client) send(ctx context.Context, path string, request any) (*http.Response, error) {
	for {
		isNew := false
		if c.log.config.User != "" && c.tokens[c.at] == "" {
			isNew = true
			if err := c.authenticate(ctx); err != nil {
				return nil, err
			}
		}
		response, err := c.post(ctx, path, request)
		// A token expires when it has not been used for a while, or when etcd's users change. And
		// once authentication is switched on, etcd rejects requests without one (noToken).
		const invalid, old = "invalid auth token", "auth: revision in header is old"
		if c.tokens[c.at] == "" || !hasMessage(err, invalid, old, "user name is empty") {
			return response, err
		}
		c.tokens[c.at] = ""
		if isNew {
			return nil, err
		}
	}
}

// authenticate gets a token from the current endpoint.
func (c *client) authenticate(ctx context.Context) error {
	response, err := c.post(ctx, "/v3/auth/authenticate",
		authentication{Name: c.log.config.User, Password: c.log.config.Password})
	if hasMessage(err, "authentication is not enabled") {
		c.tokens[c.at] = noToken
		return nil
	}
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var granted authentication
	if err := json.NewDecoder(io.LimitReader(response.Body, 1<<16)).Decode(&granted); err != nil {
		return err
	}
	c.tokens[c.at] = granted.Token
	return nil
}

// post sends a request to the current endpoint and returns the response once its head has arrived
// with status 200. Any other status is an error.
func (c *client) post(ctx context.Context, path string, request any) (*http.Response, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	url := c.log.config.Endpoints[c.at] + path
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	// A server that has no leader then says so at once, instead of waiting for one.
	r.Header.Set("Grpc-Metadata-hasleader", "true")
	if token := c.tokens[c.at]; token != "" && token != noToken {
		r.Header.Set("Authorization", token)
	}
	response, err := c.log.http.Do(r)
	if err != nil || response.StatusCode == http.StatusOK {
		return response, err
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(response.Body, 4<<10))
	failure := &gatewayError{Status: response.StatusCode}
	if json.Unmarshal(text, failure) != nil {
		failure.Message, _, _ = strings.Cut(string(text), "\n")
	}
	failure.Message = cmp.Or(failure.Message, http.StatusText(response.StatusCode))
	return nil, failure
}

// noRevision is in etcd's message that a revision was compacted, or is in the future.
const noRevision = "required revision"

// hasMessage reports whether err is an error response of etcd with one of these messages.
func hasMessage(err error, messages ...string) bool {
	failure, ok := errors.AsType[*gatewayError](err)
	return ok && slices.ContainsFunc(messages, func(message string) bool {
		return strings.Contains(failure.Message, message)
	})
}

// ErrRefused is matched by errors that waiting does not cure, because etcd requires a different
// password or certificate.
var ErrRefused = errors.New("etcd refuses")

// refusal is an error that matches ErrRefused and has its own text.
type refusal string

func (r refusal) Error() string        { return string(r) }
func (r refusal) Is(target error) bool { return target == ErrRefused }

// state is what is known about an endpoint.
type state struct {
	cluster string // the id of the etcd cluster that it belongs to, or "" if it is unknown
	err     error  // of the last request, explained; nil if it succeeded
}

// note records what came of a request to the current endpoint, and to which cluster that belongs if
// the response says so. It returns err, explained, or an error if most endpoints belong to another
// cluster. An endpoint that is down still counts for the cluster that it was last seen in, so that
// in an outage nobody moves to a stray one.
func (c *client) note(cluster string, err error) error {
	if errors.Is(err, context.Canceled) {
		return err // another response came first
	}
	states := <-c.log.states
	defer func() { c.log.states <- states }()
	s := &states[c.at]
	s.cluster = cmp.Or(cluster, s.cluster)
	votes := make(map[string]int)
	for _, other := range states {
		votes[other.cluster]++
	}
	for other, n := range votes {
		if err == nil && s.cluster != "" && other != "" && n > votes[s.cluster] {
			err = errForeign
		}
	}
	if err != nil {
		err = c.explain(err)
	}
	if errors.Is(err, errForeign) && !errors.Is(s.err, errForeign) {
		c.log.Warn(err.Error())
	}
	s.err = err
	return err
}

// Explain returns err with the last error of each endpoint that does not work, in one line.
func (l *Log) Explain(err error) error {
	var texts []string
	states := <-l.states
	for _, s := range states {
		if s.err != nil && !slices.Contains(texts, s.err.Error()) {
			texts = append(texts, s.err.Error())
		}
	}
	l.states <- states
	if len(texts) == 0 {
		return err
	}
	return fmt.Errorf("%w: %s", err, strings.Join(texts, "; "))
}

// explain turns an error of the current endpoint into one that tells an operator what to do.
func (c *client) explain(err error) error {
	user, endpoint := c.log.config.User, c.log.config.Endpoints[c.at]
	refuse := func(format string, args ...any) error { return refusal(fmt.Sprintf(format, args...)) }
	isDenied := hasMessage(err, "permission denied")
	_, isCertificate := errors.AsType[*tls.CertificateVerificationError](err)
	response, isResponse := errors.AsType[*gatewayError](err)
	switch {
	case hasMessage(err, "invalid user ID or password"):
		return refuse("etcd rejects the user or the password; correct USER:PASSWORD@ in each URL")
	case hasMessage(err, "CommonName of client"):
		return refuse("with passwords, etcd rejects a certificate that has a common name; " +
			"set -etcd-cert to one without, for example from openssl req -subj /O=lobby")
	case hasMessage(err, "user name is empty"), isDenied && user == "":
		return refuse("etcd requires a user and a password; add USER:PASSWORD@ to each URL")
	case isDenied:
		return refuse("etcd does not let the user %q read and write the keys that begin with %q; "+
			"grant a role that may", user, c.log.key(""))
	case errors.Is(err, errDamaged):
		return err // it does not depend on the endpoint
	case errors.Is(err, ErrTooLarge):
		return fmt.Errorf("%s rejects a request (%w); start etcd without --max-request-bytes and "+
			"--max-txn-ops, and make any proxy in front of it accept bodies of 2 MB", endpoint, err)
	case isResponse && response.Status == http.StatusNotFound:
		return refuse("%s has no JSON gateway; start etcd with --enable-grpc-gateway, and do not use "+
			"the URL of a grpc-proxy", endpoint)
	case strings.Contains(err.Error(), `malformed HTTP response "\x00\x00`), // a frame of HTTP/2
		strings.Contains(err.Error(), "readLoopPeekFailLocked: %!w(<nil>)"): // sent before the request
		return refuse("%s serves only gRPC; use the address in etcd's --listen-client-http-urls instead",
			endpoint)
	case hasMessage(err, "handshake failed", "preface", "connection closed", "closed network connection",
		"connection reset", "broken pipe", "EOF"): // depending on where the connection ended
		return fmt.Errorf("the JSON gateway of %s cannot reach etcd (%w); if etcd requires client "+
			"certificates, its own must be for clients too, not for servers only", endpoint, err)
	case isCertificate:
		return refuse("the certificate of %s is not trusted (%v); set -etcd-ca to the file of its CA",
			endpoint, rootOf(err))
	case errors.Is(err, http.ErrSchemeMismatch):
		return refuse("%s does not speak https; use http:// in its URL", endpoint)
	case strings.Contains(err.Error(), "remote error: tls: "):
		return refuse("%s requires a certificate that it trusts (%v); set -etcd-cert and -etcd-key",
			endpoint, rootOf(err))
	}
	return fmt.Errorf("%s: %w", endpoint, rootOf(err))
}

// rootOf returns the innermost error, without the URL that net/http adds. All ways in which a
// connection can end get one text, because main prints a line whenever the text changes.
func rootOf(err error) error {
	if late, ok := errors.AsType[net.Error](err); ok && late.Timeout() {
		return errors.New("no response in time")
	}
	for errors.Unwrap(err) != nil {
		err = errors.Unwrap(err)
	}
	switch err.Error() {
	case "EOF", "unexpected EOF", "connection reset by peer", "broken pipe",
		"http: server closed idle connection", "use of closed network connection":
		return errors.New("the connection was closed")
	}
	return err
}
