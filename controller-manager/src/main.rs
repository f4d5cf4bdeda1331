//! kube-controller-manager: flags in, control loops out.

use std::process::ExitCode;

use component_base::{logging, memory, signals};
use controller_manager::{Config, config};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    memory::frugal();
    match start().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn start() -> anyhow::Result<()> {
    let config = Config::from_flags(&config::flags().parse_or_exit(std::env::args().skip(1)))?;
    logging::init(&config.logging);
    let client = match &config.kubeconfig {
        Some(path) => client::Client::following_kubeconfig(path, None, None).await?,
        None => client::Client::in_cluster()?,
    };
    controller_manager::run(config, client, signals::shutdown()).await?;
    Ok(())
}
