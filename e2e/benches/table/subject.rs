//! What is measured: Keelson's programs or upstream's, started the same way.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::process::{Child, Command};

use crate::load::Connection;
use crate::process::{self, Memory, spawn};

const PORT: u16 = 21_910;
const ETCD_PORT: u16 = 21_911;
const CONTROLLERS_PORT: u16 = 21_914;
const SCHEDULER_PORT: u16 = 21_915;
const LATEST_READY: Duration = Duration::from_secs(60);
/// How long what an earlier part started may take to be gone.
const LATEST_GONE: Duration = Duration::from_secs(10);
/// Time between two looks at whether something has started.
const KNOCK: Duration = Duration::from_millis(2);
/// A limit on a client's requests per second that nothing here reaches.
const RAISED: u32 = 100_000;

/// Whose programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Keelson,
    Upstream,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Keelson => "Keelson",
            Kind::Upstream => "upstream + etcd",
        }
    }
}

/// The programs of one kind, and `keelson` for certificates.
#[derive(Clone, Debug)]
pub struct Subject {
    pub kind: Kind,
    programs: PathBuf,
    keelson: PathBuf,
}

impl Subject {
    /// Our programs: in the folder that `KEELSON_PROGRAMS` names, or the release ones that `make bench` built.
    pub fn keelson() -> anyhow::Result<Subject> {
        let release = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release");
        let folder = std::env::var_os("KEELSON_PROGRAMS").map_or_else(release, PathBuf::from);
        let programs = folder.canonicalize().context("build first: make build")?;
        Ok(Subject { kind: Kind::Keelson, keelson: programs.join("keelson"), programs })
    }

    /// Upstream's programs: in the folder that `KEELSON_UPSTREAM` names, or on the path.
    pub fn upstream(ours: &Subject) -> Option<Subject> {
        let named = std::env::var_os("KEELSON_UPSTREAM").map(PathBuf::from);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = named.into_iter().chain(std::env::split_paths(&path));
        // Somebody who works on Keelson may well have its programs on the path, too.
        let theirs = |folder: &PathBuf| {
            folder.join("kube-apiserver").is_file() && folder.canonicalize().is_ok_and(|folder| folder != ours.programs)
        };
        let programs = folders.into_iter().find(theirs)?;
        Some(Subject { kind: Kind::Upstream, programs, keelson: ours.keelson.clone() })
    }

    /// The program of this name, if there is one.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        Some(self.programs.join(name)).filter(|program| program.is_file())
    }

    fn needed(&self, name: &str) -> anyhow::Result<PathBuf> {
        self.program(name).with_context(|| format!("{name} is not among the programs of {}", self.kind.name()))
    }

    fn etcd(&self) -> PathBuf {
        self.program("etcd").unwrap_or_else(|| "etcd".into())
    }
}

/// A server's address and how to trust it.
#[derive(Clone)]
pub struct Endpoint {
    pub port: u16,
    pub tls: Arc<rustls::ClientConfig>,
    /// Sent with every request where certificates say nothing.
    pub token: Option<String>,
}

impl Endpoint {
    /// An administrator's access to the server on `port`, with the certificates of `pki`.
    pub fn admin(port: u16, pki: &Path) -> anyhow::Result<Endpoint> {
        let certificates = vec![CertificateDer::from_pem_file(pki.join("admin.crt"))?];
        let key = PrivateKeyDer::from_pem_file(pki.join("admin.key"))?;
        let tls = client_config(pki)?.with_client_auth_cert(certificates, key)?;
        Ok(Endpoint { port, tls: Arc::new(tls), token: None })
    }

    /// The same server for a bearer of `token`.
    pub fn with_token(&self, token: &str, pki: &Path) -> anyhow::Result<Endpoint> {
        let tls = client_config(pki)?.with_no_client_auth();
        Ok(Endpoint { port: self.port, tls: Arc::new(tls), token: Some(token.to_owned()) })
    }

    pub async fn is_ready(&self) -> bool {
        match Connection::open(self).await {
            Ok(mut connection) => connection.get("/readyz").await.is_ok(),
            Err(_) => false,
        }
    }
}

/// Waits until nobody listens on a port: processes of a part that failed are killed, and not waited for.
async fn free(port: u16) -> anyhow::Result<()> {
    let until = Instant::now() + LATEST_GONE;
    while let Err(error) = tokio::net::TcpListener::bind(("127.0.0.1", port)).await {
        if Instant::now() > until {
            return Err(error).with_context(|| format!("port {port} is taken"));
        }
        tokio::time::sleep(KNOCK * 10).await;
    }
    Ok(())
}

fn client_config(
    pki: &Path,
) -> anyhow::Result<rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.join("ca.crt"))?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    Ok(builder.with_safe_default_protocol_versions()?.with_root_certificates(roots))
}

/// How a component's client is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limits {
    Default,
    Raised,
}

/// A control plane, or a part of one, in a folder that goes with it.
pub struct ControlPlane {
    subject: Subject,
    dir: tempfile::TempDir,
    children: Vec<(&'static str, Child)>,
    pub endpoint: Endpoint,
    /// When its first process was started.
    pub started: Instant,
    /// From the start of the API server (and its etcd) to the first good answer of `/readyz`.
    pub ready_after: Duration,
}

impl ControlPlane {
    /// Certificates and an empty folder; nothing runs yet.
    pub async fn prepare(subject: &Subject) -> anyhow::Result<ControlPlane> {
        for port in [PORT, ETCD_PORT, ETCD_PORT + 1, CONTROLLERS_PORT, SCHEDULER_PORT] {
            free(port).await?;
        }
        let dir = tempfile::tempdir()?;
        let url = format!("https://127.0.0.1:{PORT}");
        let mut pki = Command::new(&subject.keelson);
        if !pki.args(["pki", "--server", &url, "--dir"]).arg(dir.path()).status().await?.success() {
            bail!("keelson pki failed");
        }
        let endpoint = Endpoint::admin(PORT, dir.path())?;
        let (subject, children, started, ready_after) = (subject.clone(), Vec::new(), Instant::now(), Duration::ZERO);
        Ok(ControlPlane { subject, dir, children, endpoint, started, ready_after })
    }

    /// `kube-apiserver` alone; upstream's with its etcd.
    pub async fn api(subject: &Subject, extra: &[String]) -> anyhow::Result<ControlPlane> {
        let mut plane = ControlPlane::prepare(subject).await?;
        // ServiceAccounts are made by a controller that does not run here.
        let mut flags = vec!["--disable-admission-plugins=ServiceAccount".to_owned()];
        flags.extend_from_slice(extra);
        plane.start_api(&flags).await?;
        Ok(plane)
    }

    /// The whole control plane: one process of ours; upstream's four.
    pub async fn whole(subject: &Subject, limits: Limits) -> anyhow::Result<ControlPlane> {
        let mut plane = ControlPlane::prepare(subject).await?;
        match subject.kind {
            Kind::Keelson => plane.start_server().await?,
            Kind::Upstream => {
                plane.start_api(&[]).await?;
                plane.start_controllers(limits)?;
                plane.start_scheduler(limits)?;
            }
        }
        Ok(plane)
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    fn file(&self, name: &str) -> String {
        self.path().join(name).display().to_string()
    }

    /// Starts `kube-apiserver` on the store that is there, and waits for it.
    pub async fn start_api(&mut self, extra: &[String]) -> anyhow::Result<()> {
        let started = Instant::now();
        let mut flags = match self.subject.kind {
            Kind::Keelson => {
                vec!["--storage-backend=embedded".to_owned(), format!("--data-dir={}", self.file("server/store"))]
            }
            Kind::Upstream => {
                let client = format!("http://127.0.0.1:{ETCD_PORT}");
                let peer = format!("http://127.0.0.1:{}", ETCD_PORT + 1);
                let etcd = [
                    format!("--data-dir={}", self.file("etcd")),
                    format!("--listen-client-urls={client}"),
                    format!("--advertise-client-urls={client}"),
                    format!("--listen-peer-urls={peer}"),
                    format!("--initial-advertise-peer-urls={peer}"),
                    format!("--initial-cluster=default={peer}"),
                ];
                self.start("etcd", &self.subject.etcd(), &etcd)?;
                vec![format!("--etcd-servers={client}")]
            }
        };
        flags.extend([
            format!("--secure-port={PORT}"),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--client-ca-file={}", self.file("ca.crt")),
            format!("--tls-cert-file={}", self.file("apiserver.crt")),
            format!("--tls-private-key-file={}", self.file("apiserver.key")),
            format!("--service-account-key-file={}", self.file("sa.pub")),
            format!("--service-account-signing-key-file={}", self.file("sa.key")),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
        ]);
        flags.extend_from_slice(extra);
        self.start("kube-apiserver", &self.subject.needed("kube-apiserver")?, &flags)?;
        self.wait_ready(started).await
    }

    /// Starts `keelson server` on the store that is there, and waits for it.
    pub async fn start_server(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        let flags = [
            "server".to_owned(),
            format!("--data-dir={}", self.file("server")),
            format!("--pki-dir={}", self.file("")),
            format!("--secure-port={PORT}"),
        ];
        self.start("keelson", &self.subject.keelson.clone(), &flags)?;
        self.wait_ready(started).await
    }

    pub fn start_controllers(&mut self, limits: Limits) -> anyhow::Result<()> {
        let mut flags = self.component_flags(CONTROLLERS_PORT, limits);
        flags.extend([
            format!("--service-account-private-key-file={}", self.file("sa.key")),
            format!("--root-ca-file={}", self.file("ca.crt")),
        ]);
        self.start("kube-controller-manager", &self.subject.needed("kube-controller-manager")?, &flags)
    }

    pub fn start_scheduler(&mut self, limits: Limits) -> anyhow::Result<()> {
        let flags = self.component_flags(SCHEDULER_PORT, limits);
        self.start("kube-scheduler", &self.subject.needed("kube-scheduler")?, &flags)
    }

    fn component_flags(&self, port: u16, limits: Limits) -> Vec<String> {
        let mut flags = vec![
            format!("--kubeconfig={}", self.file("admin.kubeconfig")),
            "--leader-elect=false".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            format!("--cert-dir={}", self.file("certificates")),
        ];
        if limits == Limits::Raised {
            flags.extend([format!("--kube-api-qps={RAISED}"), format!("--kube-api-burst={RAISED}")]);
        }
        flags
    }

    fn start(&mut self, name: &'static str, program: &Path, flags: &[String]) -> anyhow::Result<()> {
        let child = spawn(program, flags, &self.path().join(format!("{name}.log")))?;
        self.children.push((name, child));
        Ok(())
    }

    async fn wait_ready(&mut self, started: Instant) -> anyhow::Result<()> {
        while !self.endpoint.is_ready().await {
            for (name, child) in &mut self.children {
                if let Some(status) = child.try_wait()? {
                    let log = std::fs::read_to_string(self.dir.path().join(format!("{name}.log")));
                    bail!("{name} ended ({status}): {}", log.unwrap_or_default());
                }
            }
            if started.elapsed() > LATEST_READY {
                bail!("{} is not ready after a minute", self.subject.kind.name());
            }
            tokio::time::sleep(KNOCK).await;
        }
        self.ready_after = started.elapsed();
        Ok(())
    }

    /// Memory of every process.
    pub fn memory(&self) -> Memory {
        let pids = self.children.iter().filter_map(|(_, child)| child.id());
        pids.map(process::memory).fold(Memory::default(), |sum, memory| sum + memory)
    }

    /// Memory of the process of this name.
    pub fn memory_of(&self, name: &str) -> Memory {
        self.pid(name).map(process::memory).unwrap_or_default()
    }

    /// Processor time of every process so far.
    pub fn cpu(&self) -> Duration {
        self.children.iter().filter_map(|(_, child)| child.id()).map(process::cpu).sum()
    }

    fn pid(&self, name: &str) -> Option<u32> {
        self.children.iter().find(|(child, _)| *child == name)?.1.id()
    }

    /// Ends the process of this name as a service manager would, by SIGTERM, and waits for it.
    pub async fn end(&mut self, name: &str) -> anyhow::Result<()> {
        let Some(at) = self.children.iter().position(|(child, _)| *child == name) else { return Ok(()) };
        let (_, mut child) = self.children.remove(at);
        if let Some(pid) = child.id() {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(pid)?);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
        }
        if tokio::time::timeout(LATEST_READY, child.wait()).await.is_err() {
            child.kill().await?;
        }
        Ok(())
    }

    /// Ends everything at once: what it stored is thrown away.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        for (_, child) in self.children.iter_mut().rev() {
            child.kill().await?;
        }
        Ok(())
    }
}
