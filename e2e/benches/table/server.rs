//! Starting a control plane to measure: `keelson server`'s API half, or upstream's kube-apiserver over etcd.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::process::{Child, Command};

const PORT: u16 = 21_910;
const ETCD_PORT: u16 = 21_911;
const LATEST_READY: Duration = Duration::from_secs(60);

/// Whose control plane is measured.
#[derive(Clone, Debug)]
pub enum Kind {
    Keelson,
    /// The folder of upstream's binaries.
    Upstream(PathBuf),
}

impl Kind {
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Keelson => "Keelson",
            Kind::Upstream(_) => "upstream",
        }
    }
}

/// A running control plane.
pub struct Server {
    children: Vec<Child>,
    pub tls: Arc<rustls::ClientConfig>,
    pub ready_after: Duration,
}

impl Server {
    pub fn port(&self) -> u16 {
        PORT
    }

    /// Starts `kube-apiserver` alone: the same flags for both, but for the store.
    pub async fn start(kind: &Kind, dir: &Path) -> anyhow::Result<Server> {
        let ours = ours()?;
        let url = format!("https://127.0.0.1:{PORT}");
        let made =
            Command::new(ours.join("keelson")).args(["pki", "--server", &url, "--dir"]).arg(dir).status().await?;
        if !made.success() {
            bail!("keelson pki failed");
        }
        let file = |name: &str| dir.join(name).display().to_string();
        let tls = Arc::new(tls(dir)?);
        let started = Instant::now();
        let mut children = Vec::new();
        let mut store = vec!["--storage-backend=embedded".to_owned(), format!("--data-dir={}", file("data"))];
        let mut program = ours.join("kube-apiserver");
        if let Kind::Upstream(folder) = kind {
            let (client, peer) =
                (format!("http://127.0.0.1:{ETCD_PORT}"), format!("http://127.0.0.1:{}", ETCD_PORT + 1));
            let etcd = Some(folder.join("etcd")).filter(|etcd| etcd.is_file()).unwrap_or_else(|| "etcd".into());
            let args = [
                format!("--data-dir={}", file("etcd")),
                format!("--listen-client-urls={client}"),
                format!("--advertise-client-urls={client}"),
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
                format!("--initial-cluster=default={peer}"),
            ];
            children.push(spawn(&etcd, &args, &dir.join("etcd.log"))?);
            store = vec![format!("--etcd-servers={client}")];
            program = folder.join("kube-apiserver");
        }
        store.extend([
            format!("--secure-port={PORT}"),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--client-ca-file={}", file("ca.crt")),
            format!("--tls-cert-file={}", file("apiserver.crt")),
            format!("--tls-private-key-file={}", file("apiserver.key")),
            format!("--service-account-key-file={}", file("sa.pub")),
            format!("--service-account-signing-key-file={}", file("sa.key")),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            // ServiceAccounts are made by a controller, which is not measured here.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
        ]);
        children.push(spawn(&program, &store, &dir.join("apiserver.log"))?);
        let mut server = Server { children, tls, ready_after: Duration::ZERO };
        while !server.ready().await {
            if started.elapsed() > LATEST_READY {
                bail!("not ready: {}", std::fs::read_to_string(dir.join("apiserver.log")).unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        server.ready_after = started.elapsed();
        Ok(server)
    }

    async fn ready(&self) -> bool {
        match crate::load::Connection::open(self).await {
            Ok(mut connection) => connection.get("/readyz", "*/*").await.is_ok(),
            Err(_) => false,
        }
    }

    /// Resident memory of every process of the control plane.
    pub fn memory_mib(&self) -> f64 {
        let pids = self.children.iter().filter_map(Child::id);
        pids.map(|pid| resident_kib(pid).unwrap_or(0) as f64 / 1024.0).sum()
    }

    pub async fn stop(mut self) -> anyhow::Result<()> {
        for child in self.children.iter_mut().rev() {
            child.kill().await?;
        }
        Ok(())
    }
}

fn resident_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").trim().parse().ok()
}

/// The folder of our release binaries: `make bench` built them.
fn ours() -> anyhow::Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release");
    let folder = folder.canonicalize().context("build first: make build")?;
    Ok(folder)
}

fn spawn(program: &Path, args: &[String], log: &Path) -> anyhow::Result<Child> {
    let log = std::fs::File::create(log)?;
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
}

fn tls(dir: &Path) -> anyhow::Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.join("ca.crt"))?)?;
    let certificates = vec![CertificateDer::from_pem_file(dir.join("admin.crt"))?];
    let key = PrivateKeyDer::from_pem_file(dir.join("admin.key"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates, key)?)
}
