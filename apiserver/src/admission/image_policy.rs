//! ImagePolicyWebhook: somebody else decides whether a pod's images may be used.
//!
//! Upstream: `plugin/pkg/admission/imagepolicy`. Verdicts are kept for a time that the configuration sets.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use async_trait::async_trait;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Attributes, Plugin};
use crate::remote::{Backoff, Kubeconfig, Remote};
use crate::server::Server;

pub const NAME: &str = "ImagePolicyWebhook";

/// Before the keys of what goes into the audit log.
const AUDIT_PREFIX: &str = "imagepolicywebhook.image-policy.k8s.io/";

/// No more verdicts are kept.
const MOST: usize = 1024;

/// The plugin; what it asks is in the server's settings.
pub struct ImagePolicyWebhook;

/// Who is asked, and what becomes of the answers.
pub struct ImagePolicy {
    remote: Box<dyn Remote>,
    allow_ttl: Duration,
    deny_ttl: Duration,
    backoff: Backoff,
    default_allow: bool,
    kept: Mutex<HashMap<String, (Duration, Value)>>,
}

impl std::fmt::Debug for ImagePolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImagePolicy").field("default_allow", &self.default_allow).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    #[serde(default)]
    kube_config_file: PathBuf,
    #[serde(default, rename = "allowTTL")]
    allow_ttl: i64,
    #[serde(default, rename = "denyTTL")]
    deny_ttl: i64,
    #[serde(default)]
    retry_backoff: i64,
    #[serde(default)]
    default_allow: bool,
}

/// -1 is none, 0 the default, anything else is in units and within bounds.
fn duration(value: i64, unit: Duration, bounds: (Duration, Duration), default: Duration) -> Result<Duration, String> {
    match value {
        -1 => Ok(Duration::ZERO),
        0 => Ok(default),
        _ => {
            let found = u32::try_from(value).ok().map(|count| unit * count);
            found.filter(|found| (bounds.0..=bounds.1).contains(found)).ok_or_else(|| {
                let shown = |bound: Duration| component_base::duration::format(bound);
                format!("valid value is between {} and {}, got {value}", shown(bounds.0), shown(bounds.1))
            })
        }
    }
}

impl ImagePolicy {
    /// Reads the plugin's configuration; paths in it are relative to the configuration's folder.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn new(config: &Value, folder: &Path) -> Result<Self, String> {
        let own = config.get("imagePolicy").cloned().ok_or("no config specified")?;
        let config: Config = serde_json::from_value(own).map_err(|error| error.to_string())?;
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        let ttl = |value, default| duration(value, second, (second, 30 * minute), default);
        let path = folder.join(&config.kube_config_file);
        let remote = Kubeconfig::new(Some(&path)).map_err(|error| format!("stat {}: {error}", path.display()))?;
        let backoff = duration(
            config.retry_backoff,
            Duration::from_millis(1),
            (Duration::from_nanos(1), 5 * minute),
            Duration::from_millis(500),
        )?;
        Ok(Self::asking(
            Box::new(remote),
            config.default_allow,
            ttl(config.allow_ttl, 5 * minute)?,
            ttl(config.deny_ttl, 30 * second)?,
            backoff,
        ))
    }

    fn asking(
        remote: Box<dyn Remote>,
        default_allow: bool,
        allow_ttl: Duration,
        deny_ttl: Duration,
        backoff: Duration,
    ) -> Self {
        Self { remote, allow_ttl, deny_ttl, backoff: Backoff::webhook(backoff), default_allow, kept: Mutex::default() }
    }

    /// The status of a review: kept, or asked for.
    async fn status(&self, spec: &Value, now: Duration) -> Result<Value, String> {
        let key = spec.to_string();
        if let Some((until, status)) = self.kept.lock().get(&key)
            && *until > now
        {
            return Ok(status.clone());
        }
        let review = json!({"kind": "ImageReview", "apiVersion": "imagepolicy.k8s.io/v1alpha1", "spec": spec, "status": {"allowed": false}});
        let asked = self.backoff.run(|error| error.transient, || self.remote.ask(&review)).await;
        let answer = asked.map_err(|error| error.message)?;
        let status = answer.get("status").cloned().unwrap_or_default();
        let ttl = if status.bool_at(&["allowed"]) == Some(true) { self.allow_ttl } else { self.deny_ttl };
        let mut kept = self.kept.lock();
        if kept.len() >= MOST {
            kept.retain(|_, (until, _)| *until > now);
        }
        if kept.len() < MOST && !ttl.is_zero() {
            kept.insert(key, (now + ttl, status.clone()));
        }
        Ok(status)
    }
}

/// What is reviewed of a pod.
fn spec(attributes: &Attributes<'_>, pod: &Value) -> Value {
    let lists: &[&str] = match attributes.subresource {
        "ephemeralcontainers" => &["ephemeralContainers"],
        _ => &["containers", "initContainers"],
    };
    let images = lists.iter().flat_map(|list| pod.list_at(&["spec", list]));
    let containers: Vec<Value> =
        images.map(|container| json!({"image": container.str_at(&["image"]).unwrap_or_default()})).collect();
    let mut spec = json!({"containers": containers, "namespace": attributes.namespace});
    let annotations = pod.annotations().into_iter().flatten();
    let own: serde_json::Map<String, Value> = annotations
        .filter(|(key, _)| key.contains(".image-policy.k8s.io/"))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if !own.is_empty() {
        spec["annotations"] = own.into();
    }
    spec
}

#[async_trait]
impl Plugin for ImagePolicyWebhook {
    async fn validate(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &Value,
        _: Option<&Value>,
    ) -> Result<(), Status> {
        let resource = &attributes.served.resource;
        let concerns = resource.group.is_empty()
            && resource.plural == "pods"
            && matches!(attributes.subresource, "" | "ephemeralcontainers");
        let Some(policy) = server.config.admission.image_policy.as_ref().filter(|_| concerns) else { return Ok(()) };
        let status = match policy.status(&spec(attributes, object), server.clock.monotonic()).await {
            Ok(status) => status,
            Err(error) => {
                tracing::debug!(error, "the image policy cannot be asked");
                if policy.default_allow {
                    attributes.review.annotate(&format!("{AUDIT_PREFIX}failed-open"), "true");
                    return Ok(());
                }
                return Err(attributes.forbidden(error));
            }
        };
        for (key, value) in status.map_at(&["auditAnnotations"]).into_iter().flatten() {
            attributes.review.annotate(&format!("{AUDIT_PREFIX}{key}"), value.as_str().unwrap_or_default());
        }
        if status.bool_at(&["allowed"]) == Some(true) {
            return Ok(());
        }
        Err(attributes.forbidden(match status.str_at(&["reason"]).unwrap_or_default() {
            "" => "one or more images rejected by webhook backend".to_string(),
            reason => format!("image policy webhook backend denied one or more images: {reason}"),
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct Backend(Arc<AtomicUsize>);

    #[async_trait]
    impl Remote for Backend {
        async fn ask(&self, document: &Value) -> Result<Value, crate::remote::Failure> {
            self.0.fetch_add(1, Ordering::SeqCst);
            match document.str_at(&["spec", "namespace"]) {
                Some("broken") => {
                    Err(crate::remote::Failure { message: "connection reset".to_string(), transient: true })
                }
                _ => Ok(json!({"status": {"allowed": document["spec"]["containers"][0]["image"] == "good"}})),
            }
        }
    }

    #[tokio::test]
    async fn verdicts_are_kept_for_their_time() {
        let calls = Arc::new(AtomicUsize::new(0));
        let seconds = Duration::from_secs;
        let policy =
            ImagePolicy::asking(Box::new(Backend(calls.clone())), false, seconds(60), seconds(5), Duration::ZERO);
        let spec = |image: &str| json!({"containers": [{"image": image}], "namespace": "default"});
        for (image, at, allowed, asked) in [
            ("good", 0, true, 1),
            ("good", 59, true, 1),
            ("good", 60, true, 2),
            ("bad", 60, false, 3),
            ("bad", 66, false, 4),
        ] {
            let status = policy.status(&spec(image), seconds(at)).await.unwrap();
            assert_eq!(status.bool_at(&["allowed"]), Some(allowed), "{image} at {at}");
            assert_eq!(calls.load(Ordering::SeqCst), asked, "{image} at {at}");
        }
        let broken = json!({"containers": [], "namespace": "broken"});
        assert_eq!(policy.status(&broken, seconds(0)).await.unwrap_err(), "connection reset");
        assert_eq!(calls.load(Ordering::SeqCst), 9, "five attempts");
    }

    #[test]
    fn durations_have_bounds() {
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        let check = |value| duration(value, second, (second, 30 * minute), 5 * minute);
        assert_eq!(check(-1), Ok(Duration::ZERO));
        assert_eq!(check(0), Ok(5 * minute));
        assert_eq!(check(30), Ok(30 * second));
        assert!(check(1801).is_err_and(|error| error.starts_with("valid value is between 1s and 30m0s")));
    }
}
