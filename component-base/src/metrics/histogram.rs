//! A histogram without a lock: an observation is two additions, so that requests on several threads do not wait for
//! each other to be counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::family::MetricConstructor;
use prometheus_client::metrics::{MetricType, TypedMetric};

/// How often values fell into which range. Clones share it.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bounds: Arc<[f64]>,
    /// Values up to each bound and above the one before, and those above the last.
    counts: Box<[AtomicU64]>,
    /// The bits of the sum of all values.
    sum: AtomicU64,
}

impl Histogram {
    fn new(bounds: Arc<[f64]>) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Inner { bounds, counts, sum: AtomicU64::new(0f64.to_bits()) }))
    }

    /// Counts a value.
    pub fn observe(&self, value: f64) {
        let inner = &*self.0;
        let at = inner.bounds.partition_point(|bound| *bound < value);
        inner.counts[at].fetch_add(1, Ordering::Relaxed);
        let mut sum = inner.sum.load(Ordering::Relaxed);
        loop {
            let new = (f64::from_bits(sum) + value).to_bits();
            match inner.sum.compare_exchange_weak(sum, new, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => sum = now,
            }
        }
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let inner = &*self.0;
        let bounds = inner.bounds.iter().copied().chain([f64::INFINITY]);
        let counts = inner.counts.iter().map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = f64::from_bits(inner.sum.load(Ordering::Relaxed));
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// Makes members of a family.
#[derive(Clone)]
pub(super) struct Buckets(pub Arc<[f64]>);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_up_to_their_bound() {
        let histogram = Histogram::new([0.5, 1.0].into());
        for value in [0.25, 0.5, 0.75, 2.0, 4.0] {
            histogram.observe(value);
        }
        let counts: Vec<u64> = histogram.0.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        assert_eq!(counts, [2, 1, 2]);
        assert_eq!(f64::from_bits(histogram.0.sum.load(Ordering::Relaxed)), 7.5);
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let histogram = Histogram::new([1.0].into());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| histogram.observe(1.0)));
            }
        });
        assert_eq!(histogram.0.counts[0].load(Ordering::Relaxed), 4000);
        assert_eq!(f64::from_bits(histogram.0.sum.load(Ordering::Relaxed)), 4000.0);
    }
}
