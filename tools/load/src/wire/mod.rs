//! HTTP/2 and gRPC by hand, non-blocking, one turn at a time.
