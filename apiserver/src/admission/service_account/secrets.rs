//! Which secrets pods of an account may use, where the account says that only its own are.

use apimachinery::object::ObjectExt as _;
use serde_json::Value;

const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";

/// Whether an account bounds the secrets of its pods.
pub fn enforced(account: &Value) -> bool {
    matches!(account.annotation(ENFORCE), Some("1" | "t" | "T" | "TRUE" | "true" | "True"))
}

fn lists(account: &Value, list: &str, name: &str) -> bool {
    account.list_at(&[list]).iter().any(|secret| secret.str_at(&["name"]) == Some(name))
}

/// Checks the environment of the containers of a list, `what` being how messages call them.
fn containers(account: &Value, pod: &Value, list: &str, what: &str) -> Result<(), String> {
    let own = account.name();
    for container in pod.list_at(&["spec", list]) {
        let name = container.str_at(&["name"]).unwrap_or_default();
        let refused = |how: String, secret: &str| {
            format!(
                "{what} {name} with {how} referencing secret.secretName=\"{secret}\" is not allowed because service account {own} does not reference that secret"
            )
        };
        for variable in container.list_at(&["env"]) {
            if let Some(secret) = variable.at(&["valueFrom", "secretKeyRef"]).filter(|secret| secret.is_object()) {
                let secret = secret.str_at(&["name"]).unwrap_or_default();
                if !lists(account, "secrets", secret) {
                    let variable = variable.str_at(&["name"]).unwrap_or_default();
                    return Err(refused(format!("envVar {variable}"), secret));
                }
            }
        }
        for from in container.list_at(&["envFrom"]) {
            if let Some(secret) = from.get("secretRef").filter(|secret| secret.is_object()) {
                let secret = secret.str_at(&["name"]).unwrap_or_default();
                if !lists(account, "secrets", secret) {
                    return Err(refused("envFrom".to_string(), secret));
                }
            }
        }
    }
    Ok(())
}

/// Whether a pod uses only what its account lists.
///
/// # Errors
/// What it may not use.
pub fn of_pod(account: &Value, pod: &Value) -> Result<(), String> {
    let own = account.name();
    for volume in pod.list_at(&["spec", "volumes"]) {
        let Some(secret) = volume.get("secret").filter(|secret| secret.is_object()) else { continue };
        let secret = secret.str_at(&["secretName"]).unwrap_or_default();
        if !lists(account, "secrets", secret) {
            return Err(format!(
                "volume with secret.secretName=\"{secret}\" is not allowed because service account {own} does not reference that secret"
            ));
        }
    }
    containers(account, pod, "initContainers", "init container")?;
    containers(account, pod, "containers", "container")?;
    for (index, secret) in pod.list_at(&["spec", "imagePullSecrets"]).iter().enumerate() {
        let secret = secret.str_at(&["name"]).unwrap_or_default();
        if !lists(account, "imagePullSecrets", secret) {
            return Err(format!(
                "imagePullSecrets[{index}].name=\"{secret}\" is not allowed because service account {own} does not reference that imagePullSecret"
            ));
        }
    }
    Ok(())
}

/// Whether ephemeral containers use only what the account of their pod lists.
///
/// # Errors
/// What they may not use.
pub fn of_ephemeral(account: &Value, pod: &Value) -> Result<(), String> {
    containers(account, pod, "ephemeralContainers", "ephemeral container")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_listed_secrets_may_be_used() {
        let account = json!({
            "metadata": {"name": "a", "annotations": {ENFORCE: "true"}},
            "secrets": [{"name": "mine"}],
            "imagePullSecrets": [{"name": "pull"}],
        });
        assert!(enforced(&account) && !enforced(&json!({"metadata": {}})));
        let with = |spec: Value| of_pod(&account, &json!({"spec": spec})).err().unwrap_or_default();
        let volume = |name: &str| json!({"volumes": [{"secret": {"secretName": name}}, {"emptyDir": {}}]});
        assert_eq!(with(volume("mine")), "");
        assert!(with(volume("other")).starts_with("volume with secret.secretName=\"other\" is not allowed"));
        let env = json!([{"name": "V", "valueFrom": {"secretKeyRef": {"name": "other", "key": "k"}}}]);
        assert_eq!(
            with(json!({"containers": [{"name": "c", "env": env}]})),
            "container c with envVar V referencing secret.secretName=\"other\" is not allowed because service account a does not reference that secret"
        );
        let from = json!([{"secretRef": {"name": "other"}}]);
        assert!(
            with(json!({"initContainers": [{"name": "i", "envFrom": from}]}))
                .starts_with("init container i with envFrom")
        );
        assert!(
            with(json!({"imagePullSecrets": [{"name": "pull"}, {"name": "x"}]}))
                .starts_with("imagePullSecrets[1].name=\"x\"")
        );
    }
}
