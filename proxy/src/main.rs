//! `kube-proxy`: reads flags and configuration, connects, runs.

use std::process::ExitCode;

use client::Client;
use component_base::{logging, memory, signals, version};
use proxy::Config;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    memory::frugal();
    let parsed = proxy::config::flags().parse_or_exit(std::env::args().skip(1));
    let config = match Config::from_flags(&parsed) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("Error: {error}");
            return ExitCode::FAILURE;
        }
    };
    logging::init(&config.logging);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("the runtime needs only threads and epoll");
    match runtime.block_on(start(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "kube-proxy failed");
            ExitCode::FAILURE
        }
    }
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
    let client = match &config.kubeconfig {
        None if config.master.is_none() => Client::in_cluster()?,
        None => Client::from_kubeconfig_with_server(None, config.master.as_deref()).await?,
        Some(path) => Client::following_kubeconfig(path, config.master.as_deref(), None).await?,
    }
    .with_user_agent(&version::user_agent("kube-proxy"));
    proxy::run(config, client, signals::shutdown()).await?;
    Ok(())
}
