//! `kubelet`: reads the configuration, connects, runs.

use std::process::ExitCode;

use component_base::{logging, memory, signals};
use kubelet::certificates::{self, Store};
use kubelet::config::Config;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    memory::frugal();
    let config = match Config::from_args(std::env::args().skip(1)) {
        Ok(config) => config,
        Err(kubelet::config::Error::Flags(component_base::flags::Error::Help)) => {
            print!("{}", Config::help());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    if config.version {
        println!("Kubernetes {}", component_base::version::git_version());
        return ExitCode::SUCCESS;
    }
    logging::init(&config.logging);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the async runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: Config) -> anyhow::Result<()> {
    component_base::tls::install_default_provider();
    let shutdown = signals::shutdown();
    let Some(path) = config.kubeconfig.clone() else {
        anyhow::bail!("--kubeconfig is required: running without an API server is not supported");
    };
    let clock = component_base::clock::RealClock::shared();
    let store = Store::new(&config.cert_dir, "kubelet-client");
    if let Some(first) = &config.bootstrap_kubeconfig {
        certificates::bootstrap::bootstrap(&path, first, &store, &config.node_name(), &clock).await?;
    }
    let identity = config.file.rotate_certificates.then(|| store.current_path());
    let client = client::Client::following_kubeconfig(&path, None, identity.as_deref()).await?;
    let client = client.with_user_agent(&component_base::version::user_agent("kubelet"));
    kubelet::run(config, client, shutdown).await?;
    Ok(())
}
