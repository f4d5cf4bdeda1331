//! Keeping something in step with a resource: a graph, an index, a compiled rule set.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Result;
use super::event::Event;
use super::resource::{Freshness, ResourceCache};
use super::scope::Scope;
use super::snapshot::Snapshot;
use super::watch::{Item, Start, Watch, WatchRequest};

/// How long a follower waits before it starts over when the store cannot be read.
const PAUSE: Duration = Duration::from_secs(1);

/// Something derived from the objects of a resource.
pub trait Follower: Send + Sync + 'static {
    /// These are all objects; whatever was known is forgotten.
    fn replace(&self, objects: &Snapshot);

    /// One object changed. In order, from one caller at a time.
    fn apply(&self, event: &Event);
}

impl ResourceCache {
    /// Shows the follower every object, then keeps telling it of changes until `shutdown`. Done once
    /// the follower has seen the present objects, or (`false`) when they cannot be read yet: that is
    /// tried again in the background.
    pub async fn follow(self: &Arc<Self>, follower: Arc<dyn Follower>, shutdown: CancellationToken) -> bool {
        let watch = match self.begin(&*follower).await {
            Ok(watch) => Some(watch),
            Err(error) => {
                tracing::warn!(resource = %self.spec().resource, %error, "cannot be followed yet");
                None
            }
        };
        let synced = watch.is_some();
        let cache = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = cache.keep_following(watch, follower) => {}
            }
        });
        synced
    }

    async fn begin(self: &Arc<Self>, follower: &dyn Follower) -> Result<Watch> {
        let request = WatchRequest {
            scope: Scope::All,
            matcher: None,
            start: Start::State(Freshness::Consistent),
            bookmarks: None,
            ends_in: None,
        };
        let mut watch = self.watch(request).await?;
        if let Some(objects) = watch.initial.take() {
            follower.replace(&objects);
        }
        Ok(watch)
    }

    async fn keep_following(self: &Arc<Self>, mut watch: Option<Watch>, follower: Arc<dyn Follower>) {
        loop {
            let Some(current) = &mut watch else {
                tokio::time::sleep(PAUSE).await;
                watch = self.begin(&*follower).await.ok();
                continue;
            };
            match current.next().await {
                Ok(Item::Events(events)) => events.iter().for_each(|(_, event)| follower.apply(event)),
                Ok(Item::Bookmark(_)) => {}
                Err(error) => {
                    tracing::info!(resource = %self.spec().resource, %error, "a follower starts over");
                    watch = self.begin(&*follower).await.ok();
                }
            }
        }
    }
}
