//! Removes images that no container uses when the disk fills up, the longest unused first.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use component_base::clock::SharedClock;
use parking_lot::Mutex;
use proto::cri;

use crate::config::File;
use crate::cri::{Result, Runtime};
use crate::node::facts::Usage;

/// Between two rounds.
pub const PERIOD: Duration = Duration::from_secs(300);

/// When to remove what.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Percent of the disk above which images go; 100 for never.
    pub high: i64,
    /// Percent of the disk down to which they go.
    pub low: i64,
    /// Younger images stay.
    pub minimum_age: Duration,
    /// Images unused for longer go whatever the disk; zero for never.
    pub maximum_age: Duration,
}

impl Policy {
    /// Of a configuration.
    pub fn of(file: &File) -> Self {
        Self {
            high: file.image_gc_high_threshold,
            low: file.image_gc_low_threshold,
            minimum_age: file.image_minimum_gc_age,
            maximum_age: file.image_maximum_gc_age,
        }
    }
}

/// What is remembered of an image. Times are monotonic.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    first: Duration,
    /// Zero for one that was never seen in use.
    last_used: Duration,
    size: i64,
    pinned: bool,
}

/// The collector.
pub struct ImageGc {
    cri: Arc<dyn Runtime>,
    clock: SharedClock,
    policy: Policy,
    seen: Mutex<HashMap<String, Seen>>,
}

impl ImageGc {
    pub fn new(cri: Arc<dyn Runtime>, clock: SharedClock, policy: Policy) -> Self {
        Self { cri, clock, policy, seen: Mutex::default() }
    }

    /// The file system that holds images; `None` while the runtime does not say.
    pub async fn usage(&self) -> Option<Usage> {
        let info = self.cri.image_fs_info().await.ok()?;
        let point = info.image_filesystems.first()?.fs_id.clone()?.mountpoint;
        Some(Usage::read(point.as_ref()))
    }

    /// One round.
    pub async fn collect(&self) -> Result<()> {
        let unused = self.unused().await?;
        let now = self.clock.monotonic();
        let old = |seen: &Seen| {
            let age = now.saturating_sub(seen.last_used.max(seen.first));
            !self.policy.maximum_age.is_zero() && age > self.policy.maximum_age
        };
        for (id, _) in unused.iter().filter(|(_, seen)| old(seen)) {
            self.remove(id).await?;
        }
        let Some(usage) = self.usage().await else { return Ok(()) };
        let wanted = to_free(&usage, self.policy);
        if wanted > 0 {
            let freed = self.free(wanted, self.policy.minimum_age).await?;
            if freed < wanted {
                tracing::warn!(wanted, freed, "failed to garbage collect required amount of images");
            }
        }
        Ok(())
    }

    /// Removes every image that nothing uses, whatever its age.
    pub async fn remove_all_unused(&self) -> Result<()> {
        self.free(i64::MAX, Duration::ZERO).await.map(|_| ())
    }

    async fn free(&self, wanted: i64, minimum_age: Duration) -> Result<i64> {
        let now = self.clock.monotonic();
        let mut freed = 0;
        for (id, seen) in self.unused().await? {
            if freed >= wanted {
                break;
            }
            if now.saturating_sub(seen.first) >= minimum_age {
                self.remove(&id).await?;
                freed = freed.saturating_add(seen.size);
            }
        }
        Ok(freed)
    }

    async fn remove(&self, id: &str) -> Result<()> {
        tracing::info!(image = %id, "removing image to free bytes");
        self.cri.remove_image(cri::ImageSpec { image: id.to_owned(), ..Default::default() }).await?;
        self.seen.lock().remove(id);
        Ok(())
    }

    /// Images that no container uses, the longest unused first.
    async fn unused(&self) -> Result<Vec<(String, Seen)>> {
        let (images, containers) = futures::try_join!(self.cri.list_images(), self.cri.list_containers(None))?;
        // The sandboxes' image is in use though no container says so.
        let keep = self.cri.sandbox_image().await?.unwrap_or_default();
        let mut used: HashSet<String> = HashSet::new();
        for container in containers {
            used.insert(container.image_ref);
            used.extend([container.image_id, container.image.map(|i| i.image).unwrap_or_default()]);
        }
        let now = self.clock.monotonic();
        let mut seen = self.seen.lock();
        Ok(note(&mut seen, &images, &used, &keep, now))
    }
}

/// Bytes to free: none below the high mark, and then all above the low one.
fn to_free(usage: &Usage, policy: Policy) -> i64 {
    if usage.disk_capacity <= 0 || policy.high >= 100 {
        return 0;
    }
    let used_percent = 100 - usage.disk_available.saturating_mul(100) / usage.disk_capacity;
    if used_percent < policy.high {
        return 0;
    }
    (usage.disk_capacity / 100 * (100 - policy.low) - usage.disk_available).max(0)
}

/// Takes notice of the images that are there and picks those that are free to go.
fn note(
    seen: &mut HashMap<String, Seen>,
    images: &[cri::Image],
    used: &HashSet<String>,
    keep: &str,
    now: Duration,
) -> Vec<(String, Seen)> {
    seen.retain(|id, _| images.iter().any(|image| image.id == *id));
    let mut out = Vec::new();
    for image in images {
        let entry = seen.entry(image.id.clone()).or_insert(Seen {
            first: now,
            last_used: Duration::ZERO,
            size: 0,
            pinned: false,
        });
        entry.size = i64::try_from(image.size).unwrap_or(i64::MAX);
        entry.pinned = image.pinned;
        let mut names = image.repo_tags.iter().chain(&image.repo_digests).chain([&image.id]);
        if names.clone().any(|name| used.contains(name)) || names.any(|name| name == keep) {
            entry.last_used = now;
        } else if !entry.pinned {
            out.push((image.id.clone(), entry.clone()));
        }
    }
    out.sort_by(|(a_id, a), (b_id, b)| (a.last_used, a.first, a_id).cmp(&(b.last_used, b.first, b_id)));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, tag: &str, pinned: bool) -> cri::Image {
        cri::Image { id: id.into(), repo_tags: vec![tag.into()], size: 10, pinned, ..Default::default() }
    }

    #[test]
    fn the_longest_unused_go_first_and_what_is_used_or_pinned_stays() {
        let mut seen = HashMap::new();
        let images =
            [image("a", "a:1", false), image("b", "b:1", false), image("c", "c:1", true), image("p", "pause", false)];
        let ids = |list: Vec<(String, Seen)>| list.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        let at = Duration::from_secs;
        let used = |name: &str| HashSet::from([name.to_owned()]);
        assert_eq!(ids(note(&mut seen, &images, &used("a:1"), "pause", at(1))), ["b"]);
        assert_eq!(ids(note(&mut seen, &images, &used("b"), "pause", at(2))), ["a"]);
        assert_eq!(ids(note(&mut seen, &images, &HashSet::new(), "pause", at(3))), ["a", "b"]);
        note(&mut seen, &images[1..], &HashSet::new(), "pause", at(4));
        assert!(!seen.contains_key("a"));
    }

    #[test]
    fn the_disk_is_brought_below_the_low_mark() {
        let policy = Policy { high: 85, low: 80, minimum_age: Duration::ZERO, maximum_age: Duration::ZERO };
        let usage = |available| Usage { disk_capacity: 1000, disk_available: available, ..Default::default() };
        assert_eq!(to_free(&usage(160), policy), 0);
        assert_eq!(to_free(&usage(150), policy), 50);
        assert_eq!(to_free(&usage(0), policy), 200);
        assert_eq!(to_free(&usage(0), Policy { high: 100, ..policy }), 0);
    }
}
