package wire

// claimed is the API level that kontiki claims.
const claimed = "3.7.1"

// differences are all intended differences between etcd 3.5 and kontiki.
var differences = []difference{
	// Versions.
	{"member/status*", "response.version", "3.5.30", claimed, "kontiki claims the API level it implements"},
	{"member/status*", "response.storageVersion", absent, "3.7.0", "a field of 3.6"},
	{"member/status*", "response.dbSizeQuota", absent, "2147483648", "a field of 3.6"},
	{"member/status*", "response.downgradeInfo", absent, "present", "a field of 3.6"},
	{"member/http-version", "http.body", `{"etcdserver":"3.5.30","etcdcluster":"3.5.0"}`, `{"etcdserver":"` + claimed + `","etcdcluster":"3.7.0","storage":"3.7.0"}`, "kontiki claims the API level it implements; storage is a key of 3.6"},
	{"member/http-version", "http.header.Content-Length", "45", "62", "the length of the body"},

	// Storage: kontiki keeps a log and no database file.
	{"member/status*", "response.dbSize", measured, measured, "bytes of a database file against accounted bytes of keys and values"},
	{"member/status*", "response.dbSizeInUse", measured, measured, "as above"},
	{"member/status*", "response.raftIndex", measured, measured, "etcd logs its bootstrap and requests that change nothing; kontiki logs changes"},
	{"member/status*", "response.raftAppliedIndex", measured, measured, "as above"},

	// What etcd 3.7 decides otherwise than 3.5: operations of a txn are checked in their order, leases first.
	{"txn/put-and-range-failures-together", wholeAnswer, keyNotFound, futureRevision, "3.5 checks all puts before all ranges"},
	{"txn/lease-and-ignore-value", wholeAnswer, keyNotFound, leaseNotFound, "3.5 looks for the key before the lease in a txn"},

	// The edge.
	{"protocol/malformed-*", "status.message", "grpc: error unmarshalling request: ...", "grpc: error unmarshalling request: ...", "the protobuf library's own words; they change with etcd's version, too"},
	{"protocol/gzip", wholeAnswer, accepted, `Unimplemented: grpc: Decompressor is not installed for grpc-encoding "gzip"`, "compression is not offered; etcd has it by accident, through a tracing library"},
}
