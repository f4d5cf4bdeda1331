//! Runs the scenarios against a cluster and closes with a line of counts.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use e2e::cluster::Cluster;
use e2e::{runner, scenarios};

#[derive(Parser)]
struct Flags {
    /// The cluster
    #[arg(long, env = "KUBECONFIG", default_value = "/var/lib/keelson/admin.kubeconfig")]
    kubeconfig: PathBuf,
    /// The kubectl to drive it with; ours or upstream's
    #[arg(long, env = "KUBECTL", default_value = "kubectl")]
    kubectl: PathBuf,
    /// The cluster is `keelson up`'s, on this machine
    #[arg(long)]
    local: bool,
    /// The cluster has gates, APIs and controllers that are off by default
    #[arg(long)]
    extras: bool,
    /// Run only scenarios whose name contains this
    #[arg(long, default_value = "")]
    only: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let flags = Flags::parse();
    let cluster = Cluster::open(flags.kubectl, flags.kubeconfig, flags.local, flags.extras).await?;
    let count = runner::run(&cluster, scenarios::ALL, &flags.only).await;
    println!("{} passed, {} failed, {} skipped", count.passed, count.failed, count.skipped);
    Ok(if count.failed == 0 && count.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
