//! What a server tells of itself, and in which forms it tells what it serves.

use apiserver::UserInfo;
use axum::body::Body;
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::Fixture;

/// A GET with an Accept header: code, media type, entity tag and body.
async fn accepting(server: &Fixture, path: &str, accept: &str) -> (u16, String, String, Vec<u8>) {
    let request = Request::get(path).header("accept", accept).body(Body::empty()).unwrap();
    let answer = server.handle.admin_router().oneshot(request).await.unwrap();
    let header =
        |name: &str| answer.headers().get(name).map_or(String::new(), |value| value.to_str().unwrap().to_string());
    let (code, media_type, tag) = (answer.status().as_u16(), header("content-type"), header("etag"));
    (code, media_type, tag, answer.into_body().collect().await.unwrap().to_bytes().to_vec())
}

#[tokio::test]
async fn pages_of_the_server() {
    let flags = [("v", "0"), ("advertise-address", ""), ("external-hostname", "")];
    let server = Fixture::with(|config| {
        config.advertise_address = Some("192.0.2.7".parse().unwrap());
        config.flags = Some(flags.map(|(name, value)| (name.to_string(), value.to_string())).into());
    })
    .await;
    let paths = server.get("/").await.body["paths"].clone();
    for path in ["/flagz", "/statusz"] {
        assert!(paths.as_array().unwrap().contains(&path.into()), "{paths}");
        let text = server.get(path).await.text;
        assert!(text.starts_with(&format!("\napiserver {}\nWarning: ", &path[1..])), "{text}");
        // The mux knows these paths and nothing below them, and no method from another.
        assert_eq!(server.get(&format!("{path}/")).await.code, 404);
        assert_eq!(server.ask("POST", path, "", Body::empty()).await.code, 200);
        let monitoring = UserInfo::new("prometheus", &["system:monitoring", "system:authenticated"]);
        assert_eq!(server.get_as(monitoring, path).await.code, 200);
        let other = UserInfo::new("somebody", &["system:authenticated"]);
        assert_eq!(server.get_as(other, path).await.code, 403);
    }
    let form = |kind: &str| format!("application/json;g=config.k8s.io;v=v1beta1;as={kind}");
    let (code, media_type, _, body) = accepting(&server, "/statusz", &form("Statusz")).await;
    assert_eq!((code, media_type), (200, form("Statusz")));
    let status: Value = serde_json::from_slice(&body).unwrap();
    let paths = ["/flagz", "/healthz", "/livez", "/metrics", "/readyz", "/statusz", "/version"];
    assert_eq!(status["paths"], json!(paths));
    let (_, _, _, body) = accepting(&server, "/flagz", &form("Flagz")).await;
    let told: Value = serde_json::from_slice(&body).unwrap();
    let found = json!({"v": "0", "advertise-address": "192.0.2.7", "external-hostname": "192.0.2.7"});
    assert_eq!(told["flags"], found, "addresses are those that are in use");
    assert_eq!(accepting(&server, "/flagz", "application/json").await.0, 406);

    let server = Fixture::with(|config| config.feature_gates = vec![("ComponentStatusz".to_string(), false)]).await;
    assert_eq!(server.get("/statusz").await.code, 404);
    assert_eq!(server.get("/flagz").await.code, 404, "a server without flags has no page of them");
}

#[tokio::test]
async fn aggregated_discovery_in_every_form() {
    let server = Fixture::new().await;
    let form = |media_type: &str| format!("{media_type};g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    let (json_form, protobuf) = (form("application/json"), form("application/vnd.kubernetes.protobuf"));
    for path in ["/api", "/apis"] {
        let (code, media_type, tag, text) = accepting(&server, path, &json_form).await;
        assert_eq!((code, media_type), (200, json_form.clone()));
        let tree: Value = serde_json::from_slice(&text).unwrap();
        // Plain objects stand behind, whatever their place.
        for accept in [protobuf.clone(), format!("{protobuf},application/json"), format!("application/json,{protobuf}")]
        {
            let (code, media_type, same, bytes) = accepting(&server, path, &accept).await;
            assert_eq!((code, media_type, &same), (200, protobuf.clone(), &tag), "{accept}");
            let (version, kind, raw) = apiserver::codec::protobuf::open(&bytes).unwrap();
            assert_eq!((version.as_str(), kind.as_str()), ("apidiscovery.k8s.io/v2", "APIGroupDiscoveryList"));
            let ty = api::table().find_kind("apidiscovery.k8s.io", "v2", &kind).unwrap();
            assert_eq!(api::protobuf::decode(ty, raw).unwrap()["items"], tree["items"]);
        }
        let (_, media_type, same, text) = accepting(&server, path, &form("application/yaml")).await;
        assert_eq!((media_type, &same), (form("application/yaml"), &tag));
        assert_eq!(apimachinery::yaml::parse(std::str::from_utf8(&text).unwrap()).unwrap(), tree);
        let (_, _, _, text) = accepting(&server, path, &format!("{json_form};pretty=1")).await;
        assert!(text.starts_with(b"{\n  \""));
        let older = "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
        assert_eq!(accepting(&server, path, older).await.0, 406);
    }
}
