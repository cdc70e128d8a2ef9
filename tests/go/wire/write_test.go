package wire

import (
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// putSteps: every option of Put and the order in which it is refused.
func putSteps() []step {
	steps := []step{
		put("put/prev-of-nothing", &pb.PutRequest{Key: b("a"), Value: b("1"), PrevKv: true}),
		put("put/prev", &pb.PutRequest{Key: b("a"), Value: b("2"), PrevKv: true}),
		set("put/same-value", "a", "2"),
		put("put/prev-after-same", &pb.PutRequest{Key: b("a"), Value: b("3"), PrevKv: true}),
		set("put/empty-value", "a", ""),
		get("put/empty-value-read", &pb.RangeRequest{Key: b("a")}),
		put("put/prev-of-empty", &pb.PutRequest{Key: b("a"), PrevKv: true}),
		set("put/binary", "\x00\xff\xfe", "\x00\x01\xff"),
		set("put/not-utf8", "\xc3\x28", "\xc3\x28"),
		set("put/zero-byte-key", "\x00", "zero"),

		put("put/empty-key", &pb.PutRequest{Value: b("v")}).refused(emptyKey),
		put("put/empty-key-and-flags", &pb.PutRequest{Value: b("v"), IgnoreValue: true, IgnoreLease: true, Lease: 7}).refused(emptyKey),
		put("put/ignore-value-with-value", &pb.PutRequest{Key: b("a"), Value: b("v"), IgnoreValue: true}).refused(valueProvided),
		put("put/ignore-lease-with-lease", &pb.PutRequest{Key: b("a"), Value: b("v"), IgnoreLease: true, Lease: 7}).refused(leaseProvided),
		put("put/both-provided", &pb.PutRequest{Key: b("a"), Value: b("v"), IgnoreValue: true, IgnoreLease: true, Lease: 7}).refused(valueProvided),
		put("put/ignore-value-missing", &pb.PutRequest{Key: b("missing"), IgnoreValue: true}).refused(keyNotFound),
		put("put/ignore-lease-missing", &pb.PutRequest{Key: b("missing"), Value: b("v"), IgnoreLease: true}).refused(keyNotFound),
		put("put/ignore-both-missing", &pb.PutRequest{Key: b("missing"), IgnoreValue: true, IgnoreLease: true, PrevKv: true}).refused(keyNotFound),
		put("put/ignore-value-missing-with-lease", &pb.PutRequest{Key: b("missing"), IgnoreValue: true, Lease: 7}).refused(leaseNotFound),
		put("put/lease-unknown", &pb.PutRequest{Key: b("a"), Value: b("v"), Lease: 7}).refused(leaseNotFound),
		put("put/lease-negative", &pb.PutRequest{Key: b("a"), Value: b("v"), Lease: -7}).refused(leaseNotFound),
		put("put/lease-unknown-new-key", &pb.PutRequest{Key: b("missing"), Value: b("v"), Lease: 7}).refused(leaseNotFound),
		put("put/lease-unknown-ignore-value", &pb.PutRequest{Key: b("a"), Lease: 9223372036854775807, IgnoreValue: true}).refused(leaseNotFound),
		all("put/nothing-changed-by-refusals"),

		put("put/ignore-value", &pb.PutRequest{Key: b("a"), IgnoreValue: true, PrevKv: true}),
		set("put/value-again", "a", "kept"),
		put("put/ignore-value-kept", &pb.PutRequest{Key: b("a"), IgnoreValue: true}),
		get("put/ignore-value-read", &pb.RangeRequest{Key: b("a")}),
		put("put/ignore-lease", &pb.PutRequest{Key: b("a"), Value: b("new"), IgnoreLease: true, PrevKv: true}),
		put("put/ignore-both", &pb.PutRequest{Key: b("a"), IgnoreValue: true, IgnoreLease: true, PrevKv: true}),
		remove("put/delete", &pb.DeleteRangeRequest{Key: b("a")}),
		put("put/ignore-value-deleted", &pb.PutRequest{Key: b("a"), IgnoreValue: true}).refused(keyNotFound),
		put("put/after-delete", &pb.PutRequest{Key: b("a"), Value: b("reborn"), PrevKv: true}),
		get("put/after-delete-read", &pb.RangeRequest{Key: b("a")}),

		raw("put/unknown-field", kvPut, 0x0a, 0x01, 'u', 0x12, 0x01, 'v', 0xa2, 0x06, 0x02, 'x', 'y'),
		raw("put/key-twice", kvPut, 0x0a, 0x01, 'u', 0x0a, 0x01, 'w', 0x12, 0x01, 'v'),
		raw("put/empty-message", kvPut).refused(emptyKey),
		raw("put/explicit-zeroes", kvPut, 0x0a, 0x01, 'z', 0x12, 0x00, 0x18, 0x00, 0x20, 0x00, 0x28, 0x00, 0x30, 0x00),
	}
	for size := 1; size <= 100_000; size *= 10 {
		steps = append(steps,
			set(fmt.Sprintf("put/value-of-%d", size), fmt.Sprintf("sized-%d", size), filled(size)),
			set(fmt.Sprintf("put/key-of-%d", size), "k"+filled(size), "v"))
	}
	return steps
}

// deleteSteps: DeleteRange and what comes after a deletion.
func deleteSteps() []step {
	var steps []step
	for i, key := range []string{"a", "b", "c", "d", "e", "a", "c", "ca", "cb"} {
		steps = append(steps, set(fmt.Sprintf("delete/seed-%d", i), key, fmt.Sprintf("v%d", i)))
	}
	return append(steps,
		remove("delete/empty-key", &pb.DeleteRangeRequest{}).refused(emptyKey),
		remove("delete/empty-key-with-end", &pb.DeleteRangeRequest{RangeEnd: b("z")}).refused(emptyKey),
		remove("delete/missing", &pb.DeleteRangeRequest{Key: b("missing"), PrevKv: true}),
		remove("delete/missing-range", &pb.DeleteRangeRequest{Key: b("x"), RangeEnd: b("z"), PrevKv: true}),
		remove("delete/one", &pb.DeleteRangeRequest{Key: b("b")}),
		remove("delete/one-again", &pb.DeleteRangeRequest{Key: b("b"), PrevKv: true}),
		remove("delete/one-with-previous", &pb.DeleteRangeRequest{Key: b("a"), PrevKv: true}),
		set("delete/recreated", "a", "again"),
		get("delete/recreated-read", &pb.RangeRequest{Key: b("a")}),
		get("delete/recreated-before", &pb.RangeRequest{Key: b("a"), Revision: 12}),
		get("delete/recreated-first-life", &pb.RangeRequest{Key: b("a"), Revision: 7}),
		remove("delete/several", &pb.DeleteRangeRequest{Key: b("c"), RangeEnd: b("d"), PrevKv: true}),
		get("delete/several-read", &pb.RangeRequest{Key: b("c"), RangeEnd: b("d")}),
		get("delete/several-before", &pb.RangeRequest{Key: b("c"), RangeEnd: b("d"), Revision: 13}),
		set("delete/put-between", "cb", "back"),
		remove("delete/range-with-one-live", &pb.DeleteRangeRequest{Key: b("c"), RangeEnd: b("d"), PrevKv: true}),
		set("delete/reborn", "cb", "third life"),
		set("delete/reborn-again", "cb", "third life, second version"),
		get("delete/reborn-read", &pb.RangeRequest{Key: b("cb")}),
		raw("delete/unknown-field", kvDelete, 0x0a, 0x02, 'n', 'o', 0xa0, 0x06, 0x01),
		raw("delete/empty-message", kvDelete).refused(emptyKey),
		remove("delete/rest", &pb.DeleteRangeRequest{Key: b("a"), RangeEnd: []byte{0}}),
		all("delete/nothing-left"),
		get("delete/count-nothing", &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, CountOnly: true}),
	)
}

// compactSteps: the floor, what is refused below it, and what is kept at it.
func compactSteps() []step {
	steps := []step{
		compact("compact/fresh-negative", -1).refused(compacted),
		compact("compact/fresh-future", 2).refused(futureRevision),
		compact("compact/fresh-zero", 0),
		compact("compact/fresh-zero-again", 0).refused(compacted),
		compact("compact/fresh-current", 1),
		compact("compact/fresh-current-again", 1).refused(compacted),
		get("compact/fresh-read", &pb.RangeRequest{Key: b("a"), Revision: 1}),
	}
	// a 2,3,4 · b 5, deleted 6 · c 7, deleted 8 · d 9 · c 10 · e 11, deleted 12 · a 13.
	for i, key := range []string{"a", "a", "a", "b", "-b", "c", "-c", "d", "c", "e", "-e", "a"} {
		id := fmt.Sprintf("compact/seed-%d", i)
		if key[0] == '-' {
			steps = append(steps, remove(id, &pb.DeleteRangeRequest{Key: b(key[1:])}))
		} else {
			steps = append(steps, set(id, key, fmt.Sprintf("v%d", i)))
		}
	}
	reads := func(name string, revisions map[int64]string, order ...int64) {
		for _, revision := range order {
			steps = append(steps,
				get(fmt.Sprintf("compact/%s-read-%d", name, revision), &pb.RangeRequest{Key: b("a"), RangeEnd: b("z"), Revision: revision}).refused(revisions[revision]),
				get(fmt.Sprintf("compact/%s-count-%d", name, revision), &pb.RangeRequest{Key: b("a"), RangeEnd: b("z"), Revision: revision, CountOnly: true, Serializable: true}).refused(revisions[revision]),
				txn(fmt.Sprintf("compact/%s-txn-%d", name, revision), &pb.TxnRequest{Success: ops(opRange(&pb.RangeRequest{Key: b("a"), RangeEnd: b("z"), Revision: revision}))}).refused(revisions[revision]))
		}
	}
	steps = append(steps,
		compact("compact/minimum", -9223372036854775808).refused(compacted),
		compact("compact/future", 14).refused(futureRevision),
		compact("compact/maximum", 9223372036854775807).refused(futureRevision),
		compact("compact/at-3", 3))
	reads("at-3", map[int64]string{1: compacted, 2: compacted, 14: futureRevision}, 1, 2, 3, 4, 13, 14)
	steps = append(steps,
		compact("compact/at-3-again", 3).refused(compacted),
		compact("compact/below", 2).refused(compacted),
		compact("compact/zero", 0).refused(compacted),
		compact("compact/negative", -5).refused(compacted),
		// At a tombstone: the deletion of c stays visible as an absence, and b is gone for good.
		compact("compact/at-tombstone", 8))
	reads("at-8", map[int64]string{5: compacted, 7: compacted}, 5, 7, 8, 9, 10)
	steps = append(steps,
		step{id: "compact/physical", method: kvCompact, request: &pb.CompactionRequest{Revision: 9, Physical: true}},
		step{id: "compact/physical-again", method: kvCompact, request: &pb.CompactionRequest{Revision: 9, Physical: true}}.refused(compacted),
		step{id: "compact/physical-future", method: kvCompact, request: &pb.CompactionRequest{Revision: 99, Physical: true}}.refused(futureRevision),
		all("compact/content"),
		txn("compact/txn-below-in-untaken-branch", &pb.TxnRequest{
			Success: ops(opGet("a")), Failure: ops(opRange(&pb.RangeRequest{Key: b("a"), Revision: 2}))}),
		txn("compact/txn-write-with-read-below", &pb.TxnRequest{
			Success: ops(opSet("never", "written"), opRange(&pb.RangeRequest{Key: b("a"), Revision: 2}))}).refused(compacted),
		txn("compact/txn-negative", &pb.TxnRequest{Success: ops(opRange(&pb.RangeRequest{Key: b("a"), Revision: -1}))}).refused(compacted),
		get("compact/txn-wrote-nothing", &pb.RangeRequest{Key: b("never")}),
		put("compact/put-after", &pb.PutRequest{Key: b("a"), Value: b("after"), PrevKv: true}),
		compact("compact/at-current", 14),
		get("compact/read-old-of-changed", &pb.RangeRequest{Key: b("a"), Revision: 13}).refused(compacted),
		get("compact/read-at-current", &pb.RangeRequest{Key: b("a"), Revision: 14}),
		put("compact/previous-survives", &pb.PutRequest{Key: b("d"), Value: b("v"), PrevKv: true}),
		remove("compact/delete-after", &pb.DeleteRangeRequest{Key: b("a"), RangeEnd: b("z"), PrevKv: true}),
		compact("compact/at-range-tombstones", 16),
		all("compact/empty-after"),
		set("compact/recreated", "a", "new life"),
		get("compact/recreated-read", &pb.RangeRequest{Key: b("a")}),
		compact("compact/last", 17),
		raw("compact/unknown-field", kvCompact, 0x08, 0x01, 0xa0, 0x06, 0x01).refused(compacted),
		raw("compact/empty-message", kvCompact).refused(compacted),
	)
	return steps
}

// filled is a value of a size whose content depends on the position.
func filled(size int) string {
	content := make([]byte, size)
	for i := range content {
		content[i] = byte('a' + i%23)
	}
	return string(content)
}
