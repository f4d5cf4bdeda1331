//! Which config maps and secrets a pod may ask the kubelet for.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, Pod, Volume};

use crate::pod::PodExt;

/// Names of objects in one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    pub config_maps: BTreeSet<String>,
    pub secrets: BTreeSet<String>,
}

impl References {
    /// Adds what a pod's volumes, environments and image pulls name.
    pub fn add(&mut self, pod: &Pod) {
        let spec = pod.pod_spec();
        self.secrets.extend(spec.image_pull_secrets.iter().flatten().map(|reference| reference.name.clone()));
        spec.volumes.iter().flatten().for_each(|volume| self.add_volume(volume));
        for container in spec.containers.iter().chain(pod.init_containers()) {
            self.add_environment(container.env.as_deref(), container.env_from.as_deref());
        }
        for container in pod.ephemeral_containers() {
            self.add_environment(container.env.as_deref(), container.env_from.as_deref());
        }
    }

    fn add_volume(&mut self, volume: &Volume) {
        self.config_maps.extend(volume.config_map.iter().map(|source| source.name.clone()));
        self.secrets.extend(volume.secret.iter().filter_map(|source| source.secret_name.clone()));
        for part in volume.projected.iter().flat_map(|source| source.sources.iter().flatten()) {
            self.config_maps.extend(part.config_map.iter().map(|source| source.name.clone()));
            self.secrets.extend(part.secret.iter().map(|source| source.name.clone()));
        }
    }

    fn add_environment(&mut self, variables: Option<&[EnvVar]>, sources: Option<&[EnvFromSource]>) {
        for source in sources.unwrap_or_default() {
            self.config_maps.extend(source.config_map_ref.iter().map(|reference| reference.name.clone()));
            self.secrets.extend(source.secret_ref.iter().map(|reference| reference.name.clone()));
        }
        for from in variables.unwrap_or_default().iter().filter_map(|variable| variable.value_from.as_ref()) {
            self.config_maps.extend(from.config_map_key_ref.iter().map(|reference| reference.name.clone()));
            self.secrets.extend(from.secret_key_ref.iter().map(|reference| reference.name.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_place_that_names_an_object() {
        let environment = |name: &str| {
            json!([
                {"name": "A", "valueFrom": {"configMapKeyRef": {"name": format!("map-key-{name}"), "key": "k"}}},
                {"name": "B", "valueFrom": {"secretKeyRef": {"name": format!("secret-key-{name}"), "key": "k"}}},
                {"name": "C", "value": "plain"},
            ])
        };
        let sources = |name: &str| {
            json!([
                {"configMapRef": {"name": format!("map-{name}")}},
                {"secretRef": {"name": format!("secret-{name}")}},
            ])
        };
        let container =
            |name: &str| json!({"name": name, "image": "i", "env": environment(name), "envFrom": sources(name)});
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n"},
            "spec": {
                "imagePullSecrets": [{"name": "pull"}],
                "volumes": [
                    {"name": "a", "configMap": {"name": "map-volume"}},
                    {"name": "b", "secret": {"secretName": "secret-volume"}},
                    {"name": "c", "projected": {"sources": [
                        {"configMap": {"name": "map-part"}},
                        {"secret": {"name": "secret-part"}},
                        {"serviceAccountToken": {"path": "token"}},
                    ]}},
                    {"name": "d", "emptyDir": {}},
                ],
                "initContainers": [container("init")],
                "containers": [container("main")],
                "ephemeralContainers": [container("debug")],
            },
        }))
        .expect("a pod");
        let mut found = References::default();
        found.add(&pod);
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let each = ["debug", "init", "main"];
        let mut maps = names(&["map-volume", "map-part"]);
        let mut secrets = names(&["pull", "secret-volume", "secret-part"]);
        for name in each {
            maps.extend([format!("map-{name}"), format!("map-key-{name}")]);
            secrets.extend([format!("secret-{name}"), format!("secret-key-{name}")]);
        }
        assert_eq!(found, References { config_maps: maps, secrets });
    }
}
