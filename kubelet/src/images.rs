//! Makes sure that a container's image is on the node, by its pull policy, with upstream's reasons and
//! back-off.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use component_base::clock::SharedClock;
use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod};
use parking_lot::Mutex;
use proto::cri;
use serde_json::Value;

use crate::api::{Api, Events};
use crate::cri::Runtime;
use crate::pod::PodExt;
use crate::runtime::backoff::Backoff;
use crate::runtime::spec::ImageUser;

/// Why there is no image: `reason` is the waiting reason of the container status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Error {
    pub reason: &'static str,
    pub message: String,
}

/// An image that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// What the runtime is to be given.
    pub reference: String,
    pub user: ImageUser,
}

/// Looks up and pulls.
pub struct Images {
    runtime: Arc<dyn Runtime>,
    events: Arc<dyn Events>,
    clock: SharedClock,
    backoff: Backoff,
    /// The error of the last pull, by back-off key: the back-off message repeats it.
    previous: Mutex<HashMap<String, String>>,
}

impl Images {
    pub fn new(runtime: Arc<dyn Runtime>, events: Arc<dyn Events>, clock: SharedClock) -> Self {
        let backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(300));
        Self { runtime, events, clock, backoff, previous: Mutex::default() }
    }

    /// The image of a container, pulled if the policy asks for it.
    pub async fn ensure(
        &self,
        api: &dyn Api,
        pod: &Pod,
        container: &Container,
        reference: &ObjectReference,
        sandbox: &cri::PodSandboxConfig,
    ) -> Result<Ready, Error> {
        let requested = container.image.as_deref().unwrap_or_default();
        let Some(image) = with_default_tag(requested) else {
            let message = format!(
                "Failed to apply default image tag {requested:?}: couldn't parse image name {requested:?}: invalid reference format"
            );
            self.events.event(reference, "Warning", "InspectFailed", &message);
            return Err(Error { reason: "InvalidImageName", message });
        };
        let policy = container.image_pull_policy.as_deref().unwrap_or("IfNotPresent");
        let spec = cri::ImageSpec { image: image.clone(), ..Default::default() };
        if policy != "Always" {
            match self.runtime.image_status(spec.clone()).await {
                Ok(Some(found)) => {
                    let message = format!(
                        "Container image {requested:?} already present on machine and can be accessed by the pod"
                    );
                    self.events.event(reference, "Normal", "Pulled", &message);
                    return Ok(ready(found));
                }
                Ok(None) if policy == "Never" => {
                    let message = format!("Container image {requested:?} is not present with pull policy of Never");
                    self.events.event(reference, "Warning", "ErrImageNeverPull", &message);
                    return Err(Error { reason: "ErrImageNeverPull", message });
                }
                Ok(None) => {}
                Err(error) => {
                    let message = format!("Failed to inspect image {image:?}: {error}");
                    self.events.event(reference, "Warning", "InspectFailed", &message);
                    return Err(Error { reason: "ImageInspectError", message });
                }
            }
        }
        self.pull(api, pod, requested, spec, reference, sandbox).await
    }

    async fn pull(
        &self,
        api: &dyn Api,
        pod: &Pod,
        requested: &str,
        spec: cri::ImageSpec,
        reference: &ObjectReference,
        sandbox: &cri::PodSandboxConfig,
    ) -> Result<Ready, Error> {
        let key = format!("{}_{requested}", pod.uid());
        if self.backoff.active_since_update(&key, self.clock.now()) {
            let mut message = format!("Back-off pulling image {requested:?}");
            self.events.event(reference, "Normal", "BackOff", &message);
            if let Some(previous) = self.previous.lock().get(&key) {
                message = format!("{message}: {previous}");
            }
            return Err(Error { reason: "ImagePullBackOff", message });
        }
        self.previous.lock().remove(&key);
        self.events.event(reference, "Normal", "Pulling", &format!("Pulling image {requested:?}"));
        let started = self.clock.monotonic();
        let auth = credentials(api, pod, &spec.image).await;
        let result = self.runtime.pull_image(spec.clone(), auth, Some(sandbox.clone())).await;
        match result {
            Ok(id) => {
                let found = self.runtime.image_status(cri::ImageSpec { image: id.clone(), ..Default::default() }).await;
                let image = found.ok().flatten().unwrap_or(cri::Image { id, ..Default::default() });
                let took = component_base::duration::format(Duration::from_millis(
                    u64::try_from((self.clock.monotonic() - started).as_millis()).unwrap_or(u64::MAX),
                ));
                let message = format!(
                    "Successfully pulled image {requested:?} in {took} ({took} including waiting). Image size: {} bytes.",
                    image.size
                );
                self.events.event(reference, "Normal", "Pulled", &message);
                Ok(ready(image))
            }
            Err(error) => {
                let text = error.to_string();
                self.events.event(
                    reference,
                    "Warning",
                    "Failed",
                    &format!("Failed to pull image {requested:?}: {text}"),
                );
                let now = self.clock.now();
                self.backoff.next(&key, now, now);
                self.previous.lock().insert(key, format!("ErrImagePull: {text}"));
                Err(Error { reason: "ErrImagePull", message: text })
            }
        }
    }

    /// When the back-off of a pod's image ends, if it is in one.
    pub fn retry_at(&self, pod: &Pod, container: &Container) -> Option<jiff::Timestamp> {
        let key = format!("{}_{}", pod.uid(), container.image.as_deref().unwrap_or_default());
        Some(self.backoff.updated(&key)? + self.backoff.get(&key))
    }

    /// Drops what is remembered of a pod.
    pub fn forget(&self, uid: &str) {
        self.backoff.forget(uid);
        self.previous.lock().retain(|key, _| !key.starts_with(uid));
    }
}

fn ready(image: cri::Image) -> Ready {
    let user = ImageUser { uid: image.uid.map(|u| u.value), name: image.username.clone() };
    // A runtime that says neither means root.
    let user =
        if user.uid.is_none() && user.name.is_empty() { ImageUser { uid: Some(0), name: String::new() } } else { user };
    Ready { reference: image.id, user }
}

/// The image name with `:latest` when it has neither tag nor digest; `None` when it is not a name.
pub fn with_default_tag(name: &str) -> Option<String> {
    let valid = !name.is_empty()
        && name.is_ascii()
        && !name.starts_with(['-', '/', ':', '@', '.', '_'])
        && !name.ends_with(['/', ':', '@'])
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:@[]".contains(&b));
    if !valid {
        return None;
    }
    let last = name.rsplit('/').next().unwrap_or(name);
    let path = name.split(['@']).next().unwrap_or(name);
    let without_tag = if last.contains(':') { path.rsplit_once(':').map_or(path, |(head, _)| head) } else { path };
    let repository = without_tag.split_once('/').map_or(without_tag, |(_, rest)| rest);
    if repository.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    Some(if last.contains(':') || last.contains('@') { name.to_owned() } else { format!("{name}:latest") })
}

/// The first credential among the pod's pull secrets that is for the image's registry.
async fn credentials(api: &dyn Api, pod: &Pod, image: &str) -> Option<cri::AuthConfig> {
    let registry = registry_of(image);
    for reference in pod.pod_spec().image_pull_secrets.iter().flatten() {
        let Ok(secret) = api.secret(pod.pod_namespace(), &reference.name).await else { continue };
        let data = secret.data.as_ref()?;
        let (json, nested) = match (data.get(".dockerconfigjson"), data.get(".dockercfg")) {
            (Some(text), _) => (text, true),
            (None, Some(text)) => (text, false),
            _ => continue,
        };
        let Ok(value) = serde_json::from_slice::<Value>(&json.0) else { continue };
        let entries = if nested { value.get("auths").cloned().unwrap_or_default() } else { value };
        if let Some(found) =
            entries.as_object().into_iter().flatten().find(|(server, _)| registry_of_key(server) == registry)
        {
            return Some(auth_of(found.0, found.1));
        }
    }
    None
}

fn registry_of(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

fn registry_of_key(server: &str) -> &str {
    let host = server.trim_start_matches("https://").trim_start_matches("http://").split('/').next().unwrap_or(server);
    if host == "index.docker.io" { "docker.io" } else { host }
}

fn auth_of(server: &str, entry: &Value) -> cri::AuthConfig {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (mut username, mut password) = (text("username"), text("password"));
    if let Ok(decoded) = base64::engine::general_purpose::STANDARD.decode(text("auth"))
        && let Some((user, pass)) = String::from_utf8_lossy(&decoded).split_once(':')
    {
        username = user.to_owned();
        password = pass.to_owned();
    }
    cri::AuthConfig {
        username,
        password,
        server_address: server.to_owned(),
        identity_token: text("identitytoken"),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags() {
        for (name, expected) in [
            ("nginx", Some("nginx:latest")),
            ("nginx:1.27", Some("nginx:1.27")),
            ("localhost:5000/a/b", Some("localhost:5000/a/b:latest")),
            ("r.io/a@sha256:abc", Some("r.io/a@sha256:abc")),
            ("Nginx", None),
            ("", None),
            ("a b", None),
            ("nginx:", None),
        ] {
            assert_eq!(with_default_tag(name).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn registries() {
        assert_eq!(registry_of("nginx:1"), "docker.io");
        assert_eq!(registry_of("quay.io/x/y"), "quay.io");
        assert_eq!(registry_of_key("https://index.docker.io/v1/"), "docker.io");
        let auth = auth_of("quay.io", &serde_json::json!({"auth": "dTpw"}));
        assert_eq!((auth.username.as_str(), auth.password.as_str()), ("u", "p"));
    }
}
