//! One request: made, and waited for until somebody approved and somebody signed it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::resources::CERTIFICATE_SIGNING_REQUESTS;
use client::{Client, WatchEvent, WatchParams};
use component_base::pki::{self, Pair, Profile};
use serde_json::{Value, json};

/// How long a request is waited for; upstream's figure.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Ask {
    pub signer: &'static str,
    pub usages: &'static [&'static str],
    pub common_name: String,
    /// Names and addresses that are served.
    pub names: Vec<String>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("making the request")]
    Pki(#[from] pki::Error),
    #[error("cannot create certificate signing request: {}", .0.chain())]
    Client(#[from] client::Error),
    #[error("certificate signing request is not approved, reason: {0}")]
    Denied(String),
    #[error("certificate signing request failed, reason: {0}")]
    Failed(String),
    #[error("the certificate was not issued in time")]
    Late,
    #[error("storing the certificate: {0}")]
    Store(#[from] std::io::Error),
    #[error("{0}")]
    Kubeconfig(String),
}

/// What a request has come to.
fn outcome(request: &Value) -> Option<Result<String, Error>> {
    let conditions = request["status"]["conditions"].as_array();
    let condition = |kind: &str| {
        conditions.into_iter().flatten().find(|condition| condition["type"] == kind).map(|condition| {
            let text = |name: &str| condition[name].as_str().unwrap_or_default().to_string();
            format!("{}, message: {}", text("reason"), text("message"))
        })
    };
    if let Some(reason) = condition("Denied") {
        return Some(Err(Error::Denied(reason)));
    }
    if let Some(reason) = condition("Failed") {
        return Some(Err(Error::Failed(reason)));
    }
    condition("Approved")?;
    let certificate = request["status"]["certificate"].as_str().filter(|text| !text.is_empty())?;
    let pem = STANDARD.decode(certificate).ok().and_then(|bytes| String::from_utf8(bytes).ok())?;
    Some(Ok(pem))
}

/// Asks for a certificate with a new key, and waits for it.
///
/// # Errors
/// When it is refused, or not issued within a quarter of an hour.
pub async fn certificate(client: &Client, ask: &Ask) -> Result<Pair, Error> {
    let names: Vec<&str> = ask.names.iter().map(String::as_str).collect();
    let profile = Profile { orgs: vec!["system:nodes".into()], ..Profile::server(&ask.common_name, &names) };
    let (request_pem, key_pem) = pki::request(&profile)?;
    let object = json!({
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"generateName": "csr-"},
        "spec": {"request": STANDARD.encode(request_pem), "signerName": ask.signer, "usages": ask.usages},
    });
    let made: Value = client.create(&CERTIFICATE_SIGNING_REQUESTS, None, &object).await?;
    let name = made["metadata"]["name"].as_str().unwrap_or_default().to_string();
    tracing::info!(csr = name, signer = ask.signer, "certificate signing request created");
    match tokio::time::timeout(PATIENCE, wait(client, &name)).await {
        Ok(pem) => Ok(Pair { cert_pem: pem?, key_pem }),
        Err(_) => Err(Error::Late),
    }
}

async fn wait(client: &Client, name: &str) -> Result<String, Error> {
    let params = WatchParams {
        field_selector: format!("metadata.name={name}"),
        send_initial_events: true,
        ..WatchParams::default()
    };
    loop {
        let mut watch = client.watch::<Value>(&CERTIFICATE_SIGNING_REQUESTS, None, &params).await?;
        while let Some(event) = watch.next().await {
            match event {
                Ok(WatchEvent::Added(request) | WatchEvent::Modified(request)) => {
                    if let Some(outcome) = outcome(&request) {
                        return outcome;
                    }
                }
                Ok(WatchEvent::Deleted(_)) => return Err(Error::Failed("it was deleted".into())),
                Ok(WatchEvent::Bookmark { .. }) => {}
                Err(error) => {
                    tracing::debug!(error = error.chain(), "the watch of a request ended");
                    break;
                }
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_comes_to_something() {
        let with = |conditions: Value, certificate: &str| {
            outcome(&json!({"status": {"conditions": conditions, "certificate": STANDARD.encode(certificate)}}))
        };
        assert!(with(json!([]), "").is_none());
        assert!(with(json!([{"type": "Approved"}]), "").is_none(), "it is not signed yet");
        assert!(with(json!([]), "pem").is_none(), "nobody approved it");
        assert_eq!(with(json!([{"type": "Approved"}]), "pem").unwrap().unwrap(), "pem");
        let denied = with(json!([{"type": "Denied", "reason": "No", "message": "never"}]), "").unwrap();
        assert_eq!(
            denied.unwrap_err().to_string(),
            "certificate signing request is not approved, reason: No, message: never"
        );
        assert!(with(json!([{"type": "Approved"}, {"type": "Failed"}]), "pem").unwrap().is_err());
    }
}
