package wire

import (
	"fmt"
	"net/http"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding/gzip"
	health "google.golang.org/grpc/health/grpc_health_v1"
)

// requestOfSize encodes a put whose envelope in etcd's log, which is what --max-request-bytes bounds, has a
// size: a field number and the put's length, and 13 bytes of header with a request id, whose first bits are
// the member's id.
func requestOfSize(size int) []byte {
	for put := size - 20; put < size; put++ {
		if 1+len(varint(put))+put+13 == size {
			return putOfSize(put)
		}
	}
	panic(fmt.Sprintf("no request of %d bytes", size))
}

// limitSteps: sizes at the defaults, 1.5 MiB for a request and 512 KiB more for a message.
func limitSteps() []step {
	const requestMax = 1_572_864
	const messageMax = requestMax + 524_288
	steps := []step{
		set("limits/seed", "a", "1"),
		set("limits/one-mebibyte", "big", filled(1<<20)),
		get("limits/one-mebibyte-read", &pb.RangeRequest{Key: b("big")}),
		set("limits/request-under", "under", filled(requestMax-128)),
		get("limits/request-under-read", &pb.RangeRequest{Key: b("under")}),
		set("limits/request-over", "over", filled(requestMax)).refused(tooLarge),
		set("limits/request-over-by-key", filled(requestMax), "v").refused(tooLarge),
		set("limits/key-large", filled(1_000_000), "v"),
		get("limits/keys-only", &pb.RangeRequest{Key: b("a"), RangeEnd: []byte{0}, KeysOnly: true}),
		get("limits/large-answer", &pb.RangeRequest{Key: b("a"), RangeEnd: []byte{0}}),
		txn("limits/txn-over", &pb.TxnRequest{Success: ops(opPut(&pb.PutRequest{Key: b("x"), Value: b(filled(800_000))}), opPut(&pb.PutRequest{Key: b("y"), Value: b(filled(800_000))}))}).refused(tooLarge),
		txn("limits/txn-over-untaken", &pb.TxnRequest{Success: ops(opGet("a"), opDel("none")), Failure: ops(opPut(&pb.PutRequest{Key: b("y"), Value: b(filled(requestMax))}))}).refused(tooLarge),
		txn("limits/txn-over-by-form", &pb.TxnRequest{Success: ops(opGet(""), opPut(&pb.PutRequest{Key: b("y"), Value: b(filled(requestMax))}))}).refused(emptyKey),
		remove("limits/delete-over", &pb.DeleteRangeRequest{Key: b(filled(requestMax))}).refused(tooLarge),
		// A read is not measured; only the message bound holds.
		get("limits/range-large-key", &pb.RangeRequest{Key: b(filled(requestMax + 1000))}),
		txn("limits/txn-read-only-large", &pb.TxnRequest{Success: ops(opRange(&pb.RangeRequest{Key: b(filled(requestMax + 1000))}))}),
		txn("limits/txn-nested-read-large", &pb.TxnRequest{Success: ops(opTxn(&pb.TxnRequest{Success: ops(opRange(&pb.RangeRequest{Key: b(filled(requestMax + 1000))}))}))}).refused(tooLarge),
		txn("limits/compare-large", &pb.TxnRequest{Compare: []*pb.Compare{valueIs("a", filled(requestMax+1000))}}),
	}
	// The message bound, on the encoded size: at it the request's own bound decides, above it nothing is read.
	for _, size := range []int{messageMax - 1, messageMax, messageMax + 1, messageMax + 4096, 3 * messageMax} {
		s := raw(fmt.Sprintf("limits/message-%d", size), kvPut, putOfSize(size)...)
		if size <= messageMax {
			steps = append(steps, s.refused(tooLarge))
		} else {
			steps = append(steps, s.refused(fmt.Sprintf("ResourceExhausted: grpc: received message larger than max (%d vs. %d)", size, messageMax)))
		}
	}
	steps = append(steps,
		raw("limits/range-message-over", kvRange, putOfSize(messageMax+1)...).refused(fmt.Sprintf("ResourceExhausted: grpc: received message larger than max (%d vs. %d)", messageMax+1, messageMax)),
		set("limits/connection-still-works", "a", "2"))
	// The request's bound to the byte.
	for _, over := range []int{-1, 0, 1, 2} {
		s := raw(fmt.Sprintf("limits/request-exact-%d", over), kvPut, requestOfSize(requestMax+over)...)
		if over > 0 {
			s = s.refused(tooLarge)
		}
		steps = append(steps, s)
	}
	return append(steps, all("limits/content"))
}

// putOfSize encodes a put of key "p" that is exactly so many bytes long.
func putOfSize(size int) []byte {
	for value := size - 3; value > 0; value-- {
		encoded := append([]byte{0x0a, 0x01, 'p', 0x12}, varint(value)...)
		if len(encoded)+value == size {
			return append(encoded, filled(value)...)
		}
	}
	panic(fmt.Sprintf("no put of %d bytes", size))
}

func varint(value int) []byte {
	var encoded []byte
	for value >= 0x80 {
		encoded = append(encoded, byte(value)|0x80)
		value >>= 7
	}
	return append(encoded, byte(value))
}

// smallSteps: the limits given by flags, --max-txn-ops 3 and --max-request-bytes 2048.
func smallSteps() []step {
	return []step{
		txn("small/ops-3", &pb.TxnRequest{Success: numberedPuts("k", 3)}),
		txn("small/ops-4", &pb.TxnRequest{Success: numberedPuts("k", 4)}).refused(tooManyOps),
		txn("small/nested-2", &pb.TxnRequest{Success: ops(opTxn(&pb.TxnRequest{Success: numberedPuts("n", 2)}))}),
		txn("small/nested-3", &pb.TxnRequest{Success: ops(opTxn(&pb.TxnRequest{Success: numberedPuts("n", 3)}))}).refused(tooManyOps),
		set("small/under", "k", filled(1900)),
		set("small/over", "k", filled(2048)).refused(tooLarge),
		raw("small/message-under", kvPut, putOfSize(2048+524_288)...).refused(tooLarge),
		raw("small/message-over", kvPut, putOfSize(2048+524_288+1)...).refused("ResourceExhausted: grpc: received message larger than max (526337 vs. 526336)"),
		raw("small/exact", kvPut, requestOfSize(2048)...),
		raw("small/exact-over", kvPut, requestOfSize(2049)...).refused(tooLarge),
		get("small/range", &pb.RangeRequest{Key: b("k"), RangeEnd: b("z")}),
	}
}

// protocolSteps: what gRPC itself refuses, and what metadata changes.
func protocolSteps() []step {
	getA := func(id string) step { return get(id, &pb.RangeRequest{Key: b("a")}) }
	named := func(id, method string) step { return raw(id, method) }
	return []step{
		set("protocol/seed", "a", "1"),
		named("protocol/unknown-method", "/etcdserverpb.KV/Nothing").refused("Unimplemented: unknown method Nothing for service etcdserverpb.KV"),
		named("protocol/unknown-method-empty", "/etcdserverpb.KV/").refused("Unimplemented: unknown method  for service etcdserverpb.KV"),
		named("protocol/unknown-method-case", "/etcdserverpb.KV/range").refused("Unimplemented: unknown method range for service etcdserverpb.KV"),
		named("protocol/unknown-method-maintenance", "/etcdserverpb.Maintenance/Nothing").refused("Unimplemented: unknown method Nothing for service etcdserverpb.Maintenance"),
		named("protocol/unknown-service", "/etcdserverpb.Nothing/Range").refused("Unimplemented: unknown service etcdserverpb.Nothing"),
		named("protocol/unknown-service-foreign", "/a.b.C/d").refused("Unimplemented: unknown service a.b.C"),
		named("protocol/unknown-service-deep", "/a/b/c").refused("Unimplemented: unknown service a/b"),
		named("protocol/reflection-not-offered", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo").refused("Unimplemented: unknown service grpc.reflection.v1.ServerReflection"),
		named("protocol/malformed-path", "/nothing").refused(`Unimplemented: malformed method name: "/nothing"`),
		named("protocol/root-path", "/").refused(`Unimplemented: malformed method name: "/"`),

		getA("protocol/hasleader").with("hasleader", "true"),
		getA("protocol/hasleader-false").with("hasleader", "false"),
		getA("protocol/client-version").with("client-api-version", "3.7"),
		getA("protocol/client-version-odd").with("client-api-version", "not a version"),
		getA("protocol/token-without-auth").with("token", "whatever"),
		getA("protocol/authorization-without-auth").with("authorization", "Bearer whatever"),
		getA("protocol/foreign-metadata").with("x-trace", "1", "x-data-bin", "\x00\xff"),
		getA("protocol/metadata-4k").with("x-long", filled(4096)),

		// The content type names the codec; only protobuf is known.
		{id: "protocol/content-subtype", method: kvRange, request: &pb.RangeRequest{Key: b("a")}, options: []grpc.CallOption{grpc.CallContentSubtype("proto")}},
		{id: "protocol/gzip", method: kvRange, request: &pb.RangeRequest{Key: b("a")}, options: []grpc.CallOption{grpc.UseCompressor(gzip.Name)}},

		// Bytes that are no protobuf.
		raw("protocol/malformed-truncated-length", kvRange, 0x0a, 0x05, 'a').refused(malformed("unexpected EOF")),
		raw("protocol/malformed-truncated-varint", kvRange, 0x0a, 0x01, 'a', 0x18, 0x80).refused(malformed("unexpected EOF")),
		raw("protocol/malformed-truncated-tag", kvRange, 0x80).refused(malformed("unexpected EOF")),
		raw("protocol/malformed-field-zero", kvRange, 0x02, 0x01, 'a').refused(malformed("proto: RangeRequest: illegal tag 0 (wire type 2)")),
		raw("protocol/malformed-end-group", kvRange, 0x0c).refused(malformed("proto: RangeRequest: wiretype end group for non-group")),
		raw("protocol/malformed-wire-type-6", kvRange, 0x0e).refused(malformed("proto: wrong wireType = 6 for field Key")),
		raw("protocol/malformed-varint-11-bytes", kvRange, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01).refused(malformed("proto: integer overflow")),
		raw("protocol/malformed-wrong-wire-type", kvRange, 0x08, 0x01).refused(malformed("proto: wrong wireType = 0 for field Key")),
		raw("protocol/malformed-nested-garbage", kvTxn, 0x12, 0x03, 0x0a, 0x05, 'a').refused(malformed("unexpected EOF")),
		raw("protocol/malformed-put-garbage", kvPut, 0xff, 0xff, 0xff).refused(malformed("unexpected EOF")),
		getA("protocol/still-works"),
	}
}

// malformed is etcd's refusal of bytes that are no such message.
func malformed(why string) string {
	return "Internal: grpc: error unmarshalling request: " + why
}

// memberSteps: what a client needs to know a member.
func memberSteps() []step {
	page := func(id, path string) step { return step{id: id, web: &web{method: http.MethodGet, path: path}} }
	with := func(id, method, path string, want string) step {
		return step{id: id, web: &web{method: method, path: path}, want: want}
	}
	check := func(id, service string) step {
		return step{id: id, method: healthCheck, request: &health.HealthCheckRequest{Service: service}}
	}
	watch := func(id, service string) step {
		return step{id: id, method: healthWatch, request: &health.HealthCheckRequest{Service: service}, first: true}
	}
	alarms := func(id string, request *pb.AlarmRequest) step {
		return step{id: id, method: alarm, request: request}
	}
	return []step{
		{id: "member/status", method: status_, request: &pb.StatusRequest{}},
		{id: "member/list", method: memberList, request: &pb.MemberListRequest{}},
		{id: "member/list-linearizable", method: memberList, request: &pb.MemberListRequest{Linearizable: true}},
		set("member/put", "a", "1"),
		{id: "member/list-after-put", method: memberList, request: &pb.MemberListRequest{Linearizable: true}},
		raw("member/list-unknown-field", memberList, 0xa0, 0x06, 0x01),
		alarms("member/alarms", &pb.AlarmRequest{}),
		alarms("member/alarms-nospace", &pb.AlarmRequest{Alarm: pb.AlarmType_NOSPACE}),
		alarms("member/alarms-corrupt", &pb.AlarmRequest{Alarm: pb.AlarmType_CORRUPT}),
		alarms("member/alarms-of-member", &pb.AlarmRequest{MemberID: 77}),
		{id: "member/status-after-put", method: status_, request: &pb.StatusRequest{}},
		step{id: "member/move-leader-unknown", method: moveLeader, request: &pb.MoveLeaderRequest{TargetID: 77}}.
			refused("FailedPrecondition: etcdserver: bad leader transferee"),
		check("member/health", ""),
		check("member/health-unknown", "nothing").refused("NotFound: unknown service"),
		check("member/health-kv", "etcdserverpb.KV").refused("NotFound: unknown service"),
		watch("member/health-watch", ""),
		watch("member/health-watch-unknown", "nothing"),

		page("member/http-health", "/health"),
		page("member/http-health-serializable", "/health?serializable=true"),
		page("member/http-health-linearizable", "/health?serializable=false"),
		page("member/http-health-exclude", "/health?exclude=NOSPACE"),
		page("member/http-health-exclude-several", "/health?exclude=NOSPACE&exclude=CORRUPT"),
		page("member/http-health-exclude-unknown", "/health?exclude=NOTHING"),
		page("member/http-version", "/version"),
		page("member/http-livez", "/livez"),
		page("member/http-livez-verbose", "/livez?verbose"),
		page("member/http-livez-check", "/livez/serializable_read"),
		page("member/http-readyz", "/readyz"),
		page("member/http-readyz-linearizable", "/readyz/linearizable_read"),
		with("member/http-readyz-unknown", http.MethodGet, "/readyz/nothing", "404"),
		with("member/http-health-post", http.MethodPost, "/health", "405"),
		with("member/http-health-head", http.MethodHead, "/health", "405"),
		with("member/http-health-delete", http.MethodDelete, "/health", "405"),
		with("member/http-version-post", http.MethodPost, "/version", "405"),
		with("member/http-unknown", http.MethodGet, "/nothing", "404"),
		with("member/http-root", http.MethodGet, "/", "404"),
		with("member/http-options", http.MethodOptions, "/health", ""),
		with("member/http-options-unknown", http.MethodOptions, "/nothing", ""),
		{id: "member/http-cors-origin", web: &web{method: http.MethodGet, path: "/health", header: http.Header{"Origin": {"http://example.com"}}}},
		with("member/http-health-slash", http.MethodGet, "/health/", "404"),
	}
}

// newerSteps: what the reference does not have yet.
func newerSteps() []step {
	type named struct {
		name    string
		request *pb.RangeRequest
	}
	var steps []step
	// Twelve keys, so that a stream has more than one chunk.
	for i := range 12 {
		steps = append(steps, set(fmt.Sprintf("newer/seed-%d", i), fmt.Sprintf("k%02d", i), fmt.Sprintf("v%d", i)))
	}
	steps = append(steps, remove("newer/seed-deleted", &pb.DeleteRangeRequest{Key: b("k03")}), set("newer/seed-again", "k05", "changed"))

	// A stream in pieces says what one answer says.
	for _, one := range []named{
		{"everything", &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}},
		{"one-key", &pb.RangeRequest{Key: b("k01")}},
		{"missing", &pb.RangeRequest{Key: b("missing")}},
		{"empty-interval", &pb.RangeRequest{Key: b("z"), RangeEnd: b("a")}},
		{"limit", &pb.RangeRequest{Key: b("k"), RangeEnd: b("l"), Limit: 3}},
		{"limit-all", &pb.RangeRequest{Key: b("k"), RangeEnd: b("l"), Limit: 11}},
		{"limit-across", &pb.RangeRequest{Key: b("k"), RangeEnd: b("l"), Limit: 10}},
		{"limit-negative", &pb.RangeRequest{Key: b("k"), RangeEnd: b("l"), Limit: -1}},
		{"revision", &pb.RangeRequest{Key: b("k"), RangeEnd: b("l"), Revision: 9}},
		{"revision-limit", &pb.RangeRequest{Key: b("k"), RangeEnd: b("l"), Revision: 13, Limit: 11}},
		{"revision-negative", &pb.RangeRequest{Key: b("k"), RangeEnd: b("l"), Revision: -1}},
		{"keys-only", &pb.RangeRequest{Key: b("k"), RangeEnd: b("l"), KeysOnly: true}},
		{"count-only", &pb.RangeRequest{Key: b("k"), RangeEnd: b("l"), CountOnly: true}},
		{"serializable", &pb.RangeRequest{Key: b("k"), RangeEnd: b("l"), Serializable: true}},
		{"key-ascending", &pb.RangeRequest{Key: b("k"), RangeEnd: b("l"), SortOrder: pb.RangeRequest_ASCEND}},
		{"open-end", &pb.RangeRequest{Key: b("k05"), RangeEnd: []byte{0}}},
		{"refused-empty-key", &pb.RangeRequest{}},
		{"refused-future", &pb.RangeRequest{Key: b("k"), Revision: 99}},
		{"refused-future-all", &pb.RangeRequest{Key: b("k"), RangeEnd: b("l"), Revision: 99, CountOnly: true}},
	} {
		equivalent := get("newer/range-"+one.name, one.request)
		steps = append(steps, step{id: "newer/stream-" + one.name, method: kvRangeStream, request: one.request}.as("3.7", equivalent))
	}
	for _, one := range []named{
		{"descending", &pb.RangeRequest{Key: b("k"), SortOrder: pb.RangeRequest_DESCEND}},
		{"by-version", &pb.RangeRequest{Key: b("k"), SortOrder: pb.RangeRequest_ASCEND, SortTarget: pb.RangeRequest_VERSION}},
		{"by-value", &pb.RangeRequest{Key: b("k"), SortOrder: pb.RangeRequest_DESCEND, SortTarget: pb.RangeRequest_VALUE}},
		{"by-mod", &pb.RangeRequest{Key: b("k"), SortOrder: pb.RangeRequest_ASCEND, SortTarget: pb.RangeRequest_MOD}},
		{"with-filters", &pb.RangeRequest{Key: b("k"), SortOrder: pb.RangeRequest_DESCEND, MinModRevision: 1}},
	} {
		steps = append(steps, step{id: "newer/stream-sort-" + one.name, method: kvRangeStream, request: one.request}.
			refused("Unimplemented: RangeStream does not support custom sort orders").since("3.7"))
	}
	for _, filter := range filters {
		request := &pb.RangeRequest{Key: b("k"), RangeEnd: b("l")}
		filter.set(request, 3)
		steps = append(steps, step{id: "newer/stream-filter-" + filter.name, method: kvRangeStream, request: request}.
			refused("Unimplemented: RangeStream does not support revision filters").since("3.7"))
	}
	// Numbers that no sort option has.
	for i, request := range []*pb.RangeRequest{
		{Key: b("k"), SortOrder: 3}, {Key: b("k"), SortTarget: 5}, {Key: b("k"), SortOrder: -1}, {Key: b("k"), SortTarget: -1, SortOrder: 99},
		{Key: b("k"), SortOrder: 7, CountOnly: true}, {Key: b("k"), SortOrder: 3, Revision: 99},
	} {
		steps = append(steps,
			get(fmt.Sprintf("newer/sort-unknown-%d", i), request).refused(badSortOption).since("3.6"),
			txn(fmt.Sprintf("newer/sort-unknown-txn-%d", i), &pb.TxnRequest{Failure: ops(opRange(request))}).refused(badSortOption).since("3.6"))
	}
	return append(steps,
		get("newer/sort-unknown-empty-key", &pb.RangeRequest{SortOrder: 3}).refused(emptyKey).since("3.6"),
		step{id: "newer/stream-sort-unknown", method: kvRangeStream, request: &pb.RangeRequest{Key: b("k"), SortOrder: 3}}.refused(badSortOption).since("3.7"),
		all("newer/content"),
	)
}
