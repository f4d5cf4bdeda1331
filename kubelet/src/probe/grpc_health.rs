//! The one call of `grpc.health.v1.Health` that probes need, without generated code: its messages have
//! one field each.

use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

/// The status of a healthy service.
pub const SERVING: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// The word for a status.
pub fn name(status: i32) -> &'static str {
    match status {
        1 => "SERVING",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "UNKNOWN",
    }
}

/// Asks `address` about `service`; the error says what went wrong.
pub async fn check(address: &str, service: &str) -> Result<i32, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|e| e.to_string())?;
    let channel = endpoint.connect().await.map_err(|e| format!("failed to connect service {address:?}: {e}"))?;
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|e| e.to_string())?;
    let request = tonic::Request::new(HealthCheckRequest { service: service.to_owned() });
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let codec: ProstCodec<HealthCheckRequest, HealthCheckResponse> = ProstCodec::default();
    match client.unary(request, path, codec).await {
        Ok(response) => Ok(response.into_inner().status),
        Err(status) if status.code() == tonic::Code::Unimplemented => Err(format!(
            "this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
            status.message()
        )),
        Err(status) => Err(format!("health rpc probe failed: {}", status.message())),
    }
}
