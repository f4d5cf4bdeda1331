//! `--encryption-provider-config-automatic-reload`: the file is read again when it changes.
//!
//! A file that is wrong, or names a plugin that is not well, changes nothing: it is tried again.

use std::sync::Arc;
use std::time::Duration;

use component_base::files;
use tokio_util::sync::CancellationToken;

use super::{Encryption, build, configuration};

/// How long plugins that are new may take to be well.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long after a failure the file is tried again, doubling up to the larger figure.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

impl Encryption {
    /// Follows the file until `shutdown`, if that was asked for.
    pub fn follow(self: &Arc<Self>, shutdown: CancellationToken) {
        if !self.reload {
            return;
        }
        let encryption = self.clone();
        tokio::spawn(async move {
            let mut watch = files::Watch::new(&[&encryption.path]);
            let mut pause = AGAIN.0;
            loop {
                // At once, for what changed between reading and watching.
                let failed = match encryption.read_again().await {
                    Ok(changed) => {
                        if changed && let Some(metrics) = &encryption.metrics {
                            metrics.reloaded(true);
                        }
                        false
                    }
                    Err(error) => {
                        let path = encryption.path.display();
                        tracing::error!("error processing encryption config file {path}: {error}");
                        if let Some(metrics) = &encryption.metrics {
                            metrics.reloaded(false);
                        }
                        true
                    }
                };
                tokio::select! {
                    () = watch.changed() => pause = AGAIN.0,
                    () = encryption.clock.sleep(pause), if failed => pause = (pause * 2).min(AGAIN.1),
                    () = shutdown.cancelled() => return,
                }
            }
        });
    }

    /// Whether the file is another one than before; then it is in use now.
    async fn read_again(&self) -> Result<bool, String> {
        let (_, hash) = configuration::read(&self.path)?;
        if hash == self.current.load().hash {
            return Ok(false);
        }
        let configuration = configuration::load(&self.path, true)?;
        let table = build(&configuration, &self.clock, self.metrics.as_ref())?;
        for plugin in &table.plugins {
            let well = async {
                while plugin.probe().await.is_err() {
                    self.clock.sleep(Duration::from_millis(100)).await;
                }
            };
            tokio::select! {
                () = well => {}
                () = self.clock.sleep(PATIENCE) => {
                    let why = plugin.health().err().unwrap_or_default();
                    return Err(format!("health check for new transformers failed: {why}"));
                }
            }
        }
        if let Some(metrics) = &self.metrics {
            metrics.in_use(&table.hash);
        }
        self.current.store(Arc::new(table));
        tracing::info!("the encryption configuration was read again");
        Ok(true)
    }
}
