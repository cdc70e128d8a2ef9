// Package client runs KV scenarios with the official Go client against a real etcd and against kontiki. Each
// scenario states what must hold; it is the same code for both servers.
package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/clientv3util"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.etcd.io/etcd/client/v3/ordering"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"kontiki/tests/member"
)

// scenarioTimeout bounds one scenario on one server.
const scenarioTimeout = 60 * time.Second

// scenario is one piece of work of a client on an empty server.
type scenario struct {
	name string
	// ownURL makes the server advertise the URL it listens on.
	ownURL bool
	flags  []string
	run    func(t *testing.T, s *session)
}

// session is what a scenario works with.
type session struct {
	ctx    context.Context
	client *clientv3.Client
	member *member.Member
}

var scenarios = []scenario{
	{name: "put and get", run: putAndGet},
	{name: "range options", run: rangeOptions},
	{name: "delete", run: deleteOptions},
	{name: "txn", run: txn},
	{name: "nested txn", run: nestedTxn},
	{name: "do", run: do},
	{name: "compact", run: compact},
	{name: "errors by identity", run: errorsByIdentity},
	{name: "namespace", run: namespaces},
	{name: "ordering", run: orderingWrapper},
	{name: "counter", run: counter},
	{name: "paging", run: paging},
	{name: "cluster and maintenance", ownURL: true, run: clusterAndMaintenance},
	{name: "endpoint sync", ownURL: true, run: endpointSync},
	{name: "dead endpoint", run: deadEndpoint},
	{name: "large values", run: largeValues},
	{name: "deadlines", run: deadlines},
	{name: "limits by flags", flags: []string{"--max-txn-ops", "2"}, run: limitsByFlags},
}

// TestScenarios: the official client cannot tell the servers apart.
func TestScenarios(t *testing.T) {
	for _, kind := range []member.Kind{member.Reference(t), member.Subject(t)} {
		t.Run(kind.Name, func(t *testing.T) {
			for _, one := range scenarios {
				t.Run(one.name, func(t *testing.T) {
					m := member.Start(t, kind, member.Options{AdvertiseOwnURL: one.ownURL, Flags: one.flags})
					ctx, cancel := context.WithTimeout(context.Background(), scenarioTimeout)
					defer cancel()
					one.run(t, &session{ctx: ctx, client: dial(t, m.Address), member: m})
				})
			}
		})
	}
}

func dial(t *testing.T, endpoints ...string) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// check compares a value with what is expected.
func check[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// checkError compares an error by identity, as applications do.
func checkError(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func keys(kvs []*mvccpb.KeyValue) string {
	var list []string
	for _, kv := range kvs {
		list = append(list, string(kv.Key))
	}
	return strings.Join(list, " ")
}

func seed(t *testing.T, s *session, pairs ...string) {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		answer(s.client.Put(s.ctx, pairs[i], pairs[i+1])).or(t)
	}
}

// putAndGet: what was put is read back, with revisions, versions and the previous value.
func putAndGet(t *testing.T, s *session) {
	first := answer(s.client.Put(s.ctx, "key", "one")).or(t)
	check(t, "first revision", first.Header.Revision, int64(2))
	check(t, "no previous", first.PrevKv == nil, true)
	second := answer(s.client.Put(s.ctx, "key", "two", clientv3.WithPrevKV())).or(t)
	check(t, "previous", string(second.PrevKv.Value), "one")
	got := answer(s.client.Get(s.ctx, "key")).or(t)
	check(t, "count", got.Count, int64(1))
	kv := got.Kvs[0]
	check(t, "value", string(kv.Value), "two")
	check(t, "create", kv.CreateRevision, int64(2))
	check(t, "mod", kv.ModRevision, int64(3))
	check(t, "version", kv.Version, int64(2))
	old := answer(s.client.Get(s.ctx, "key", clientv3.WithRev(2))).or(t)
	check(t, "old value", string(old.Kvs[0].Value), "one")
	check(t, "old header", old.Header.Revision, int64(3))
	check(t, "serializable", keys(answer(s.client.Get(s.ctx, "key", clientv3.WithSerializable())).or(t).Kvs), "key")
	check(t, "missing", len(answer(s.client.Get(s.ctx, "missing")).or(t).Kvs), 0)
	answer(s.client.Put(s.ctx, "key", "", clientv3.WithIgnoreValue())).or(t)
	check(t, "ignored value", string(answer(s.client.Get(s.ctx, "key")).or(t).Kvs[0].Value), "two")
	answer(s.client.Put(s.ctx, "key", "three", clientv3.WithIgnoreLease())).or(t)
	answer(s.client.Put(s.ctx, "empty", "")).or(t)
	empty := answer(s.client.Get(s.ctx, "empty")).or(t)
	check(t, "empty value", len(empty.Kvs) == 1 && len(empty.Kvs[0].Value) == 0, true)
	binary := "\x00\xff\n\x80"
	answer(s.client.Put(s.ctx, binary, binary)).or(t)
	check(t, "binary", string(answer(s.client.Get(s.ctx, binary)).or(t).Kvs[0].Value), binary)
}

// rangeOptions: every option of Get gives what its name says.
func rangeOptions(t *testing.T, s *session) {
	seed(t, s, "p/b", "3", "p/a", "1", "p/c", "2", "q", "4", "p/a", "5")
	ask := func(what, key, want string, options ...clientv3.OpOption) *clientv3.GetResponse {
		t.Helper()
		got := answer(s.client.Get(s.ctx, key, options...)).or(t)
		check(t, what, keys(got.Kvs), want)
		return got
	}
	ask("prefix", "p/", "p/a p/b p/c", clientv3.WithPrefix())
	ask("empty prefix", "", "p/a p/b p/c q", clientv3.WithPrefix())
	ask("from key", "p/b", "p/b p/c q", clientv3.WithFromKey())
	ask("range", "p/a", "p/a p/b", clientv3.WithRange("p/c"))
	ask("descending", "p/", "p/c p/b p/a", clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend))
	ask("by value", "p/", "p/c p/b p/a", clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByValue, clientv3.SortAscend))
	ask("by version", "p/", "p/a", clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByVersion, clientv3.SortDescend), clientv3.WithLimit(1))
	ask("first create", "p/", "p/b", clientv3.WithFirstCreate()...)
	ask("last create", "p/", "p/c", clientv3.WithLastCreate()...)
	ask("first rev", "p/", "p/b", clientv3.WithFirstRev()...)
	ask("last rev", "p/", "p/a", clientv3.WithLastRev()...)
	ask("first key", "p/", "p/a", clientv3.WithFirstKey()...)
	ask("last key", "p/", "p/c", clientv3.WithLastKey()...)
	ask("min mod", "p/", "p/a p/c", clientv3.WithPrefix(), clientv3.WithMinModRev(4))
	ask("max mod", "p/", "p/b", clientv3.WithPrefix(), clientv3.WithMaxModRev(3))
	ask("min create", "p/", "p/c", clientv3.WithPrefix(), clientv3.WithMinCreateRev(4))
	ask("max create", "p/", "p/a p/b", clientv3.WithPrefix(), clientv3.WithMaxCreateRev(3))
	limited := ask("limit", "p/", "p/a p/b", clientv3.WithPrefix(), clientv3.WithLimit(2))
	check(t, "more", limited.More, true)
	check(t, "count beyond the limit", limited.Count, int64(3))
	counted := ask("count only", "p/", "", clientv3.WithPrefix(), clientv3.WithCountOnly())
	check(t, "count", counted.Count, int64(3))
	check(t, "no more", counted.More, false)
	for _, kv := range ask("keys only", "p/", "p/a p/b p/c", clientv3.WithPrefix(), clientv3.WithKeysOnly()).Kvs {
		check(t, "no value", len(kv.Value), 0)
	}
}

// deleteOptions: deletions answer how many, and what was there.
func deleteOptions(t *testing.T, s *session) {
	seed(t, s, "d/a", "1", "d/b", "2", "d/c", "3", "e", "4")
	gone := answer(s.client.Delete(s.ctx, "d/a", clientv3.WithPrevKV())).or(t)
	check(t, "deleted", gone.Deleted, int64(1))
	check(t, "previous", string(gone.PrevKvs[0].Value), "1")
	again := answer(s.client.Delete(s.ctx, "d/a")).or(t)
	check(t, "nothing deleted", again.Deleted, int64(0))
	check(t, "revision unchanged", again.Header.Revision, gone.Header.Revision)
	prefix := answer(s.client.Delete(s.ctx, "d/", clientv3.WithPrefix(), clientv3.WithPrevKV())).or(t)
	check(t, "prefix", keys(prefix.PrevKvs), "d/b d/c")
	rest := answer(s.client.Delete(s.ctx, "\x00", clientv3.WithFromKey())).or(t)
	check(t, "rest", rest.Deleted, int64(1))
	check(t, "history", keys(answer(s.client.Get(s.ctx, "", clientv3.WithPrefix(), clientv3.WithRev(5))).or(t).Kvs), "d/a d/b d/c e")
	answer(s.client.Put(s.ctx, "d/a", "again")).or(t)
	check(t, "a new life", answer(s.client.Get(s.ctx, "d/a")).or(t).Kvs[0].Version, int64(1))
}

// txn: compares decide, both branches answer, all writes share one revision.
func txn(t *testing.T, s *session) {
	seed(t, s, "x", "1", "y", "2")
	done := answer(s.client.Txn(s.ctx).
		If(clientv3.Compare(clientv3.Value("x"), "=", "1"), clientv3.Compare(clientv3.Version("y"), ">", 0), clientv3util.KeyMissing("z"), clientv3util.KeyExists("x")).
		Then(clientv3.OpPut("z", "3", clientv3.WithPrevKV()), clientv3.OpGet("z"), clientv3.OpDelete("y", clientv3.WithPrevKV()), clientv3.OpGet("", clientv3.WithPrefix(), clientv3.WithKeysOnly())).
		Else(clientv3.OpGet("x")).Commit()).or(t)
	check(t, "succeeded", done.Succeeded, true)
	check(t, "revision", done.Header.Revision, int64(4))
	check(t, "answers", len(done.Responses), 4)
	check(t, "own write", string(done.Responses[1].GetResponseRange().Kvs[0].Value), "3")
	check(t, "deleted", string(done.Responses[2].GetResponseDeleteRange().PrevKvs[0].Value), "2")
	check(t, "left", keys(done.Responses[3].GetResponseRange().Kvs), "x z")
	failed := answer(s.client.Txn(s.ctx).
		If(clientv3.Compare(clientv3.ModRevision("x"), "=", 99)).
		Then(clientv3.OpPut("x", "never")).
		Else(clientv3.OpGet("x"), clientv3.OpGet("missing")).Commit()).or(t)
	check(t, "failed", failed.Succeeded, false)
	check(t, "no revision", failed.Header.Revision, int64(4))
	check(t, "else", string(failed.Responses[0].GetResponseRange().Kvs[0].Value), "1")
	ranged := answer(s.client.Txn(s.ctx).
		If(clientv3.Compare(clientv3.CreateRevision("a"), ">", 0).WithRange("zz"), clientv3.Compare(clientv3.LeaseValue("x"), "=", 0), clientv3.Compare(clientv3.Version("x").WithPrefix(), "<", 2)).
		Then(clientv3.OpGet("x")).Commit()).or(t)
	check(t, "compare of a range", ranged.Succeeded, true)
	empty := answer(s.client.Txn(s.ctx).Commit()).or(t)
	check(t, "empty", empty.Succeeded, true)
}

// nestedTxn: a txn inside a txn compares with the state before the whole.
func nestedTxn(t *testing.T, s *session) {
	seed(t, s, "x", "before")
	inner := clientv3.OpTxn(
		[]clientv3.Cmp{clientv3.Compare(clientv3.Value("x"), "=", "before")},
		[]clientv3.Op{clientv3.OpGet("x"), clientv3.OpPut("y", "then")},
		[]clientv3.Op{clientv3.OpPut("y", "else")})
	done := answer(s.client.Txn(s.ctx).Then(clientv3.OpPut("x", "after"), inner, clientv3.OpGet("y")).Commit()).or(t)
	nested := done.Responses[1].GetResponseTxn()
	check(t, "inner succeeded", nested.Succeeded, true)
	check(t, "inner reads the outer write", string(nested.Responses[0].GetResponseRange().Kvs[0].Value), "after")
	check(t, "outer reads the inner write", string(done.Responses[2].GetResponseRange().Kvs[0].Value), "then")
}

// do: operations as values.
func do(t *testing.T, s *session) {
	for i, op := range []clientv3.Op{
		clientv3.OpPut("k", "v"),
		clientv3.OpGet("k"),
		clientv3.OpTxn([]clientv3.Cmp{clientv3util.KeyExists("k")}, []clientv3.Op{clientv3.OpDelete("k")}, nil),
		clientv3.OpDelete("k"),
	} {
		reply := answer(s.client.Do(s.ctx, op)).or(t)
		check(t, fmt.Sprintf("kind of answer %d", i), []bool{reply.Put() != nil, reply.Get() != nil, reply.Txn() != nil, reply.Del() != nil},
			[]bool{i == 0, i == 1, i == 2, i == 3})
	}
}

// compact: the history below is gone, the present stays.
func compact(t *testing.T, s *session) {
	seed(t, s, "k", "1", "k", "2", "k", "3", "other", "1")
	answer(s.client.Compact(s.ctx, 3)).or(t)
	_, err := s.client.Get(s.ctx, "k", clientv3.WithRev(2))
	checkError(t, "below", err, rpctypes.ErrCompacted)
	check(t, "at the floor", string(answer(s.client.Get(s.ctx, "k", clientv3.WithRev(3))).or(t).Kvs[0].Value), "2")
	_, err = s.client.Compact(s.ctx, 3)
	checkError(t, "again", err, rpctypes.ErrCompacted)
	_, err = s.client.Compact(s.ctx, 99)
	checkError(t, "future", err, rpctypes.ErrFutureRev)
	answer(s.client.Compact(s.ctx, 5, clientv3.WithCompactPhysical())).or(t)
	check(t, "present", string(answer(s.client.Get(s.ctx, "k")).or(t).Kvs[0].Value), "3")
}

// errorsByIdentity: each refusal is the client library's own error value.
func errorsByIdentity(t *testing.T, s *session) {
	seed(t, s, "k", "v")
	// The raw stub, because the client refuses some requests by itself.
	kv := etcdserverpb.NewKVClient(s.client.ActiveConnection())
	put := func(request *etcdserverpb.PutRequest) error {
		_, err := kv.Put(s.ctx, request)
		return rpctypes.Error(err)
	}
	_, err := s.client.Get(s.ctx, "k", clientv3.WithRev(1000))
	checkError(t, "future revision", err, rpctypes.ErrFutureRev)
	_, err = s.client.Put(s.ctx, "", "v")
	checkError(t, "empty key", err, rpctypes.ErrEmptyKey)
	_, err = s.client.Get(s.ctx, "")
	checkError(t, "empty key read", err, rpctypes.ErrEmptyKey)
	_, err = s.client.Delete(s.ctx, "")
	checkError(t, "empty key deleted", err, rpctypes.ErrEmptyKey)
	_, err = s.client.Put(s.ctx, "k", "v", clientv3.WithLease(12345))
	checkError(t, "lease", err, rpctypes.ErrLeaseNotFound)
	_, err = s.client.Put(s.ctx, "missing", "", clientv3.WithIgnoreValue())
	checkError(t, "ignore value", err, rpctypes.ErrKeyNotFound)
	checkError(t, "value given", put(&etcdserverpb.PutRequest{Key: []byte("k"), Value: []byte("v"), IgnoreValue: true}), rpctypes.ErrValueProvided)
	checkError(t, "lease given", put(&etcdserverpb.PutRequest{Key: []byte("k"), Lease: 1, IgnoreLease: true}), rpctypes.ErrLeaseProvided)
	_, err = s.client.Txn(s.ctx).Then(clientv3.OpPut("a", "1"), clientv3.OpPut("a", "2")).Commit()
	checkError(t, "duplicate key", err, rpctypes.ErrDuplicateKey)
	_, err = s.client.Txn(s.ctx).Then(clientv3.OpDelete("", clientv3.WithPrefix()), clientv3.OpPut("a", "2", clientv3.WithLease(9))).Commit()
	checkError(t, "lease in a txn", err, rpctypes.ErrLeaseNotFound)
	many := make([]clientv3.Op, 129)
	for i := range many {
		many[i] = clientv3.OpGet("k")
	}
	_, err = s.client.Txn(s.ctx).Then(many...).Commit()
	checkError(t, "too many operations", err, rpctypes.ErrTooManyOps)
	_, err = s.client.Put(s.ctx, "k", strings.Repeat("x", 1_600_000))
	checkError(t, "too large", err, rpctypes.ErrRequestTooLarge)
	var typed rpctypes.EtcdError
	check(t, "typed", errors.As(err, &typed), true)
	check(t, "code", typed.Code(), codes.InvalidArgument)
}

// namespaces: a prefix that the client adds and removes.
func namespaces(t *testing.T, s *session) {
	inside := namespace.NewKV(s.client.KV, "space/")
	answer(inside.Put(s.ctx, "a", "1")).or(t)
	answer(inside.Put(s.ctx, "b", "2")).or(t)
	answer(s.client.Put(s.ctx, "spacf", "outside")).or(t)
	check(t, "outside", keys(answer(s.client.Get(s.ctx, "space/", clientv3.WithPrefix())).or(t).Kvs), "space/a space/b")
	check(t, "inside", keys(answer(inside.Get(s.ctx, "", clientv3.WithFromKey())).or(t).Kvs), "a b")
	check(t, "inside prefix", keys(answer(inside.Get(s.ctx, "", clientv3.WithPrefix())).or(t).Kvs), "a b")
	done := answer(inside.Txn(s.ctx).If(clientv3.Compare(clientv3.Value("a"), "=", "1")).Then(clientv3.OpGet("b"), clientv3.OpDelete("a", clientv3.WithPrevKV())).Commit()).or(t)
	check(t, "txn", done.Succeeded && string(done.Responses[1].GetResponseDeleteRange().PrevKvs[0].Key) == "a", true)
	check(t, "everything inside", answer(inside.Delete(s.ctx, "", clientv3.WithPrefix())).or(t).Deleted, int64(1))
	check(t, "left outside", keys(answer(s.client.Get(s.ctx, "", clientv3.WithPrefix())).or(t).Kvs), "spacf")
}

// orderingWrapper: revisions of headers never go back, which is what the wrapper checks.
func orderingWrapper(t *testing.T, s *session) {
	kv := ordering.NewKV(s.client.KV, func(clientv3.Op, clientv3.OpResponse, int64) error {
		return errors.New("a revision went back")
	})
	for i := range 20 {
		answer(kv.Put(s.ctx, "k", fmt.Sprint(i))).or(t)
		check(t, "last write", string(answer(kv.Get(s.ctx, "k", clientv3.WithSerializable())).or(t).Kvs[0].Value), fmt.Sprint(i))
	}
}

// counter: many clients increment one key by compare-and-put, none is lost.
func counter(t *testing.T, s *session) {
	const clients, increments = 8, 25
	var group sync.WaitGroup
	for range clients {
		group.Go(func() {
			for range increments {
				if err := increment(s.ctx, s.client); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	got := answer(s.client.Get(s.ctx, "counter")).or(t)
	check(t, "sum", string(got.Kvs[0].Value), fmt.Sprint(clients*increments))
	check(t, "version", got.Kvs[0].Version, int64(clients*increments))
	check(t, "one revision each", got.Header.Revision, int64(clients*increments+1))
}

func increment(ctx context.Context, client *clientv3.Client) error {
	for {
		got, err := client.Get(ctx, "counter")
		if err != nil {
			return err
		}
		number, revision := 0, int64(0)
		if len(got.Kvs) > 0 {
			revision = got.Kvs[0].ModRevision
			if _, err := fmt.Sscan(string(got.Kvs[0].Value), &number); err != nil {
				return err
			}
		}
		done, err := client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision("counter"), "=", revision)).
			Then(clientv3.OpPut("counter", fmt.Sprint(number+1))).Commit()
		if err != nil || done.Succeeded {
			return err
		}
	}
}

// paging: a listing in pages at one revision is complete although writes go on, as kube-apiserver lists.
func paging(t *testing.T, s *session) {
	var want []string
	for i := range 250 {
		key := fmt.Sprintf("/registry/pods/%03d", i)
		want = append(want, key)
		answer(s.client.Put(s.ctx, key, "object")).or(t)
	}
	var got []string
	key, revision, remaining := "/registry/pods/", int64(0), int64(len(want))
	for {
		page := answer(s.client.Get(s.ctx, key, clientv3.WithRange("/registry/pods0"), clientv3.WithLimit(37), clientv3.WithRev(revision))).or(t)
		check(t, "remaining", page.Count, remaining)
		if revision == 0 {
			revision = page.Header.Revision
		}
		for _, kv := range page.Kvs {
			got = append(got, string(kv.Key))
		}
		remaining -= int64(len(page.Kvs))
		answer(s.client.Delete(s.ctx, got[len(got)-1])).or(t)
		answer(s.client.Put(s.ctx, got[len(got)-1]+"-new", "object")).or(t)
		if !page.More {
			break
		}
		key = got[len(got)-1] + "\x00"
	}
	sort.Strings(want)
	check(t, "listing", got, want)
}

// clusterAndMaintenance: what a client learns about the member.
func clusterAndMaintenance(t *testing.T, s *session) {
	seed(t, s, "k", "v")
	list := answer(s.client.MemberList(s.ctx)).or(t)
	check(t, "members", len(list.Members), 1)
	check(t, "name", list.Members[0].Name, "default")
	check(t, "peer URLs", list.Members[0].PeerURLs, []string{member.FixedPeerURL})
	check(t, "client URLs", list.Members[0].ClientURLs, []string{s.member.URL()})
	check(t, "learner", list.Members[0].IsLearner, false)
	check(t, "no revision", list.Header.Revision, int64(0))
	status := answer(s.client.Status(s.ctx, s.member.Address)).or(t)
	check(t, "leads itself", status.Leader, status.Header.MemberId)
	check(t, "same member", list.Members[0].ID, status.Header.MemberId)
	check(t, "revision", status.Header.Revision, int64(2))
	check(t, "term", status.RaftTerm, status.Header.RaftTerm)
	check(t, "applied", status.RaftAppliedIndex <= status.RaftIndex && status.RaftAppliedIndex > 0, true)
	check(t, "size", status.DbSize > 0 && status.DbSizeInUse > 0, true)
	check(t, "no errors", len(status.Errors), 0)
	before := status.RaftIndex
	seed(t, s, "k", "v2")
	status = answer(s.client.Status(s.ctx, s.member.Address)).or(t)
	check(t, "the index grows", status.RaftIndex > before, true)
	alarms := answer(s.client.AlarmList(s.ctx)).or(t)
	check(t, "no alarms", len(alarms.Alarms), 0)
}

// endpointSync: the client finds the member by the list and goes on with it.
func endpointSync(t *testing.T, s *session) {
	client := dial(t, "http://"+s.member.Address, "http://127.0.0.1:1")
	if err := client.Sync(s.ctx); err != nil {
		t.Fatal(err)
	}
	check(t, "endpoints", client.Endpoints(), []string{s.member.URL()})
	answer(client.Put(s.ctx, "k", "v")).or(t)
}

// deadEndpoint: a client with one dead endpoint among its own retries on the live one.
func deadEndpoint(t *testing.T, s *session) {
	client := dial(t, "127.0.0.1:1", s.member.Address)
	for i := range 20 {
		answer(client.Put(s.ctx, "k", fmt.Sprint(i))).or(t)
		check(t, "read", string(answer(client.Get(s.ctx, "k")).or(t).Kvs[0].Value), fmt.Sprint(i))
	}
	check(t, "written once each", answer(client.Get(s.ctx, "k")).or(t).Kvs[0].Version, int64(20))
}

// largeValues: megabytes go in and come out unchanged, several at once.
func largeValues(t *testing.T, s *session) {
	value := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	var group sync.WaitGroup
	for i := range 6 {
		group.Go(func() {
			if _, err := s.client.Put(s.ctx, fmt.Sprintf("large-%d", i), string(value)); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	got := answer(s.client.Get(s.ctx, "large-", clientv3.WithPrefix())).or(t)
	check(t, "keys", len(got.Kvs), 6)
	for _, kv := range got.Kvs {
		check(t, "unchanged", bytes.Equal(kv.Value, value), true)
	}
}

// deadlines: a request whose time is over fails with the caller's own error, and the connection lives on.
func deadlines(t *testing.T, s *session) {
	seed(t, s, "k", "v")
	expired, cancel := context.WithTimeout(s.ctx, time.Nanosecond)
	defer cancel()
	_, err := s.client.Put(expired, "k", "late")
	check(t, "deadline", errors.Is(err, context.DeadlineExceeded) || status.Code(err) == codes.DeadlineExceeded, true)
	cancelled, stop := context.WithCancel(s.ctx)
	stop()
	_, err = s.client.Get(cancelled, "k")
	check(t, "cancelled", errors.Is(err, context.Canceled) || status.Code(err) == codes.Canceled, true)
	check(t, "alive", string(answer(s.client.Get(s.ctx, "k")).or(t).Kvs[0].Value), "v")
}

// limitsByFlags: --max-txn-ops is obeyed.
func limitsByFlags(t *testing.T, s *session) {
	answer(s.client.Txn(s.ctx).Then(clientv3.OpPut("a", "1"), clientv3.OpPut("b", "1")).Commit()).or(t)
	_, err := s.client.Txn(s.ctx).Then(clientv3.OpPut("a", "1"), clientv3.OpPut("b", "1"), clientv3.OpPut("c", "1")).Commit()
	checkError(t, "too many", err, rpctypes.ErrTooManyOps)
}

// result is an answer with its error, so that a call can be checked in one expression.
type result[T any] struct {
	value T
	err   error
}

func answer[T any](value T, err error) result[T] { return result[T]{value, err} }

// or ends the test when the call failed.
func (r result[T]) or(t *testing.T) T {
	t.Helper()
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.value
}
