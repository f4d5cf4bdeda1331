//! The `kube-apiserver` binary: flags in, server out.

use std::process::ExitCode;

use apiserver::config::flags::flag_set;
use apiserver::{Config, Server};
use component_base::{logging, memory, signals, tls};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    memory::frugal();
    let flags = flag_set().parse_or_exit(std::env::args().skip(1));
    logging::init(&logging::Options::from_flags(&flags));
    tls::install_default_provider();
    let config = match Config::from_flags(&flags) {
        Ok(config) => config,
        Err(error) => return failed(&error),
    };
    let runtime = match apiserver::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    runtime.block_on(async {
        let shutdown = signals::shutdown();
        match Server::start(config, shutdown).await {
            Ok(handle) => {
                handle.stopped().await;
                ExitCode::SUCCESS
            }
            Err(error) => failed(&error),
        }
    })
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    let mut text = format!("Error: {error}");
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    eprintln!("{text}");
    ExitCode::FAILURE
}
