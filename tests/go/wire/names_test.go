package wire

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// The methods that the script calls.
const (
	kvRange       = "/etcdserverpb.KV/Range"
	kvRangeStream = "/etcdserverpb.KV/RangeStream"
	kvPut         = "/etcdserverpb.KV/Put"
	kvDelete      = "/etcdserverpb.KV/DeleteRange"
	kvTxn         = "/etcdserverpb.KV/Txn"
	kvCompact     = "/etcdserverpb.KV/Compact"
	memberList    = "/etcdserverpb.Cluster/MemberList"
	status_       = "/etcdserverpb.Maintenance/Status"
	alarm         = "/etcdserverpb.Maintenance/Alarm"
	moveLeader    = "/etcdserverpb.Maintenance/MoveLeader"
	healthCheck   = "/grpc.health.v1.Health/Check"
	healthWatch   = "/grpc.health.v1.Health/Watch"
)

// The refusals of etcd, as code and message.
const (
	emptyKey       = "InvalidArgument: etcdserver: key is not provided"
	keyNotFound    = "InvalidArgument: etcdserver: key not found"
	valueProvided  = "InvalidArgument: etcdserver: value is provided"
	leaseProvided  = "InvalidArgument: etcdserver: lease is provided"
	leaseNotFound  = "NotFound: etcdserver: requested lease not found"
	tooManyOps     = "InvalidArgument: etcdserver: too many operations in txn request"
	duplicateKey   = "InvalidArgument: etcdserver: duplicate key given in txn request"
	tooLarge       = "InvalidArgument: etcdserver: request is too large"
	compacted      = "OutOfRange: etcdserver: mvcc: required revision has been compacted"
	futureRevision = "OutOfRange: etcdserver: mvcc: required revision is a future revision"
	badSortOption  = "InvalidArgument: etcdserver: invalid sort option"
)

func b(text string) []byte { return []byte(text) }

func get(id string, request *pb.RangeRequest) step {
	return step{id: id, method: kvRange, request: request}
}

func put(id string, request *pb.PutRequest) step {
	return step{id: id, method: kvPut, request: request}
}

// set is a put of a key and a value, nothing else.
func set(id, key, value string) step {
	return put(id, &pb.PutRequest{Key: b(key), Value: b(value)})
}

func remove(id string, request *pb.DeleteRangeRequest) step {
	return step{id: id, method: kvDelete, request: request}
}

func txn(id string, request *pb.TxnRequest) step {
	return step{id: id, method: kvTxn, request: request}
}

func compact(id string, revision int64) step {
	return step{id: id, method: kvCompact, request: &pb.CompactionRequest{Revision: revision}}
}

func raw(id, method string, body ...byte) step {
	return step{id: id, method: method, raw: append([]byte{}, body...)}
}

// all is a read of every key.
func all(id string) step {
	return get(id, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
}

func opRange(request *pb.RangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: request}}
}

func opPut(request *pb.PutRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: request}}
}

func opDelete(request *pb.DeleteRangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: request}}
}

func opTxn(request *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: request}}
}

// opGet, opSet and opDel are the common short forms.
func opGet(key string) *pb.RequestOp { return opRange(&pb.RangeRequest{Key: b(key)}) }
func opSet(key, value string) *pb.RequestOp {
	return opPut(&pb.PutRequest{Key: b(key), Value: b(value)})
}
func opDel(key string) *pb.RequestOp { return opDelete(&pb.DeleteRangeRequest{Key: b(key)}) }

func ops(list ...*pb.RequestOp) []*pb.RequestOp { return list }
