//! What every controller is given: clients, shared informers, clock, configuration, shutdown.

use std::sync::Arc;

use client::Client;
use client::events::Recorder;
use client::informer::SharedInformerFactory;
use component_base::clock::SharedClock;
use component_base::metrics::Registry;
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// Shared by all controllers of a process.
pub struct Context {
    pub config: Config,
    pub informers: SharedInformerFactory,
    pub clock: SharedClock,
    pub metrics: Registry,
    pub shutdown: CancellationToken,
    client: Client,
}

impl Context {
    pub fn new(
        config: Config,
        client: Client,
        clock: SharedClock,
        metrics: Registry,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        let agent = component_base::version::user_agent("kube-controller-manager");
        let shared = client.with_user_agent(&format!("{agent}/shared-informers"));
        Arc::new(Self {
            informers: SharedInformerFactory::new(shared, shutdown.clone()),
            client: client.with_user_agent(&agent).with_rate_limit(config.kube_api_qps, config.kube_api_burst),
            config,
            clock,
            metrics,
            shutdown,
        })
    }

    /// The client of one controller: named in its user agent, with a rate limit of its own as
    /// upstream's controllers have, and under its own service account where that is asked for.
    pub fn client(&self, controller: &str) -> Client {
        let mut client = self.client.clone();
        if self.config.use_service_account_credentials {
            match client.as_service_account("kube-system", controller) {
                Ok(own) => client = own,
                Err(error) => tracing::error!(controller, error = error.chain(), "cannot use its service account"),
            }
        }
        let agent = component_base::version::user_agent("kube-controller-manager");
        client
            .with_user_agent(&format!("{agent}/system:serviceaccount:kube-system:{controller}"))
            .with_rate_limit(self.config.kube_api_qps, self.config.kube_api_burst)
    }

    /// The component's own client, for what no controller's account may do.
    pub fn component(&self) -> Client {
        self.client.clone()
    }

    /// Records Events under a controller's name, as the component itself, which may always do that.
    pub fn recorder(&self, component: &str) -> Recorder {
        Recorder::core(self.client.clone(), component, "", self.clock.clone())
    }
}

/// Waits for informers; false when the controllers must end first.
pub async fn synced(shutdown: &CancellationToken, informers: impl Future<Output = ()>) -> bool {
    tokio::select! {
        () = shutdown.cancelled() => false,
        () = informers => true,
    }
}
