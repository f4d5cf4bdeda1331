//! `kube-proxy`: reads flags and configuration, connects, runs.

use std::process::ExitCode;

use client::Client;
use component_base::{program, signals};
use proxy::{Config, config};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    program::run("kube-proxy", &config::flags(), Some(2), Config::from_flags, start)
}

async fn start(config: Config) -> anyhow::Result<()> {
    if config.cleanup {
        return Ok(proxy::cleanup()?);
    }
    if let Some(score) = config.oom_score_adj
        && let Err(error) = std::fs::write("/proc/self/oom_score_adj", score.to_string())
    {
        tracing::warn!(%error, "Failed to apply OOMScore");
    }
    let (kubeconfig, master) = (config.kubeconfig.as_deref(), config.master.as_deref());
    let client = Client::for_component("kube-proxy", kubeconfig, master).await?;
    Ok(proxy::run(config, client, signals::shutdown()).await?)
}
