package wire

import (
	"flag"
	"fmt"
	"math/rand/v2"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// seed chooses the random requests; the same one gives the same requests.
var seed = flag.Uint64("seed", 20_261_121, "seed of the chapter random")

const (
	// randomRequests is the length of the chapter.
	randomRequests = 400
	// nestingMax is how deep random transactions go.
	nestingMax = 3
)

// dice makes random requests that are valid in form, most of them transactions that write a few keys in
// every way. Not among them is what the reference cannot answer like the API level that kontiki claims:
// a transaction with two reasons to be refused; and what stops it: keeping the value of a key that the
// same transaction deletes.
type dice struct {
	*rand.Rand
	// keeps allows ignore_value and ignore_lease in the present transaction; else ranges may name a
	// revision and deletions may have no end.
	keeps bool
}

// randomSteps are random requests to few keys: few enough for sorting to keep equal ones in key order.
func randomSteps() []step {
	d := &dice{Rand: rand.New(rand.NewPCG(*seed, 0))}
	var steps []step
	for i := range randomRequests {
		d.keeps = d.chance(4)
		id := fmt.Sprintf("random/%d", i)
		var s step
		switch d.IntN(8) {
		case 0:
			s = put(id, d.put())
		case 1:
			s = remove(id, d.deletion())
		case 2:
			s = get(id, d.read())
		default:
			s = txn(id, d.transaction(0))
		}
		s.undecided = true
		steps = append(steps, s)
	}
	return steps
}

// chance is true once in n times.
func (d *dice) chance(n int) bool { return d.IntN(n) == 0 }

func (d *dice) key() []byte { return b([]string{"a", "b", "c", "d", "e", "f"}[d.IntN(6)]) }

// end is the end of an interval: none, open, or a key.
func (d *dice) end(open bool) []byte {
	switch d.IntN(4) {
	case 0, 1:
		return nil
	case 2:
		if open {
			return []byte{0}
		}
	}
	return d.key()
}

func (d *dice) put() *pb.PutRequest {
	request := &pb.PutRequest{Key: d.key(), Value: b(fmt.Sprint(d.IntN(4))), PrevKv: d.chance(2)}
	if d.keeps && d.chance(2) {
		request.IgnoreLease = true
		if d.chance(2) {
			request.IgnoreValue, request.Value = true, nil
		}
	}
	return request
}

func (d *dice) deletion() *pb.DeleteRangeRequest {
	return &pb.DeleteRangeRequest{Key: d.key(), RangeEnd: d.end(!d.keeps), PrevKv: d.chance(2)}
}

func (d *dice) read() *pb.RangeRequest {
	request := &pb.RangeRequest{
		Key:        d.key(),
		RangeEnd:   d.end(true),
		SortOrder:  pb.RangeRequest_SortOrder(d.IntN(3)),
		SortTarget: pb.RangeRequest_SortTarget(d.IntN(5)),
		CountOnly:  d.chance(8),
		KeysOnly:   d.chance(8),
	}
	if request.KeysOnly {
		// The lease of a value without its value is decided otherwise since 3.7; there are no leases here.
		request.SortTarget = pb.RangeRequest_KEY
	}
	if d.chance(3) {
		request.Limit = d.Int64N(5)
	}
	if !d.keeps && d.chance(4) {
		request.Revision = d.Int64N(60)
	}
	if d.chance(6) {
		request.MinModRevision = d.Int64N(80)
	}
	if d.chance(6) {
		request.MaxCreateRevision = d.Int64N(80)
	}
	return request
}

func (d *dice) compare() *pb.Compare {
	end := string(d.end(true))
	result := pb.Compare_CompareResult(d.IntN(4))
	target := pb.Compare_CompareTarget(d.IntN(4))
	return compareWith(string(d.key()), end, target, result, d.Int64N(20), fmt.Sprint(d.IntN(4)))
}

func (d *dice) transaction(depth int) *pb.TxnRequest {
	request := &pb.TxnRequest{Success: d.operations(depth), Failure: d.operations(depth)}
	for d.chance(2) {
		request.Compare = append(request.Compare, d.compare())
	}
	return request
}

func (d *dice) operations(depth int) []*pb.RequestOp {
	var list []*pb.RequestOp
	for range d.IntN(4) {
		switch d.IntN(7) {
		case 0, 1:
			list = append(list, opPut(d.put()))
		case 2:
			list = append(list, opDelete(d.deletion()))
		case 3:
			list = append(list, opRange(d.read()))
		default:
			if depth < nestingMax {
				list = append(list, opTxn(d.transaction(depth+1)))
			}
		}
	}
	return list
}
