//! The `keelson` command.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use component_base::{logging, memory, signals};
use deploy::certs;
use deploy::down::run_down;
use deploy::plan::Plan;
use deploy::progress::Progress;
use deploy::server::{self, ServerFlags, Store, Switches};
use deploy::state::State;
use deploy::{supervisor, up};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Kubernetes 1.36 in one command.
#[derive(Parser)]
#[command(name = "keelson", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring up a cluster on this machine: nodes are network namespaces with a containerd each
    Up(Up),
    /// Remove every process, namespace, mount, rule and file of the cluster on this machine
    Down {
        /// Keep the container images that were built, so that the next `up` is quick
        #[arg(long)]
        keep_images: bool,
    },
    /// Run the control plane alone in one process; DIR/admin.kubeconfig is written when it is ready
    Server(ServerFlags),
    /// Make a cluster's certificates and an admin.kubeconfig, for components that are started by hand
    Pki {
        /// Folder to write to; what is there already is kept
        #[arg(long)]
        dir: PathBuf,
        /// URL of the API server; its host is put into the certificate
        #[arg(long)]
        server: url::Url,
    },
    /// Show or renew the certificates of a cluster on this machine
    Certs {
        /// Folder of the cluster: that of `keelson up`, or a server's --data-dir
        #[arg(long, global = true, default_value = "/var/lib/keelson")]
        dir: PathBuf,
        #[command(subcommand)]
        command: Certs,
    },
    /// Build the container images of a local cluster
    Images,
    /// Act as kubectl, with the local cluster's kubeconfig when no other is given
    #[command(disable_help_flag = true)]
    Kubectl {
        /// kubectl's own arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Keep the processes of the cluster running (started by `up`)
    #[command(hide = true)]
    Supervise,
}

#[derive(Subcommand)]
enum Certs {
    /// Every certificate with its subject, issuer, expiry and file
    Show {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Make certificates anew, while everything runs: those that are named, or all. What kubelets were given
    /// (NODE/kubelet-...-current) they renew themselves
    Renew { names: Vec<String> },
}

#[derive(Args)]
struct Up {
    /// Number of nodes
    #[arg(long, default_value_t = 2)]
    nodes: u32,
    /// Where the API server keeps its objects
    #[arg(long, value_enum, default_value_t = Store::Embedded)]
    store: Store,
    #[command(flatten)]
    switches: Switches,
}

fn main() -> ExitCode {
    let command = match Cli::parse().command {
        // kubectl has a runtime of its own.
        Command::Kubectl { args } => return kubectl::main(with_kubeconfig(args)),
        other => other,
    };
    let outcome = apiserver::runtime().map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(run(command)));
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    let state = State::default();
    match command {
        Command::Up(flags) => {
            let plan = Plan { nodes: flags.nodes, store: flags.store, switches: flags.switches };
            let progress = Progress::default();
            tokio::select! {
                up = up::run(&state, &plan, &progress) => {
                    let kubeconfig = up?;
                    println!("The cluster is up. `kubectl get nodes` reaches it (context \"keelson\"),");
                    println!("as does KUBECONFIG={}.", kubeconfig.display());
                }
                () = interrupted() => {
                    println!("Interrupted. `keelson up` goes on from here, `keelson down` removes what there is.");
                    return Ok(ExitCode::from(130));
                }
            }
        }
        Command::Down { keep_images } => run_down(&state, keep_images, &Progress::default()).await?,
        Command::Server(flags) => {
            memory::frugal();
            logging::init(&logging::Options { verbosity: flags.verbosity, ..Default::default() });
            server::run(flags, signals::shutdown()).await?;
        }
        Command::Pki { dir, server } => deploy::pki::write(&dir, &server)?,
        Command::Certs { dir, command } => {
            let place = certs::Place::new(&dir);
            match command {
                Certs::Show { json } => certs::run_show(&place, json)?,
                Certs::Renew { names } => certs::run_renew(&place, &names)?,
            }
        }
        Command::Images => deploy::image::build(&state).await?,
        // Answered before there is a runtime.
        Command::Kubectl { .. } => {}
        Command::Supervise => {
            logging::init(&logging::Options::default());
            let plan: Plan = serde_json::from_slice(&std::fs::read(state.plan())?)?;
            let exe = std::env::current_exe()?;
            let programs = exe.parent().unwrap_or(std::path::Path::new("/"));
            let processes = plan.processes(&state, programs);
            supervisor::run(&state, processes, signals::shutdown()).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// kubectl's arguments, with the local cluster's kubeconfig unless the caller chose one.
fn with_kubeconfig(mut args: Vec<String>) -> Vec<String> {
    let kubeconfig = State::default().admin_kubeconfig();
    let chosen = std::env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty())
        || args.iter().take_while(|arg| *arg != "--").any(|arg| arg.starts_with("--kubeconfig"));
    if !chosen && kubeconfig.exists() {
        args.insert(0, format!("--kubeconfig={}", kubeconfig.display()));
    }
    args
}

async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        // Without the handler the default action ends the process anyway.
        std::future::pending::<()>().await;
    }
}
