//! Wire formats: CRI over gRPC, Kubernetes' protobuf envelope, SPDY/3.1 and WebSocket stream framing.
