//! What the contract runs against: an engine in a directory of its own, and how to let time pass.

use std::future::Future;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use apiserver::storage::Storage;
use apiserver::storage::embedded::{Embedded, Options};
use apiserver::storage::etcd::{self, Etcd};
use tempfile::TempDir;

/// An engine under test.
pub struct Subject {
    pub name: &'static str,
    pub storage: Arc<dyn Storage>,
    time: Time,
    // Dropped last: the engine goes first.
    _keep: Box<dyn Send + Sync>,
}

enum Time {
    Injected { clock: Arc<AtomicU64>, engine: Arc<Embedded> },
    Real,
}

impl Subject {
    /// The embedded engine on a clock of its own.
    pub fn embedded() -> Subject {
        let directory = TempDir::new().expect("a temporary directory");
        let clock = Arc::new(AtomicU64::new(1_000_000));
        let mut options = Options::new(directory.path());
        options.sync = false;
        let injected = clock.clone();
        options.clock = Arc::new(move || injected.load(Ordering::Relaxed));
        let engine = Arc::new(Embedded::open(options).expect("opens"));
        Subject {
            name: "embedded",
            storage: engine.clone(),
            time: Time::Injected { clock, engine },
            _keep: Box::new(directory),
        }
    }

    /// A real etcd; `None` (and a line saying so) if there is none on this machine.
    pub async fn etcd() -> Option<Subject> {
        let server = EtcdServer::start()?;
        let mut options = etcd::Options::new(vec![server.endpoint.clone()]);
        options.lease_bucket = Duration::from_secs(1);
        let storage = Etcd::connect(options).await.expect("connects");
        Some(Subject { name: "etcd", storage: Arc::new(storage), time: Time::Real, _keep: Box::new(server) })
    }

    /// Lets `time` pass as far as expiry goes. Real time for etcd, which has no other clock.
    pub async fn pass(&self, time: Duration) {
        match &self.time {
            Time::Injected { clock, engine } => {
                clock.fetch_add(time.as_millis() as u64, Ordering::Relaxed);
                engine.tick().await;
            }
            Time::Real => tokio::time::sleep(time).await,
        }
    }
}

/// Runs `check` against every engine there is.
pub fn for_each<F, Fut>(check: F)
where
    F: Fn(Arc<Subject>) -> Fut,
    Fut: Future<Output = ()>,
{
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        // Held here as well: what a check captures of its subject may be the storage only.
        let embedded = Arc::new(Subject::embedded());
        check(embedded.clone()).await;
        if let Some(etcd) = Subject::etcd().await {
            let etcd = Arc::new(etcd);
            check(etcd.clone()).await;
        }
    });
}

/// Waits until `done` answers true; a condition that never comes true fails the test.
pub async fn eventually(what: &str, mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..1000 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("did not happen within ten seconds: {what}");
}

/// A single etcd in a temporary directory.
pub struct EtcdServer {
    pub endpoint: String,
    arguments: Vec<String>,
    process: Child,
    _directory: TempDir,
}

impl EtcdServer {
    /// Starts one; `None` if the binary is not installed.
    pub fn start() -> Option<EtcdServer> {
        EtcdServer::start_with("http", &[])
    }

    /// Starts one that serves clients by `scheme`, with more arguments.
    pub fn start_with(scheme: &str, extra: &[String]) -> Option<EtcdServer> {
        // Ports are free when chosen; another process may take one before etcd does, so try again.
        for _ in 0..5 {
            let directory = TempDir::new().expect("a temporary directory");
            let endpoint = format!("{scheme}://127.0.0.1:{}", free_port());
            let peer = format!("http://127.0.0.1:{}", free_port());
            let data = directory.path().display().to_string();
            let cluster = format!("default={peer}");
            let mut arguments: Vec<String> = [
                ["--data-dir", &data],
                ["--listen-client-urls", &endpoint],
                ["--advertise-client-urls", &endpoint],
                ["--listen-peer-urls", &peer],
                ["--initial-advertise-peer-urls", &peer],
                ["--initial-cluster", &cluster],
            ]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect();
            arguments.extend_from_slice(extra);
            let Some(process) = spawn(&arguments) else {
                println!("skipped: needs etcd");
                return None;
            };
            let mut server = EtcdServer { endpoint, arguments, process, _directory: directory };
            if server.wait() {
                return Some(server);
            }
        }
        panic!("etcd does not start");
    }

    /// Waits until it listens; false if it ended instead.
    fn wait(&mut self) -> bool {
        let (_, address) = self.endpoint.split_once("://").expect("a URL");
        for _ in 0..1000 {
            if self.process.try_wait().is_ok_and(|status| status.is_some()) {
                return false;
            }
            if std::net::TcpStream::connect(address).is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    /// Kills it, as a crash would.
    pub fn kill(&mut self) {
        self.process.kill().expect("kills");
        self.process.wait().expect("waits");
    }

    /// Starts it again where it was.
    pub fn restart(&mut self) {
        self.process = spawn(&self.arguments).expect("it started before");
        assert!(self.wait(), "etcd starts again");
    }
}

fn spawn(arguments: &[String]) -> Option<Child> {
    let mut command = Command::new("etcd");
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").port()
}
