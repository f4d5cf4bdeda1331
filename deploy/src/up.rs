//! `keelson up`: from nothing to a cluster whose nodes are Ready.
//!
//! Every step looks at what is there and makes what is missing, so `up` may be run again after it was cut
//! off, after a reboot, or on a running cluster. Steps that need not wait for each other run at once.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};

use crate::command::{self, Error as CommandError};
use crate::kubeconfig::{self, Access};
use crate::pki::Pki;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::state::{API_PORT, CONTEXT, NodeName, State, private_dir};
use crate::supervisor::{self, Process};
use crate::{cgroup, image, network, node, node_config, nodes};

/// Programs that a local cluster runs or calls, with the Debian package of each.
const PROGRAMS: &[(&str, &str)] = &[
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("iptables-restore", "iptables"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("conntrack", "conntrack"),
];
/// Time between two attempts to reach a process that is only just starting: it has nothing to watch yet.
const KNOCK: Duration = Duration::from_millis(10);
/// How long anything that should take a second may take before `up` gives up and says what it waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("keelson up needs root: it makes namespaces, mounts and network devices")]
    NotRoot,
    #[error("missing programs; install them with: apt-get install {0}")]
    MissingPrograms(String),
    #[error("a cluster with {found} stands here already; run `keelson down` first")]
    Different { found: String },
    #[error("between 1 and {max} nodes fit on one machine, not {0}", max = crate::state::MAX_NODES)]
    NodeCount(u32),
    #[error("{what} did not come up within {PATIENCE:?}; see {}", log.display())]
    Late { what: String, log: PathBuf },
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error(transparent)]
    Node(#[from] node::Error),
    #[error(transparent)]
    NodeConfig(#[from] node_config::Error),
    #[error(transparent)]
    Image(#[from] image::Error),
    #[error(transparent)]
    Kubeconfig(#[from] kubeconfig::Error),
    #[error(transparent)]
    Pki(#[from] component_base::pki::Error),
    #[error(transparent)]
    Nodes(#[from] nodes::Error),
    #[error("cannot use {}", path.display())]
    File { path: PathBuf, source: std::io::Error },
}

/// Brings the cluster up and gives the path of its kubeconfig.
pub async fn run(state: &State, plan: &Plan, progress: &Progress) -> Result<PathBuf, Error> {
    check(state, plan)?;
    let programs = programs()?;
    let names = plan.node_names();
    let pki = progress.step("certificates and kubeconfigs", identities(state, plan)).await?;
    let network = async {
        network::make_bridge().await?;
        node::prepare_pins(state).await?;
        for node in &names {
            network::make_node(node).await?;
            cgroup::make(&node.name).map_err(|source| Error::File { path: "/sys/fs/cgroup".into(), source })?;
            node::make_namespaces(state, node).await?;
            node::write_containerd_config(state, node)?;
            node_config::write(state, node, &pki, &plan.switches)?;
        }
        Ok::<_, Error>(())
    };
    let (network, images) = tokio::join!(
        progress.step("node namespaces, cables and routes", network),
        progress.step("images", async { Ok::<_, Error>(image::build(state).await?) }),
    );
    network?;
    images?;
    progress.step("processes", start(state, plan, &programs)).await?;
    let kubeconfig = state.admin_kubeconfig();
    // Nodes become Ready without images: those arrive meanwhile.
    let (cluster, runtimes) = tokio::join!(
        ready(state, &names, &kubeconfig, progress),
        progress.step("containerd with images on every node", runtimes(state, &names)),
    );
    cluster?;
    runtimes?;
    if let Some(path) = kubeconfig::user_file() {
        kubeconfig::merge(&path, &kubeconfig::document(&admin(&pki)?.access(&pki)))?;
    }
    progress.total("cluster up");
    Ok(kubeconfig)
}

/// From processes that have just been started to nodes that are Ready.
async fn ready(state: &State, names: &[NodeName], kubeconfig: &Path, progress: &Progress) -> Result<(), Error> {
    let client = progress.step("control plane answers", control_plane(state, kubeconfig)).await?;
    progress
        .step("pod network", async {
            let cidrs = within(nodes::pod_cidrs(&client, names), "a node's pod range", state, "server").await??;
            for (node, cidr) in &cidrs {
                node::write_cni_config(state, node, cidr)?;
            }
            Ok::<_, Error>(network::route(&cidrs).await?)
        })
        .await?;
    let log = format!("{}-kubelet", names.first().map_or("node-1", |node| &node.name));
    let ready = async { Ok::<_, Error>(within(nodes::ready(&client, names), "a node", state, &log).await??) };
    progress.step("nodes Ready", ready).await
}

/// Refuses what cannot work before anything is made.
fn check(state: &State, plan: &Plan) -> Result<(), Error> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    if plan.nodes == 0 || plan.nodes > crate::state::MAX_NODES {
        return Err(Error::NodeCount(plan.nodes));
    }
    let mut needed = PROGRAMS.to_vec();
    if plan.store == crate::server::Store::Etcd {
        needed.push(("etcd", "etcd-server"));
    }
    let mut missing: Vec<&str> =
        needed.iter().filter(|(program, _)| command::find(program).is_none()).map(|(_, package)| *package).collect();
    if !Path::new(node::CNI_PROGRAMS).join("bridge").exists() {
        missing.push("containernetworking-plugins");
    }
    if !missing.is_empty() {
        missing.dedup();
        return Err(Error::MissingPrograms(missing.join(" ")));
    }
    match std::fs::read(state.plan()).map(|text| serde_json::from_slice::<Plan>(&text)) {
        Ok(Ok(found)) if found != *plan => {
            let switches = found.switches.arguments().iter().map(|text| format!(" {text}")).collect::<String>();
            Err(Error::Different { found: format!("{} nodes, the {} store{switches}", found.nodes, found.store) })
        }
        _ => Ok(()),
    }
}

/// The folder of this program: the others are beside it.
fn programs() -> Result<PathBuf, Error> {
    let failed = |source| Error::File { path: "/proc/self/exe".into(), source };
    let exe = std::env::current_exe().map_err(failed)?;
    Ok(exe.parent().unwrap_or(Path::new("/")).to_owned())
}

async fn identities(state: &State, plan: &Plan) -> Result<Pki, Error> {
    for dir in [&state.root, &state.run] {
        private_dir(dir).map_err(|source| Error::File { path: dir.clone(), source })?;
    }
    let pki = Pki::open(&state.pki(), &Plan::server_names())?;
    kubeconfig::write(&state.admin_kubeconfig(), &kubeconfig::document(&admin(&pki)?.access(&pki)))?;
    let text = serde_json::to_vec_pretty(plan).expect("a plan is plain data");
    std::fs::write(state.plan(), text).map_err(|source| Error::File { path: state.plan(), source })?;
    Ok(pki)
}

struct Admin {
    server: String,
    pair: component_base::pki::Pair,
}

fn admin(pki: &Pki) -> Result<Admin, Error> {
    Ok(Admin { server: format!("https://127.0.0.1:{API_PORT}"), pair: pki.client("admin")? })
}

impl Admin {
    fn access<'a>(&'a self, pki: &'a Pki) -> Access<'a> {
        Access {
            server: &self.server,
            ca_pem: pki.ca_pem(),
            certificate_pem: &self.pair.cert_pem,
            key_pem: &self.pair.key_pem,
        }
    }
}

/// Starts the supervisor, detached from this terminal; one that works already is left alone.
async fn start(state: &State, plan: &Plan, programs: &Path) -> Result<(), Error> {
    if supervisor::is_running(state) {
        return Ok(());
    }
    let log = state.logs().join("supervisor.log");
    private_dir(&state.logs()).map_err(|source| Error::File { path: state.logs(), source })?;
    let open = || std::fs::OpenOptions::new().create(true).append(true).open(&log);
    let failed = |source| Error::File { path: log.clone(), source };
    let mut supervise = tokio::process::Command::new("setsid");
    supervise
        .args(["--fork".as_ref(), programs.join("keelson").as_os_str(), "supervise".as_ref()])
        .stdin(std::process::Stdio::null())
        .stdout(open().map_err(failed)?)
        .stderr(open().map_err(failed)?);
    // Not `output`: it would wait for the supervisor, which keeps what it inherits, to end.
    let started = supervise.status().await.map_err(failed)?;
    if !started.success() {
        return Err(Error::Late { what: "the supervisor".into(), log });
    }
    let first: Option<Process> = plan.processes(state, programs).into_iter().next();
    let pid_file = state.pids().join(first.map(|process| process.name).unwrap_or_default());
    within(knock(|| async { supervisor::read_pid(&pid_file) }), "the supervisor", state, "supervisor").await?;
    Ok(())
}

/// Waits until the API server says that it is ready, and gives a client for it.
async fn control_plane(state: &State, kubeconfig: &Path) -> Result<client::Client, Error> {
    let ready = async {
        knock(|| async { TcpStream::connect(("127.0.0.1", API_PORT)).await.ok() }).await;
        let client = nodes::client(kubeconfig, CONTEXT).await?;
        knock(|| async { nodes::is_ready(&client).await.then_some(()) }).await;
        Ok::<_, Error>(client)
    };
    within(ready, "the control plane", state, "server").await?
}

async fn runtimes(state: &State, names: &[NodeName]) -> Result<(), Error> {
    let each = names.iter().map(|node| async move {
        let socket = state.containerd_socket(&node.name);
        let log = format!("{}-containerd", node.name);
        within(knock(|| async { UnixStream::connect(&socket).await.ok() }), "containerd", state, &log).await?;
        Ok::<_, Error>(image::import(state, node).await?)
    });
    futures::future::try_join_all(each).await?;
    Ok(())
}

/// Tries until there is an answer.
async fn knock<T, F: Future<Output = Option<T>>>(mut attempt: impl FnMut() -> F) -> T {
    loop {
        if let Some(answer) = attempt().await {
            return answer;
        }
        tokio::time::sleep(KNOCK).await;
    }
}

/// Bounds a wait; the error names the log to read.
async fn within<T>(wait: impl Future<Output = T>, what: &str, state: &State, log: &str) -> Result<T, Error> {
    tokio::time::timeout(PATIENCE, wait)
        .await
        .map_err(|_| Error::Late { what: what.to_owned(), log: state.logs().join(format!("{log}.log")) })
}
