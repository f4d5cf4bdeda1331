//! Wire formats: CRI and KMS plugins over gRPC, SPDY/3.1 and WebSocket stream framing.
//!
//! Nothing here does more than turn bytes into values and back; who dials whom is decided elsewhere.

pub mod remotecommand;
pub mod spdy;

/// The Container Runtime Interface (`runtime.v1`), as generated from `protos/cri/v1.proto`.
pub mod cri {
    #![allow(clippy::all, missing_docs)]
    tonic::include_proto!("runtime.v1");
}

/// The protocol of KMS plugins (`v2`), and what is stored of an object that such a plugin's key protects.
pub mod kms {
    #![allow(clippy::all, missing_docs)]
    tonic::include_proto!("v2");
}
