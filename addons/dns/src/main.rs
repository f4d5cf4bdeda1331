//! `keelson-dns`: reads flags, connects, answers.

use std::process::ExitCode;

use client::Client;
use component_base::{program, signals};
use dns::{Config, config};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    program::run("keelson-dns", &config::flags(), Some(2), Config::from_flags, start)
}

async fn start(config: Config) -> anyhow::Result<()> {
    let client = Client::for_component("keelson-dns", config.kubeconfig.as_deref(), None).await?;
    Ok(dns::run(config, client, signals::shutdown()).await?)
}
