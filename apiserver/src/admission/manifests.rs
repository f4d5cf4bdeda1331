//! Webhooks and policies from files (KEP-5793, gate `ManifestBasedAdmissionControlConfig`, alpha in 1.36): they are
//! there before the first request, and nobody can change them through the API.
//!
//! A plugin's configuration names a folder; what is in its files is read at the start, or there is none, and read
//! again when it changes. A change that is wrong is logged and counted and changes nothing. Upstream:
//! `apiserver/pkg/admission/plugin/manifest` and its neighbours.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use apimachinery::gvk::{GroupVersion, GroupVersionKind};
use apimachinery::object::ObjectExt as _;
use apimachinery::yaml;
use serde_json::Value;

use super::{policy, webhook};
use crate::codec::body::{self, Expected};
use crate::config::features;
use crate::request::accept::Encoding;
use crate::request::options::FieldValidation;
use crate::server::Server;

/// Names of what comes from files end so, and of nothing else.
pub const SUFFIX: &str = ".static.k8s.io";

const GROUP: &str = "admissionregistration.k8s.io";

/// A plugin that takes manifests: the kinds of its objects, and of its own configuration.
struct Plugin {
    name: &'static str,
    configuration: &'static str,
    kinds: &'static [&'static str],
}

const PLUGINS: [Plugin; 4] = [
    Plugin {
        name: webhook::MUTATING,
        configuration: "WebhookAdmissionConfiguration",
        kinds: &["MutatingWebhookConfiguration"],
    },
    Plugin {
        name: webhook::VALIDATING,
        configuration: "WebhookAdmissionConfiguration",
        kinds: &["ValidatingWebhookConfiguration"],
    },
    Plugin {
        name: policy::MUTATING,
        configuration: "MutatingAdmissionPolicyConfiguration",
        kinds: &["MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"],
    },
    Plugin {
        name: policy::VALIDATING,
        configuration: "ValidatingAdmissionPolicyConfiguration",
        kinds: &["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"],
    },
];

fn plugin(name: &str) -> Option<&'static Plugin> {
    PLUGINS.iter().find(|plugin| plugin.name == name)
}

/// Folders by plugin.
pub type Settings = BTreeMap<String, PathBuf>;

/// The kind of a plugin's configuration, if it is one of these.
pub fn configuration_of(name: &str) -> Option<&'static str> {
    plugin(name).map(|plugin| plugin.configuration)
}

/// What is wrong with a folder, whatever is in it.
///
/// # Errors
/// In upstream's words.
pub fn check_folder(folder: &str) -> Result<(), String> {
    let invalid = |why: String| format!("staticManifestsDir: Invalid value: {folder:?}: {why}");
    if !Path::new(folder).is_absolute() {
        return Err(invalid("must be an absolute file path".to_string()));
    }
    match std::fs::metadata(folder) {
        Err(error) => Err(invalid(format!("unable to read: {error}"))),
        Ok(metadata) if !metadata.is_dir() => Err(invalid("must be a directory".to_string())),
        Ok(_) => Ok(()),
    }
}

/// Objects by kind, in the order of their names, and the text they are from.
#[derive(Debug, Default, PartialEq)]
pub struct Manifests {
    pub objects: Vec<Vec<Value>>,
    pub text: String,
}

/// Reads a plugin's folder.
///
/// # Errors
/// The first thing that is wrong, in upstream's words.
fn load(plugin: &Plugin, folder: &Path) -> Result<Manifests, String> {
    let unreadable = |error| format!("failed to read manifest directory {:?}: {error}", folder.display());
    let entries = std::fs::read_dir(folder).map_err(unreadable)?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let mut found = Manifests { objects: vec![Vec::new(); plugin.kinds.len()], text: String::new() };
    for path in paths.iter().filter(|path| is_manifest(path)) {
        let shown = path.display();
        let text =
            std::fs::read_to_string(path).map_err(|error| format!("failed to read file \"{shown}\": {error}"))?;
        if text.is_empty() {
            continue;
        }
        found.text.push_str(&text);
        found.text.push('\0');
        let documents = yaml::parse_documents(&text).map_err(|error| format!("error loading {shown}: {error}"))?;
        for document in documents.into_iter().filter(|document| !document.is_null()) {
            accept(plugin, document, path, &mut found.objects)
                .map_err(|error| format!("error loading {shown}: {error}"))?;
        }
    }
    if let [policies, bindings] = found.objects.as_slice() {
        for binding in bindings {
            let policy = binding.str_at(&["spec", "policyName"]).unwrap_or_default();
            if !policies.iter().any(|known| known.name() == policy) {
                let name = binding.name();
                return Err(format!(
                    "binding {name:?} references policy {policy:?} which does not exist in the manifest directory"
                ));
            }
        }
    }
    found.objects.iter_mut().for_each(|objects| objects.sort_by(|a, b| a.name().cmp(b.name())));
    Ok(found)
}

fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    path.is_file() && matches!(extension.as_deref(), Some("yaml" | "yml" | "json"))
}

/// Takes an object, or those of a list.
fn accept(plugin: &Plugin, document: Value, path: &Path, objects: &mut [Vec<Value>]) -> Result<(), String> {
    let (version, kind) = (document.api_version().to_string(), document.kind().to_string());
    let own = version == format!("{GROUP}/v1");
    let item = kind.strip_suffix("List").filter(|item| own && plugin.kinds.contains(item));
    if item.is_some() || (version == "v1" && kind == "List") {
        for mut object in document.list_at(&["items"]).to_vec() {
            if let Some(item) = item {
                // Items of a list of their kind need not say what they are.
                object.set_api_version(&version);
                object.set_kind(item);
            }
            accept(plugin, object, path, objects)?;
        }
        return Ok(());
    }
    let Some(at) = plugin.kinds.iter().position(|known| own && *known == kind) else {
        return Err(format!("unsupported resource type {version}, Kind={kind}"));
    };
    let object = decode(&document, &kind)?;
    named(&object, path, &objects[at])?;
    if at == 1 {
        binding(&object)?;
    } else if object.at(&["spec", "paramKind"]).is_some_and(Value::is_object) {
        let name = object.name();
        return Err(format!("{kind} {name:?}: spec.paramKind is not supported for static manifests"));
    }
    for hook in object.list_at(&["webhooks"]) {
        client_config(hook, object.name(), path)?;
    }
    objects[at].push(object);
    Ok(())
}

/// Decodes strictly, defaults and validates as the API would.
fn decode(document: &Value, kind: &str) -> Result<Value, String> {
    let group_version = GroupVersion::new(GROUP, "v1");
    let wanted = GroupVersionKind::new(group_version.group, group_version.version, kind);
    let known = api::table().resources().iter().find(|resource| {
        resource.group == GROUP && resource.version == "v1" && resource.kind == kind && !resource.plural.contains('/')
    });
    let resource = known.ok_or_else(|| format!("the table lacks {kind}"))?;
    let schema = resource.type_ref().ok_or_else(|| format!("the table lacks {kind}"))?;
    let expected = Expected { kind: wanted, schema, empty: false };
    let bytes = document.to_string();
    let decoded = body::decode(bytes.as_bytes(), Encoding::Json, &expected, FieldValidation::Strict);
    let mut object = decoded.map_err(|status| status.message)?.object;
    api::defaults::apply(resource, &mut object);
    let errors = api::validation::create(resource, resource, &object);
    if !errors.is_empty() {
        return Err(format!("{kind} {:?}: {}", object.name(), errors.to_aggregate()));
    }
    api::canonicalize(schema, &mut object);
    Ok(object)
}

fn named(object: &Value, path: &Path, others: &[Value]) -> Result<(), String> {
    let (name, shown) = (object.name(), path.display());
    if name.is_empty() {
        return Err(format!("resource in file \"{shown}\" must have a name"));
    }
    if !name.ends_with(SUFFIX) {
        return Err(format!("{name:?} in file \"{shown}\" must have a name ending with {SUFFIX:?}"));
    }
    if others.iter().any(|other| other.name() == name) {
        return Err(format!("duplicate name {name:?} found in file \"{shown}\""));
    }
    Ok(())
}

fn binding(object: &Value) -> Result<(), String> {
    let (name, policy) = (object.name(), object.str_at(&["spec", "policyName"]).unwrap_or_default());
    if policy.is_empty() {
        return Err(format!("binding {name:?} must reference a policy (spec.policyName)"));
    }
    if !policy.ends_with(SUFFIX) {
        return Err(format!("binding {name:?}: spec.policyName {policy:?} must end with {SUFFIX:?}"));
    }
    if object.at(&["spec", "paramRef"]).is_some_and(Value::is_object) {
        return Err(format!("binding {name:?}: spec.paramRef is not supported for static manifests"));
    }
    Ok(())
}

fn client_config(hook: &Value, configuration: &str, path: &Path) -> Result<(), String> {
    let webhook = hook.str_at(&["name"]).unwrap_or_default();
    let place = format!("webhook {webhook:?} in {configuration:?} (file \"{}\")", path.display());
    if hook.at(&["clientConfig", "service"]).is_some_and(Value::is_object) {
        return Err(format!(
            "{place}: clientConfig.service is not supported for static manifests; use clientConfig.url instead"
        ));
    }
    if hook.str_at(&["clientConfig", "url"]).unwrap_or_default().is_empty() {
        return Err(format!("{place}: clientConfig.url is required for static manifests"));
    }
    Ok(())
}

/// Reads all folders for the first time.
///
/// # Errors
/// The gate is off, or something is wrong with a manifest: a server does not start without them.
pub fn start(server: &Arc<Server>) -> Result<(), String> {
    for (name, folder) in &server.config.admission.manifests {
        let Some(plugin) = plugin(name) else { continue };
        let (shown, what) = (folder.display(), if plugin.kinds.len() == 1 { "webhook" } else { "policy" });
        if !server.features.enabled(features::MANIFEST_BASED_ADMISSION_CONTROL_CONFIG) {
            return Err(format!(
                "static {what} manifests dir \"{shown}\" configured but {} feature gate is not enabled",
                features::MANIFEST_BASED_ADMISSION_CONTROL_CONFIG
            ));
        }
        let read = load(plugin, folder);
        let text = read
            .and_then(|manifests| take(server, plugin, manifests))
            .map_err(|error| format!("failed to load static {what} manifests from \"{shown}\": {error}"))?;
        // Counts, and says what is in use.
        server.metrics.manifests.observe(name, Ok(text))?;
    }
    Ok(())
}

/// Reads a plugin's folder again.
///
/// # Errors
/// What is wrong; what was there stays.
pub fn reload(server: &Arc<Server>, name: &str) -> Result<(), String> {
    let (Some(plugin), Some(folder)) = (plugin(name), server.config.admission.manifests.get(name)) else {
        return Ok(());
    };
    let outcome = load(plugin, folder).and_then(|manifests| take(server, plugin, manifests));
    server.metrics.manifests.observe(name, outcome)
}

fn take(server: &Server, plugin: &Plugin, manifests: Manifests) -> Result<String, String> {
    let Manifests { objects, text } = manifests;
    match plugin.name {
        webhook::MUTATING => server.webhooks.take(true, objects),
        webhook::VALIDATING => server.webhooks.take(false, objects),
        policy::MUTATING => server.policies.take(true, objects),
        _ => server.policies.take(false, objects),
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(name: &str, client: &str) -> String {
        format!(
            "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingWebhookConfiguration\nmetadata: {{name: {name}}}\n\
             webhooks: [{{name: a.example.com, clientConfig: {client}, sideEffects: None, admissionReviewVersions: [v1]}}]\n"
        )
    }

    const URL: &str = "{url: \"https://127.0.0.1:1/\"}";

    fn read(plugin_name: &str, files: &[(&str, &str)]) -> Result<Vec<Vec<String>>, String> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let found = load(plugin(plugin_name).unwrap(), dir.path());
        let place = format!("{}/", dir.path().display());
        let names = |objects: &Vec<Value>| objects.iter().map(|object| object.name().to_string()).collect();
        found.map(|found| found.objects.iter().map(names).collect()).map_err(|error| error.replace(&place, ""))
    }

    #[test]
    fn files_lists_and_documents_are_read() {
        let two = format!("{}---\n{}", hook("b.static.k8s.io", URL), hook("a.static.k8s.io", URL));
        let list = format!(
            "apiVersion: v1\nkind: List\nitems:\n- {}",
            hook("c.static.k8s.io", URL).trim_end().replace('\n', "\n  ")
        );
        let files = [("1.yaml", two.as_str()), ("2.YML", &list), ("notes.txt", "nothing"), ("empty.json", "")];
        assert_eq!(
            read(webhook::VALIDATING, &files),
            Ok(vec![vec!["a.static.k8s.io".into(), "b.static.k8s.io".into(), "c.static.k8s.io".into()]])
        );
    }

    #[test]
    fn what_cannot_be_is_told() {
        let (good, plain) = (hook("a.static.k8s.io", URL), hook("a", URL));
        for (files, want) in [
            (
                vec![("x.yaml", plain.as_str())],
                "error loading x.yaml: \"a\" in file \"x.yaml\" must have a name ending with \".static.k8s.io\"",
            ),
            (
                vec![("x.yaml", good.as_str()), ("y.yaml", good.as_str())],
                "error loading y.yaml: duplicate name \"a.static.k8s.io\" found in file \"y.yaml\"",
            ),
            (
                vec![("x.yaml", &hook("a.static.k8s.io", "{service: {name: s, namespace: default}}"))],
                "error loading x.yaml: webhook \"a.example.com\" in \"a.static.k8s.io\" (file \"x.yaml\"): clientConfig.service is not supported for static manifests; use clientConfig.url instead",
            ),
            (
                vec![("x.yaml", &good.replace("sideEffects: None", "sideEffects: Some"))],
                "error loading x.yaml: ValidatingWebhookConfiguration \"a.static.k8s.io\": webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"",
            ),
        ] {
            let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, &**text)).collect();
            assert_eq!(read(webhook::VALIDATING, &files).unwrap_err(), want);
        }
        let other = read(webhook::MUTATING, &[("x.yaml", &good)]).unwrap_err();
        assert!(other.starts_with("error loading x.yaml: unsupported resource type"), "{other}");
        let unknown = read(webhook::VALIDATING, &[("x.yaml", &good.replace("webhooks:", "hooks:"))]).unwrap_err();
        assert!(unknown.contains("unknown field \"hooks\""), "{unknown}");
    }

    #[test]
    fn bindings_name_policies_of_the_folder() {
        let policy = "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicy\nmetadata: {name: p.static.k8s.io}\n\
             spec:\n  matchConstraints: {resourceRules: [{apiGroups: [\"\"], apiVersions: [v1], resources: [pods], operations: [CREATE]}]}\n  \
             validations: [{expression: \"true\"}]\n";
        let binding = |policy: &str| {
            format!(
                "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicyBinding\nmetadata: {{name: b.static.k8s.io}}\n\
                 spec: {{policyName: {policy}, validationActions: [Deny]}}\n"
            )
        };
        let read = |files: &[(&str, &str)]| read(policy::VALIDATING, files);
        let both = read(&[("a.yaml", policy), ("b.yaml", &binding("p.static.k8s.io"))]);
        assert_eq!(both, Ok(vec![vec!["p.static.k8s.io".into()], vec!["b.static.k8s.io".into()]]));
        assert_eq!(
            read(&[("b.yaml", &binding("p.static.k8s.io"))]).unwrap_err(),
            "binding \"b.static.k8s.io\" references policy \"p.static.k8s.io\" which does not exist in the manifest directory"
        );
        assert_eq!(
            read(&[("b.yaml", &binding("p"))]).unwrap_err(),
            "error loading b.yaml: binding \"b.static.k8s.io\": spec.policyName \"p\" must end with \".static.k8s.io\""
        );
    }
}
