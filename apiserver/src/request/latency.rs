//! Where the time of a request went: annotations of slow requests in the audit log, and what the latency that the
//! server answers for leaves out. Upstream: `apiserver/pkg/endpoints/request/webhook_duration.go`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A request that took longer says in the audit log where its time went.
pub const SLOW: Duration = Duration::from_millis(500);

/// What the time of a whole request is told under.
pub const TOTAL: &str = "apiserver.latency.k8s.io/total";

/// A part of the server in which a request spends time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    Authentication,
    Authorization,
    Impersonation,
    QueueWait,
    MutatingWebhook,
    ValidatingWebhook,
    Storage,
    Serialization,
}

use Layer::{
    Authentication, Authorization, Impersonation, MutatingWebhook, QueueWait, Serialization, Storage, ValidatingWebhook,
};

const LAYERS: [Layer; 8] = [
    Authentication,
    Authorization,
    Impersonation,
    QueueWait,
    MutatingWebhook,
    ValidatingWebhook,
    Storage,
    Serialization,
];

impl Layer {
    fn annotation(self) -> &'static str {
        match self {
            Authentication => "apiserver.latency.k8s.io/authentication",
            Authorization => "apiserver.latency.k8s.io/authorization",
            Impersonation => "apiserver.latency.k8s.io/impersonation",
            QueueWait => "apiserver.latency.k8s.io/apf-queue-wait",
            MutatingWebhook => "apiserver.latency.k8s.io/mutating-webhook",
            ValidatingWebhook => "apiserver.latency.k8s.io/validating-webhook",
            Storage => "apiserver.latency.k8s.io/etcd",
            // Turning an object into another form and writing that out is one step here, counted as this.
            Serialization => "apiserver.latency.k8s.io/serialize-response-object",
        }
    }

    /// Whether what happens in it happens at once, so that the longest counts and not the sum.
    fn parallel(self) -> bool {
        matches!(self, Authorization | QueueWait | ValidatingWebhook)
    }
}

/// The time spent in each layer, in nanoseconds.
#[derive(Debug, Default)]
pub struct Latencies([AtomicU64; LAYERS.len()]);

impl Latencies {
    /// Counts time spent.
    pub fn add(&self, layer: Layer, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let spent = &self.0[layer as usize];
        if layer.parallel() {
            spent.fetch_max(nanos, Ordering::Relaxed);
        } else {
            spent.fetch_add(nanos, Ordering::Relaxed);
        }
    }

    /// Counts the time that something takes.
    pub fn track<T>(&self, layer: Layer, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let done = work();
        self.add(layer, begun.elapsed());
        done
    }

    /// Counts the time until the answer is dropped. (A function that takes a future and awaits it would hold it twice, on
    /// stacks that have no room for that.)
    pub fn begin(&self, layer: Layer) -> Timing<'_> {
        Timing { latencies: self, layer, begun: Instant::now() }
    }

    /// Moves all to where another request, or the whole one, keeps its own.
    pub fn move_to(&self, other: &Latencies) {
        for layer in LAYERS {
            let nanos = self.0[layer as usize].swap(0, Ordering::Relaxed);
            other.add(layer, Duration::from_nanos(nanos));
        }
    }

    fn spent(&self, layer: Layer) -> Duration {
        Duration::from_nanos(self.0[layer as usize].load(Ordering::Relaxed))
    }

    /// The time that was others' and not the server's: that of webhooks, and in queues.
    pub fn of_others(&self) -> Duration {
        self.spent(MutatingWebhook) + self.spent(ValidatingWebhook) + self.spent(QueueWait)
    }

    /// For the audit log: the layers in which time was spent.
    pub fn annotations(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        LAYERS.into_iter().filter_map(|layer| {
            let spent = self.spent(layer);
            (!spent.is_zero()).then(|| (layer.annotation(), component_base::duration::format(spent)))
        })
    }
}

/// Something that takes its time.
#[must_use]
pub struct Timing<'a> {
    latencies: &'a Latencies,
    layer: Layer,
    begun: Instant,
}

impl Drop for Timing<'_> {
    fn drop(&mut self) {
        self.latencies.add(self.layer, self.begun.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_at_once_is_not_added_up() {
        let latencies = Latencies::default();
        for millis in [300, 200] {
            for layer in [MutatingWebhook, ValidatingWebhook] {
                latencies.add(layer, Duration::from_millis(millis));
            }
        }
        let all = Latencies::default();
        all.add(ValidatingWebhook, Duration::from_millis(1));
        latencies.move_to(&all);
        assert_eq!(latencies.annotations().count(), 0, "moved");
        assert_eq!(all.of_others(), Duration::from_millis(800));
        let told: Vec<_> = all.annotations().collect();
        assert_eq!(
            told,
            [
                ("apiserver.latency.k8s.io/mutating-webhook", "500ms".to_string()),
                ("apiserver.latency.k8s.io/validating-webhook", "300ms".to_string()),
            ]
        );
    }
}
