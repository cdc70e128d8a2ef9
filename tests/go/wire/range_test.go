package wire

import (
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

var (
	sortTargets = []pb.RangeRequest_SortTarget{pb.RangeRequest_KEY, pb.RangeRequest_VERSION, pb.RangeRequest_CREATE, pb.RangeRequest_MOD, pb.RangeRequest_VALUE}
	sortOrders  = []pb.RangeRequest_SortOrder{pb.RangeRequest_NONE, pb.RangeRequest_ASCEND, pb.RangeRequest_DESCEND}
)

// rangeSteps: every option of Range on five keys [a, f) whose keys, versions, creations, modifications
// and values all sort differently and without ties, and a deleted key f.
func rangeSteps() []step {
	// Revisions: c 2, a 3, e 4, b 5, d 6; then further puts until versions are a2 b4 c3 d1 e5; f 17, deleted 18.
	steps := []step{all("range/empty-store")}
	for i, pair := range [][2]string{
		{"c", "x"}, {"a", "x"}, {"e", "x"}, {"b", "x"}, {"d", "m"},
		{"b", "x"}, {"b", "x"}, {"e", "x"}, {"c", "x"}, {"e", "x"},
		{"b", "k"}, {"e", "x"}, {"a", "z"}, {"e", "b"}, {"c", "q"},
		{"f", "gone"},
	} {
		steps = append(steps, set(fmt.Sprintf("range/seed-%d", i), pair[0], pair[1]))
	}
	steps = append(steps, remove("range/seed-deleted", &pb.DeleteRangeRequest{Key: b("f")}))

	// All sort targets and orders with limits that cut nothing, some, nearly all.
	for _, target := range sortTargets {
		for _, order := range sortOrders {
			for _, limit := range []int64{0, 1, 2, 4, 5, 9} {
				steps = append(steps, get(fmt.Sprintf("range/sort-%v-%v-limit-%d", target, order, limit),
					&pb.RangeRequest{Key: b("a"), RangeEnd: b("g"), SortTarget: target, SortOrder: order, Limit: limit}))
			}
			steps = append(steps,
				get(fmt.Sprintf("range/sort-%v-%v-keys-only", target, order),
					&pb.RangeRequest{Key: b("a"), RangeEnd: b("g"), SortTarget: target, SortOrder: order, Limit: 3, KeysOnly: true}),
				get(fmt.Sprintf("range/sort-%v-%v-count-only", target, order),
					&pb.RangeRequest{Key: b("a"), RangeEnd: b("g"), SortTarget: target, SortOrder: order, Limit: 3, CountOnly: true}),
				get(fmt.Sprintf("range/sort-%v-%v-filtered", target, order),
					&pb.RangeRequest{Key: b("a"), RangeEnd: b("g"), SortTarget: target, SortOrder: order, Limit: 2, MinModRevision: 9}),
				get(fmt.Sprintf("range/sort-%v-%v-old", target, order),
					&pb.RangeRequest{Key: b("a"), RangeEnd: b("g"), SortTarget: target, SortOrder: order, Limit: 2, Revision: 9}))
		}
	}

	// Filters, alone and together; bounds are inclusive, zero is no bound, negative ones count.
	for _, bound := range []int64{-1, 1, 2, 6, 14, 15, 16, 17, 18, 1000} {
		for _, limit := range []int64{0, 2} {
			base := func() *pb.RangeRequest { return &pb.RangeRequest{Key: b("a"), RangeEnd: []byte{0}, Limit: limit} }
			for _, filter := range filters {
				request := base()
				filter.set(request, bound)
				steps = append(steps, get(fmt.Sprintf("range/filter-%s-%d-limit-%d", filter.name, bound, limit), request))
			}
		}
	}
	steps = append(steps,
		get("range/filter-window", &pb.RangeRequest{Key: b("a"), RangeEnd: b("z"), MinModRevision: 6, MaxModRevision: 14}),
		get("range/filter-window-inverted", &pb.RangeRequest{Key: b("a"), RangeEnd: b("z"), MinModRevision: 14, MaxModRevision: 6}),
		get("range/filter-all-four", &pb.RangeRequest{Key: b("a"), RangeEnd: b("z"), MinModRevision: 6, MaxModRevision: 16, MinCreateRevision: 2, MaxCreateRevision: 5, Limit: 1}),
		get("range/filter-nothing-left", &pb.RangeRequest{Key: b("a"), RangeEnd: b("z"), MinCreateRevision: 1000, Limit: 1}),
		get("range/filter-keys-only", &pb.RangeRequest{Key: b("a"), RangeEnd: b("z"), MinModRevision: 12, KeysOnly: true}),
		get("range/filter-count-only", &pb.RangeRequest{Key: b("a"), RangeEnd: b("z"), MinModRevision: 12, CountOnly: true}),
		get("range/filter-old", &pb.RangeRequest{Key: b("a"), RangeEnd: b("z"), MaxModRevision: 6, Revision: 10}),
		get("range/filter-single-key", &pb.RangeRequest{Key: b("a"), MinModRevision: 15}),
	)

	// Revisions: each one, the edges, and beyond them.
	for _, revision := range []int64{-9223372036854775808, -2, -1, 1, 2, 3, 6, 16, 17, 18} {
		steps = append(steps,
			get(fmt.Sprintf("range/revision-%d", revision), &pb.RangeRequest{Key: b("a"), RangeEnd: b("z"), Revision: revision}),
			get(fmt.Sprintf("range/revision-%d-one-key", revision), &pb.RangeRequest{Key: b("f"), Revision: revision}))
	}
	for _, revision := range []int64{19, 20, 9223372036854775807} {
		steps = append(steps, get(fmt.Sprintf("range/revision-%d", revision), &pb.RangeRequest{Key: b("a"), RangeEnd: b("z"), Revision: revision}).refused(futureRevision))
	}

	// Limits below and above, combinations that read nothing.
	steps = append(steps,
		get("range/limit-negative", &pb.RangeRequest{Key: b("a"), RangeEnd: b("z"), Limit: -1}),
		get("range/limit-lowest", &pb.RangeRequest{Key: b("a"), RangeEnd: b("z"), Limit: -9223372036854775808}),
		get("range/limit-highest", &pb.RangeRequest{Key: b("a"), RangeEnd: b("z"), Limit: 9223372036854775807}),
		get("range/count-and-keys-only", &pb.RangeRequest{Key: b("a"), RangeEnd: b("z"), CountOnly: true, KeysOnly: true}),
		get("range/count-only-old", &pb.RangeRequest{Key: b("a"), RangeEnd: b("z"), CountOnly: true, Revision: 4}),
		get("range/count-only-future", &pb.RangeRequest{Key: b("a"), RangeEnd: b("z"), CountOnly: true, Revision: 400}).refused(futureRevision),
		get("range/count-only-missing", &pb.RangeRequest{Key: b("missing"), CountOnly: true}),
		get("range/count-only-single", &pb.RangeRequest{Key: b("a"), CountOnly: true}),
		get("range/keys-only-single", &pb.RangeRequest{Key: b("a"), KeysOnly: true}),
		get("range/keys-only-old", &pb.RangeRequest{Key: b("a"), RangeEnd: b("z"), KeysOnly: true, Revision: 7, Limit: 2}),
		get("range/single", &pb.RangeRequest{Key: b("a")}),
		get("range/single-limit", &pb.RangeRequest{Key: b("a"), Limit: 1}),
		get("range/single-missing", &pb.RangeRequest{Key: b("missing")}),
		get("range/single-deleted", &pb.RangeRequest{Key: b("f")}),
		get("range/single-before-creation", &pb.RangeRequest{Key: b("d"), Revision: 5}),
		get("range/serializable", &pb.RangeRequest{Key: b("a"), RangeEnd: b("z"), Serializable: true}),
		get("range/serializable-old", &pb.RangeRequest{Key: b("a"), RangeEnd: b("z"), Serializable: true, Revision: 8, Limit: 2}),
		get("range/serializable-future", &pb.RangeRequest{Key: b("a"), Serializable: true, Revision: 99}).refused(futureRevision),
		get("range/serializable-empty-key", &pb.RangeRequest{Serializable: true}).refused(emptyKey),
		get("range/empty-key", &pb.RangeRequest{}).refused(emptyKey),
		get("range/empty-key-with-end", &pb.RangeRequest{RangeEnd: b("z")}).refused(emptyKey),
		get("range/empty-key-open-end", &pb.RangeRequest{RangeEnd: []byte{0}}).refused(emptyKey),
		get("range/empty-key-and-future", &pb.RangeRequest{Revision: 99}).refused(emptyKey),
		// Unknown fields are ignored: field 99 with a varint.
		raw("range/unknown-field", kvRange, 0x0a, 0x01, 'a', 0x98, 0x06, 0x01),
		// A field given twice: the last one counts.
		raw("range/field-twice", kvRange, 0x0a, 0x01, 'z', 0x0a, 0x01, 'a'),
		// Booleans other than one are true as well.
		raw("range/boolean-two", kvRange, 0x0a, 0x01, 'a', 0x48, 0x02),
		// Fields in another order than their numbers.
		raw("range/field-order", kvRange, 0x18, 0x02, 0x12, 0x01, 'z', 0x0a, 0x01, 'a'),
		// An overlong encoding of limit 1.
		raw("range/overlong-varint", kvRange, 0x0a, 0x01, 'a', 0x12, 0x01, 'z', 0x18, 0x81, 0x80, 0x00),
		raw("range/empty-message", kvRange).refused(emptyKey),
	)
	return steps
}

// filters set one bound each.
var filters = []struct {
	name string
	set  func(*pb.RangeRequest, int64)
}{
	{"max-mod", func(r *pb.RangeRequest, v int64) { r.MaxModRevision = v }},
	{"min-mod", func(r *pb.RangeRequest, v int64) { r.MinModRevision = v }},
	{"max-create", func(r *pb.RangeRequest, v int64) { r.MaxCreateRevision = v }},
	{"min-create", func(r *pb.RangeRequest, v int64) { r.MinCreateRevision = v }},
}

// intervalSteps: which keys an interval covers, with keys of all bytes and shapes.
func intervalSteps() []step {
	var steps []step
	for i, key := range []string{"\x00", "\x00\x00", "\x01", "a", "a\x00", "a\x00b", "aa", "ab", "a\xff", "a\xff\xff", "b", "b\xfe\xff", "\xfe", "\xff", "\xff\x00", "\xff\xff", "\xff\xff\xff", "k\xc3\xa9y", "/registry/pods/x"} {
		steps = append(steps, set(fmt.Sprintf("interval/seed-%d", i), key, fmt.Sprintf("value-%d", i)))
	}
	for _, ends := range [][2]string{
		{"\x00", "\x00"}, {"a", "\x00"}, {"\xff", "\x00"}, {"\xff\xff\xff\xff", "\x00"}, {"\x01", "\x00"},
		{"\x00", "\x01"}, {"\x00", "\x00\x00"}, {"\x00", "\x00\x00\x00"}, {"a", "a\x00"}, {"a", "a"}, {"b", "a"}, {"a", "b"}, {"a", "a\xff"},
		{"a\xff", "b"}, {"a\xff\xff", "b"}, {"a\x00", "a\x01"}, {"b\xfe", "b\xff"}, {"\xff", "\xff\xff"}, {"\xff", "\xff\x01"},
		{"\xff\xff", "\xff\xff\xff\xff"}, {"k", "l"}, {"/registry/", "/registry0"}, {"/registry/pods/", "/registry/pods0"}, {"aaa", "ab"}, {"c", "d"},
		{"\x00\x00\x00", "\x00"}, {"a", "\x00\x00"}, {"a", "\x00a"}, {"\xfe", "\xff"},
	} {
		steps = append(steps,
			get(fmt.Sprintf("interval/%x-%x", ends[0], ends[1]), &pb.RangeRequest{Key: b(ends[0]), RangeEnd: b(ends[1])}),
			get(fmt.Sprintf("interval/%x-%x-count", ends[0], ends[1]), &pb.RangeRequest{Key: b(ends[0]), RangeEnd: b(ends[1]), CountOnly: true}),
			get(fmt.Sprintf("interval/%x-%x-limit", ends[0], ends[1]), &pb.RangeRequest{Key: b(ends[0]), RangeEnd: b(ends[1]), Limit: 2}))
	}
	// A page of two after each key: the paging that clients do.
	for i, from := range []string{"\x00", "\x00\x00\x00", "a\x00\x00", "aa\x00", "a\xff\x00", "b\x00", "k\x00", "\xfe\x00", "\xff\x00\x00", "\xff\xff\xff\x00"} {
		steps = append(steps, get(fmt.Sprintf("interval/page-%d", i), &pb.RangeRequest{Key: b(from), RangeEnd: []byte{0}, Limit: 2, Revision: 12}))
	}
	// Deletions take the same intervals.
	steps = append(steps,
		remove("interval/delete-inverted", &pb.DeleteRangeRequest{Key: b("b"), RangeEnd: b("a"), PrevKv: true}),
		remove("interval/delete-same", &pb.DeleteRangeRequest{Key: b("a"), RangeEnd: b("a"), PrevKv: true}),
		remove("interval/delete-prefix", &pb.DeleteRangeRequest{Key: b("a\xff"), RangeEnd: b("b"), PrevKv: true}),
		all("interval/after-prefix"),
		remove("interval/delete-open-end", &pb.DeleteRangeRequest{Key: b("\xff"), RangeEnd: []byte{0}, PrevKv: true}),
		all("interval/after-open-end"),
		remove("interval/delete-everything", &pb.DeleteRangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, PrevKv: true}),
		all("interval/after-everything"),
		remove("interval/delete-everything-again", &pb.DeleteRangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, PrevKv: true}),
	)
	return steps
}
