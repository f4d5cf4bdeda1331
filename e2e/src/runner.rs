//! Runs scenarios one after the other and counts. One list names them all; see [`crate::scenarios::ALL`].

use std::time::{Duration, Instant};

use anyhow::anyhow;
use futures::future::LocalBoxFuture;

use crate::cluster::Cluster;

/// A scenario that takes longer hangs: the slowest rolls a Deployment through every replica.
const LONGEST: Duration = Duration::from_secs(180);

/// One scenario: a name to select it by, what it needs, and the thing itself.
#[derive(Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    pub needs: Needs,
    pub run: for<'a> fn(&'a Cluster) -> LocalBoxFuture<'a, anyhow::Result<()>>,
}

/// Where a scenario can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Any cluster, upstream's too.
    Api,
    /// A cluster of `keelson up` on this machine.
    Machine,
    /// A cluster with gates, APIs and controllers that are off by default; `e2e/test-all` names them.
    Extras,
}

/// What became of the scenarios.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
}

/// Runs every scenario whose name contains `only`, and prints a line each.
pub async fn run(cluster: &Cluster, scenarios: &[Scenario], only: &str) -> Count {
    let mut count = Count::default();
    for scenario in scenarios.iter().filter(|scenario| scenario.name.contains(only)) {
        let lacking = match scenario.needs {
            Needs::Machine if !cluster.is_local() => Some("a cluster of `keelson up` on this machine"),
            Needs::Extras if !cluster.has_extras() => Some("what is off by default"),
            _ => None,
        };
        if let Some(lacking) = lacking {
            println!("skipped {}: needs {lacking}", scenario.name);
            count.skipped += 1;
            continue;
        }
        let started = Instant::now();
        let result = match tokio::time::timeout(LONGEST, (scenario.run)(cluster)).await {
            Ok(result) => result,
            Err(_) => Err(anyhow!("not finished after {LONGEST:?}")),
        };
        let seconds = started.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                println!("ok      {:<44} {seconds:6.2}s", scenario.name);
                count.passed += 1;
            }
            Err(error) => {
                println!("FAILED  {:<44} {seconds:6.2}s\n        {error:#}", scenario.name);
                count.failed += 1;
            }
        }
    }
    count
}
