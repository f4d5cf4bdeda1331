//! Hostile requests: certificates for other uses, headers that claim to come from the front proxy, paths that
//! would lead elsewhere, bodies that grow. Every answer here is one that upstream's kube-apiserver 1.36 gave to
//! the same request.

use std::net::SocketAddr;
use std::time::Duration;

use apiserver::config::RequestHeader;
use apiserver::server::in_process;
use axum::body::Body;
use component_base::serving::Peer;
use http::Request;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{Answer, Fixture};

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn leaf(&self, name: &str, group: &str, change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, group);
        if !name.is_empty() {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        params.signed_by(&KeyPair::generate().unwrap(), &self.issuer).unwrap().der().clone()
    }
}

struct World {
    server: Fixture,
    clients: Authority,
    proxies: Authority,
    _dir: tempfile::TempDir,
}

async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let (clients, proxies) = (Authority::new("kubernetes"), Authority::new("front-proxy-ca"));
    let (ca, front, tokens) = (dir.path().join("ca.crt"), dir.path().join("front.crt"), dir.path().join("tokens"));
    std::fs::write(&ca, &clients.pem).unwrap();
    std::fs::write(&front, &proxies.pem).unwrap();
    std::fs::write(&tokens, "secret,admin,1,system:masters\nplain,joe,2,dev\n").unwrap();
    let list = |name: &str| vec![name.to_string()];
    let server = Fixture::with(|config| {
        config.client_ca_file = Some(ca);
        config.token_auth_file = Some(tokens);
        config.request_header = RequestHeader {
            client_ca_file: Some(front),
            allowed_names: list("front-proxy-client"),
            username_headers: list("X-Remote-User"),
            uid_headers: list("X-Remote-Uid"),
            group_headers: list("X-Remote-Group"),
            extra_headers_prefixes: list("X-Remote-Extra-"),
        };
    })
    .await;
    World { server, clients, proxies, _dir: dir }
}

impl World {
    async fn ask(&self, path: &str, headers: &[(&str, &str)], cert: Option<&CertificateDer<'static>>) -> Answer {
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
        let (method, body) =
            if path == WHO { ("POST", Body::from(review.to_string())) } else { ("GET", Body::empty()) };
        let mut request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.header("host", "localhost").body(body).unwrap();
        let peer = Peer::new(SocketAddr::from(([127, 0, 0, 1], 1)), cert.into_iter().cloned().collect());
        request.extensions_mut().insert(peer);
        Fixture::send_to(in_process::public(self.server.handle.server.clone()), request).await
    }

    /// Who the server takes this for: a name and groups, or a status code.
    async fn who(&self, headers: &[(&str, &str)], cert: Option<&CertificateDer<'static>>) -> Value {
        let answer = self.ask(WHO, headers, cert).await;
        let user = &answer.body["status"]["userInfo"];
        if answer.code == 201 { json!([user["username"], user["groups"][0]]) } else { answer.code.into() }
    }
}

const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const JOE: (&str, &str) = ("authorization", "Bearer plain");
const ROOT: [(&str, &str); 3] =
    [("x-remote-user", "root"), ("x-remote-group", "ops"), ("x-remote-extra-acme.com%2fa", "b")];

#[tokio::test]
async fn certificates_are_for_what_they_are_for() {
    let world = world().await;
    let (clients, proxies) = (&world.clients, &world.proxies);
    let usage =
        |usage: ExtendedKeyUsagePurpose| move |params: &mut CertificateParams| params.extended_key_usages = vec![usage];
    let past = |params: &mut CertificateParams| params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let future = |params: &mut CertificateParams| params.not_before = rcgen::date_time_ymd(4000, 1, 1);
    let good = clients.leaf("ada", "dev", |_| {});
    let proxy = proxies.leaf("front-proxy-client", "x", |_| {});
    assert_eq!(world.who(&[], Some(&good)).await, json!(["ada", "dev"]));
    assert_eq!(world.who(&ROOT, Some(&good)).await, json!(["ada", "dev"]), "who is not the proxy speaks for itself");
    assert_eq!(world.who(&[JOE], Some(&good)).await, json!(["ada", "dev"]), "the certificate comes first");
    let bad = [
        ("a server's", clients.leaf("srv", "system:masters", usage(ExtendedKeyUsagePurpose::ServerAuth))),
        ("for code", clients.leaf("code", "system:masters", usage(ExtendedKeyUsagePurpose::CodeSigning))),
        ("expired", clients.leaf("old", "system:masters", past)),
        ("not yet good", clients.leaf("new", "system:masters", future)),
        ("of an authority of the same name", Authority::new("kubernetes").leaf("evil", "system:masters", |_| {})),
        ("nameless", clients.leaf("", "system:masters", |_| {})),
        ("the proxy's own", proxy.clone()),
        ("of another proxy", proxies.leaf("somebody", "x", |_| {})),
    ];
    for (what, cert) in &bad {
        assert_eq!(world.who(&[], Some(cert)).await, 401, "{what}");
        assert_eq!(world.who(&[JOE], Some(cert)).await, json!(["joe", "dev"]), "{what}: a token may still be good");
        let expected = if *what == "the proxy's own" { json!(["root", "ops"]) } else { json!(401) };
        assert_eq!(world.who(&ROOT, Some(cert)).await, expected, "{what}, with the proxy's headers");
    }
    let serving = proxies.leaf("front-proxy-client", "x", usage(ExtendedKeyUsagePurpose::ServerAuth));
    assert_eq!(world.who(&ROOT, Some(&serving)).await, 401, "a serving certificate makes no proxy");
}

#[tokio::test]
async fn headers_are_not_believed_from_anybody() {
    let world = world().await;
    let proxy = world.proxies.leaf("front-proxy-client", "x", |_| {});
    assert_eq!(world.who(&ROOT, None).await, 403, "anonymous");
    assert_eq!(world.who(&[JOE, ROOT[0], ("x-remote-group", "system:masters")], None).await, json!(["joe", "dev"]));
    for (what, headers) in [
        ("an empty name", &[("x-remote-user", ""), ("x-remote-group", "ops")][..]),
        ("groups alone", &[("x-remote-group", "system:masters")]),
        ("underscores", &[("x_remote_user", "root")]),
    ] {
        assert_eq!(world.who(headers, Some(&proxy)).await, 401, "{what}");
    }
    let two = [("x-remote-user", "a"), ("x-remote-user", "b")];
    assert_eq!(world.who(&two, Some(&proxy)).await, json!(["a", "system:authenticated"]), "the first one counts");
    let many: Vec<(String, String)> = (0..5000).map(|i| ("x-remote-group".into(), format!("g{i}"))).collect();
    let mut headers: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    headers.push(("x-remote-user", "huge"));
    assert_eq!(world.who(&headers, Some(&proxy)).await, json!(["huge", "g0"]), "five thousand groups");

    for (header, expected) in [
        ("Basic YTpi", json!(403)),
        ("Bearer ", json!(403)),
        ("plain", json!(403)),
        ("Bearer  plain", json!(403)),
        ("bearer plain", json!(["joe", "dev"])),
        ("Bearer plain x", json!(["joe", "dev"])),
        ("Bearer wrong", json!(401)),
    ] {
        assert_eq!(world.who(&[("authorization", header)], None).await, expected, "{header}");
    }
    let blank = world.ask(WHO, &[("authorization", "Bearer  plain")], None).await;
    assert!(blank.warnings[0].contains("extra space before the bearer token"), "{:?}", blank.warnings);
    let admin = ("authorization", "Bearer secret");
    assert_eq!(world.who(&[JOE, ("impersonate-user", "root")], None).await, 403);
    assert_eq!(world.who(&[admin, ("impersonate-group", "x")], None).await, 400, "groups of nobody");
    assert_eq!(world.who(&[admin, ("impersonate-user", "")], None).await, json!(["admin", "system:masters"]));
}

#[tokio::test]
async fn paths_lead_where_they_say() {
    let world = world().await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}});
    assert_eq!(world.server.post("/api/v1/namespaces/kube-system/secrets", &secret).await.code, 201);
    let unknown = "the server could not find the requested resource";
    let page = "404 page not found\n";
    for (path, code, message) in [
        ("//api/v1/namespaces/kube-system/secrets/s", 404, page),
        ("//version", 404, page),
        ("/api//v1/namespaces", 404, unknown),
        ("/api/v1//namespaces", 404, unknown),
        ("/api/v1/namespaces/default/../kube-system/secrets", 404, unknown),
        ("/api/v1/namespaces/default/./secrets", 404, unknown),
        ("/api/v1/namespaces/default%2f..%2fkube-system/secrets", 404, unknown),
        ("/api/v1/namespaces/default/secrets/a%2fb", 404, unknown),
        ("/api/v1/namespaces/default/configmaps/../pods", 404, unknown),
        ("/api/v1/namespaces/default/secrets/..", 400, "Name parameter invalid: \"..\": may not be '..'"),
        ("/api/v1/namespaces/default/secrets/.", 400, "Name parameter invalid: \".\": may not be '.'"),
        ("/api/v1/namespaces/default/secrets/a%25b", 400, "Name parameter invalid: \"a%b\": may not contain '%'"),
        ("/api/v1/namespaces/default/secrets;a=b", 404, unknown),
        ("/api/v1/namespaces/default/secrets%3Bx", 404, unknown),
        ("/api/v1/namespaces/%2e%2e/secrets", 500, "invalid key: \"/secrets/..\""),
        ("/api/v1/namespaces/default/secrets/%", 400, "400 Bad Request"),
        ("/healthz/../api/v1", 404, page),
        ("/livez%2f..", 404, page),
        ("/API/V1/namespaces", 404, page),
        ("/api/v1/NAMESPACES", 404, unknown),
        ("/api/v1/namespaces/default/secrets/a/b/c/d", 404, unknown),
        ("/api/v1/watch/namespaces/default/../kube-system/secrets", 404, unknown),
    ] {
        let answer = world.ask(path, &[("authorization", "Bearer secret")], None).await;
        assert_eq!((answer.code, answer.message()), (code, message), "{path}");
        // Who may do nothing learns nothing, whatever the path.
        let joe = world.ask(path, &[JOE], None).await;
        assert!(matches!(joe.code, 403 | 400) && !joe.text.contains("SecretList"), "{path}: {}", joe.text);
    }
    for path in ["/api/v1/namespaces/kube-system%2Fsecrets", "/api/v1/namespaces/kube-system/secrets//"] {
        let answer = world.ask(path, &[("authorization", "Bearer secret")], None).await;
        assert_eq!(answer.body["items"].as_array().map(Vec::len), Some(1), "{path}");
        assert_eq!(world.ask(path, &[JOE], None).await.code, 403, "{path}");
    }
}

#[tokio::test]
async fn bodies_stay_as_small_as_they_come() {
    let server = Fixture::new().await;
    let maps = "/api/v1/namespaces/default/configmaps?dryRun=All";
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "z"}}).to_string();
    let gzip = |bytes: &[u8]| {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let send = async |encoding: &str, body: Vec<u8>| {
        let request =
            Request::post(maps).header("content-type", "application/json").header("content-encoding", encoding);
        server.send(request.body(Body::from(body)).unwrap()).await
    };
    // Nothing is unpacked: fifty megabytes stay fifty kilobytes.
    for bytes in [gzip(map.as_bytes()), gzip(&vec![b'x'; 50 << 20])] {
        let answer = send("gzip", bytes).await;
        assert_eq!(answer.code, 400, "{}", answer.message());
        assert!(answer.message().contains("invalid character '\\x1f' looking for beginning of value"));
    }
    assert_eq!(send("identity", map.clone().into_bytes()).await.code, 201);
    let long = format!("{}{}", " ".repeat(3 << 20), map);
    let answer = send("identity", long.into_bytes()).await;
    assert_eq!((answer.code, answer.message()), (413, "Request entity too large: limit is 3145728"));
    let mut bomb = String::from("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: z}\na0: &a0 [x,x,x,x,x,x,x,x,x]\n");
    for level in 1..9 {
        let last = vec![format!("*a{}", level - 1); 9].join(",");
        bomb += &format!("a{level}: &a{level} [{last}]\n");
    }
    let answer = server.ask("POST", maps, "application/yaml", bomb).await;
    assert_eq!(answer.code, 400);
    assert!(answer.message().contains("excessive aliasing"), "{}", answer.message());
}

/// What a server on a socket answers to these bytes before it closes, or within ten seconds.
async fn raw(address: SocketAddr, tls: &tokio_rustls::TlsConnector, bytes: &[u8]) -> String {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut stream = tls.connect("localhost".try_into().unwrap(), stream).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let mut out = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut out)).await;
    String::from_utf8_lossy(&out).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_do_not_wait_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let storage = apiserver::storage::embedded::Embedded::open(apiserver::storage::embedded::Options {
        sync: false,
        ..apiserver::storage::embedded::Options::new(dir.path())
    })
    .unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let tokens = dir.path().join("tokens");
    std::fs::write(&tokens, "secret,admin,1,system:masters\n").unwrap();
    let config = apiserver::Config {
        token_auth_file: Some(tokens),
        authorization_modes: vec![apiserver::config::AuthorizationMode::Rbac],
        bind_address: [127, 0, 0, 1].into(),
        secure_port: 0,
        cert_dir: dir.path().join("certs"),
        reconcile_endpoints: false,
        request_timeout: Duration::from_millis(500),
        ..apiserver::Config::default()
    };
    let handle = apiserver::Server::start_on(config, std::sync::Arc::new(storage), stop.clone()).await.unwrap();
    let pem = handle.serving_cert_pem.clone().unwrap();
    let mut config = (*component_base::tls::client_config(pem.as_bytes(), None).unwrap()).clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let tls = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let first = |text: &str| text.lines().next().unwrap_or_default().to_string();

    // Hundreds who say nothing, half a request line, or half a body, do not keep others out.
    let mut idle = Vec::new();
    for index in 0..200 {
        let stream = tokio::net::TcpStream::connect(handle.addr).await.unwrap();
        if index % 2 == 0 {
            idle.push((Some(stream), None));
            continue;
        }
        let mut stream = tls.connect("localhost".try_into().unwrap(), stream).await.unwrap();
        stream.write_all(b"GET /ver").await.unwrap();
        idle.push((None, Some(stream)));
    }
    let version = b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(first(&raw(handle.addr, &tls, version).await), "HTTP/1.1 200 OK");
    let half =
        b"POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
        Authorization: Bearer secret\r\nConnection: close\r\nContent-Length: 1000\r\n\r\n{\"apiVersion\":";
    let answer = raw(handle.addr, &tls, half).await;
    assert_eq!(first(&answer), "HTTP/1.1 504 Gateway Timeout", "{answer}");
    assert!(answer.contains("request did not complete within the allotted timeout"), "{answer}");

    for (bytes, expected) in [
        (&b"GET /version HTTP/1.1\r\nConnection: close\r\n\r\n"[..], "HTTP/1.1 400 Bad Request"),
        (b"GET version HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        (b"nonsense\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        (b"GET /version HTTP/1.0\r\n\r\n", "HTTP/1.0 200 OK"),
    ] {
        assert_eq!(first(&raw(handle.addr, &tls, bytes).await), expected, "{}", String::from_utf8_lossy(bytes));
    }
    let big = format!("GET /version HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: {}\r\n\r\n", "v".repeat(900_000));
    assert_eq!(first(&raw(handle.addr, &tls, big.as_bytes()).await), "HTTP/1.1 200 OK", "Go allows a megabyte");
    let many: String = (0..1000).map(|index| format!("X-{index}: {index}\r\n")).collect();
    let many = format!("GET /version HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{many}\r\n");
    assert_eq!(first(&raw(handle.addr, &tls, many.as_bytes()).await), "HTTP/1.1 200 OK", "a thousand headers");
    let over = format!("GET /version HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "v".repeat(1_060_000));
    let answer = raw(handle.addr, &tls, over.as_bytes()).await;
    assert_eq!(first(&answer), "HTTP/1.1 431 Request Header Fields Too Large");
    assert!(answer.ends_with("\r\n\r\n431 Request Header Fields Too Large"), "{answer}");
    let bigger = format!("GET /version HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "v".repeat(8_000_000));
    let answer = first(&raw(handle.addr, &tls, bigger.as_bytes()).await);
    assert!(answer.is_empty() || answer.contains("431"), "{answer}");
    drop(idle);
    stop.cancel();
}
