//! Asking for the next certificate before the present one ends.

use std::time::Duration;

use client::Client;
use component_base::clock::SharedClock;
use component_base::pki::{Facts, Pair};
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::{Ask, Store, certificate};

/// Pauses between attempts that fail; the last one goes on.
const PAUSES: [u64; 5] = [2, 4, 8, 16, 32];

/// Keeps one certificate fresh.
pub struct Rotation {
    pub client: Client,
    pub store: Store,
    /// What to ask for now; `None` while it is not known.
    pub ask: Box<dyn Fn() -> Option<Ask> + Send + Sync>,
    /// What the certificate in use says when the store has none.
    pub initial: Option<Facts>,
    /// Takes over a new pair.
    pub fresh: Box<dyn Fn(&Pair) + Send + Sync>,
    pub clock: SharedClock,
}

/// Somewhere between seven and nine tenths of a certificate's life, so that not all nodes ask at once.
fn deadline(facts: &Facts, random: f64) -> Timestamp {
    let life = facts.not_after.duration_since(facts.not_before);
    facts.not_before + SignedDuration::from_secs_f64(life.as_secs_f64() * (0.7 + 0.2 * random))
}

impl Rotation {
    /// Rotates until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        tokio::select! {
            () = self.rotate() => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn rotate(&self) {
        let mut failures = 0;
        loop {
            let now = self.clock.now();
            if let Some(facts) = self.store.valid(now).or_else(|| self.initial.clone().filter(|f| now < f.not_after)) {
                let pause = deadline(&facts, rand::random()).duration_since(now);
                if pause.is_positive() {
                    tracing::debug!(?pause, "waiting for next certificate rotation");
                    self.clock.sleep(pause.unsigned_abs()).await;
                }
            }
            let Some(ask) = (self.ask)() else {
                self.clock.sleep(Duration::from_secs(1)).await;
                continue;
            };
            tracing::info!(signer = ask.signer, "rotating certificates");
            let got = match certificate(&self.client, &ask).await {
                Ok(pair) => self.store.update(&pair, self.clock.now()).map(|()| pair).map_err(Into::into),
                Err(error) => Err(error),
            };
            match got {
                Ok(pair) => {
                    failures = 0;
                    (self.fresh)(&pair);
                }
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "certificate request was not signed");
                    self.clock.sleep(Duration::from_secs(PAUSES[failures.min(PAUSES.len() - 1)])).await;
                    failures += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_is_late_but_not_too_late() {
        let pair = component_base::pki::self_signed(&component_base::pki::Profile::client("a", &[])).unwrap();
        let facts = component_base::pki::facts(&pair.cert_pem).unwrap();
        let days = |random: f64| deadline(&facts, random).duration_since(facts.not_before).as_hours() / 24;
        assert_eq!((days(0.0), days(1.0)), (255, 328));
    }
}
