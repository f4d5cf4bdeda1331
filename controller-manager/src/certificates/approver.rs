//! Approves kubelets' client certificates, when who asks has the right to one.
//!
//! Reads requests, asks SubjectAccessReviews; writes the approval condition.

use std::sync::Arc;

use client::resources::{CERTIFICATE_SIGNING_REQUESTS, SUBJECT_ACCESS_REVIEWS};
use futures::future::BoxFuture;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::{ACCOUNT, KUBELET_CLIENT, SigningRequest, check_kubelet_client, follow};
use crate::context::{Context, synced};
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

/// Pure: which rights would approve the request.
fn recognize(request: &SigningRequest) -> Result<Vec<Recognized>, String> {
    let settled = !request.status.certificate.is_empty() || request.has("Approved") || request.has("Denied");
    if settled || request.spec.signer_name != KUBELET_CLIENT {
        return Ok(Vec::new());
    }
    let facts = request.facts()?;
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
    let (shutdown, clock) = (context.shutdown.clone(), context.clock.clone());
    Box::pin(async move {
        if !synced(&shutdown, requests.wait_synced()).await {
            return;
        }
        let store = requests.store();
        worker::run(NAME, queue, 5, shutdown, move |key| {
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
        .await;
    })
}
