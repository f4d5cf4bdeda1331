//! Who was let in, and who was allowed what.

use std::time::Duration;

use component_base::metrics::{Counter, CounterVec, Histogram, HistogramVec, Registry, Stability, exponential_buckets};

/// A counter and the time it took, for each of two outcomes.
struct Outcomes([(Counter, Histogram); 2]);

impl Outcomes {
    fn new(counters: &CounterVec, durations: &HistogramVec, names: [&str; 2]) -> Self {
        Self(names.map(|name| (counters.with(&[name]), durations.with(&[name]))))
    }

    fn observe(&self, good: bool, took: Duration) {
        let (counter, duration) = &self.0[usize::from(!good)];
        counter.inc();
        duration.observe(took.as_secs_f64());
    }
}

/// Users with a series of their own, upstream's choice; everybody else is `other`.
const USERS: [&str; 5] = ["admin", "client", "kube_proxy", "kubelet", "system:serviceaccount:kube-system:default"];

/// The counters of authentication and authorization. Their series are few and kept.
pub struct AuthMetrics {
    users: [Counter; USERS.len()],
    others: Counter,
    authentications: Outcomes,
    authorizations: Outcomes,
}

impl AuthMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let buckets = exponential_buckets(0.001, 2.0, 15);
        let users = registry.counter_vec(
            "authenticated_user_requests",
            "Counter of authenticated requests broken out by username.",
            Stability::Alpha,
            &["username"],
        );
        let attempts = registry.counter_vec(
            "authentication_attempts",
            "Counter of authenticated attempts.",
            Stability::Alpha,
            &["result"],
        );
        let duration = registry.histogram_vec(
            "authentication_duration_seconds",
            "Authentication duration in seconds broken out by result.",
            Stability::Alpha,
            &["result"],
            &buckets,
        );
        let authorizations = registry.counter_vec(
            "authorization_attempts_total",
            "Counter of authorization attempts broken down by result. It can be either 'allowed', 'denied', 'no-opinion' or 'error'.",
            Stability::Alpha,
            &["result"],
        );
        let authorization_duration = registry.histogram_vec(
            "authorization_duration_seconds",
            "Authorization duration in seconds broken out by result.",
            Stability::Alpha,
            &["result"],
            &buckets,
        );
        Self {
            users: USERS.map(|name| users.with(&[name])),
            others: users.with(&["other"]),
            authentications: Outcomes::new(&attempts, &duration, ["success", "failure"]),
            authorizations: Outcomes::new(&authorizations, &authorization_duration, ["allowed", "denied"]),
        }
    }

    /// A request was authenticated as this user, or (`None`) had bad credentials.
    pub fn authenticated(&self, user: Option<&str>, took: Duration) {
        if let Some(user) = user {
            let known = USERS.iter().position(|known| *known == user);
            known.map_or(&self.others, |at| &self.users[at]).inc();
        }
        self.authentications.observe(user.is_some(), took);
    }

    /// A request was allowed or denied.
    pub fn authorized(&self, allowed: bool, took: Duration) {
        self.authorizations.observe(allowed, took);
    }
}
