//! Signs approved requests with the cluster's authority.
//!
//! Reads requests; writes `status.certificate`, or a `Failed` condition for a request that its signer
//! does not sign.

use std::sync::Arc;
use std::time::Duration;

use client::resources::CERTIFICATE_SIGNING_REQUESTS;
use component_base::pki::Ca;
use futures::future::BoxFuture;
use serde::de::IgnoredAny;
use serde_json::json;

use super::{
    ACCOUNT, API_CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY_UNKNOWN, SigningRequest, check_kubelet_client,
    check_kubelet_serving, follow,
};
use crate::context::{Context, synced};
use crate::worker::{self, Error, Requeue};

pub const NAME: &str = "certificatesigningrequest-signing-controller";

/// The shortest certificate.
const MIN: Duration = Duration::from_secs(600);
/// Certificates begin this long before they are signed, for clocks that lag.
const BACKDATE: Duration = Duration::from_secs(300);
/// Those that live shorter than this get their whole time from now on.
const SHORT: Duration = Duration::from_secs(8 * 3600);

#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Nothing,
    Sign,
    /// The signer does not sign such a request.
    Fail(String),
}

/// Pure: what to do about a request.
fn decide(request: &SigningRequest) -> Result<Decision, String> {
    if !request.has("Approved")
        || request.has("Denied")
        || request.has("Failed")
        || !request.status.certificate.is_empty()
    {
        return Ok(Decision::Nothing);
    }
    let usages = request.usages();
    let checked = match request.spec.signer_name.as_str() {
        KUBELET_CLIENT => check_kubelet_client(&request.facts()?, &usages),
        KUBELET_SERVING => check_kubelet_serving(&request.facts()?, &usages),
        API_CLIENT => match usages
            .iter()
            .find(|usage| !matches!(**usage, "digital signature" | "key encipherment" | "client auth"))
        {
            Some(other) => Err(format!("invalid usage for client certificate: {other}")),
            None if !usages.contains("client auth") => {
                Err("missing required usage for client certificate: client auth".to_string())
            }
            None => Ok(()),
        },
        LEGACY_UNKNOWN => Ok(()),
        _ => return Ok(Decision::Nothing),
    };
    Ok(match checked {
        Ok(()) => Decision::Sign,
        Err(error) => Decision::Fail(error),
    })
}

/// How long a certificate lives, counted from when it is signed.
fn lifetime(requested: Option<i64>, longest: Duration) -> Duration {
    let wanted = match requested.and_then(|seconds| u64::try_from(seconds).ok()) {
        None => longest,
        Some(seconds) => Duration::from_secs(seconds).max(MIN).min(longest),
    };
    if wanted < SHORT { wanted } else { wanted - BACKDATE }
}

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let Some(pair) = context.config.cluster_signing.clone() else {
        tracing::info!(controller = NAME, "no authority to sign with");
        return Box::pin(std::future::ready(()));
    };
    let client = context.client(ACCOUNT);
    let (requests, queue) = follow(context);
    let longest = context.config.cluster_signing_duration;
    let (shutdown, clock) = (context.shutdown.clone(), context.clock.clone());
    Box::pin(async move {
        let authority = match Ca::from_pem(pair) {
            Ok(authority) => Arc::new(authority),
            Err(error) => {
                tracing::error!(controller = NAME, %error, "the authority cannot be used");
                return;
            }
        };
        if !synced(&shutdown, requests.wait_synced()).await {
            return;
        }
        let store = requests.store();
        worker::run(NAME, queue, 5, shutdown, move |key| {
            let (client, store, authority, now) = (client.clone(), store.clone(), authority.clone(), clock.now());
            async move {
                let Some(request) = store.get(&key) else { return Ok(Requeue::Never) };
                let unable = |error: String| Error::Other(format!("unable to sign csr {:?}: {error}", key.name));
                let body = match decide(&request).map_err(unable)? {
                    Decision::Nothing => return Ok(Requeue::Never),
                    Decision::Sign => {
                        let until = lifetime(request.spec.expiration_seconds, longest);
                        let usages: Vec<&str> = request.usages().into_iter().collect();
                        let pem = request.pem().map_err(unable)?;
                        let certificate = authority
                            .sign_request(&pem, &usages, now, BACKDATE, until)
                            .map_err(|error| unable(error.to_string()))?;
                        request.updated(None, Some(&certificate))
                    }
                    Decision::Fail(message) => request.updated(
                        Some(json!({
                            "type": "Failed", "status": "True", "reason": "SignerValidationFailure",
                            "message": message, "lastUpdateTime": apimachinery::time::format(now),
                        })),
                        None,
                    ),
                };
                client.update_status::<IgnoredAny>(&CERTIFICATE_SIGNING_REQUESTS, None, &key.name, &body).await?;
                Ok(Requeue::Never)
            }
        })
        .await;
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn request(signer: &str, usages: &[&str], conditions: &[&str]) -> SigningRequest {
        let conditions: Value = conditions.iter().map(|kind| json!({"type": kind, "status": "True"})).collect();
        serde_json::from_value(json!({
            "spec": {"signerName": signer, "usages": usages}, "status": {"conditions": conditions},
        }))
        .expect("a request")
    }

    #[test]
    fn signs_only_what_is_approved_and_fits() {
        for (request, want) in [
            (request(API_CLIENT, &["client auth"], &[]), Decision::Nothing),
            (request(API_CLIENT, &["client auth"], &["Approved"]), Decision::Sign),
            (request(API_CLIENT, &["client auth"], &["Approved", "Denied"]), Decision::Nothing),
            (request(API_CLIENT, &["client auth"], &["Approved", "Failed"]), Decision::Nothing),
            (
                request(API_CLIENT, &["server auth"], &["Approved"]),
                Decision::Fail("invalid usage for client certificate: server auth".into()),
            ),
            (
                request(API_CLIENT, &["digital signature"], &["Approved"]),
                Decision::Fail("missing required usage for client certificate: client auth".into()),
            ),
            (request("example.com/own", &["client auth"], &["Approved"]), Decision::Nothing),
        ] {
            assert_eq!(decide(&request), Ok(want));
        }
    }

    #[test]
    fn lifetimes_are_bounded() {
        let year = Duration::from_secs(365 * 24 * 3600);
        assert_eq!(lifetime(None, year), year - BACKDATE);
        assert_eq!(lifetime(Some(60), year), MIN);
        assert_eq!(lifetime(Some(3600), year), Duration::from_secs(3600));
        assert_eq!(lifetime(Some(i64::MAX), year), year - BACKDATE);
    }
}
