//! What only the etcd engine has: TLS, servers that come and go, values that upstream wrote.

use std::sync::Arc;
use std::time::Duration;

use apiserver::cache::{
    Cache, CreateOptions, Error, Freshness, Item, PROTOBUF_PREFIX, Read, ResourceCache, ResourceSpec, RingLimits,
    Scope, Start, WatchRequest,
};
use apiserver::storage::etcd::{Etcd, Options};
use apiserver::storage::{self, Storage, WriteOptions};
use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::subject::{EtcdServer, eventually};

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.unwrap().block_on(test);
}

fn config_maps(storage: Arc<dyn Storage>) -> Arc<ResourceCache> {
    let spec = ResourceSpec::new("", "configmaps", "/registry/configmaps", true);
    Cache::new(storage, RingLimits::default()).register(spec)
}

async fn connect(endpoint: &str) -> Arc<Etcd> {
    let options = Options::new(vec![endpoint.to_owned()]);
    Arc::new(Etcd::connect(options).await.expect("connects"))
}

async fn create(cache: &ResourceCache, name: &str) {
    let object = json!({"metadata": {"name": name, "namespace": "ns"}});
    let key = format!("/registry/configmaps/ns/{name}");
    cache.create(&key, object, CreateOptions::default()).await.expect("creates");
}

fn watch_all() -> WatchRequest {
    WatchRequest {
        scope: Scope::All,
        matcher: None,
        start: Start::Now(Freshness::Consistent),
        bookmarks: None,
        ends_in: None,
    }
}

#[test]
fn survives_a_restart_of_etcd() {
    run(async {
        let Some(mut server) = EtcdServer::start() else { return };
        let (ours, other) = (connect(&server.endpoint).await, connect(&server.endpoint).await);
        let (ours, other) = (config_maps(ours), config_maps(other));
        create(&other, "a").await;
        let mut watch = ours.watch(watch_all()).await.unwrap();
        server.kill();
        let down = ours.snapshot(Freshness::Consistent).await;
        assert!(matches!(down, Err(Error::Unavailable(_))), "{down:?}");
        let stale = ours.snapshot(Freshness::Any).await.unwrap();
        assert_eq!(stale.len(), 1, "what is cached is served without etcd");
        server.restart();
        eventually("writes work again", async || {
            let object = json!({"metadata": {"name": "b", "namespace": "ns"}});
            let key = "/registry/configmaps/ns/b";
            match other.create(key, object, CreateOptions::default()).await {
                Ok(_) | Err(Error::Exists { .. }) => true,
                Err(_) => false,
            }
        })
        .await;
        let next = tokio::time::timeout(Duration::from_secs(20), watch.next()).await;
        match next.expect("the watch goes on").expect("without starting over") {
            Item::Events(events) => assert_eq!(events[0].1.any().name(), "b"),
            Item::Bookmark(_) => panic!("no bookmark was asked for"),
        }
        assert_eq!(ours.snapshot(Freshness::Consistent).await.unwrap().len(), 2);
    });
}

/// Passes TCP on to `target` until told to stop, and cuts what is open then.
async fn proxy(listener: &TcpListener, target: &str, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let (mut client, _) = accepted.expect("accepts");
        let (target, stop) = (target.to_owned(), stop.clone());
        tokio::spawn(async move {
            let Ok(mut server) = TcpStream::connect(target).await else { return };
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

#[test]
fn starts_over_when_what_it_missed_is_compacted() {
    run(async {
        let Some(server) = EtcdServer::start() else { return };
        let target = server.endpoint.trim_start_matches("http://").to_owned();
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let serve = || {
            let (listener, target, stop) = (listener.clone(), target.clone(), CancellationToken::new());
            let stopped = stop.clone();
            let task = tokio::spawn(async move { proxy(&listener, &target, stopped).await });
            (task, stop)
        };
        let (task, stop) = serve();
        let ours = config_maps(connect(&endpoint).await);
        let direct = connect(&server.endpoint).await;
        let other = config_maps(direct.clone());
        create(&other, "a").await;
        create(&other, "gone").await;
        let mut watch = ours.watch(watch_all()).await.unwrap();
        assert_eq!(ours.snapshot(Freshness::Consistent).await.unwrap().len(), 2);

        // Cut off; meanwhile one object goes, one comes, and the history of it goes too.
        stop.cancel();
        task.await.unwrap();
        let key = "/registry/configmaps/ns/gone";
        let gone = other.get(key, Freshness::Consistent).await.unwrap().unwrap();
        other.delete(&gone).await.unwrap();
        create(&other, "b").await;
        direct.compact(direct.current_revision().await.unwrap()).await.unwrap();
        let (_task, _stop) = serve();

        let next = tokio::time::timeout(Duration::from_secs(20), watch.next()).await;
        let next = next.expect("the watch ends");
        assert!(matches!(next, Err(Error::TooOld { .. })), "{next:?}");
        let snapshot = ours.snapshot(Freshness::Consistent).await.unwrap();
        let names: Vec<_> = snapshot.range(None, None).map(|e| e.name()).collect();
        assert_eq!(names, ["a", "b"]);
        // And it follows again.
        let mut watch = ours.watch(watch_all()).await.unwrap();
        create(&other, "c").await;
        let next = tokio::time::timeout(Duration::from_secs(10), watch.next()).await;
        assert!(matches!(next.expect("an event").unwrap(), Item::Events(_)));
    });
}

#[test]
fn equal_bytes_of_different_writes_stay_apart() {
    run(async {
        let Some(server) = EtcdServer::start() else { return };
        let cache = config_maps(connect(&server.endpoint).await);
        cache.load().await.unwrap();
        let key = "/registry/configmaps/ns/a";
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let cache = cache.clone();
                tokio::spawn(async move {
                    let mut revisions = Vec::new();
                    for _ in 0..30 {
                        // Everybody writes and deletes the very same object.
                        let object = json!({"metadata": {"name": "a", "namespace": "ns"}});
                        match cache.create(key, object, CreateOptions::default()).await {
                            Ok(entry) => {
                                let version = entry.tree()["metadata"]["resourceVersion"].clone();
                                assert_eq!(version, entry.revision().to_string());
                                assert_eq!(entry.create_revision(), entry.revision());
                                revisions.push(entry.revision());
                                let _ = cache.delete(&entry).await;
                            }
                            Err(Error::Exists { .. }) => {}
                            Err(other) => panic!("{other:?}"),
                        }
                    }
                    revisions
                })
            })
            .collect();
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.unwrap());
        }
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count, "every write has a revision of its own");
    });
}

#[test]
fn reads_what_upstream_wrote() {
    run(async {
        let Some(server) = EtcdServer::start() else { return };
        let storage = connect(&server.endpoint).await;
        let value = |name: &str| Bytes::from([PROTOBUF_PREFIX, name.as_bytes()].concat());
        let write = || WriteOptions::default();
        storage.create("/registry/configmaps/ns/a", value("a"), write()).await.unwrap();
        let mut spec = ResourceSpec::new("", "configmaps", "/registry/configmaps", true);
        spec.decode = Some(Arc::new(|stored: &[u8]| {
            let name = stored.strip_prefix(PROTOBUF_PREFIX).ok_or("no protobuf")?;
            let name = String::from_utf8_lossy(name);
            assert_ne!(name, "poison", "a decoder may have bugs");
            let json = json!({"metadata": {"name": name, "namespace": "ns"}}).to_string();
            Ok(Read { json: json.into(), stale: false })
        }));
        let cache = Cache::new(storage.clone(), RingLimits::default()).register(spec);
        cache.load().await.unwrap();
        storage.create("/registry/configmaps/ns/poison", value("poison"), write()).await.unwrap();
        let b = storage.create("/registry/configmaps/ns/b", value("b"), write()).await.unwrap();
        let snapshot = cache.snapshot(Freshness::Consistent).await.unwrap();
        let names: Vec<_> = snapshot.range(None, None).map(|e| e.name()).collect();
        assert_eq!(names, ["a", "b"]);
        let entry = cache.get("/registry/configmaps/ns/b", Freshness::Consistent).await.unwrap().unwrap();
        assert_eq!(entry.tree()["metadata"]["resourceVersion"], b.to_string());
        // Once written by us it is JSON.
        let mut tree = entry.tree();
        tree["data"] = json!({"x": "y"});
        cache.update(&entry, tree, CreateOptions::default()).await.unwrap();
        let stored = storage.get("/registry/configmaps/ns/b", None).await.unwrap().unwrap();
        assert_eq!(stored.value, r#"{"data":{"x":"y"},"metadata":{"name":"b","namespace":"ns"}}"#);
    });
}

#[test]
fn speaks_mutual_tls() {
    run(async {
        let directory = TempDir::new().unwrap();
        let file = |name: &str, text: String| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(rcgen::DnType::CommonName, "etcd-ca");
        let ca_file = file("ca.crt", ca.self_signed(&ca_key).unwrap().pem());
        let issuer = Issuer::new(ca, ca_key);
        let pair = |name: &str, usage: ExtendedKeyUsagePurpose| {
            let key = KeyPair::generate().unwrap();
            let mut leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
            leaf.distinguished_name.push(rcgen::DnType::CommonName, name);
            // etcd's gateway is a client of its own server.
            leaf.extended_key_usages = vec![usage, ExtendedKeyUsagePurpose::ClientAuth];
            let cert = leaf.signed_by(&key, &issuer).unwrap().pem();
            let cert = file(&format!("{name}.crt"), cert);
            (cert, file(&format!("{name}.key"), key.serialize_pem()))
        };
        let (server_cert, server_key) = pair("server", ExtendedKeyUsagePurpose::ServerAuth);
        let (client_cert, client_key) = pair("client", ExtendedKeyUsagePurpose::ClientAuth);
        let arguments = [("--cert-file", &server_cert), ("--key-file", &server_key), ("--trusted-ca-file", &ca_file)];
        let mut extra = vec!["--client-cert-auth".to_owned()];
        for (flag, path) in arguments {
            extra.extend([flag.to_owned(), path.display().to_string()]);
        }
        let Some(server) = EtcdServer::start_with("https", &extra) else { return };

        let mut options = Options::new(vec![server.endpoint.clone()]);
        options.timeout = Duration::from_secs(3);
        options.ca_file = Some(ca_file);
        let stranger = Etcd::connect(options.clone()).await;
        let refused = matches!(stranger, Err(storage::Error::Unavailable(_)));
        assert!(refused, "a client without a certificate is refused");
        (options.cert_file, options.key_file) = (Some(client_cert), Some(client_key));
        let storage = Arc::new(Etcd::connect(options).await.expect("connects"));
        storage.healthy().await.unwrap();
        let cache = config_maps(storage);
        create(&cache, "a").await;
        assert_eq!(cache.snapshot(Freshness::Consistent).await.unwrap().len(), 1);
    });
}

/// An authority whose certificates are written to a folder.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(rcgen::DnType::CommonName, name);
        let pem = ca.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(ca, key), pem }
    }

    /// A certificate and its key.
    fn issue(&self, usage: &[ExtendedKeyUsagePurpose]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        leaf.extended_key_usages = usage.to_vec();
        (leaf.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// Who renews the certificate before the authority behind the old one goes loses nothing.
#[test]
fn takes_over_a_renewed_client_certificate() {
    run(async {
        let directory = TempDir::new().unwrap();
        let path = |name: &str| directory.path().join(name);
        let (servers, old, new) = (Authority::new("servers"), Authority::new("old"), Authority::new("new"));
        let (client, both) = (
            [ExtendedKeyUsagePurpose::ClientAuth],
            [
                ExtendedKeyUsagePurpose::ServerAuth,
                // etcd's gateway is a client of its own server.
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
        );
        let write = |name: &str, (cert, key): (String, String)| {
            std::fs::write(path(&format!("{name}.crt")), cert).unwrap();
            std::fs::write(path(&format!("{name}.key")), key).unwrap();
        };
        write("server", servers.issue(&both));
        write("client", old.issue(&client));
        std::fs::write(path("ca.crt"), &servers.pem).unwrap();
        std::fs::write(path("clients.crt"), servers.pem.clone() + &old.pem).unwrap();
        let mut extra = vec!["--client-cert-auth".to_owned()];
        for (flag, name) in
            [("--cert-file", "server.crt"), ("--key-file", "server.key"), ("--trusted-ca-file", "clients.crt")]
        {
            extra.extend([flag.to_owned(), path(name).display().to_string()]);
        }
        let Some(mut server) = EtcdServer::start_with("https", &extra) else { return };
        let mut options = Options::new(vec![server.endpoint.clone()]);
        options.timeout = Duration::from_secs(3);
        options.ca_file = Some(path("ca.crt"));
        (options.cert_file, options.key_file) = (Some(path("client.crt")), Some(path("client.key")));
        let storage = Arc::new(Etcd::connect(options).await.expect("connects"));
        let cache = config_maps(storage.clone());
        create(&cache, "a").await;
        write("client", new.issue(&client));
        // The old connection serves on while the new certificate is unknown.
        create(&cache, "b").await;
        server.kill();
        std::fs::write(path("clients.crt"), servers.pem.clone() + &new.pem).unwrap();
        server.restart();
        let healthy = async || storage.healthy().await.is_ok();
        let mut attempts = 0;
        while !healthy().await {
            attempts += 1;
            assert!(attempts < 100, "the new certificate is shown");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        create(&cache, "c").await;
    });
}
