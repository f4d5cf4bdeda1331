//! How long a number was in which range: each nanosecond counts as one observation, of the number as a fraction of a
//! limit. Upstream: `component-base/metrics/prometheusextension/timing_histogram.go` and the `TimingRatioHistogram` of
//! Priority and Fairness.
//!
//! A change costs one short lock; nothing runs between changes.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::{MetricType, TypedMetric};

use super::{Labels, labels};

/// A number over a limit, and how long it was in which range. Clones share it.
#[derive(Clone, Debug)]
pub struct TimingRatio(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    since: Instant,
    number: f64,
    limit: f64,
    bounds: Arc<[f64]>,
    /// Nanoseconds up to each bound, and beyond the last.
    spent: Vec<u64>,
    /// The fraction, integrated over nanoseconds.
    sum: f64,
}

impl Inner {
    /// Counts the time since the last change.
    fn advance(&mut self, now: Instant) {
        let nanos = now.saturating_duration_since(self.since).as_nanos() as u64;
        if nanos == 0 {
            return;
        }
        self.since = now;
        let fraction = self.number / self.limit;
        let at = self.bounds.partition_point(|bound| *bound < fraction);
        self.spent[at] += nanos;
        self.sum += fraction * nanos as f64;
    }
}

impl TimingRatio {
    fn new(bounds: Arc<[f64]>) -> Self {
        let spent = vec![0; bounds.len() + 1];
        Self(Arc::new(Mutex::new(Inner { since: Instant::now(), number: 0.0, limit: 1.0, bounds, spent, sum: 0.0 })))
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        let mut inner = self.0.lock();
        inner.advance(Instant::now());
        change(&mut inner);
    }

    /// The number is another from now on.
    pub fn set(&self, number: f64) {
        self.change(|inner| inner.number = number);
    }

    /// The number changes by this much.
    pub fn add(&self, delta: f64) {
        self.change(|inner| inner.number += delta);
    }

    /// The limit is another from now on.
    pub fn set_limit(&self, limit: f64) {
        self.change(|inner| inner.limit = limit);
    }
}

impl TypedMetric for TimingRatio {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for TimingRatio {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (sum, buckets) = {
            let mut inner = self.0.lock();
            inner.advance(Instant::now());
            let bounds = inner.bounds.iter().copied().chain([f64::INFINITY]);
            (inner.sum, bounds.zip(inner.spent.iter().copied()).collect::<Vec<_>>())
        };
        let count = buckets.iter().map(|(_, nanos)| nanos).sum();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// Makes members of a family.
#[derive(Clone)]
pub(super) struct Bounds(pub Arc<[f64]>);

impl MetricConstructor<TimingRatio> for Bounds {
    fn new_metric(&self) -> TimingRatio {
        TimingRatio::new(self.0.clone())
    }
}

/// A [`TimingRatio`] per combination of label values.
#[derive(Clone)]
pub struct TimingRatioVec {
    pub(super) names: &'static [&'static str],
    pub(super) family: Family<Labels, TimingRatio, Bounds>,
}

impl TimingRatioVec {
    /// The one of these label values; made on first use.
    pub fn with(&self, values: &[&str]) -> TimingRatio {
        self.family.get_or_create_owned(&labels(self.names, values))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn nanoseconds_are_counted_in_the_range_that_the_fraction_was_in() {
        let ratio = TimingRatio::new([0.0, 0.5, 1.0].into());
        let mut inner = ratio.0.lock();
        let mut now = inner.since;
        // Nothing for 3 ns, then 1 of 4 for 5, 4 of 4 for 7, and the limit falls to 2 for 11.
        for (nanos, number, limit) in [(3, 1.0, 4.0), (5, 4.0, 4.0), (7, 4.0, 2.0), (11, 0.0, 2.0)] {
            now += Duration::from_nanos(nanos);
            inner.advance(now);
            (inner.number, inner.limit) = (number, limit);
        }
        assert_eq!(inner.spent, [3, 5, 7, 11]);
        assert!((inner.sum - (0.25 * 5.0 + 7.0 + 2.0 * 11.0)).abs() < 1e-9, "{}", inner.sum);
    }
}
