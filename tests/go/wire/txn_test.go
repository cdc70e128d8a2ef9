package wire

import (
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

var (
	compareResults = []pb.Compare_CompareResult{pb.Compare_EQUAL, pb.Compare_GREATER, pb.Compare_LESS, pb.Compare_NOT_EQUAL}
	compareTargets = []pb.Compare_CompareTarget{pb.Compare_VERSION, pb.Compare_CREATE, pb.Compare_MOD, pb.Compare_VALUE, pb.Compare_LEASE}
)

// compareWith is a compare with the target's own kind of operand.
func compareWith(key, end string, target pb.Compare_CompareTarget, result pb.Compare_CompareResult, number int64, value string) *pb.Compare {
	compare := &pb.Compare{Key: b(key), Target: target, Result: result}
	if end != "" {
		compare.RangeEnd = b(end)
	}
	switch target {
	case pb.Compare_VERSION:
		compare.TargetUnion = &pb.Compare_Version{Version: number}
	case pb.Compare_CREATE:
		compare.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: number}
	case pb.Compare_MOD:
		compare.TargetUnion = &pb.Compare_ModRevision{ModRevision: number}
	case pb.Compare_VALUE:
		compare.TargetUnion = &pb.Compare_Value{Value: b(value)}
	case pb.Compare_LEASE:
		compare.TargetUnion = &pb.Compare_Lease{Lease: number}
	}
	return compare
}

func modIs(key string, revision int64) *pb.Compare {
	return compareWith(key, "", pb.Compare_MOD, pb.Compare_EQUAL, revision, "")
}

func valueIs(key, value string) *pb.Compare {
	return compareWith(key, "", pb.Compare_VALUE, pb.Compare_EQUAL, 0, value)
}

// always and never are compares that hold, or not, in any store.
func always() *pb.Compare { return modIs("no such key", 0) }
func never() *pb.Compare  { return modIs("no such key", 77) }

// compareSteps: every target and result against one key, no key, several keys, no keys.
func compareSteps() []step {
	// k: create 2, mod 4, version 3, value m. ra: create 5, mod 5, version 1, value a. rb: create 6, mod 7, version 2, value b.
	var steps []step
	for i, pair := range [][2]string{{"k", "x"}, {"k", "y"}, {"k", "m"}, {"ra", "a"}, {"rb", "x"}, {"rb", "b"}} {
		steps = append(steps, set(fmt.Sprintf("compare/seed-%d", i), pair[0], pair[1]))
	}
	ask := func(id string, compares ...*pb.Compare) {
		steps = append(steps, txn("compare/"+id, &pb.TxnRequest{Compare: compares, Success: ops(opGet("k"))}))
	}
	// Below, at and above what k has.
	at := map[pb.Compare_CompareTarget]int64{pb.Compare_VERSION: 3, pb.Compare_CREATE: 2, pb.Compare_MOD: 4, pb.Compare_LEASE: 0}
	for _, target := range compareTargets {
		for _, result := range compareResults {
			for i, value := range []string{"a", "m", "z"} {
				ask(fmt.Sprintf("%v-%v-%d", target, result, i-1), compareWith("k", "", target, result, at[target]+int64(i)-1, value))
			}
			for _, value := range []string{"", "v"} {
				ask(fmt.Sprintf("missing-%v-%v-%q", target, result, value), compareWith("nothing", "", target, result, int64(len(value)), value))
			}
			// Both of r match, or only one does.
			for i, value := range []string{"A", "a", "b", "c"} {
				ask(fmt.Sprintf("range-%v-%v-%d", target, result, i), compareWith("ra", "rz", target, result, []int64{0, 1, 5, 9}[i], value))
			}
			ask(fmt.Sprintf("empty-range-%v-%v", target, result), compareWith("x", "z", target, result, 0, ""))
			ask(fmt.Sprintf("no-operand-%v-%v", target, result), &pb.Compare{Key: b("k"), Target: target, Result: result})
			ask(fmt.Sprintf("no-operand-missing-%v-%v", target, result), &pb.Compare{Key: b("nothing"), Target: target, Result: result})
		}
		// An operand of another target counts as none.
		ask(fmt.Sprintf("foreign-operand-%v", target), foreignOperand("nothing", target))
		ask(fmt.Sprintf("foreign-operand-present-%v", target), foreignOperand("k", target))
		ask(fmt.Sprintf("unknown-result-%v", target), compareWith("k", "", target, 9, 77, "no"))
		ask(fmt.Sprintf("unknown-result-missing-%v", target), compareWith("nothing", "", target, 9, 77, "no"))
		ask(fmt.Sprintf("unknown-result-range-%v", target), compareWith("ra", "rz", target, 9, 77, "no"))
		ask(fmt.Sprintf("negative-%v", target), compareWith("k", "", target, pb.Compare_GREATER, -1, ""))
		ask(fmt.Sprintf("open-end-%v", target), compareWith("ra", "\x00", target, pb.Compare_GREATER, 0, ""))
		ask(fmt.Sprintf("everything-%v", target), compareWith("\x00", "\x00", target, pb.Compare_NOT_EQUAL, 4, "m"))
		ask(fmt.Sprintf("inverted-%v", target), compareWith("rz", "ra", target, pb.Compare_EQUAL, 0, ""))
	}
	ask("unknown-target", &pb.Compare{Key: b("k"), Target: 9, Result: pb.Compare_EQUAL})
	ask("unknown-target-greater", &pb.Compare{Key: b("k"), Target: 9, Result: pb.Compare_GREATER})
	ask("unknown-target-missing", &pb.Compare{Key: b("nothing"), Target: 9, Result: pb.Compare_EQUAL})
	ask("and-all-true", modIs("k", 4), valueIs("k", "m"), always())
	ask("and-first-false", modIs("k", 5), valueIs("k", "m"))
	ask("and-last-false", modIs("k", 4), valueIs("k", "n"))
	ask("same-key-contradiction", valueIs("k", "m"), valueIs("k", "x"))
	steps = append(steps,
		txn("compare/empty-key", &pb.TxnRequest{Compare: []*pb.Compare{{Target: pb.Compare_MOD}}}).refused(emptyKey),
		txn("compare/empty-key-second", &pb.TxnRequest{Compare: []*pb.Compare{always(), {Target: pb.Compare_MOD}}}).refused(emptyKey))
	return steps
}

// foreignOperand is a compare whose operand belongs to another target.
func foreignOperand(key string, target pb.Compare_CompareTarget) *pb.Compare {
	compare := &pb.Compare{Key: b(key), Target: target, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_Value{Value: b("m")}}
	if target == pb.Compare_VALUE {
		compare.TargetUnion = &pb.Compare_Version{Version: 3}
	}
	return compare
}

// txnSteps: form checks and their order, overlaps, nesting, evaluation.
func txnSteps() []step {
	steps := []step{
		set("txn/seed-a", "a", "1"),
		set("txn/seed-b", "b", "2"),
		set("txn/seed-c", "c", "3"),
	}
	add := func(s step) { steps = append(steps, s) }
	empty := func() *pb.RequestOp { return &pb.RequestOp{} }

	// Read-only and empty ones change nothing.
	add(txn("txn/empty", &pb.TxnRequest{}))
	add(raw("txn/empty-message", kvTxn))
	add(txn("txn/empty-failing", &pb.TxnRequest{Compare: []*pb.Compare{never()}}))
	add(txn("txn/reads", &pb.TxnRequest{Success: ops(opGet("a"), opGet("missing"), opRange(&pb.RangeRequest{Key: b("a"), RangeEnd: b("z"), Limit: 2, SortOrder: pb.RangeRequest_DESCEND}))}))
	add(txn("txn/reads-serializable", &pb.TxnRequest{Success: ops(opRange(&pb.RangeRequest{Key: b("a"), Serializable: true}))}))
	add(txn("txn/reads-count", &pb.TxnRequest{Success: ops(opRange(&pb.RangeRequest{Key: b("a"), RangeEnd: b("z"), CountOnly: true}), opRange(&pb.RangeRequest{Key: b("a"), RangeEnd: b("z"), KeysOnly: true}))}))
	add(txn("txn/reads-else", &pb.TxnRequest{Compare: []*pb.Compare{never()}, Success: ops(opSet("a", "no")), Failure: ops(opGet("a"), opGet("b"))}))
	add(txn("txn/reads-filtered", &pb.TxnRequest{Success: ops(opRange(&pb.RangeRequest{Key: b("a"), RangeEnd: b("z"), MinModRevision: 3, MaxCreateRevision: 3}))}))
	add(txn("txn/reads-sorted", &pb.TxnRequest{Success: ops(opRange(&pb.RangeRequest{Key: b("a"), RangeEnd: b("z"), SortTarget: pb.RangeRequest_VALUE, SortOrder: pb.RangeRequest_DESCEND, Limit: 2}))}))

	// Revisions of reads inside: zero and old ones are fine. Negative ones are below the compaction floor, which
	// starts at -1: before the first compaction -1 itself is readable.
	for _, revision := range []int64{0, 1, 2, 3, 4} {
		add(txn(fmt.Sprintf("txn/read-at-%d", revision), &pb.TxnRequest{Success: ops(opRange(&pb.RangeRequest{Key: b("a"), RangeEnd: b("z"), Revision: revision}))}))
	}
	add(txn("txn/read-minus-one", &pb.TxnRequest{Success: ops(opRange(&pb.RangeRequest{Key: b("a"), Revision: -1}))}))
	add(txn("txn/read-minus-two", &pb.TxnRequest{Success: ops(opRange(&pb.RangeRequest{Key: b("a"), Revision: -2}))}).refused(compacted))
	add(txn("txn/read-lowest", &pb.TxnRequest{Success: ops(opRange(&pb.RangeRequest{Key: b("a"), Revision: -9223372036854775808}))}).refused(compacted))
	add(txn("txn/read-future", &pb.TxnRequest{Success: ops(opRange(&pb.RangeRequest{Key: b("a"), Revision: 5}))}).refused(futureRevision))
	add(txn("txn/read-negative-beside-put", &pb.TxnRequest{Success: ops(opSet("no", "1"), opRange(&pb.RangeRequest{Key: b("a"), Revision: -2}))}).refused(compacted))
	add(txn("txn/read-future-beside-put", &pb.TxnRequest{Success: ops(opSet("no", "1"), opRange(&pb.RangeRequest{Key: b("a"), Revision: 5}))}).refused(futureRevision))
	add(txn("txn/read-future-untaken", &pb.TxnRequest{Compare: []*pb.Compare{always()}, Success: ops(opGet("a")), Failure: ops(opRange(&pb.RangeRequest{Key: b("a"), Revision: 50}))}))
	add(txn("txn/read-future-nested", &pb.TxnRequest{Success: ops(opTxn(&pb.TxnRequest{Success: ops(opRange(&pb.RangeRequest{Key: b("a"), Revision: 50}))}))}).refused(futureRevision))
	add(txn("txn/read-future-nested-untaken", &pb.TxnRequest{Success: ops(opTxn(&pb.TxnRequest{Compare: []*pb.Compare{never()}, Success: ops(opRange(&pb.RangeRequest{Key: b("a"), Revision: 50}))}))}))

	// Form: every operation of both branches, whichever is taken.
	for _, bad := range []struct {
		name string
		op   *pb.RequestOp
		want string
	}{
		{"range-empty-key", opRange(&pb.RangeRequest{}), emptyKey},
		{"put-empty-key", opPut(&pb.PutRequest{Value: b("v")}), emptyKey},
		{"put-ignore-value", opPut(&pb.PutRequest{Key: b("x"), Value: b("v"), IgnoreValue: true}), valueProvided},
		{"put-ignore-lease", opPut(&pb.PutRequest{Key: b("x"), Lease: 7, IgnoreLease: true}), leaseProvided},
		{"delete-empty-key", opDelete(&pb.DeleteRangeRequest{RangeEnd: b("z")}), emptyKey},
		{"nothing", empty(), keyNotFound},
		{"nested-nothing", opTxn(&pb.TxnRequest{Failure: ops(empty())}), keyNotFound},
		{"nested-empty-key", opTxn(&pb.TxnRequest{Success: ops(opGet(""))}), emptyKey},
		{"nested-compare-empty-key", opTxn(&pb.TxnRequest{Compare: []*pb.Compare{{}}}), emptyKey},
	} {
		add(txn("txn/form-success-"+bad.name, &pb.TxnRequest{Success: ops(opGet("a"), bad.op)}).refused(bad.want))
		add(txn("txn/form-failure-"+bad.name, &pb.TxnRequest{Failure: ops(opGet("a"), bad.op)}).refused(bad.want))
		add(txn("txn/form-write-"+bad.name, &pb.TxnRequest{Success: ops(opSet("form", "never"), bad.op)}).refused(bad.want))
	}
	// The order of checks: number of operations, compares, operations in order, overlap.
	add(txn("txn/order-count-before-compare", &pb.TxnRequest{Compare: repeated(129, &pb.Compare{})}).refused(tooManyOps))
	add(txn("txn/order-compare-before-op", &pb.TxnRequest{Compare: []*pb.Compare{{}}, Success: ops(empty())}).refused(emptyKey))
	add(txn("txn/order-success-before-failure", &pb.TxnRequest{Success: ops(empty()), Failure: ops(opGet(""))}).refused(keyNotFound))
	add(txn("txn/order-first-op", &pb.TxnRequest{Success: ops(opGet(""), empty())}).refused(emptyKey))
	add(txn("txn/order-op-before-overlap", &pb.TxnRequest{Success: ops(opSet("x", "1"), opSet("x", "2"), opGet(""))}).refused(emptyKey))
	add(txn("txn/order-failure-op-before-success-overlap", &pb.TxnRequest{Success: ops(opSet("x", "1"), opSet("x", "2")), Failure: ops(opGet(""))}).refused(emptyKey))
	add(txn("txn/order-overlap-before-lease", &pb.TxnRequest{Success: ops(opPut(&pb.PutRequest{Key: b("x"), Lease: 7}), opSet("x", "2"))}).refused(duplicateKey))
	add(txn("txn/order-nested-count-before-op", &pb.TxnRequest{Success: ops(opTxn(&pb.TxnRequest{Success: repeated(129, empty())}))}).refused(tooManyOps))
	add(txn("txn/order-op-before-nested-count", &pb.TxnRequest{Success: ops(empty(), opTxn(&pb.TxnRequest{Success: repeated(129, opGet("a"))}))}).refused(keyNotFound))

	// How many operations.
	add(txn("txn/ops-128", &pb.TxnRequest{Success: repeated(128, opGet("a"))}))
	add(txn("txn/ops-129", &pb.TxnRequest{Success: repeated(129, opGet("a"))}).refused(tooManyOps))
	add(txn("txn/ops-129-else", &pb.TxnRequest{Failure: repeated(129, opGet("a"))}).refused(tooManyOps))
	add(txn("txn/compares-128", &pb.TxnRequest{Compare: repeated(128, always())}))
	add(txn("txn/compares-129", &pb.TxnRequest{Compare: repeated(129, always())}).refused(tooManyOps))
	add(txn("txn/all-128", &pb.TxnRequest{Compare: repeated(128, always()), Success: repeated(128, opGet("a")), Failure: repeated(128, opGet("a"))}))
	// A nested one has what its parent leaves: 128 less the parent's longest list.
	add(txn("txn/nested-127", &pb.TxnRequest{Success: ops(opTxn(&pb.TxnRequest{Success: repeated(127, opGet("a"))}))}))
	add(txn("txn/nested-128", &pb.TxnRequest{Success: ops(opTxn(&pb.TxnRequest{Success: repeated(128, opGet("a"))}))}).refused(tooManyOps))
	add(txn("txn/nested-less-by-compares", &pb.TxnRequest{Compare: repeated(100, always()), Success: ops(opTxn(&pb.TxnRequest{Success: repeated(28, opGet("a"))}))}))
	add(txn("txn/nested-less-by-compares-over", &pb.TxnRequest{Compare: repeated(100, always()), Success: ops(opTxn(&pb.TxnRequest{Success: repeated(29, opGet("a"))}))}).refused(tooManyOps))
	add(txn("txn/nested-less-by-failure-over", &pb.TxnRequest{Success: ops(opTxn(&pb.TxnRequest{Compare: repeated(29, always())})), Failure: repeated(100, opGet("a"))}).refused(tooManyOps))
	add(txn("txn/nested-twice", &pb.TxnRequest{Success: ops(opTxn(&pb.TxnRequest{Success: ops(opTxn(&pb.TxnRequest{Success: repeated(126, opGet("a"))}))}))}))
	add(txn("txn/nested-twice-over", &pb.TxnRequest{Success: ops(opTxn(&pb.TxnRequest{Success: ops(opTxn(&pb.TxnRequest{Success: repeated(127, opGet("a"))}))}))}).refused(tooManyOps))
	add(txn("txn/nested-two-siblings", &pb.TxnRequest{Success: ops(opTxn(&pb.TxnRequest{Success: repeated(126, opGet("a"))}), opTxn(&pb.TxnRequest{Success: repeated(126, opGet("b"))}))}))
	add(txn("txn/nested-empty-when-full", &pb.TxnRequest{Success: append(repeated(127, opGet("a")), opTxn(&pb.TxnRequest{}))}))
	add(txn("txn/nested-one-when-full", &pb.TxnRequest{Success: append(repeated(127, opGet("a")), opTxn(&pb.TxnRequest{Success: ops(opGet("a"))}))}).refused(tooManyOps))

	// Overlaps: puts with puts and with deletions, in any order, also nested; each branch by itself.
	deleteAll := func() *pb.RequestOp { return opDelete(&pb.DeleteRangeRequest{Key: b("o"), RangeEnd: b("p")}) }
	openEnd := func() *pb.RequestOp { return opDelete(&pb.DeleteRangeRequest{Key: b("o"), RangeEnd: []byte{0}}) }
	nested := func(list ...*pb.RequestOp) *pb.RequestOp { return opTxn(&pb.TxnRequest{Success: list}) }
	nestedElse := func(list ...*pb.RequestOp) *pb.RequestOp { return opTxn(&pb.TxnRequest{Failure: list}) }
	both := func(then, otherwise *pb.RequestOp) *pb.RequestOp {
		return opTxn(&pb.TxnRequest{Success: ops(then), Failure: ops(otherwise)})
	}
	for _, overlap := range []struct {
		name string
		ops  []*pb.RequestOp
		want string
	}{
		{"put-put", ops(opSet("o", "1"), opSet("o", "2")), duplicateKey},
		{"put-delete", ops(opSet("o", "1"), opDel("o")), duplicateKey},
		{"delete-put", ops(opDel("o"), opSet("o", "1")), duplicateKey},
		{"put-in-range", ops(opSet("oo", "1"), deleteAll()), duplicateKey},
		{"range-then-put", ops(deleteAll(), opSet("oo", "1")), duplicateKey},
		{"put-at-start", ops(deleteAll(), opSet("o", "1")), duplicateKey},
		{"put-at-end", ops(deleteAll(), opSet("p", "1")), ""},
		{"put-below", ops(deleteAll(), opSet("n", "1")), ""},
		{"deletes", ops(deleteAll(), opDel("o"), openEnd(), deleteAll()), ""},
		{"put-and-ranges", ops(opSet("o", "1"), opGet("o"), opRange(&pb.RangeRequest{Key: b("a"), RangeEnd: []byte{0}})), ""},
		{"inverted-delete", ops(opSet("o1", "1"), opDelete(&pb.DeleteRangeRequest{Key: b("p"), RangeEnd: b("o")})), ""},
		{"empty-delete", ops(opSet("o1", "1"), opDelete(&pb.DeleteRangeRequest{Key: b("o1"), RangeEnd: b("o1")})), ""},
		{"nested-put-put", ops(opSet("o", "1"), nested(opSet("o", "2"))), duplicateKey},
		{"nested-first-put-put", ops(nested(opSet("o", "2")), opSet("o", "1")), duplicateKey},
		{"nested-else-put-put", ops(opSet("o", "1"), nestedElse(opSet("o", "2"))), duplicateKey},
		{"nested-put-delete", ops(opSet("o", "1"), nested(deleteAll())), duplicateKey},
		{"nested-delete-put", ops(deleteAll(), nested(opSet("o", "1"))), duplicateKey},
		{"nested-else-delete-put", ops(deleteAll(), nestedElse(opSet("o", "1"))), duplicateKey},
		{"nested-inner", ops(nested(opSet("o", "1"), opSet("o", "2"))), duplicateKey},
		{"nested-inner-delete", ops(nested(opSet("o", "1"), deleteAll())), duplicateKey},
		{"siblings-put-put", ops(nested(opSet("o", "1")), nested(opSet("o", "2"))), duplicateKey},
		{"siblings-delete-put", ops(nested(deleteAll()), nested(opSet("o", "1"))), duplicateKey},
		{"siblings-then-and-else", ops(nested(opSet("o", "1")), nestedElse(opSet("o", "2"))), duplicateKey},
		{"siblings-delete-delete", ops(nested(deleteAll()), nested(deleteAll())), ""},
		{"then-and-else-put", ops(both(opSet("o", "1"), opSet("o", "2"))), ""},
		{"then-put-else-delete", ops(both(opSet("o", "1"), deleteAll())), ""},
		{"then-delete-else-put", ops(both(deleteAll(), opSet("o", "1"))), ""},
		{"then-and-else-and-outer", ops(both(opSet("o", "1"), opSet("o", "2")), opSet("o", "3")), duplicateKey},
		{"deep", ops(nested(nested(nested(opSet("o", "1")))), opSet("o", "2")), duplicateKey},
		{"deep-delete", ops(nested(nested(nested(deleteAll()))), opSet("o", "2")), duplicateKey},
		{"deep-apart", ops(nested(nested(nested(opSet("o", "1")))), opSet("q", "2")), ""},
	} {
		add(txn("txn/overlap-"+overlap.name, &pb.TxnRequest{Success: overlap.ops}).refused(overlap.want))
		add(txn("txn/overlap-else-"+overlap.name, &pb.TxnRequest{Compare: []*pb.Compare{always()}, Failure: overlap.ops}).refused(overlap.want))
	}
	// What etcd's check does not see, in a branch that is not taken: deletions without an end, and those of a
	// nested txn after the put of another one.
	add(txn("txn/overlap-unseen-open-end", &pb.TxnRequest{Failure: ops(openEnd(), opSet("zzz", "1"))}))
	add(txn("txn/overlap-unseen-everything", &pb.TxnRequest{Failure: ops(opSet("zzz", "1"), opDelete(&pb.DeleteRangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}))}))
	add(txn("txn/overlap-unseen-siblings", &pb.TxnRequest{Failure: ops(nested(opSet("o", "1")), nested(deleteAll()))}))
	add(txn("txn/overlap-between-branches", &pb.TxnRequest{Success: ops(opSet("o", "then")), Failure: ops(opSet("o", "else"), opGet("o"))}))

	// State checks on the taken path only, before anything is written.
	add(txn("txn/lease-unknown", &pb.TxnRequest{Success: ops(opSet("s", "1"), opPut(&pb.PutRequest{Key: b("t"), Lease: 7}))}).refused(leaseNotFound))
	add(txn("txn/lease-unknown-untaken", &pb.TxnRequest{Success: ops(opGet("a")), Failure: ops(opPut(&pb.PutRequest{Key: b("t"), Lease: 7}))}))
	add(txn("txn/ignore-value-missing", &pb.TxnRequest{Success: ops(opSet("s", "1"), opPut(&pb.PutRequest{Key: b("t"), IgnoreValue: true}))}).refused(keyNotFound))
	add(txn("txn/ignore-lease-missing", &pb.TxnRequest{Success: ops(opPut(&pb.PutRequest{Key: b("t"), Value: b("v"), IgnoreLease: true}))}).refused(keyNotFound))
	add(txn("txn/ignore-value-missing-untaken", &pb.TxnRequest{Success: ops(opGet("a")), Failure: ops(opPut(&pb.PutRequest{Key: b("t"), IgnoreValue: true}))}))
	add(txn("txn/ignore-value-nested-missing", &pb.TxnRequest{Success: ops(opSet("s", "1"), nested(opPut(&pb.PutRequest{Key: b("t"), IgnoreValue: true})))}).refused(keyNotFound))
	add(txn("txn/two-failures-first-wins", &pb.TxnRequest{Success: ops(opPut(&pb.PutRequest{Key: b("t"), IgnoreValue: true}), opPut(&pb.PutRequest{Key: b("u"), Lease: 7}))}).refused(keyNotFound))
	add(txn("txn/range-and-put-failures-together", &pb.TxnRequest{Success: ops(opPut(&pb.PutRequest{Key: b("t"), IgnoreValue: true}), opRange(&pb.RangeRequest{Key: b("a"), Revision: 9999}))}).refused(keyNotFound))
	add(txn("txn/put-and-range-failures-together", &pb.TxnRequest{Success: ops(opRange(&pb.RangeRequest{Key: b("a"), Revision: 9999}), opPut(&pb.PutRequest{Key: b("t"), IgnoreValue: true}))}).refused(keyNotFound))
	add(txn("txn/lease-and-ignore-value", &pb.TxnRequest{Success: ops(opPut(&pb.PutRequest{Key: b("t"), IgnoreValue: true, Lease: 7}))}).refused(keyNotFound))
	add(all("txn/refusals-wrote-nothing"))

	// Writes: one revision for all, subs in order, reads between see what came before.
	add(txn("txn/write-and-read", &pb.TxnRequest{Success: ops(
		opGet("w"), opSet("w", "1"), opGet("w"), opPut(&pb.PutRequest{Key: b("a"), Value: b("changed"), PrevKv: true}),
		opRange(&pb.RangeRequest{Key: b("a"), RangeEnd: b("z"), KeysOnly: true}), opRange(&pb.RangeRequest{Key: b("a"), RangeEnd: b("z"), CountOnly: true}))}))
	add(txn("txn/delete-and-read", &pb.TxnRequest{Success: ops(
		opDelete(&pb.DeleteRangeRequest{Key: b("a"), PrevKv: true}), opGet("a"), opDelete(&pb.DeleteRangeRequest{Key: b("a"), RangeEnd: b("c"), PrevKv: true}), opRange(&pb.RangeRequest{Key: b("a"), RangeEnd: b("z")}))}))
	add(txn("txn/delete-nothing", &pb.TxnRequest{Success: ops(opDel("missing"), opGet("c"))}))
	add(txn("txn/delete-nothing-then-put", &pb.TxnRequest{Success: ops(opDel("missing"), opSet("x1", "v"), opDel("missing too"))}))
	add(txn("txn/old-read-beside-write", &pb.TxnRequest{Success: ops(opSet("x2", "v"), opRange(&pb.RangeRequest{Key: b("a"), RangeEnd: b("z"), Revision: 3}))}))
	add(txn("txn/current-read-beside-write", &pb.TxnRequest{Success: ops(opSet("x3", "v"), opRange(&pb.RangeRequest{Key: b("x"), RangeEnd: b("y")}))}))
	add(txn("txn/many-puts", &pb.TxnRequest{Success: numberedPuts("many-", 128)}))
	add(get("txn/many-puts-read", &pb.RangeRequest{Key: b("many-"), RangeEnd: b("many."), Limit: 3}))
	add(txn("txn/many-deletes", &pb.TxnRequest{Success: ops(opDelete(&pb.DeleteRangeRequest{Key: b("many-"), RangeEnd: b("many-1"), PrevKv: true}), opDelete(&pb.DeleteRangeRequest{Key: b("many-"), RangeEnd: b("many.")}))}))
	add(txn("txn/ignore-value", &pb.TxnRequest{Success: ops(opPut(&pb.PutRequest{Key: b("c"), IgnoreValue: true, PrevKv: true}), opGet("c"))}))
	add(txn("txn/ignore-lease", &pb.TxnRequest{Success: ops(opPut(&pb.PutRequest{Key: b("c"), Value: b("cc"), IgnoreLease: true, PrevKv: true}))}))
	add(txn("txn/else-writes", &pb.TxnRequest{Compare: []*pb.Compare{never()}, Success: ops(opSet("then", "1")), Failure: ops(opSet("else", "1"), opGet("else"))}))
	add(txn("txn/empty-branch-taken", &pb.TxnRequest{Compare: []*pb.Compare{never()}, Success: ops(opSet("then", "1"))}))

	// Nested: compares see the state before all writes; nested answers have an empty header.
	add(txn("txn/nested-compare-before-writes", &pb.TxnRequest{Success: ops(
		opSet("n1", "new"),
		opTxn(&pb.TxnRequest{Compare: []*pb.Compare{valueIs("n1", "new")}, Success: ops(opSet("n2", "saw the write")), Failure: ops(opSet("n2", "saw the state before"))}))}))
	add(get("txn/nested-compare-read", &pb.RangeRequest{Key: b("n2")}))
	add(txn("txn/nested-reads-only", &pb.TxnRequest{Success: ops(opTxn(&pb.TxnRequest{Success: ops(opGet("n1"), opGet("n2"))}))}))
	add(txn("txn/nested-empty", &pb.TxnRequest{Success: ops(opTxn(&pb.TxnRequest{}))}))
	add(txn("txn/nested-null", &pb.TxnRequest{Success: ops(opTxn(nil))}))
	add(txn("txn/nested-deep", &pb.TxnRequest{Success: ops(
		opSet("d1", "1"),
		opTxn(&pb.TxnRequest{Success: ops(opGet("d1"), opSet("d2", "2"), opTxn(&pb.TxnRequest{Compare: []*pb.Compare{never()}, Failure: ops(opRange(&pb.RangeRequest{Key: b("d"), RangeEnd: b("e")}), opSet("d3", "3"), opDel("n1"))}))}),
		opRange(&pb.RangeRequest{Key: b("d"), RangeEnd: b("e")}))}))
	add(txn("txn/nested-untaken-compare-not-evaluated", &pb.TxnRequest{Compare: []*pb.Compare{never()}, Success: ops(opTxn(&pb.TxnRequest{Success: ops(opSet("no", "1"))})), Failure: ops(opTxn(&pb.TxnRequest{Compare: []*pb.Compare{always(), never()}, Failure: ops(opGet("d1"))}))}))
	add(txn("txn/nested-delete-then-count", &pb.TxnRequest{Success: ops(opTxn(&pb.TxnRequest{Success: ops(opDelete(&pb.DeleteRangeRequest{Key: b("d"), RangeEnd: b("e"), PrevKv: true}))}), opRange(&pb.RangeRequest{Key: b("d"), RangeEnd: b("e"), CountOnly: true}))}))
	add(txn("txn/nested-with-old-read", &pb.TxnRequest{Success: ops(opTxn(&pb.TxnRequest{Success: ops(opRange(&pb.RangeRequest{Key: b("a"), RangeEnd: b("z"), Revision: 4}))}))}))

	// The shapes that kube-apiserver sends.
	add(txn("txn/create", &pb.TxnRequest{Compare: []*pb.Compare{modIs("/registry/x", 0)}, Success: ops(opSet("/registry/x", "object"))}))
	add(txn("txn/create-exists", &pb.TxnRequest{Compare: []*pb.Compare{modIs("/registry/x", 0)}, Success: ops(opSet("/registry/x", "object"))}))
	add(txn("txn/update-conflict", &pb.TxnRequest{Compare: []*pb.Compare{modIs("/registry/x", 2)}, Success: ops(opSet("/registry/x", "changed")), Failure: ops(opGet("/registry/x"))}))
	add(txn("txn/guarded-delete", &pb.TxnRequest{Compare: []*pb.Compare{compareWith("/registry/x", "", pb.Compare_VERSION, pb.Compare_EQUAL, 1, "")}, Success: ops(opDelete(&pb.DeleteRangeRequest{Key: b("/registry/x"), PrevKv: true})), Failure: ops(opGet("/registry/x"))}))
	add(all("txn/content"))
	return steps
}

// unseenSteps: a key both put and deleted in one txn, which etcd's check lets pass when the deletion has no
// end, or comes in a later nested txn; the writes then happen in their order, at one revision.
func unseenSteps() []step {
	open := func(key string) *pb.RequestOp {
		return opDelete(&pb.DeleteRangeRequest{Key: b(key), RangeEnd: []byte{0}, PrevKv: true})
	}
	nested := func(list ...*pb.RequestOp) *pb.RequestOp { return opTxn(&pb.TxnRequest{Success: list}) }
	reads := func(name string) []step {
		return []step{
			all("unseen/" + name + "-content"),
			get("unseen/"+name+"-single", &pb.RangeRequest{Key: b("z")}),
		}
	}
	steps := []step{set("unseen/seed-a", "a", "1"), set("unseen/seed-m", "m", "1"), set("unseen/seed-z", "z", "1")}
	steps = append(steps, txn("unseen/put-then-delete", &pb.TxnRequest{Success: ops(opSet("z", "2"), opSet("zz", "2"), open("m"), opGet("z"))}))
	steps = append(steps, reads("put-then-delete")...)
	steps = append(steps, txn("unseen/delete-then-put", &pb.TxnRequest{Success: ops(opSet("m", "3"), open("n"), opPut(&pb.PutRequest{Key: b("z"), Value: b("3"), PrevKv: true}), opGet("z"))}))
	steps = append(steps, reads("delete-then-put")...)
	steps = append(steps, txn("unseen/live-delete-then-put", &pb.TxnRequest{Success: ops(open("m"), opPut(&pb.PutRequest{Key: b("z"), Value: b("4"), PrevKv: true}), opRange(&pb.RangeRequest{Key: b("a"), RangeEnd: []byte{0}}))}))
	steps = append(steps, reads("live-delete-then-put")...)
	steps = append(steps, txn("unseen/siblings", &pb.TxnRequest{Success: ops(nested(opSet("z", "5")), nested(opDelete(&pb.DeleteRangeRequest{Key: b("m"), RangeEnd: b("zz"), PrevKv: true})), opGet("z"))}))
	steps = append(steps, reads("siblings")...)
	steps = append(steps, txn("unseen/everything", &pb.TxnRequest{Success: ops(opSet("new", "6"), opDelete(&pb.DeleteRangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, PrevKv: true}), opRange(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}))}))
	steps = append(steps, reads("everything")...)
	return append(steps, set("unseen/after", "z", "7"), compact("unseen/compacted", 6), all("unseen/after-compaction"))
}

func repeated[T any](count int, one T) []T {
	list := make([]T, count)
	for i := range list {
		list[i] = one
	}
	return list
}

func numberedPuts(prefix string, count int) []*pb.RequestOp {
	var list []*pb.RequestOp
	for i := range count {
		list = append(list, opPut(&pb.PutRequest{Key: b(fmt.Sprintf("%s%03d", prefix, i)), Value: b(fmt.Sprint(i))}))
	}
	return list
}
