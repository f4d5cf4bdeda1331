//! Encryption at rest: what is in the store, who can read it, and what happens when keys change.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use apiserver::storage::Storage as _;
use parking_lot::Mutex;
use proto::kms::key_management_service_server::{KeyManagementService, KeyManagementServiceServer};
use proto::kms::{DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse};
use serde_json::{Value, json};
use tonic::{Request, Response, Status};

use crate::{Answer, Fixture};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const KEY: &str = "/registry/secrets/default/s";
const ONE: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const TWO: &str = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";

struct File {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl File {
    fn new(rules: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = Self { path: dir.path().join("encryption.yaml"), _dir: dir };
        file.write(rules);
        file
    }

    fn write(&self, rules: &str) {
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n";
        let fresh = self.path.with_extension("new");
        std::fs::write(&fresh, format!("{head}{rules}\n")).unwrap();
        std::fs::rename(fresh, &self.path).unwrap();
    }
}

fn secret(value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"word": value}})
}

async fn stored(server: &Fixture, key: &str) -> Vec<u8> {
    server.storage.get(key, None).await.unwrap().unwrap().value.to_vec()
}

async fn metrics(server: &Fixture) -> String {
    server.get("/metrics").await.text
}

/// Puts the object back as it is.
async fn touch(server: &Fixture) -> Answer {
    let mut object = server.get(&format!("{SECRETS}/s")).await.body;
    object["metadata"].as_object_mut().unwrap().remove("managedFields");
    server.ask("PUT", &format!("{SECRETS}/s"), "application/json", object.to_string()).await
}

async fn eventually(what: &str, check: impl AsyncFn() -> bool) {
    for _ in 0..400 {
        if check().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{what}");
}

#[tokio::test]
async fn keys_are_rotated_and_stale_objects_rewritten() {
    let old = File::new(&format!(
        "- {{resources: [secrets], providers: [{{aescbc: {{keys: [{{name: one, secret: {ONE}}}]}}}}, {{identity: {{}}}}]}}"
    ));
    let path = old.path.clone();
    let server = Fixture::with(|config| config.encryption = Some((path, false))).await;
    assert_eq!(server.post(SECRETS, &secret("hidden")).await.code, 201);
    let bytes = stored(&server, KEY).await;
    assert!(bytes.starts_with(b"k8s:enc:aescbc:v1:one:"), "{}", String::from_utf8_lossy(&bytes));
    assert_eq!(server.get(&format!("{SECRETS}/s")).await.body["data"]["word"], "aGlkZGVu");
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "b"}});
    assert_eq!(server.post("/api/v1/namespaces/default/configmaps", &map).await.code, 201);
    assert!(stored(&server, "/registry/configmaps/default/m").await.starts_with(b"{"));
    // Nothing changes, and the key is the present one: no write.
    let version = server.get(&format!("{SECRETS}/s")).await.body["metadata"]["resourceVersion"].clone();
    assert_eq!(touch(&server).await.body["metadata"]["resourceVersion"], version);
    assert_eq!(stored(&server, KEY).await, bytes);

    // A second server with another provider first reads it, and a write that changes nothing encrypts anew.
    let new = File::new(&format!(
        "- {{resources: [secrets], providers: [{{secretbox: {{keys: [{{name: two, secret: {TWO}}}, {{name: zero, secret: {ONE}}}]}}}}, {{aescbc: {{keys: [{{name: one, secret: {ONE}}}]}}}}]}}"
    ));
    let path = new.path.clone();
    let server = server.twin(|config| config.encryption = Some((path, false))).await;
    assert_eq!(server.get(&format!("{SECRETS}/s")).await.body["data"]["word"], "aGlkZGVu");
    let rewritten = touch(&server).await;
    assert_eq!(rewritten.code, 200, "{}", rewritten.message());
    assert_ne!(rewritten.body["metadata"]["resourceVersion"], version);
    assert!(stored(&server, KEY).await.starts_with(b"k8s:enc:secretbox:v1:two:"));
    let text = metrics(&server).await;
    for want in [
        r#"apiserver_storage_transformation_operations_total{resource="secrets",status="OK",transformation_type="from_storage",transformer_prefix="k8s:enc:aescbc:v1:"}"#,
        r#"apiserver_storage_transformation_operations_total{resource="secrets",status="OK",transformation_type="to_storage",transformer_prefix="k8s:enc:secretbox:v1:"}"#,
    ] {
        assert!(text.contains(want), "{text}");
    }

    // One without the key: neither silence nor a wrong answer.
    let other = File::new(&format!(
        "- {{resources: ['*.'], providers: [{{secretbox: {{keys: [{{name: two, secret: {ONE}}}]}}}}, {{identity: {{}}}}]}}"
    ));
    let path = other.path.clone();
    let blind = server.twin(|config| config.encryption = Some((path, false))).await;
    let answer = blind.get(&format!("{SECRETS}/s")).await;
    assert_eq!(answer.code, 500);
    assert_eq!(answer.message(), "Internal error occurred: output array was not large enough for encryption");
    let answer = blind.get(SECRETS).await;
    assert_eq!(
        (answer.code, answer.message()),
        (
            500,
            "Internal error occurred: unable to transform key \"/registry/secrets/default/s\": output array was not large enough for encryption"
        )
    );
    let plain = server.twin(|_| {}).await;
    let answer = plain.get(&format!("{SECRETS}/s")).await;
    assert_eq!(answer.message(), "Internal error occurred: identity transformer tried to read encrypted data");
}

#[tokio::test]
async fn a_value_is_bound_to_its_key() {
    let file = File::new(&format!(
        "- {{resources: ['*.*'], providers: [{{aesgcm: {{keys: [{{name: one, secret: {ONE}}}]}}}}]}}"
    ));
    let path = file.path.clone();
    let server = Fixture::with(|config| config.encryption = Some((path.clone(), false))).await;
    assert_eq!(server.post(SECRETS, &secret("hidden")).await.code, 201);
    let bytes = stored(&server, KEY).await;
    assert!(bytes.starts_with(b"k8s:enc:aesgcm:v1:one:"));
    assert!(stored(&server, "/registry/namespaces/default").await.starts_with(b"k8s:enc:aesgcm:v1:one:"));
    // Somebody with access to the store puts it under another name.
    let moved = "/registry/secrets/default/moved";
    server.storage.create(moved, bytes.into(), apiserver::storage::WriteOptions::default()).await.unwrap();
    let twin = server.twin(|config| config.encryption = Some((path, false))).await;
    let answer = twin.get(&format!("{SECRETS}/moved")).await;
    assert_eq!(
        (answer.code, answer.message()),
        (500, "Internal error occurred: cipher: message authentication failed")
    );
    assert_eq!(twin.get(&format!("{SECRETS}/s")).await.code, 200, "the others can be read");
}

#[tokio::test]
async fn the_file_is_read_again() {
    let aes = |first: &str| {
        format!("- {{resources: [secrets], providers: [{first}{{aesgcm: {{keys: [{{name: one, secret: {ONE}}}]}}}}]}}")
    };
    let file = File::new(&aes(""));
    let path = file.path.clone();
    let server = Fixture::with(|config| config.encryption = Some((path, true))).await;
    assert_eq!(server.post(SECRETS, &secret("hidden")).await.code, 201);
    assert_eq!(server.get("/readyz/kms-providers").await.text, "ok", "it is there without a plugin, too");
    let count = |text: &str, status: &str| {
        let line = text.lines().find(|line| {
            line.starts_with("apiserver_encryption_config_controller_automatic_reloads_total") && line.contains(status)
        });
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
    };
    file.write("- nonsense");
    eventually("a bad file is counted", async || count(&metrics(&server).await, "failure") > 0).await;
    assert_eq!(server.get(&format!("{SECRETS}/s")).await.code, 200);
    file.write(&aes("{identity: {}}, "));
    eventually("a good file is counted", async || count(&metrics(&server).await, "success") == 1).await;
    assert_eq!(touch(&server).await.code, 200);
    assert!(stored(&server, KEY).await.starts_with(b"{"), "identity comes first now");
}

/// A plugin: its cipher is none to speak of, but it knows its own keys only.
#[derive(Clone)]
struct Plugin {
    key: Arc<Mutex<String>>,
    well: Arc<AtomicBool>,
    decrypted: Arc<AtomicUsize>,
    encrypted: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl KeyManagementService for Plugin {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let healthz = if self.well.load(Ordering::SeqCst) { "ok" } else { "sick" };
        let key_id = self.key.lock().clone();
        Ok(Response::new(StatusResponse { version: "v2".into(), healthz: healthz.into(), key_id }))
    }

    async fn encrypt(&self, request: Request<EncryptRequest>) -> Result<Response<EncryptResponse>, Status> {
        self.encrypted.fetch_add(1, Ordering::SeqCst);
        let ciphertext = request.into_inner().plaintext.into_iter().map(|byte| byte ^ 0x55).collect();
        let annotations = std::collections::HashMap::from([("kms.example.com/a".to_string(), b"b".to_vec())]);
        // A name that is no domain would be refused.
        let annotations = annotations.into_iter().map(|(name, value)| (name.replace('/', "."), value)).collect();
        Ok(Response::new(EncryptResponse { ciphertext, key_id: self.key.lock().clone(), annotations }))
    }

    async fn decrypt(&self, request: Request<DecryptRequest>) -> Result<Response<DecryptResponse>, Status> {
        self.decrypted.fetch_add(1, Ordering::SeqCst);
        let request = request.into_inner();
        if !request.key_id.starts_with("key-") || !request.annotations.contains_key("kms.example.com.a") {
            return Err(Status::invalid_argument("no such key"));
        }
        let plaintext = request.ciphertext.into_iter().map(|byte| byte ^ 0x55).collect();
        Ok(Response::new(DecryptResponse { plaintext }))
    }
}

#[tokio::test]
async fn a_plugin_keeps_the_key_of_keys() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("kms.sock");
    let plugin = Plugin {
        key: Arc::new(Mutex::new("key-1".into())),
        well: Arc::new(AtomicBool::new(true)),
        decrypted: Arc::default(),
        encrypted: Arc::default(),
    };
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let service = KeyManagementServiceServer::new(plugin.clone());
    let serving = tonic::transport::Server::builder()
        .add_service(service)
        .serve_with_incoming(tokio_stream::wrappers::UnixListenerStream::new(listener));
    tokio::spawn(serving);
    let rules = format!(
        "- {{resources: [secrets], providers: [{{kms: {{apiVersion: v2, name: vault, endpoint: 'unix://{}'}}}}, {{identity: {{}}}}]}}",
        socket.display()
    );
    let file = File::new(&rules);
    let path = file.path.clone();
    let server = Fixture::with(|config| config.encryption = Some((path.clone(), false))).await;
    for name in ["a", "b", "c"] {
        let mut object = secret("hidden");
        object["metadata"]["name"] = name.into();
        assert_eq!(server.post(SECRETS, &object).await.code, 201);
    }
    let made = server.post(SECRETS, &secret("hidden")).await;
    assert_eq!(made.code, 201, "{}", made.message());
    let bytes = stored(&server, KEY).await;
    assert!(bytes.starts_with(b"k8s:enc:kms:v2:vault:"));
    assert!(!bytes.windows(8).any(|window| window == b"aGlkZGVu"));
    assert_eq!(plugin.encrypted.load(Ordering::SeqCst), 1, "one data key for all");
    assert_eq!(plugin.decrypted.load(Ordering::SeqCst), 0, "what one wrote one knows");
    let ready = server.get("/readyz?verbose").await.text;
    assert!(ready.contains("[+]kms-providers ok"), "{ready}");

    // Another server has to ask, once.
    let twin = server.twin(|config| config.encryption = Some((path.clone(), false))).await;
    assert_eq!(twin.get(&format!("{SECRETS}/s")).await.body["data"]["word"], "aGlkZGVu");
    assert_eq!(plugin.decrypted.load(Ordering::SeqCst), 1);
    let text = metrics(&twin).await;
    let misses = text.lines().find(|line| line.starts_with("apiserver_storage_envelope_transformation_cache_misses"));
    assert!(misses.is_some_and(|line| line.ends_with(" 1")), "{misses:?}");

    // The plugin's key changes: what a new server writes unchanged is written with it.
    *plugin.key.lock() = "key-2".into();
    let third = server.twin(|config| config.encryption = Some((path.clone(), false))).await;
    let version = third.get(&format!("{SECRETS}/s")).await.body["metadata"]["resourceVersion"].clone();
    assert_ne!(touch(&third).await.body["metadata"]["resourceVersion"], version);
    assert_ne!(stored(&third, KEY).await, bytes);

    // It is unwell at the start of a fourth: reads and writes say so, and so does readiness.
    plugin.well.store(false, Ordering::SeqCst);
    *plugin.key.lock() = String::new();
    let fourth = server.twin(|config| config.encryption = Some((path, false))).await;
    let answer = fourth.get("/readyz/kms-providers").await;
    assert_eq!(answer.code, 500);
    assert!(
        answer.text.contains("kmsv2 Provider vault is not healthy, error: [got unexpected healthz status: sick, got invalid KMSv2 KeyID hash \"\": keyID is empty]"),
        "{}",
        answer.text
    );
    let answer = fourth.get(&format!("{SECRETS}/s")).await;
    assert_eq!((answer.code, answer.message()), (500, "Internal error occurred: got unexpected nil transformer"));
    plugin.well.store(true, Ordering::SeqCst);
    *plugin.key.lock() = "key-2".into();
    eventually("it is asked again", async || fourth.get("/readyz/kms-providers").await.code == 200).await;
    assert_eq!(fourth.get(&format!("{SECRETS}/s")).await.code, 200);
}
