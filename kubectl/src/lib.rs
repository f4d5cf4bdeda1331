//! kubectl: the command line client of any Kubernetes cluster.
//!
//! One file or folder for each verb under `cmd/`, over shared operations: flags as pflag parses them
//! (`flags`), a connection from kubeconfig (`factory`, `rest`), served resources (`discovery`,
//! `mapper`), what arguments and files mean (`resource`), and output formats (`printer`,
//! `template`, `describe`). Output, errors and exit codes are upstream's.

pub mod codec;
pub mod command;
pub mod describe;
pub mod discovery;
pub mod error;
pub mod factory;
pub mod flags;
pub mod kustomize;
pub mod mapper;
pub mod pods;
pub mod printer;
pub mod remote;
mod removed;
pub mod resource;
pub mod rest;
pub mod streams;
pub mod template;

mod cmd;

use std::process::ExitCode;

use streams::Streams;

/// The version this client reports.
pub const VERSION: &str = "v1.36.2";

/// Runs a command line (without the program's name) on the process's streams.
pub fn main(args: Vec<String>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(run(&args, Streams::process(), None));
    // A blocked read of standard input must not hold the program back.
    runtime.shutdown_background();
    ExitCode::from(code)
}

/// Runs a command line on given streams, and through a given client instead of a kubeconfig when
/// there is one. Returns the exit code.
pub async fn run(args: &[String], streams: Streams, client: Option<kube::Client>) -> u8 {
    command::dispatch(&cmd::ROOT, args, streams, client).await
}
