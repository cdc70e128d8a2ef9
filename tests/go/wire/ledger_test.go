package wire

import (
	"reflect"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// TestLedger: the comparison itself sees what it must see, and its table allows only what it says.
func TestLedger(t *testing.T) {
	answer := func(pairs ...string) outcome {
		result := outcome{"status.code": "OK"}
		for i := 0; i < len(pairs); i += 2 {
			result[pairs[i]] = pairs[i+1]
		}
		return result
	}
	row := func(field, etcd, kontiki string) []difference {
		return []difference{{step: "a/*", field: field, etcd: etcd, kontiki: kontiki}}
	}
	for _, one := range []struct {
		name          string
		rows          []difference
		strict        bool
		etcd, kontiki outcome
		reports       int
		unused        int
	}{
		{name: "same", etcd: answer("x", "1"), kontiki: answer("x", "1")},
		{name: "other value", etcd: answer("x", "1"), kontiki: answer("x", "2"), reports: 1},
		{name: "missing field", etcd: answer("x", "1"), kontiki: answer(), reports: 1},
		{name: "extra field", etcd: answer(), kontiki: answer("x", "1"), reports: 1},
		{name: "row", rows: row("x", "1", "2"), etcd: answer("x", "1"), kontiki: answer("x", "2")},
		{name: "row of other values", rows: row("x", "1", "3"), etcd: answer("x", "1"), kontiki: answer("x", "2"), reports: 1, unused: 1},
		{name: "row of another field", rows: row("y", "1", "2"), etcd: answer("x", "1"), kontiki: answer("x", "2"), reports: 1, unused: 1},
		{name: "row not needed", rows: row("x", "1", "2"), etcd: answer("x", "1"), kontiki: answer("x", "1"), unused: 1},
		{name: "row for absence", rows: row("x", absent, "2"), etcd: answer(), kontiki: answer("x", "2")},
		{name: "row for absence, present", rows: row("x", absent, "2"), etcd: answer("x", "1"), kontiki: answer("x", "2"), reports: 1, unused: 1},
		{name: "row with an open end", rows: row("x", "a"+anything, "b"+anything), etcd: answer("x", "a1"), kontiki: answer("x", "b2")},
		{name: "row with an open end, other start", rows: row("x", "a"+anything, "b"+anything), etcd: answer("x", "a1"), kontiki: answer("x", "c2"), reports: 1, unused: 1},
		{name: "sizes", rows: row("x", measured, measured), etcd: answer("x", "1"), kontiki: answer()},
		{name: "sizes that agree", rows: row("x", measured, measured), etcd: answer("x", "1"), kontiki: answer("x", "1")},
		{name: "whole answer", rows: row(wholeAnswer, accepted, "Internal: no"), etcd: answer("x", "1"), kontiki: outcome{"status.code": "Internal", "status.message": "no"}},
		{name: "whole answer, other refusal", rows: row(wholeAnswer, accepted, "Internal: no"), etcd: answer(), kontiki: outcome{"status.code": "Internal", "status.message": "yes"}, reports: 2, unused: 1},
		{name: "strict takes no rows", rows: row("x", "1", "2"), strict: true, etcd: answer("x", "1"), kontiki: answer("x", "2"), reports: 1},
		{name: "strict takes sizes", rows: row("x", measured, measured), strict: true, etcd: answer("x", "1"), kontiki: answer("x", "2")},
	} {
		rows := newLedger(one.rows, one.strict)
		if got := rows.compare("a/b", one.etcd, one.kontiki); len(got) != one.reports {
			t.Errorf("%s: reports %q, %d expected", one.name, got, one.reports)
		}
		if got := rows.unused(); len(got) != one.unused {
			t.Errorf("%s: unused %q, %d expected", one.name, got, one.unused)
		}
	}
}

// TestFlatten: every kind of field has a path of its own, unknown ones and empty messages too.
func TestFlatten(t *testing.T) {
	message := &pb.RangeResponse{Header: &pb.ResponseHeader{}, Kvs: []*mvccpb.KeyValue{{Key: []byte{0, 'k'}}, {}}, More: true}
	message.ProtoReflect().SetUnknown([]byte{0x98, 0x06, 0x01})
	got := outcome{}
	flatten(got, "r", message.ProtoReflect())
	want := outcome{
		"r": "present", "r.header": "present", "r.kvs.length": "2", "r.kvs[0]": "present", "r.kvs[0].key": `"\x00k"`,
		"r.kvs[1]": "present", "r.more": "true", "r.unknown": "980601",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestSizes: the encoded requests of the limit chapters have the sizes that their names say.
func TestSizes(t *testing.T) {
	for _, size := range []int{10, 126, 127, 128, 129, 130, 2048, 16385, 1_572_864, 2_097_153} {
		body := putOfSize(size)
		var put pb.PutRequest
		if err := proto.Unmarshal(body, &put); err != nil || len(body) != size {
			t.Errorf("%d: %d bytes, %v", size, len(body), err)
		}
	}
}
