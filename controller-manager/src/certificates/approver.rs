//! Approves kubelets' client certificates, when who asks has the right to one.
//!
//! And their serving certificates, where `certificatesigningrequests/selfnodeserver` is granted, which upstream
//! does nowhere: the names must be the node's own, by its status. Without that right such requests wait for
//! somebody else's approval, as upstream's do.
//!
//! Reads requests and nodes, asks SubjectAccessReviews; writes the approval condition.

use std::sync::Arc;
use std::time::Duration;

use client::resources::{CERTIFICATE_SIGNING_REQUESTS, NODES, SUBJECT_ACCESS_REVIEWS};
use component_base::pki::RequestFacts;
use futures::future::BoxFuture;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::{
    ACCOUNT, KUBELET_CLIENT, KUBELET_SERVING, SigningRequest, check_kubelet_client, check_kubelet_serving, follow,
};
use crate::context::Context;
use crate::worker::{self, Error, Requeue};

pub const NAME: &str = "certificatesigningrequest-approving-controller";

/// What a request may be: the right it takes, and what the approval says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Recognized {
    subresource: &'static str,
    message: &'static str,
}

const SELF: Recognized = Recognized {
    subresource: "selfnodeclient",
    message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
};
const OTHER: Recognized = Recognized {
    subresource: "nodeclient",
    message: "Auto approving kubelet client certificate after SubjectAccessReview.",
};

const SERVER: Recognized = Recognized {
    subresource: "selfnodeserver",
    message: "Auto approving self kubelet server certificate after SubjectAccessReview.",
};
/// How soon a node's addresses are looked at again: they may come after the request.
const ADDRESSES: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
struct Node {
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Default, Deserialize)]
struct NodeStatus {
    #[serde(default)]
    addresses: Vec<Value>,
}

/// Pure: whether every name that is to be served is the node's own.
fn is_of_node(facts: &RequestFacts, node: &Node) -> bool {
    let name = facts.common_name.strip_prefix("system:node:").unwrap_or_default();
    let own = |wanted: &String| node.status.addresses.iter().any(|address| address["address"] == wanted.as_str());
    // A name of a kind that is not read must not slip through.
    facts.names.len() == facts.dns_names + facts.ip_addresses
        && facts.names.iter().all(|wanted| wanted == name || own(wanted))
}

/// Whether the node of this name has the names that it wants to serve.
async fn has_names(client: &client::Client, facts: &RequestFacts) -> client::Result<bool> {
    let name = facts.common_name.strip_prefix("system:node:").unwrap_or_default();
    match client.get::<Node>(&NODES, None, name).await {
        Ok(node) => Ok(is_of_node(facts, &node)),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Pure: which rights would approve the request.
fn recognize(request: &SigningRequest) -> Result<Vec<Recognized>, String> {
    let settled = !request.status.certificate.is_empty() || request.has("Approved") || request.has("Denied");
    if settled || !matches!(request.spec.signer_name.as_str(), KUBELET_CLIENT | KUBELET_SERVING) {
        return Ok(Vec::new());
    }
    let facts = request.facts()?;
    if request.spec.signer_name == KUBELET_SERVING {
        let own =
            request.spec.username == facts.common_name && check_kubelet_serving(&facts, &request.usages()).is_ok();
        return Ok(own.then_some(SERVER).into_iter().collect());
    }
    if check_kubelet_client(&facts, &request.usages()).is_err() {
        return Ok(Vec::new());
    }
    Ok(if request.spec.username == facts.common_name { vec![SELF, OTHER] } else { vec![OTHER] })
}

#[derive(Deserialize)]
struct Review {
    status: ReviewStatus,
}

#[derive(Deserialize)]
struct ReviewStatus {
    #[serde(default)]
    allowed: bool,
}

fn question(request: &SigningRequest, subresource: &str) -> Value {
    json!({
        "apiVersion": SUBJECT_ACCESS_REVIEWS.api_version(), "kind": "SubjectAccessReview",
        "spec": {
            "user": request.spec.username, "uid": request.spec.uid, "groups": request.spec.groups,
            "extra": request.spec.extra,
            "resourceAttributes": {
                "group": "certificates.k8s.io", "version": "*", "resource": "certificatesigningrequests",
                "subresource": subresource, "verb": "create",
            },
        },
    })
}

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let client = context.client(ACCOUNT);
    let (requests, queue) = follow(context);
    let clock = context.clock.clone();
    let followed = [requests.synced()];
    let store = requests.store();
    worker::start(NAME, queue, 5, &context.shutdown, followed, move |key| {
        let (client, store, now) = (client.clone(), store.clone(), clock.now());
        async move {
            let Some(request) = store.get(&key) else { return Ok(Requeue::Never) };
            let recognized = recognize(&request)
                .map_err(|error| Error::Other(format!("unable to parse csr {:?}: {error}", key.name)))?;
            for kind in recognized {
                let question = question(&request, kind.subresource);
                let review: Review = client.create(&SUBJECT_ACCESS_REVIEWS, None, &question).await?;
                if !review.status.allowed {
                    continue;
                }
                if kind == SERVER {
                    let facts = request.facts().map_err(Error::Other)?;
                    if !has_names(&client, &facts).await? {
                        tracing::info!(csr = key.name, names = ?facts.names, "not the node's own names (yet)");
                        return Ok(Requeue::After(ADDRESSES));
                    }
                }
                let condition = json!({
                    "type": "Approved", "status": "True", "reason": "AutoApproved", "message": kind.message,
                    "lastUpdateTime": apimachinery::time::format(now),
                });
                let body = request.updated(Some(condition), None);
                client
                    .update_sub::<IgnoredAny>(&CERTIFICATE_SIGNING_REQUESTS, None, &key.name, "approval", &body)
                    .await?;
                return Ok(Requeue::Never);
            }
            Ok(Requeue::Never)
        }
    })
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use component_base::pki::{self, Profile};

    use super::*;

    #[test]
    fn serving_certificates_are_for_the_node_itself() {
        let node: Node = serde_json::from_value(json!({"status": {"addresses": [
            {"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": "n1.local"},
        ]}}))
        .expect("a node");
        for (names, own) in [
            (&["n1", "10.0.0.1", "n1.local"][..], true),
            (&["10.0.0.2"], false),
            (&["n1", "kubernetes.default.svc"], false),
        ] {
            let profile = Profile { orgs: vec!["system:nodes".into()], ..Profile::server("system:node:n1", names) };
            let (pem, _) = pki::request(&profile).expect("a request");
            assert_eq!(is_of_node(&pki::read_request(&pem).expect("read"), &node), own, "{names:?}");
            let request = |username: &str, signer: &str| -> SigningRequest {
                let request = base64::engine::general_purpose::STANDARD.encode(&pem);
                serde_json::from_value(json!({"metadata": {}, "spec": {
                    "request": request, "signerName": signer, "username": username,
                    "usages": ["digital signature", "server auth"],
                }}))
                .expect("a request")
            };
            assert_eq!(recognize(&request("system:node:n1", KUBELET_SERVING)), Ok(vec![SERVER]));
            assert_eq!(recognize(&request("system:node:n2", KUBELET_SERVING)), Ok(vec![]), "another node's");
            assert_eq!(recognize(&request("system:node:n1", KUBELET_CLIENT)), Ok(vec![]), "it has names");
        }
    }
}
