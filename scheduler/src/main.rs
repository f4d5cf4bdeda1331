//! `kube-scheduler`: reads flags and configuration, connects, runs.

use std::process::ExitCode;

use client::Client;
use component_base::{program, signals};
use scheduler::{Config, config};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    program::run("kube-scheduler", &config::flags(), None, Config::from_flags, start)
}

async fn start(config: Config) -> anyhow::Result<()> {
    let (kubeconfig, master) = (config.kubeconfig.as_deref(), config.master.as_deref());
    let client = Client::for_component("kube-scheduler", kubeconfig, master).await?;
    Ok(scheduler::run(config, client, signals::shutdown()).await?)
}
