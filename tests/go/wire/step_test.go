package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sort"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	// The services that the script calls, found by name in the registry.
	_ "google.golang.org/grpc/health/grpc_health_v1"

	"kontiki/tests/member"
)

// callTimeout bounds one request; both servers answer within milliseconds.
const callTimeout = 20 * time.Second

// step is one request of the script, and whether it is meant to be accepted.
type step struct {
	// id names the request in reports and in the table of differences; unique in the whole script.
	id string
	// method is the gRPC path, such as /etcdserverpb.KV/Range.
	method string
	// request is the message; raw, when not nil, replaces its bytes.
	request proto.Message
	raw     []byte
	// metadata are pairs of names and values sent with the request.
	metadata []string
	// options are further call options, such as a compressor.
	options []grpc.CallOption
	// first stops a server stream after its first message.
	first bool
	// web, when not nil, makes this an HTTP/1.1 request instead.
	web *web
	// want is empty for a request that must be accepted, otherwise "Code: message" (or, for HTTP, the
	// status code). It keeps the script honest: both servers failing alike is not agreement.
	want string
	// undecided is set where either may be right, and only agreement counts.
	undecided bool
	// newer is set where the reference is too old to be asked.
	newer *newer
}

// newer says what a feature that the reference does not have must answer.
type newer struct {
	// since is the version that brought the feature.
	since string
	// equivalent is what the reference is asked instead; the answers must agree. Nil: only want counts.
	equivalent *step
}

// web is an HTTP/1.1 request to the client port.
type web struct {
	method string
	path   string
	header http.Header
	body   string
}

// refused says with which code and message a step must fail.
func (s step) refused(want string) step {
	s.want = want
	return s
}

// since makes a step one of a feature newer than the reference, judged by `want` alone.
func (s step) since(version string) step {
	s.newer = &newer{since: version}
	return s
}

// as makes a step one of a newer feature whose answer must agree with the reference's to another one.
func (s step) as(version string, equivalent step) step {
	s.newer = &newer{since: version, equivalent: &equivalent}
	return s
}

// with adds request metadata.
func (s step) with(pairs ...string) step {
	s.metadata = append(s.metadata, pairs...)
	return s
}

// outcome is everything a client sees of one answer, as field paths and printed values. A message that
// is present and empty has an entry, too.
type outcome map[string]string

// verdict is the outcome in the form of step.want.
func (o outcome) verdict() string {
	if o["http.status"] != "" {
		if o["http.status"] == "200" {
			return ""
		}
		return o["http.status"]
	}
	if o["status.code"] == codes.OK.String() {
		return ""
	}
	return o["status.code"] + ": " + o["status.message"]
}

// paths are the field paths in a fixed order.
func (o outcome) paths() []string {
	paths := make([]string, 0, len(o))
	for path := range o {
		paths = append(paths, path)
	}
	sort.Strings(paths)
	return paths
}

// bytesCodec hands message bytes through, so that malformed requests can be sent and answers are decoded
// here, with their unknown fields. Its empty name keeps the content type `application/grpc`.
type bytesCodec struct{}

func (bytesCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (bytesCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte{}, data...)
	return nil
}
func (bytesCodec) Name() string { return "" }

// ask puts one step to one member.
func ask(connection *grpc.ClientConn, m *member.Member, s step) (outcome, error) {
	if s.web != nil {
		return askWeb(m, *s.web)
	}
	return askGRPC(connection, s)
}

func askGRPC(connection *grpc.ClientConn, s step) (outcome, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if len(s.metadata) > 0 {
		ctx = metadata.AppendToOutgoingContext(ctx, s.metadata...)
	}
	body := s.raw
	if body == nil {
		marshalled, err := proto.MarshalOptions{Deterministic: true}.Marshal(s.request)
		if err != nil {
			return nil, err
		}
		body = marshalled
	}
	options := append([]grpc.CallOption{grpc.ForceCodec(bytesCodec{})}, s.options...)
	descriptor := methodNamed(s.method)
	description := &grpc.StreamDesc{ServerStreams: true}
	// One way of calling for unary and streaming methods: it shows headers and trailers of both.
	stream, err := connection.NewStream(ctx, description, s.method, options...)
	if err != nil {
		return nil, err
	}
	if err := stream.SendMsg(&body); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if err := stream.CloseSend(); err != nil {
		return nil, err
	}
	var merged proto.Message
	count := 0
	var failure error
	for {
		var answer []byte
		failure = stream.RecvMsg(&answer)
		if failure != nil {
			break
		}
		count++
		if descriptor == nil {
			return nil, fmt.Errorf("%s answered %d bytes, but no such method is known here", s.method, len(answer))
		}
		next, err := decode(descriptor, answer)
		if err != nil {
			return nil, err
		}
		if merged == nil {
			merged = next
		} else {
			// How a stream is cut into messages is the server's business; what it says in all is not.
			proto.Merge(merged, next)
		}
		if s.first {
			break
		}
	}
	result := outcome{}
	header, err := stream.Header()
	if err == nil {
		addMetadata(result, "metadata", header)
	}
	if s.first && failure == nil {
		result["status.code"] = codes.OK.String()
	} else {
		if errors.Is(failure, io.EOF) {
			failure = nil
		}
		st, _ := status.FromError(failure)
		result["status.code"] = st.Code().String()
		result["status.message"] = st.Message()
		for i, detail := range st.Proto().GetDetails() {
			result[fmt.Sprintf("status.details[%d]", i)] = detail.String()
		}
		addMetadata(result, "trailer", stream.Trailer())
	}
	if descriptor != nil && !descriptor.IsStreamingServer() && count > 1 {
		return nil, fmt.Errorf("%s answered %d messages", s.method, count)
	}
	if merged != nil {
		flatten(result, "response", merged.ProtoReflect())
		unwrapStream(result)
	}
	return result, nil
}

// unwrapStream drops the envelope of a streamed range, so that it compares with a plain one.
func unwrapStream(result outcome) {
	const envelope = "response.range_response"
	for _, path := range result.paths() {
		if rest, found := strings.CutPrefix(path, envelope); found {
			value := result[path]
			delete(result, path)
			result["response"+rest] = value
		}
	}
}

func methodNamed(path string) protoreflect.MethodDescriptor {
	service, method, found := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if !found {
		return nil
	}
	descriptor, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		return nil
	}
	owner, ok := descriptor.(protoreflect.ServiceDescriptor)
	if !ok {
		return nil
	}
	return owner.Methods().ByName(protoreflect.Name(method))
}

func decode(method protoreflect.MethodDescriptor, body []byte) (proto.Message, error) {
	kind, err := protoregistry.GlobalTypes.FindMessageByName(method.Output().FullName())
	if err != nil {
		return nil, err
	}
	message := kind.New().Interface()
	if err := proto.Unmarshal(body, message); err != nil {
		return nil, fmt.Errorf("the answer does not parse: %w", err)
	}
	return message, nil
}

// flatten writes every present field of a message under its path, unknown fields included.
func flatten(result outcome, path string, message protoreflect.Message) {
	result[path] = "present"
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		at := path + "." + string(field.Name())
		switch {
		case field.IsMap():
			result[at] = value.String()
		case field.IsList():
			list := value.List()
			result[at+".length"] = fmt.Sprint(list.Len())
			for i := range list.Len() {
				flattenValue(result, fmt.Sprintf("%s[%d]", at, i), field, list.Get(i))
			}
		default:
			flattenValue(result, at, field, value)
		}
		return true
	})
	if unknown := message.GetUnknown(); len(unknown) > 0 {
		result[path+".unknown"] = fmt.Sprintf("%x", []byte(unknown))
	}
}

func flattenValue(result outcome, path string, field protoreflect.FieldDescriptor, value protoreflect.Value) {
	switch field.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		flatten(result, path, value.Message())
	case protoreflect.BytesKind:
		result[path] = printBytes(value.Bytes())
	case protoreflect.EnumKind:
		result[path] = fmt.Sprint(value.Enum())
	default:
		result[path] = value.String()
	}
}

// printBytes shows short values as they are and long ones by length and ends.
func printBytes(value []byte) string {
	const shown = 64
	if len(value) <= 2*shown {
		return fmt.Sprintf("%q", value)
	}
	return fmt.Sprintf("%d bytes %q ... %q sum %d", len(value), value[:shown], value[len(value)-shown:], sum(value))
}

// sum tells long values apart that agree at both ends.
func sum(value []byte) uint64 {
	total := uint64(14695981039346656037)
	for _, b := range value {
		total = (total ^ uint64(b)) * 1099511628211
	}
	return total
}

func addMetadata(result outcome, prefix string, md metadata.MD) {
	for name, values := range md {
		result[prefix+"."+name] = strings.Join(values, ", ")
	}
}

func askWeb(m *member.Member, w web) (outcome, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, w.method, m.URL()+w.path, strings.NewReader(w.body))
	if err != nil {
		return nil, err
	}
	for name, values := range w.header {
		request.Header[name] = values
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	result := outcome{
		"http.status":   fmt.Sprint(response.StatusCode),
		"http.protocol": response.Proto,
		"http.body":     string(body),
	}
	for name, values := range response.Header {
		if name != "Date" {
			result["http.header."+name] = strings.Join(values, ", ")
		}
	}
	return result, nil
}
