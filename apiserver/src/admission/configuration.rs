//! `--admission-control-config-file`: what plugins are configured with, by name.

use std::path::Path;

use apimachinery::yaml;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::chain::is_known;
use super::pod_security::policy::{Level, Policy, Standard, Version};
use super::{Settings, event_rate_limit, manifests, pod_security};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Configuration {
    api_version: String,
    kind: String,
    #[serde(default)]
    plugins: Vec<Plugin>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plugin {
    name: String,
    #[serde(default)]
    path: String,
    configuration: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PodSecurity {
    defaults: Defaults,
    exemptions: Exemptions,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
struct Defaults {
    enforce: Option<String>,
    enforce_version: Option<String>,
    audit: Option<String>,
    audit_version: Option<String>,
    warn: Option<String>,
    warn_version: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Exemptions {
    usernames: Vec<String>,
    namespaces: Vec<String>,
    runtime_classes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventRateLimit {
    limits: Vec<event_rate_limit::Limit>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Manifests {
    /// Of webhooks only: how the server shows them who it is.
    kube_config_file: String,
    static_manifests_dir: String,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PodTolerationRestriction {
    default: Vec<Value>,
    whitelist: Vec<Value>,
}

/// The configuration's fields, once its type is the right one.
fn fields<T: DeserializeOwned>(mut value: Value, group: &str, kind: &str) -> Result<T, String> {
    let text = |value: Option<Value>| value.and_then(|value| value.as_str().map(str::to_string)).unwrap_or_default();
    let fields = value.as_object_mut().ok_or("it is no object")?;
    let (version, have) = (text(fields.remove("apiVersion")), text(fields.remove("kind")));
    if have != kind || version.split_once('/').is_none_or(|(have, _)| have != group) {
        return Err(format!("no kind {have:?} is registered for version {version:?}"));
    }
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// Reads the file, and those that it names (relative to itself).
///
/// # Errors
/// Says what is wrong.
pub fn load(path: &Path) -> Result<Settings, String> {
    let read = |path: &Path| {
        let text =
            std::fs::read_to_string(path).map_err(|error| format!("unable to read {}: {error}", path.display()))?;
        yaml::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
    };
    let configuration: Configuration = serde_json::from_value(read(path)?).map_err(|error| error.to_string())?;
    let version = configuration.api_version.as_str();
    if configuration.kind != "AdmissionConfiguration"
        || !matches!(version, "apiserver.config.k8s.io/v1" | "apiserver.k8s.io/v1alpha1")
    {
        return Err(format!("no kind {:?} is registered for version {version:?}", configuration.kind));
    }
    let mut settings = Settings::default();
    for plugin in configuration.plugins {
        if !is_known(&plugin.name) {
            return Err(format!("unknown admission plugin {:?}", plugin.name));
        }
        let value = match plugin.configuration {
            Some(value) if !value.is_null() => value,
            _ if plugin.path.is_empty() => continue,
            _ => read(&path.parent().unwrap_or(Path::new("")).join(&plugin.path))?,
        };
        let folder = path.parent().unwrap_or(Path::new(""));
        plugin_settings(&mut settings, &plugin.name, value, folder)
            .map_err(|error| format!("{}: {error}", plugin.name))?;
    }
    Ok(settings)
}

fn plugin_settings(settings: &mut Settings, name: &str, value: Value, folder: &Path) -> Result<(), String> {
    match name {
        super::image_policy::NAME => {
            settings.image_policy = Some(super::image_policy::ImagePolicy::new(&value, folder)?.into());
        }
        "PodSecurity" => {
            let config: PodSecurity =
                fields(value, "pod-security.admission.config.k8s.io", "PodSecurityConfiguration")?;
            settings.pod_security = pod_security::Settings {
                defaults: config.defaults.policy()?,
                users: config.exemptions.usernames,
                namespaces: config.exemptions.namespaces,
                runtime_classes: config.exemptions.runtime_classes,
            };
        }
        "EventRateLimit" => {
            let config: EventRateLimit = fields(value, "eventratelimit.admission.k8s.io", "Configuration")?;
            if config.limits.iter().any(|limit| limit.qps <= 0.0 || limit.burst <= 0.0) {
                return Err("limits: Invalid value: qps and burst must be positive".to_string());
            }
            settings.event_rate_limit = event_rate_limit::Settings::new(config.limits);
        }
        "PodTolerationRestriction" => {
            let config: PodTolerationRestriction =
                fields(value, "podtolerationrestriction.admission.k8s.io", "Configuration")?;
            settings.pod_toleration_restriction =
                super::pod_toleration_restriction::Settings { default: config.default, whitelist: config.whitelist };
        }
        "PodNodeSelector" => {
            let selectors = value.get("podNodeSelectorPluginConfig").cloned().unwrap_or_default();
            settings.pod_node_selector = serde_json::from_value(selectors).map_err(|error| error.to_string())?;
        }
        _ if manifests::configuration_of(name).is_some() => {
            let kind = manifests::configuration_of(name).unwrap_or_default();
            let config: Manifests = fields(value, "apiserver.config.k8s.io", kind)?;
            if !config.kube_config_file.is_empty() {
                tracing::info!(plugin = name, "kubeConfigFile has no effect here yet");
            }
            if !config.static_manifests_dir.is_empty() {
                manifests::check_folder(&config.static_manifests_dir)?;
                settings.manifests.insert(name.to_string(), config.static_manifests_dir.into());
            }
        }
        _ => tracing::info!(plugin = name, "this plugin's configuration has no effect here yet"),
    }
    Ok(())
}

impl Defaults {
    fn policy(self) -> Result<Policy, String> {
        let standard = |mode: &str, level: Option<String>, version: Option<String>| {
            let level = level.as_deref().map_or(Ok(Level::Privileged), Level::parse);
            let version = version.as_deref().map_or(Ok(Version::Latest), Version::parse);
            Ok::<_, String>(Standard {
                level: level.map_err(|error| format!("defaults.{mode}: Invalid value: {error}"))?,
                version: version.map_err(|error| format!("defaults.{mode}-version: Invalid value: {error}"))?,
            })
        };
        Ok(Policy {
            enforce: standard("enforce", self.enforce, self.enforce_version)?,
            audit: standard("audit", self.audit, self.audit_version)?,
            warn: standard("warn", self.warn, self.warn_version)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_are_configured_in_place_or_by_path() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        file(
            "main.yaml",
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n- name: PodSecurity\n  \
             configuration:\n    apiVersion: pod-security.admission.config.k8s.io/v1\n    kind: PodSecurityConfiguration\n    \
             defaults: {enforce: baseline, enforce-version: v1.30}\n    exemptions: {namespaces: [kube-system]}\n\
             - {name: EventRateLimit, path: events.yaml}\n",
        );
        let events = "apiVersion: eventratelimit.admission.k8s.io/v1alpha1\nkind: Configuration\nlimits:\n- {type: User, qps: 5, burst: 10}\n";
        file("events.yaml", events);
        let settings = load(&dir.path().join("main.yaml")).unwrap();
        assert_eq!(settings.pod_security.defaults.enforce.to_string(), "baseline:v1.30");
        assert_eq!(settings.pod_security.namespaces, ["kube-system"]);
        file("events.yaml", &events.replace("qps: 5", "qps: 0"));
        assert!(load(&dir.path().join("main.yaml")).unwrap_err().starts_with("EventRateLimit: limits: Invalid"));
        let webhooks = |folder: &str| {
            format!(
                "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n- name: ValidatingAdmissionWebhook\n  \
                 configuration: {{apiVersion: apiserver.config.k8s.io/v1, kind: WebhookAdmissionConfiguration, staticManifestsDir: {folder}}}\n"
            )
        };
        file("main.yaml", &webhooks(&dir.path().display().to_string()));
        let settings = load(&dir.path().join("main.yaml")).unwrap();
        assert_eq!(settings.manifests["ValidatingAdmissionWebhook"], dir.path());
        file("main.yaml", &webhooks("here"));
        assert_eq!(
            load(&dir.path().join("main.yaml")).unwrap_err(),
            "ValidatingAdmissionWebhook: staticManifestsDir: Invalid value: \"here\": must be an absolute file path"
        );
        file("main.yaml", "apiVersion: v1\nkind: AdmissionConfiguration\n");
        assert!(load(&dir.path().join("main.yaml")).is_err());
    }
}
