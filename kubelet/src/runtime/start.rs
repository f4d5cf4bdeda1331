//! Starts one container: image, configuration, create, start, `postStart` hook.

use std::path::Path;

use k8s_openapi::api::core::v1::{Container, Pod};
use proto::cri;

use super::actions::KillReason;
use super::spec::{self, Prepared};
use super::state::{PodState, State};
use super::{Failure, Manager, hooks, kill, mounts};
use crate::env;
use crate::pod::PodExt;
use crate::settings::restart_count_from_logs;
use crate::volume::Mounts;

/// Where a container is started.
pub(super) struct Place<'a> {
    pub sandbox_id: &'a str,
    pub config: &'a cri::PodSandboxConfig,
    pub ips: &'a [String],
    pub volumes: &'a Mounts,
    pub state: &'a PodState,
}

impl Manager {
    pub(super) async fn start_container(
        &self,
        pod: &Pod,
        container: &Container,
        target: Option<&str>,
        place: &Place<'_>,
    ) -> Result<(), Failure> {
        let reference = self.container_reference(pod, &container.name);
        let warn = |text: &str| self.events.event(&reference, "Warning", "Failed", text);
        let fail = |reason: &str, message: String| Failure { reason: reason.into(), message };

        let image = match self.images.ensure(self.api.as_ref(), pod, container, &reference, place.config).await {
            Ok(image) => image,
            Err(error) => {
                warn(&format!("Error: {}", error.reason));
                return Err(fail(error.reason, error.message));
            }
        };
        let logs = self.settings.pod_log_dir(pod.pod_namespace(), pod.pod_name(), pod.uid()).join(&container.name);
        let restart_count = match place.state.find(&container.name) {
            Some(previous) => previous.restart_count + 1,
            None => restart_count_from_logs(&logs),
        };
        let config = async {
            let target_id = match target {
                None => None,
                Some(name) => {
                    let found = place.state.find(name).filter(|c| c.state == State::Running);
                    Some(found.ok_or_else(|| format!("unable to find target container {name}"))?.id.clone())
                }
            };
            let facts = &self.settings.facts;
            let ips = if pod.host_network() { &facts.host_ips } else { place.ips };
            let env = env::make(self.api.as_ref(), pod, container, ips, facts).await.map_err(|e| e.to_string())?;
            let mounts = mounts::make(&self.settings, pod, container, place.volumes, &env, place.ips)?;
            std::fs::create_dir_all(&logs)
                .map_err(|e| format!("create container log directory for container {} failed: {e}", container.name))?;
            let prepared =
                Prepared { mounts, env, image_ref: image.reference, image_user: image.user, restart_count, target_id };
            spec::container(pod, container, prepared, &self.settings)
        };
        let config = match config.await {
            Ok(config) => config,
            Err(text) => {
                warn(&format!("Error: {text}"));
                return Err(fail("CreateContainerConfigError", text));
            }
        };
        let log_path = Path::new(&place.config.log_directory).join(&config.log_path);
        let id = match self.cri.create_container(place.sandbox_id, config, place.config.clone()).await {
            Ok(id) => id,
            Err(error) => {
                warn(&format!("Error: {}", error.message));
                return Err(fail("CreateContainerError", error.message));
            }
        };
        let resources = container.resources.clone().unwrap_or_default();
        self.allocations.set_actuated(pod.uid(), &container.name, resources);
        self.events.event(&reference, "Normal", "Created", "Container created");
        if let Err(error) = self.cri.start_container(&id).await {
            warn(&format!("Error: {}", error.message));
            return Err(fail("RunContainerError", error.message));
        }
        self.events.event(&reference, "Normal", "Started", "Container started");
        self.link_log(pod, container, &id, &log_path);

        if let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) {
            let ip = place.ips.first().map(String::as_str);
            if let Err(text) = hooks::run(&self.cri, hook, container, &id, ip).await {
                tracing::warn!(pod = %pod.described(), container = %container.name, error = %text, "postStart hook failed");
                self.events.event(&reference, "Warning", "FailedPostStartHook", "PostStartHook failed");
                let grace = kill::grace_period(pod, Some(container), KillReason::Other);
                let killed = self
                    .kill_container(Some(pod), &id, &container.name, "FailedPostStartHook", grace, place.state)
                    .await;
                if let Err(error) = killed {
                    tracing::warn!(pod = %pod.described(), %error, "failed to kill container after its hook failed");
                }
                return Err(fail("PostStartHookError", text));
            }
        }
        Ok(())
    }

    /// The link below `/var/log/containers` that log collectors read. Its absence hurts nobody else.
    fn link_log(&self, pod: &Pod, container: &Container, id: &str, log: &Path) {
        let mut name = format!("{}_{}_{}-{id}", pod.pod_name(), pod.pod_namespace(), container.name);
        name.truncate(251);
        let directory = &self.settings.container_logs_dir;
        let made = std::fs::create_dir_all(directory)
            .and_then(|()| std::os::unix::fs::symlink(log, directory.join(format!("{name}.log"))));
        if let Err(error) = made {
            tracing::debug!(%error, "failed to link container log");
        }
    }
}
