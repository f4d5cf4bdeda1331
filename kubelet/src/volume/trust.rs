//! Trust anchors of projected volumes (KEP-3257): the certificates of one ClusterTrustBundle, or of all
//! that a signer's name and a label selector pick.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use ahash::RandomState;
use apimachinery::labels::Selector;
use k8s_openapi::api::certificates::v1beta1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::ClusterTrustBundleProjection;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::Error;
use crate::api::Api;

/// The longest label selector that is tried, in bytes.
const MAX_SELECTOR: usize = 100 * 1024;

/// What the file of a projection holds: PEM, each certificate once.
///
/// # Errors
/// Nothing matches and the projection is not optional, the selector is none, or bundles have not been read yet.
pub async fn anchors(api: &dyn Api, projection: &ClusterTrustBundleProjection) -> Result<Vec<u8>, Error> {
    let optional = projection.optional.unwrap_or(false);
    if projection.name.is_none() && projection.signer_name.is_none() {
        return Err(failed("ClusterTrustBundle projection requires either name or signerName to be set"));
    }
    let all = api.trust_bundles().await.map_err(|error| Error::SetUp(error.to_string()))?;
    let chosen: Vec<&ClusterTrustBundle> = if let Some(name) = &projection.name {
        let found = all.iter().find(|bundle| bundle.metadata.name.as_ref() == Some(name));
        if found.is_none() && !optional {
            let text = format!(
                "while getting ClusterTrustBundle: clustertrustbundle.certificates.k8s.io \"{name}\" not found"
            );
            return Err(Error::SetUp(text));
        }
        found.map(Arc::as_ref).into_iter().collect()
    } else {
        let selector = selector(projection)?;
        let found: Vec<&ClusterTrustBundle> = all
            .iter()
            .map(Arc::as_ref)
            .filter(|bundle| bundle.spec.signer_name == projection.signer_name)
            .filter(|bundle| selector.matches(&bundle.metadata.labels))
            .collect();
        if found.is_empty() && !optional {
            return Err(failed("combination of signerName and labelSelector matched zero ClusterTrustBundles"));
        }
        found
    };
    Ok(pem(&chosen).into_bytes())
}

fn failed(text: &str) -> Error {
    Error::SetUp(text.to_owned())
}

/// No selector matches nothing, an empty one everything.
fn selector(projection: &ClusterTrustBundleProjection) -> Result<Selector, Error> {
    let given = projection.label_selector.as_ref();
    let given = given.map(|given| serde_json::to_value(given).expect("an API type serializes"));
    let selector = Selector::from_label_selector(given.as_ref())
        .map_err(|error| Error::SetUp(format!("while parsing label selector: {error}")))?;
    let length = selector.to_string().len();
    if length > MAX_SELECTOR {
        return Err(Error::SetUp(format!("label selector length ({length}) is larger than {MAX_SELECTOR}")));
    }
    Ok(selector)
}

/// The certificates in an order that nobody can come to rely on: it stays while this process lives and is
/// another one in the next.
fn pem(bundles: &[&ClusterTrustBundle]) -> String {
    static ORDER: OnceLock<RandomState> = OnceLock::new();
    let order = ORDER.get_or_init(RandomState::new);
    let certificates: BTreeSet<Vec<u8>> = bundles
        .iter()
        .flat_map(|bundle| CertificateDer::pem_slice_iter(bundle.spec.trust_bundle.as_bytes()))
        // What the API let in is well-formed; anything else is no certificate to trust.
        .filter_map(|certificate| Some(certificate.ok()?.to_vec()))
        .collect();
    let mut certificates: Vec<Vec<u8>> = certificates.into_iter().collect();
    certificates.sort_by_key(|certificate| order.hash_one(certificate));
    component_base::tls::certificates_to_pem(certificates)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use serde_json::{Value, json};

    use super::*;
    use crate::workers::testing::FakeApi;

    fn block(text: &str) -> String {
        let encoded = base64::engine::general_purpose::STANDARD.encode(text);
        format!("-----BEGIN CERTIFICATE-----\n{encoded}\n-----END CERTIFICATE-----\n")
    }

    fn bundle(name: &str, signer: Option<&str>, labels: Value, certificates: &[&str]) -> Arc<ClusterTrustBundle> {
        let text: String = certificates.iter().map(|text| format!("about it\n{}", block(text))).collect();
        let object =
            json!({"metadata": {"name": name, "labels": labels}, "spec": {"signerName": signer, "trustBundle": text}});
        Arc::new(serde_json::from_value(object).unwrap())
    }

    async fn ask(api: &FakeApi, projection: Value) -> Result<BTreeSet<String>, String> {
        let projection = serde_json::from_value(projection).unwrap();
        let text = anchors(api, &projection).await.map_err(|error| error.to_string())?;
        // The same files again, or the volume would be written over and over.
        assert_eq!(anchors(api, &projection).await.unwrap(), text);
        let text = String::from_utf8(text).unwrap();
        Ok(text.split_inclusive("-----END CERTIFICATE-----\n").map(str::to_owned).collect())
    }

    #[tokio::test]
    async fn bundles_are_chosen_and_their_certificates_given_once() {
        let api = FakeApi::default();
        *api.trust_bundles.lock() = Some(vec![
            bundle("plain", None, json!({}), &["a"]),
            bundle("s:x:1", Some("s/x"), json!({"live": "yes"}), &["a", "b"]),
            bundle("s:x:2", Some("s/x"), json!({"live": "no"}), &["b", "c"]),
            bundle("s:y:1", Some("s/y"), json!({"live": "yes"}), &["d"]),
        ]);
        let certs = |names: &[&str]| Ok(names.iter().map(|name| block(name)).collect::<BTreeSet<_>>());
        assert_eq!(ask(&api, json!({"path": "p", "name": "plain"})).await, certs(&["a"]));
        let all = json!({"path": "p", "signerName": "s/x", "labelSelector": {}});
        assert_eq!(ask(&api, all).await, certs(&["a", "b", "c"]));
        let some = json!({"path": "p", "signerName": "s/x", "labelSelector": {"matchLabels": {"live": "yes"}}});
        assert_eq!(ask(&api, some).await, certs(&["a", "b"]));
    }

    #[tokio::test]
    async fn what_is_not_there_is_waited_for_unless_optional() {
        let api = FakeApi::default();
        let none = "combination of signerName and labelSelector matched zero ClusterTrustBundles";
        let missing = "while getting ClusterTrustBundle: clustertrustbundle.certificates.k8s.io \"m\" not found";
        let by_name = json!({"path": "p", "name": "m"});
        assert_eq!(
            ask(&api, by_name.clone()).await,
            Err("ClusterTrustBundle projection is not supported in static kubelet mode".to_owned())
        );
        *api.trust_bundles.lock() = Some(vec![bundle("s:x:1", Some("s/x"), json!({}), &["a"])]);
        for (projection, want) in [
            (by_name, missing),
            // Without a selector nothing matches.
            (json!({"path": "p", "signerName": "s/x"}), none),
            (json!({"path": "p", "signerName": "s/z", "labelSelector": {}}), none),
            (json!({"path": "p"}), "ClusterTrustBundle projection requires either name or signerName to be set"),
        ] {
            assert_eq!(ask(&api, projection.clone()).await, Err(want.to_owned()));
            if projection.as_object().unwrap().len() > 1 {
                let mut optional = projection;
                optional["optional"] = true.into();
                assert_eq!(ask(&api, optional).await, Ok(BTreeSet::new()));
            }
        }
        let long = json!({"path": "p", "signerName": "s/x", "labelSelector": {"matchExpressions": [
            {"key": "k", "operator": "In", "values": (0..20_000).map(|n| format!("v{n}")).collect::<Vec<_>>()}]}});
        assert!(ask(&api, long).await.unwrap_err().ends_with(" is larger than 102400"));
    }
}
