//! `--authorization-config`: the authorizers and their order, as a file.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use apimachinery::yaml;
use component_base::duration;
use serde::Deserialize;

use super::webhook::{FailurePolicy, Options};
use crate::config::AuthorizationMode;

/// The longest a webhook may take.
const MAX_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Configuration {
    api_version: String,
    kind: String,
    #[serde(default)]
    authorizers: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    name: String,
    webhook: Option<Webhook>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Webhook {
    #[serde(rename = "authorizedTTL", default)]
    authorized_ttl: String,
    cache_authorized_requests: Option<bool>,
    #[serde(rename = "unauthorizedTTL", default)]
    unauthorized_ttl: String,
    cache_unauthorized_requests: Option<bool>,
    #[serde(default)]
    timeout: String,
    #[serde(default)]
    subject_access_review_version: String,
    #[serde(default)]
    match_condition_subject_access_review_version: String,
    failure_policy: Option<FailurePolicy>,
    connection_info: Connection,
    #[serde(default)]
    match_conditions: Vec<Condition>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Connection {
    #[serde(rename = "type")]
    kind: String,
    kube_config_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    expression: String,
}

/// Reads the file's text.
///
/// # Errors
/// Says what is wrong with it.
pub fn parse(text: &str) -> Result<Vec<AuthorizationMode>, String> {
    let value = yaml::parse(text).map_err(|error| error.to_string())?;
    let configuration: Configuration = serde_json::from_value(value).map_err(|error| error.to_string())?;
    let version = configuration.api_version.strip_prefix("apiserver.config.k8s.io/");
    if configuration.kind != "AuthorizationConfiguration" || !matches!(version, Some("v1" | "v1beta1" | "v1alpha1")) {
        return Err(format!(
            "no kind {:?} is registered for version {:?}",
            configuration.kind, configuration.api_version
        ));
    }
    if configuration.authorizers.is_empty() {
        return Err("authorizers: Required value: at least one authorization mode must be defined".to_string());
    }
    let mut kinds = HashSet::new();
    let mut names = HashSet::new();
    let mut modes = Vec::new();
    for (index, entry) in configuration.authorizers.into_iter().enumerate() {
        let at = format!("authorizers[{index}]");
        if entry.kind != "Webhook" && !kinds.insert(entry.kind.clone()) {
            return Err(format!("{at}.type: Duplicate value: {:?}", entry.kind));
        }
        if entry.name.is_empty() {
            return Err(format!("{at}.name: Required value"));
        }
        if !apimachinery::names::dns1123_subdomain(&entry.name).is_empty() {
            return Err(format!("{at}.name: Invalid value: {:?}: authorizer name is invalid", entry.name));
        }
        if !names.insert(entry.name.clone()) {
            return Err(format!("{at}.name: Duplicate value: {:?}", entry.name));
        }
        if entry.webhook.is_some() && entry.kind != "Webhook" {
            return Err(format!("{at}.webhook: Invalid value: \"non-null\": may only be specified when type=Webhook"));
        }
        modes.push(match entry.kind.as_str() {
            "Node" => AuthorizationMode::Node,
            "RBAC" => AuthorizationMode::Rbac,
            "AlwaysAllow" => AuthorizationMode::AlwaysAllow,
            "AlwaysDeny" => AuthorizationMode::AlwaysDeny,
            "Webhook" => {
                let webhook = entry.webhook.ok_or_else(|| format!("{at}.webhook: Required value: required when type=Webhook"))?;
                let options = options(entry.name, webhook).map_err(|error| format!("{at}.webhook.{error}"))?;
                AuthorizationMode::Webhook(Box::new(options))
            }
            "" => return Err(format!("{at}.type: Required value")),
            other => {
                return Err(format!(
                    "{at}.type: Unsupported value: {other:?}: supported values: \"AlwaysAllow\", \"AlwaysDeny\", \"Node\", \"RBAC\", \"Webhook\""
                ));
            }
        });
    }
    Ok(modes)
}

fn options(name: String, webhook: Webhook) -> Result<Options, String> {
    let length = |field: &str, text: &str, default: u64| match text {
        "" => Ok(Duration::from_secs(default)),
        text => duration::parse(text).map_err(|error| format!("{field}: Invalid value: {text:?}: {error}")),
    };
    if webhook.timeout.is_empty() {
        return Err("timeout: Required value".to_string());
    }
    let timeout = length("timeout", &webhook.timeout, 0)?;
    if timeout.is_zero() || timeout > MAX_TIMEOUT {
        return Err(format!("timeout: Invalid value: {:?}: must be > 0s and <= 30s", webhook.timeout));
    }
    let version = webhook.subject_access_review_version;
    if !matches!(version.as_str(), "v1" | "v1beta1") {
        return Err(format!(
            "subjectAccessReviewVersion: Unsupported value: {version:?}: supported values: \"v1\", \"v1beta1\""
        ));
    }
    if !webhook.match_conditions.is_empty() && webhook.match_condition_subject_access_review_version != "v1" {
        return Err(
            "matchConditionSubjectAccessReviewVersion: Required value: required if match conditions are specified"
                .to_string(),
        );
    }
    let kubeconfig = match (webhook.connection_info.kind.as_str(), webhook.connection_info.kube_config_file) {
        ("KubeConfigFile", Some(path)) if path.is_absolute() => Some(path),
        ("KubeConfigFile", Some(path)) => {
            return Err(format!("connectionInfo.kubeConfigFile: Invalid value: {path:?}: must be an absolute path"));
        }
        ("KubeConfigFile", None) => return Err("connectionInfo.kubeConfigFile: Required value".to_string()),
        ("InClusterConfig", None) => None,
        ("InClusterConfig", Some(path)) => {
            return Err(format!(
                "connectionInfo.kubeConfigFile: Invalid value: {path:?}: can only be set when type=KubeConfigFile"
            ));
        }
        (other, _) => {
            return Err(format!(
                "connectionInfo.type: Unsupported value: {other:?}: supported values: \"InClusterConfig\", \"KubeConfigFile\""
            ));
        }
    };
    let ttl = |field: &str, text: &str, default: u64, on: Option<bool>| {
        length(field, text, default).map(|ttl| if on == Some(false) { Duration::ZERO } else { ttl })
    };
    let authorized = ttl("authorizedTTL", &webhook.authorized_ttl, 300, webhook.cache_authorized_requests)?;
    let unauthorized = ttl("unauthorizedTTL", &webhook.unauthorized_ttl, 30, webhook.cache_unauthorized_requests)?;
    Ok(Options {
        name,
        kubeconfig,
        timeout,
        authorized_ttl: authorized,
        unauthorized_ttl: unauthorized,
        version,
        failure: webhook.failure_policy.ok_or("failurePolicy: Required value")?,
        conditions: webhook.match_conditions.into_iter().map(|condition| condition.expression).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n";

    #[test]
    fn webhooks_stand_where_the_file_says() {
        let text = format!(
            "{HEAD}authorizers:\n- {{type: Node, name: node}}\n- type: Webhook\n  name: w\n  webhook:\n    timeout: 3s\n    \
             subjectAccessReviewVersion: v1\n    matchConditionSubjectAccessReviewVersion: v1\n    failurePolicy: Deny\n    \
             unauthorizedTTL: 10s\n    cacheAuthorizedRequests: false\n    \
             connectionInfo: {{type: KubeConfigFile, kubeConfigFile: /w.conf}}\n    \
             matchConditions: [{{expression: has(request.resourceAttributes)}}]\n- {{type: RBAC, name: rbac}}\n"
        );
        let modes = parse(&text).unwrap();
        let [AuthorizationMode::Node, AuthorizationMode::Webhook(webhook), AuthorizationMode::Rbac] = modes.as_slice()
        else {
            panic!("{modes:?}")
        };
        assert_eq!(webhook.authorized_ttl, Duration::ZERO);
        assert_eq!(webhook.unauthorized_ttl, Duration::from_secs(10));
        assert_eq!(webhook.failure, FailurePolicy::Deny);
    }

    #[test]
    fn mistakes_are_named() {
        for (authorizers, want) in [
            ("[]", "authorizers: Required value: at least one authorization mode must be defined"),
            ("[{type: RBAC, name: a}, {type: RBAC, name: b}]", "authorizers[1].type: Duplicate value: \"RBAC\""),
            ("[{type: RBAC, name: a}, {type: Node, name: a}]", "authorizers[1].name: Duplicate value: \"a\""),
            ("[{type: RBAC}]", "authorizers[0].name: Required value"),
            ("[{type: Webhook, name: w}]", "authorizers[0].webhook: Required value: required when type=Webhook"),
        ] {
            assert_eq!(parse(&format!("{HEAD}authorizers: {authorizers}")).unwrap_err(), want);
        }
    }
}
