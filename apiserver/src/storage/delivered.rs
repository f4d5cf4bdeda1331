//! How far changes have been delivered, for those who must not read a cache that lags.

use tokio::sync::watch;

use super::Revision;

/// A revision that only grows, and can be waited for.
#[derive(Debug)]
pub(super) struct Delivered(watch::Sender<Revision>);

impl Delivered {
    pub fn new(revision: Revision) -> Delivered {
        Delivered(watch::Sender::new(revision))
    }

    pub fn get(&self) -> Revision {
        *self.0.borrow()
    }

    /// Moves forward to `revision`; an older one changes nothing.
    pub fn advance(&self, revision: Revision) {
        self.0.send_if_modified(|current| {
            let newer = revision > *current;
            if newer {
                *current = revision;
            }
            newer
        });
    }

    pub async fn wait(&self, revision: Revision) {
        // The sender lives as long as `self`, so waiting can only end with the value.
        let _ = self.0.subscribe().wait_for(|current| *current >= revision).await;
    }
}
