//! Whether a write is alone, and so commits on its own thread, or has company to commit with.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

/// A sync that takes no longer than this is waited for on the runtime's own thread. Handing the runtime's work to
/// another thread costs two switches between processors, a good part of such a sync; what this thread would have done
/// meanwhile waits for no longer than this.
const SHORT_SYNC: Duration = Duration::from_micros(500);

/// After so many writes that looked for company and found none, only each of so many looks.
const LONELY: u32 = 8;

/// The writes under way, and what is known from those before.
#[derive(Debug, Default)]
pub(super) struct Company {
    /// Writes from their first moment to their answer.
    writing: AtomicUsize,
    /// How many writes in a row found themselves alone.
    lonely: AtomicU32,
    /// Whether syncs are short; false until one is known.
    short_syncs: AtomicBool,
}

/// Counts a write for as long as it lives, however it ends.
pub(super) struct UnderWay<'a>(&'a AtomicUsize);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Company {
    /// A write begins.
    pub fn enter(&self) -> UnderWay<'_> {
        self.writing.fetch_add(1, Ordering::Relaxed);
        UnderWay(&self.writing)
    }

    /// Whether the write that asks is the only one, having looked about where that is worth it.
    pub async fn is_missing(&self) -> bool {
        if !self.is_alone() {
            return false;
        }
        if self.is_expected() {
            // Whoever is about to write beside this one, be it from the same task, gets to say so first.
            tokio::task::yield_now().await;
            let alone = self.is_alone();
            let lonely = if alone { self.lonely.load(Ordering::Relaxed).wrapping_add(1) } else { 0 };
            self.lonely.store(lonely, Ordering::Relaxed);
            return alone;
        }
        true
    }

    fn is_alone(&self) -> bool {
        self.writing.load(Ordering::Relaxed) == 1
    }

    /// Whether a write that seems to be alone should look about: to commit with others is worth the wait, to look costs
    /// the wake-up of another thread. Where syncs take their time it always should.
    fn is_expected(&self) -> bool {
        let lonely = self.lonely.load(Ordering::Relaxed);
        if !self.syncs_are_short() || lonely < LONELY || lonely.is_multiple_of(LONELY) {
            return true;
        }
        self.lonely.store(lonely.wrapping_add(1), Ordering::Relaxed);
        false
    }

    /// Notes how long syncs take.
    pub fn synced(&self, time: Duration) {
        self.short_syncs.store(time <= SHORT_SYNC, Ordering::Relaxed);
    }

    /// Whether waiting for a sync is nothing to hand the runtime's work over for.
    pub fn syncs_are_short(&self) -> bool {
        self.short_syncs.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;

    /// How many of `count` writes of one task found themselves alone.
    async fn alone(company: &Company, count: usize) -> usize {
        let write = || async {
            let _under_way = company.enter();
            let alone = company.is_missing().await;
            // Who is alone commits at once; the others wait for somebody who commits for them.
            for _ in 0..if alone { 0 } else { 5 } {
                tokio::task::yield_now().await;
            }
            alone
        };
        let writes: Vec<_> = (0..count).map(|_| write()).collect();
        join_all(writes).await.into_iter().filter(|alone| *alone).count()
    }

    #[tokio::test]
    async fn a_lone_write_is_alone_and_a_crowd_is_not() {
        for short in [false, true] {
            let company = Company::default();
            company.synced(if short { Duration::ZERO } else { Duration::from_secs(1) });
            for _ in 0..100 {
                assert_eq!(alone(&company, 1).await, 1);
            }
            // Where a sync is short some begin before they learn of the others; not for long, and never again after.
            let learning = alone(&company, 100).await;
            assert!(learning <= if short { LONELY as usize + 1 } else { 1 }, "{learning} of 100");
            assert!(alone(&company, 100).await <= 1);
        }
    }

    #[tokio::test]
    async fn syncs_that_grow_long_are_noticed() {
        let company = Company::default();
        assert!(!company.syncs_are_short(), "none is known yet");
        company.synced(SHORT_SYNC);
        assert!(company.syncs_are_short());
        company.synced(SHORT_SYNC * 2);
        assert!(!company.syncs_are_short());
    }

    #[tokio::test]
    async fn a_write_that_is_given_up_counts_no_more() {
        let company = Company::default();
        drop(company.enter());
        assert_eq!(alone(&company, 1).await, 1);
    }
}
