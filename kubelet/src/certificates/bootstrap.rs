//! The first client certificate: asked for with a bootstrap kubeconfig (`--bootstrap-kubeconfig`), and the
//! kubeconfig that names it.

use std::path::Path;

use apimachinery::yaml;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::Client;
use component_base::clock::SharedClock;
use component_base::pki::{Facts, facts, write_file};
use serde_json::{Value, json};

use super::{Error, Store, certificate, client_ask};

/// Makes `kubeconfig` unless there is one whose certificate is good.
///
/// # Errors
/// When the bootstrap kubeconfig cannot be read, or the certificate is refused.
pub async fn bootstrap(
    kubeconfig: &Path,
    bootstrap: &Path,
    store: &Store,
    node_name: &str,
    clock: &SharedClock,
) -> Result<(), Error> {
    if is_valid(kubeconfig, clock.now()) {
        tracing::info!("current kubeconfig file contents are still valid, no bootstrap necessary");
        return Ok(());
    }
    let text = std::fs::read_to_string(bootstrap)
        .map_err(|error| Error::Kubeconfig(format!("unable to load bootstrap kubeconfig: {error}")))?;
    let config = yaml::parse(&text)
        .map_err(|error| Error::Kubeconfig(format!("unable to load bootstrap kubeconfig: {error}")))?;
    if store.valid(clock.now()).is_none() {
        tracing::info!("using bootstrap kubeconfig to generate TLS client cert, key and kubeconfig file");
        let client = Client::from_kubeconfig(Some(bootstrap), None).await?;
        let pair = certificate(&client, &client_ask(node_name)).await?;
        store.update(&pair, clock.now())?;
    }
    let text = yaml::emit(&document(&config, bootstrap, &store.current_path())?);
    write_file(kubeconfig, &text, 0o600)?;
    Ok(())
}

/// Whether a kubeconfig has a client certificate that is good now.
fn is_valid(kubeconfig: &Path, now: jiff::Timestamp) -> bool {
    certificate_of(kubeconfig).is_some_and(|facts| now < facts.not_after)
}

/// What the client certificate of a kubeconfig says.
pub fn certificate_of(kubeconfig: &Path) -> Option<Facts> {
    let config = yaml::parse(&std::fs::read_to_string(kubeconfig).ok()?).ok()?;
    let user = config["users"].get(0)?["user"].clone();
    let pem = match user["client-certificate"].as_str() {
        Some(path) => std::fs::read_to_string(path).ok()?,
        None => {
            let data = user["client-certificate-data"].as_str()?;
            String::from_utf8(STANDARD.decode(data).ok()?).ok()?
        }
    };
    facts(&pem).ok()
}

fn document(config: &Value, bootstrap: &Path, current: &Path) -> Result<Value, Error> {
    let missing = || Error::Kubeconfig("the bootstrap kubeconfig has no current context".into());
    let named = |list: &str, name: &str| {
        config[list].as_array().into_iter().flatten().find(|entry| entry["name"] == name).cloned()
    };
    let context = config["current-context"].as_str().and_then(|name| named("contexts", name)).ok_or_else(missing)?;
    let cluster = context["context"]["cluster"].as_str().and_then(|name| named("clusters", name));
    let mut cluster = cluster.ok_or_else(missing)?["cluster"].clone();
    // A path in the new file is meant as it was in the old one.
    if let Some(path) = cluster["certificate-authority"].as_str().map(Path::new)
        && path.is_relative()
        && let Some(dir) = bootstrap.parent()
    {
        cluster["certificate-authority"] = json!(dir.join(path));
    }
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "default-cluster", "cluster": cluster}],
        "users": [{"name": "default-auth", "user": {"client-certificate": current, "client-key": current}}],
        "contexts": [{
            "name": "default-context",
            "context": {"cluster": "default-cluster", "namespace": "default", "user": "default-auth"},
        }],
        "current-context": "default-context",
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_is_taken_over() {
        let config = json!({
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            "clusters": [{"name": "k", "cluster": {"server": "https://x", "certificate-authority": "ca.crt"}}],
            "users": [{"name": "u", "user": {"token": "abcdef.0123456789abcdef"}}],
        });
        let made = document(&config, Path::new("/etc/b.conf"), Path::new("/var/p.pem")).unwrap();
        assert_eq!(
            made["clusters"][0]["cluster"],
            json!({"server": "https://x", "certificate-authority": "/etc/ca.crt"})
        );
        assert_eq!(made["users"][0]["user"]["client-key"], "/var/p.pem");
        assert!(!made.to_string().contains("abcdef"), "the token stays behind");
        assert!(document(&json!({}), Path::new("/b"), Path::new("/p")).is_err());
    }
}
