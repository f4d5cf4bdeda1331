//! What a request costs before it does anything.

use apiserver::server::walk::walk;
use axum::body::Body;
use http::Request;

use crate::Fixture;

/// The state of a request is moved when it begins, and is as large as the largest of all ways that it may go: what is on
/// few requests' way belongs on the heap.
#[tokio::test]
async fn the_state_of_a_request_is_small() {
    let fixture = Fixture::new().await;
    let request = Request::get("/api/v1/pods").body(Body::empty()).unwrap();
    let state = size_of_val(&walk(fixture.handle.server.clone(), request));
    assert!(state <= 4 * 1024, "{state} bytes");
}
