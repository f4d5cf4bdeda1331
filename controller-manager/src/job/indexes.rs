//! Sets of completion indexes, as ranges: a Job may have a hundred thousand.

use std::collections::BTreeSet;
use std::fmt;

use crate::types::Pod;

/// Names a pod's completion index, as an annotation and as a label.
pub const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// A pod's completion index.
pub fn index_of(pod: &Pod) -> Option<i64> {
    pod.metadata.annotation(COMPLETION_INDEX).and_then(|text| text.parse().ok()).filter(|index| *index >= 0)
}

/// The indexes of pods.
pub fn indexes_of<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> BTreeSet<i64> {
    pods.into_iter().filter_map(index_of).collect()
}

/// Disjoint ranges in rising order, both ends inclusive, no two of them adjacent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Indexes(Vec<(i64, i64)>);

impl Indexes {
    /// Reads what [`fmt::Display`] writes; ranges that make no sense are left out, as are indexes that
    /// a Job of so many completions does not have.
    pub fn parse(text: &str, completions: i64) -> Self {
        let mut ranges: Vec<(i64, i64)> = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.parse::<i64>(), last.parse::<i64>()) else {
                tracing::info!(interval = part, "Corrupted indexes interval, ignoring");
                continue;
            };
            if first >= completions {
                break;
            }
            let last = last.min(completions - 1);
            match ranges.last_mut() {
                Some(before) if before.1 == first - 1 => before.1 = last,
                _ => ranges.push((first, last)),
            }
        }
        Self(ranges)
    }

    /// The union.
    pub fn union(&self, other: &Self) -> Self {
        let mut all: Vec<(i64, i64)> = self.0.iter().chain(&other.0).copied().collect();
        all.sort_unstable();
        let mut merged: Vec<(i64, i64)> = Vec::new();
        for (first, last) in all {
            match merged.last_mut() {
                Some(before) if first <= before.1 + 1 => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    pub fn with(&self, more: impl IntoIterator<Item = i64>) -> Self {
        self.union(&Self(more.into_iter().map(|index| (index, index)).collect()))
    }

    /// How many indexes there are.
    pub fn total(&self) -> i64 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, index: i64) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= index);
        after > 0 && self.0[after - 1].1 >= index
    }

    /// How many indexes both have.
    pub fn overlap(&self, other: &Self) -> i64 {
        let (mut left, mut right, mut shared) = (0, 0, 0);
        while let (Some(a), Some(b)) = (self.0.get(left), other.0.get(right)) {
            shared += (a.1.min(b.1) - a.0.max(b.0) + 1).max(0);
            if a.1 <= b.1 {
                left += 1;
            }
            if b.1 <= a.1 {
                right += 1;
            }
        }
        shared
    }

    /// The first `count` indexes below `completions` that are not in here.
    pub fn first_missing(&self, count: usize, completions: i64) -> Vec<i64> {
        let mut missing = Vec::new();
        let mut candidate = 0;
        for &(first, last) in &self.0 {
            missing.extend((candidate..first.min(completions)).take(count - missing.len()));
            candidate = candidate.max(last + 1);
        }
        missing.extend((candidate..completions).take(count - missing.len()));
        missing
    }
}

impl fmt::Display for Indexes {
    /// `0,2-5,7,8`: two in a row are written apart.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            match last - first {
                0 => write!(f, "{first}")?,
                1 => write!(f, "{first},{last}")?,
                _ => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        for (text, completions, shown) in [
            ("", 5, ""),
            ("0,2-5,7,8", 10, "0,2-5,7,8"),
            ("0,1,2", 10, "0-2"),
            ("0-9", 5, "0-4"),
            ("0,7-9", 5, "0"),
            ("x,1", 5, "1"),
        ] {
            assert_eq!(Indexes::parse(text, completions).to_string(), shown, "{text}");
        }
    }

    #[test]
    fn sets() {
        let some = Indexes::default().with([0, 1, 5]);
        assert_eq!(some.to_string(), "0,1,5");
        assert_eq!(some.with([2, 4]).to_string(), "0-2,4,5");
        assert_eq!(some.with([3]).total(), 4);
        assert!(some.contains(1) && some.contains(5) && !some.contains(2) && !some.contains(6));
        assert_eq!(some.first_missing(3, 10), vec![2, 3, 4]);
        assert_eq!(some.first_missing(3, 5), vec![2, 3, 4]);
        assert_eq!(some.first_missing(9, 7), vec![2, 3, 4, 6]);
        assert_eq!(some.first_missing(0, 7), Vec::<i64>::new());
        assert_eq!(some.overlap(&Indexes::parse("1-5", 10)), 2);
        assert_eq!(Indexes::parse("0-3,6-9", 10).overlap(&Indexes::parse("2-7", 10)), 4);
    }
}
