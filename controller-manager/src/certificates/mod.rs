//! Certificates by request: approval of what kubelets ask for, signing of what is approved, and
//! cleaning up afterwards. Upstream: `pkg/controller/certificates`.

pub mod approver;
pub mod cleaner;
pub mod pod_cleaner;
pub mod signer;
pub mod trust_bundle_publisher;

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::informer::{Event, Informer};
use client::meta::null_default;
use client::resources::CERTIFICATE_SIGNING_REQUESTS;
use client::workqueue::WorkQueue;
use client::{ObjectKey, ObjectMeta};
use component_base::pki::{self, RequestFacts};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::context::Context;

const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
const API_CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const LEGACY_UNKNOWN: &str = "kubernetes.io/legacy-unknown";

/// The account whose rights all three controllers have.
const ACCOUNT: &str = "certificate-controller";

/// A CertificateSigningRequest as these controllers read it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct SigningRequest {
    metadata: ObjectMeta,
    spec: Spec,
    status: Status,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    request: String,
    signer_name: String,
    username: String,
    uid: String,
    #[serde(deserialize_with = "null_default")]
    groups: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    extra: Value,
    #[serde(deserialize_with = "null_default")]
    usages: Vec<String>,
    expiration_seconds: Option<i64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Status {
    #[serde(deserialize_with = "null_default")]
    certificate: String,
    #[serde(deserialize_with = "null_default")]
    conditions: Vec<Value>,
}

client::impl_meta!(SigningRequest);

impl SigningRequest {
    fn has(&self, condition: &str) -> bool {
        self.status.conditions.iter().any(|have| have["type"] == condition && have["status"] != "False")
    }

    fn usages(&self) -> BTreeSet<&str> {
        self.spec.usages.iter().map(String::as_str).collect()
    }

    /// What the request's PEM asks for.
    fn facts(&self) -> Result<RequestFacts, String> {
        pki::read_request(&self.pem()?).map_err(|error| error.to_string())
    }

    fn pem(&self) -> Result<String, String> {
        let bytes = STANDARD.decode(&self.spec.request).map_err(|error| error.to_string())?;
        String::from_utf8(bytes).map_err(|error| error.to_string())
    }

    /// The object with another condition, or another certificate, for an update of a subresource.
    fn updated(&self, condition: Option<Value>, certificate: Option<&str>) -> Value {
        let mut conditions = self.status.conditions.clone();
        conditions.extend(condition);
        let mut status = json!({ "conditions": conditions });
        let certificate = certificate
            .map(|pem| STANDARD.encode(pem))
            .or_else(|| Some(self.status.certificate.clone()).filter(|certificate| !certificate.is_empty()));
        if let Some(certificate) = certificate {
            status["certificate"] = json!(certificate);
        }
        json!({
            "apiVersion": CERTIFICATE_SIGNING_REQUESTS.api_version(), "kind": "CertificateSigningRequest",
            "metadata": self.metadata,
            "spec": {"request": self.spec.request, "signerName": self.spec.signer_name, "usages": self.spec.usages},
            "status": status,
        })
    }
}

const NOT_NODES: &str = "subject organization is not system:nodes";
const NOT_A_NODE: &str = "subject common name does not begin with system:node:";

fn check_usages(usages: &BTreeSet<&str>, purpose: &str) -> Result<(), String> {
    let required: BTreeSet<&str> = ["digital signature", "key encipherment", purpose].into();
    let without_rsa: BTreeSet<&str> = ["digital signature", purpose].into();
    if *usages == required || *usages == without_rsa {
        return Ok(());
    }
    let shown: Vec<&str> = required.into_iter().collect();
    Err(format!("usages did not match [{}]", shown.join(" ")))
}

/// Whether a request is what a kubelet asks for to talk to the API.
fn check_kubelet_client(facts: &RequestFacts, usages: &BTreeSet<&str>) -> Result<(), String> {
    let refuse = |text: &str| Err(text.to_string());
    match () {
        () if facts.organizations != ["system:nodes"] => refuse(NOT_NODES),
        () if facts.dns_names > 0 => refuse("DNS subjectAltNames are not allowed"),
        () if facts.emails > 0 => refuse("Email subjectAltNames are not allowed"),
        () if facts.ip_addresses > 0 => refuse("IP subjectAltNames are not allowed"),
        () if facts.uris > 0 => refuse("URI subjectAltNames are not allowed"),
        () if !facts.common_name.starts_with("system:node:") => refuse(NOT_A_NODE),
        () => check_usages(usages, "client auth"),
    }
}

/// Whether a request is what a kubelet asks for to serve its own API.
fn check_kubelet_serving(facts: &RequestFacts, usages: &BTreeSet<&str>) -> Result<(), String> {
    let refuse = |text: &str| Err(text.to_string());
    match () {
        () if facts.organizations != ["system:nodes"] => refuse(NOT_NODES),
        () if facts.dns_names + facts.ip_addresses == 0 => refuse("DNS or IP subjectAltName is required"),
        () if facts.emails > 0 => refuse("Email subjectAltNames are not allowed"),
        () if facts.uris > 0 => refuse("URI subjectAltNames are not allowed"),
        () => check_usages(usages, "server auth")
            .and_then(|()| if facts.common_name.starts_with("system:node:") { Ok(()) } else { refuse(NOT_A_NODE) }),
    }
}

/// The shared informer of requests, and a queue that all of them come through.
fn follow(context: &Arc<Context>) -> (Arc<Informer<SigningRequest>>, WorkQueue<ObjectKey>) {
    let requests = context.informers.of::<SigningRequest>(&CERTIFICATE_SIGNING_REQUESTS);
    let queue: WorkQueue<ObjectKey> = WorkQueue::new();
    let sender = queue.clone();
    requests.on_event(move |event| {
        if !matches!(event, Event::Deleted(_)) {
            sender.add(event.object().metadata.key());
        }
    });
    (requests, queue)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> RequestFacts {
        RequestFacts {
            common_name: "system:node:n1".into(),
            organizations: vec!["system:nodes".into()],
            ..RequestFacts::default()
        }
    }

    #[test]
    fn only_kubelets_requests_are_kubelets() {
        let client: BTreeSet<&str> = ["digital signature", "client auth"].into();
        let serving: BTreeSet<&str> = ["digital signature", "key encipherment", "server auth"].into();
        assert_eq!(check_kubelet_client(&facts(), &client), Ok(()));
        for (facts, usages, want) in [
            (RequestFacts { organizations: vec!["system:masters".into()], ..facts() }, &client, NOT_NODES),
            (RequestFacts { dns_names: 1, ..facts() }, &client, "DNS subjectAltNames are not allowed"),
            (RequestFacts { common_name: "admin".into(), ..facts() }, &client, NOT_A_NODE),
            (facts(), &serving, "usages did not match [client auth digital signature key encipherment]"),
        ] {
            assert_eq!(check_kubelet_client(&facts, usages), Err(want.to_string()));
        }
        assert_eq!(check_kubelet_serving(&RequestFacts { ip_addresses: 1, ..facts() }, &serving), Ok(()));
        assert_eq!(check_kubelet_serving(&facts(), &serving), Err("DNS or IP subjectAltName is required".to_string()));
    }
}
