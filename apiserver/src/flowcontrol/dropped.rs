//! How long those who were turned away are told to wait: longer, the more of them there have been.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

/// The longest wait that is asked for, in seconds.
const MOST: i64 = 32;

struct Level {
    /// Requests turned away, by second, the newest last.
    history: VecDeque<(i64, i64)>,
    retry_after: i64,
    /// When the wait was last made longer.
    raised: i64,
}

impl Level {
    fn record(&mut self, now: i64) {
        if let Some((second, count)) = self.history.back_mut()
            && *second == now
        {
            *count += 1;
            return;
        }
        let newest = self.history.back().map_or(now, |(second, _)| *second);
        let kept = (2 * self.retry_after).min(MOST);
        while self.history.front().is_some_and(|(second, _)| newest - second > kept) {
            self.history.pop_front();
        }
        self.adjust(now);
        self.history.push_back((now, 1));
    }

    /// As TCP does it: twice as long when it was too short, a second less when all is quiet.
    fn adjust(&mut self, now: i64) {
        let wait = self.retry_after;
        let recent = self.history.iter().filter(|(second, _)| now - second <= wait && *second < now);
        let dropped: i64 = recent.map(|(_, count)| count).sum();
        // One spike makes it longer once.
        if now - self.raised >= wait && dropped >= 3 * wait {
            self.retry_after = (wait * 2).min(MOST);
            self.raised = now;
        } else if dropped < wait && wait > 1 {
            self.retry_after = wait - 1;
        }
    }
}

/// Requests turned away, by priority level.
#[derive(Default)]
pub(super) struct Dropped(Mutex<HashMap<Arc<str>, Level>>);

impl Dropped {
    /// Counts one; `now` is a Unix time. Gives the seconds for `Retry-After`.
    pub(super) fn record(&self, level: &Arc<str>, now: i64) -> i64 {
        let mut levels = self.0.lock();
        let level = levels.entry(level.clone()).or_insert_with(|| Level {
            history: VecDeque::new(),
            retry_after: 1,
            raised: 0,
        });
        level.record(now);
        level.retry_after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Upstream's own steps.
    #[test]
    fn waits_follow_what_is_turned_away() {
        let (dropped, level): (Dropped, Arc<str>) = (Dropped::default(), "l".into());
        // Seconds since the first, how many are turned away then, and the wait told to the last of them.
        for (second, count, want) in [
            (0, 5, 1),
            (1, 10, 2),
            (2, 10, 2),
            (3, 10, 4),
            (4, 10, 4),
            (5, 1, 4),
            (6, 1, 4),
            (7, 1, 8),
            (15, 1, 7),
            (16, 1, 6),
            (30, 1, 5),
            (31, 1, 4),
            (32, 1, 3),
            (33, 1, 3),
            (34, 1, 3),
        ] {
            let mut told = 0;
            for _ in 0..count {
                told = dropped.record(&level, 1_000_000 + second);
            }
            assert_eq!(told, want, "after {second} seconds");
        }
        assert_eq!(dropped.record(&"other".into(), 1_000_000), 1, "levels do not know of each other");
    }
}
