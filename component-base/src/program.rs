//! What the `main` of a component does: flags read, a logger and a runtime started, and said why it ended.

use std::fmt::Display;
use std::process::ExitCode;

use crate::flags::{FlagSet, Parsed};
use crate::{logging, memory};

/// The name of this machine, as its kernel has it.
///
/// # Errors
/// When the kernel does not tell it.
pub fn hostname() -> std::io::Result<String> {
    Ok(nix::unistd::gethostname()?.to_string_lossy().into_owned())
}

/// Runs a component as this process, until it ends by itself or fails.
///
/// `threads` bounds how many the runtime has; without, there is one for each processor. `read` makes the configuration
/// from the process's flags, and `start` runs with it.
pub fn run<C, F, E, X>(
    name: &str,
    flags: &FlagSet,
    threads: Option<usize>,
    read: impl FnOnce(&Parsed) -> Result<C, E>,
    start: impl FnOnce(C) -> F,
) -> ExitCode
where
    F: Future<Output = Result<(), X>>,
    E: Display,
    X: Display,
{
    memory::frugal();
    let parsed = flags.parse_or_exit(std::env::args().skip(1));
    let config = match read(&parsed) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("Error: {error}");
            return ExitCode::FAILURE;
        }
    };
    logging::init(&logging::Options::from_flags(&parsed));
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = threads {
        builder.worker_threads(threads);
    }
    let runtime = builder.enable_all().build().expect("the runtime needs only threads and epoll");
    match runtime.block_on(start(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "{name} failed");
            ExitCode::FAILURE
        }
    }
}
