//! `kube-scheduler`: reads flags and configuration, connects, runs.

use std::process::ExitCode;

use client::Client;
use component_base::{logging, memory, signals, version};
use scheduler::Config;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    memory::frugal();
    let parsed = scheduler::config::flags().parse_or_exit(std::env::args().skip(1));
    let config = match Config::from_flags(&parsed) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("Error: {error}");
            return ExitCode::FAILURE;
        }
    };
    logging::init(&config.logging);
    let runtime = tokio::runtime::Runtime::new().expect("the runtime needs only threads and epoll");
    match runtime.block_on(start(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "kube-scheduler failed");
            ExitCode::FAILURE
        }
    }
}

async fn start(config: Config) -> anyhow::Result<()> {
    let client = match &config.kubeconfig {
        None if config.master.is_none() => Client::in_cluster()?,
        None => Client::from_kubeconfig_with_server(None, config.master.as_deref()).await?,
        Some(path) => Client::following_kubeconfig(path, config.master.as_deref(), None).await?,
    }
    .with_user_agent(&version::user_agent("kube-scheduler"));
    scheduler::run(config, client, signals::shutdown()).await?;
    Ok(())
}
