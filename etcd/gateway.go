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
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	// dialTime is how long an endpoint may take to take a connection.
	dialTime = time.Second

	// requestTime is how long an endpoint may take to answer before the next one is asked too. It is
	// short because a member whose leader has died does not answer at all until it knows: with 1.5 s
	// the silence after such a death was often over 3 s.
	requestTime = 700 * time.Millisecond

	// largeTime is the same for a piece of a state, which nobody waits for, and how long an endpoint
	// may take for any answer.
	largeTime = 5 * time.Second

	// pauseTime is how long to wait after an endpoint has failed.
	pauseTime = 100 * time.Millisecond

	// maxAnswer is enough for a page of the longest entries, which are 128 KiB.
	maxAnswer = 16 << 20
)

// What follows is etcd's API in JSON, as far as it is used here. Keys and values are base64 there,
// which is what encoding/json makes of []byte, and numbers of 64 bits are strings.

type header struct {
	Revision int64 `json:"revision,string"`
}

type keyValue struct {
	Key      []byte `json:"key"`
	Value    []byte `json:"value"`
	Created  int64  `json:"create_revision,string"`
	Modified int64  `json:"mod_revision,string"`
	Version  int64  `json:"version,string"` // counts the puts since the key was created
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
}

type rangeAnswer struct {
	Header header     `json:"header"`
	KVs    []keyValue `json:"kvs"`
	More   bool       `json:"more"`
}

// first returns the first key that was found, or a zero keyValue, whose Version is 0.
func (a rangeAnswer) first() keyValue {
	if len(a.KVs) == 0 {
		return keyValue{}
	}
	return a.KVs[0]
}

type putRequest struct {
	Key   []byte `json:"key"`
	Value []byte `json:"value"`
}

type deleteRequest struct {
	Key []byte `json:"key"`
}

// operation is one of a transaction; one of its fields is set.
type operation struct {
	Range  *rangeRequest  `json:"request_range,omitempty"`
	Put    *putRequest    `json:"request_put,omitempty"`
	Delete *deleteRequest `json:"request_delete_range,omitempty"`
}

func get(key []byte) operation        { return operation{Range: &rangeRequest{Key: key}} }
func put(key, value []byte) operation { return operation{Put: &putRequest{key, value}} }
func remove(key []byte) operation     { return operation{Delete: &deleteRequest{Key: key}} }

// after returns the end of the range of keys that begin with prefix, which ends with a slash.
func after(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	end[len(end)-1]++
	return end
}

// compare is a condition of a transaction: that a property of a key has a value. For a key that is
// not there each property is 0.
type compare struct {
	Key      []byte `json:"key"`
	Target   string `json:"target"` // which of these is meant
	Version  int64  `json:"version,omitempty"`
	Created  int64  `json:"create_revision,omitempty"`
	Modified int64  `json:"mod_revision,omitempty"`
}

func isVersion(key []byte, version int64) compare {
	return compare{Key: key, Target: "VERSION", Version: version}
}

func isCreated(key []byte, revision int64) compare {
	return compare{Key: key, Target: "CREATE", Created: revision}
}

func isModified(key []byte, revision int64) compare {
	return compare{Key: key, Target: "MOD", Modified: revision}
}

// transaction does all of Success if all conditions hold, and otherwise all of Failure.
type transaction struct {
	Compare []compare   `json:"compare,omitempty"`
	Success []operation `json:"success,omitempty"`
	Failure []operation `json:"failure,omitempty"`
}

type transactionAnswer struct {
	Header    header `json:"header"`
	Succeeded bool   `json:"succeeded"`
	Responses []struct {
		Range rangeAnswer `json:"response_range"`
	} `json:"responses"`
}

// read returns what the i-th operation, a range, has read.
func (a transactionAnswer) read(i int) rangeAnswer {
	if i >= len(a.Responses) {
		return rangeAnswer{}
	}
	return a.Responses[i].Range
}

type authentication struct {
	Name     string `json:"name,omitempty"`
	Password string `json:"password,omitempty"`
	Token    string `json:"token,omitempty"` // in the answer
}

// gatewayError is an error that etcd has answered with.
type gatewayError struct {
	Status  int    `json:"-"`
	Message string `json:"message"`
}

func (e *gatewayError) Error() string {
	return fmt.Sprintf("%s (status %d)", strings.TrimPrefix(e.Message, "etcdserver: "), e.Status)
}

var errTooLong = errors.New("the answer is too long")

// client asks one endpoint after the other. It belongs to one goroutine; whoever asks at the same
// time has a client of its own, so that one that waits for an endpoint holds up nobody.
type client struct {
	log    *Log
	at     int      // the index of the endpoint to ask, which is the one that worked last
	tokens []string // by endpoint, what authenticate got; empty if nothing yet
}

func (l *Log) client(at int) *client {
	return &client{l, at, make([]string, len(l.config.Endpoints))}
}

// clone returns a client for another goroutine. It begins at the same endpoint, and has its tokens,
// because to make one costs etcd a tenth of a second of processor time.
func (c *client) clone() *client {
	return &client{c.log, c.at, slices.Clone(c.tokens)}
}

// move makes the next endpoint the one to ask.
func (c *client) move() {
	c.at = (c.at + 1) % len(c.tokens)
}

// pause waits for pauseTime, or until ctx is done.
func pause(ctx context.Context) {
	timer := time.NewTimer(pauseTime)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// insist asks one endpoint after the other until one has answered: the next one pauseTime after one
// has failed, and when one has kept it waiting for as long as patience says. That one may answer
// still, so slow endpoints are as good as fast ones, and one that stands still holds nothing up.
// Each gets what request returns at that moment. The only error is that of ctx.
func insist[Answer any](ctx context.Context, c *client, patience time.Duration, path string, request func() any) (answer Answer, err error) {
	type try struct {
		number int
		client *client
		answer Answer
		err    error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tries := make(chan try)
	next := time.NewTimer(0)
	defer next.Stop()
	for begun := 0; ; {
		select {
		case <-next.C:
			begun++
			t, request := try{number: begun, client: c.clone()}, request()
			go func() {
				t.answer, t.err = ask[Answer](ctx, t.client, largeTime, path, request)
				select {
				case tries <- t:
				case <-ctx.Done():
				}
			}()
			c.move()
			next.Reset(patience)
		case t := <-tries:
			if t.err == nil {
				*c = *t.client
				return t.answer, nil
			}
			if t.number == begun {
				next.Reset(pauseTime)
			}
		case <-ctx.Done():
			return answer, ctx.Err()
		}
	}
}

// always is for insist, if it is to send the same request to all.
func always(request any) func() any {
	return func() any { return request }
}

// ask asks the present endpoint once, for at most the time that patience says.
func ask[Answer any](ctx context.Context, c *client, patience time.Duration, path string, request any) (answer Answer, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	response, err := c.send(ctx, path, request)
	if err != nil {
		return answer, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, c.log.maxAnswer+1))
	if err != nil {
		return answer, err
	}
	if int64(len(body)) > c.log.maxAnswer {
		return answer, errTooLong
	}
	return answer, json.Unmarshal(body, &answer)
}

// send sends a request to the present endpoint, after authenticate if need be, and returns the
// answer once its head has come with status 200.
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
		// A token ends when it was not used for a while, or when etcd's users change.
		if c.tokens[c.at] == "" || !hasMessage(err, "invalid auth token", "auth: revision in header is old") {
			return response, err
		}
		c.tokens[c.at] = ""
		if isNew {
			return nil, err
		}
	}
}

// authenticate gets a token from the present endpoint.
func (c *client) authenticate(ctx context.Context) error {
	response, err := c.post(ctx, "/v3/auth/authenticate",
		authentication{Name: c.log.config.User, Password: c.log.config.Password})
	if hasMessage(err, "authentication is not enabled") {
		c.tokens[c.at] = "none" // etcd looks at no token then
		return nil
	}
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var answer authentication
	if err := json.NewDecoder(io.LimitReader(response.Body, 1<<16)).Decode(&answer); err != nil {
		return err
	}
	c.tokens[c.at] = answer.Token
	return nil
}

// post sends a request to the present endpoint, and returns the answer once its head has come with
// status 200.
func (c *client) post(ctx context.Context, path string, request any) (*http.Response, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.log.config.Endpoints[c.at]+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	// A member that has no leader says so at once, instead of waiting for one.
	r.Header.Set("Grpc-Metadata-hasleader", "true")
	if token := c.tokens[c.at]; token != "" {
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

// hasMessage reports whether etcd has answered with one of these messages.
func hasMessage(err error, messages ...string) bool {
	if failure, ok := errors.AsType[*gatewayError](err); ok {
		for _, message := range messages {
			if strings.Contains(failure.Message, message) {
				return true
			}
		}
	}
	return false
}

// ErrRefused is what errors are that do not pass by waiting: etcd asks for another password or
// another certificate.
var ErrRefused = errors.New("etcd refuses")

// refusal is an ErrRefused with a sentence of its own.
type refusal string

func (r refusal) Error() string        { return string(r) }
func (r refusal) Is(target error) bool { return target == ErrRefused }

// explain returns a refusal if that is what err is, and otherwise err.
func (c *client) explain(err error) error {
	config := c.log.config
	_, isCertificate := errors.AsType[*tls.CertificateVerificationError](err)
	switch {
	case err == nil:
		return nil
	case hasMessage(err, "invalid user ID or password"):
		return refusal("etcd does not accept the user and the password; write the right ones as USER:PASSWORD@ in each URL")
	case hasMessage(err, "CommonName of client"):
		return refusal("etcd takes no certificate with a common name where it asks for passwords; " +
			"name one without, such as one made with openssl req -subj /O=lobby, with -etcd-cert")
	case hasMessage(err, "user name is empty") || hasMessage(err, "permission denied") && config.User == "":
		return refusal("etcd asks for a user and a password; write them as USER:PASSWORD@ in each URL")
	case hasMessage(err, "permission denied"):
		return refusal(fmt.Sprintf("etcd does not let the user %q have the keys that begin with %q; "+
			"grant a role that may read and write them", config.User, c.log.key("")))
	case isCertificate:
		return refusal(fmt.Sprintf("the certificate of %s is not trusted (%v); name the file of its CA with -etcd-ca",
			config.Endpoints[c.at], rootOf(err)))
	case errors.Is(err, http.ErrSchemeMismatch):
		return refusal(fmt.Sprintf("%s does not speak https; write http:// in its URL", config.Endpoints[c.at]))
	case strings.Contains(err.Error(), "remote error: tls: "):
		return refusal(fmt.Sprintf("%s asks for a certificate that it trusts (%v); name one with -etcd-cert and -etcd-key",
			config.Endpoints[c.at], rootOf(err)))
	}
	return fmt.Errorf("%s: %w", config.Endpoints[c.at], rootOf(err))
}

// rootOf returns what is wrong without the request that it was wrong with.
func rootOf(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("no answer in time")
	}
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}
