//! certificates.k8s.io: signing requests, trust bundles, pod certificate requests.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{self, list, opt_int, text};
use super::{AGE, Column, NAME, duration};

pub(super) const REQUEST_COLUMNS: &[Column] = &[
    NAME,
    AGE,
    // Upstream describes these as the beta version did.
    Column::string("SignerName").about("Requested signer for the request. It is a qualified name in the form: `scope-hostname.io/name`. If empty, it will be defaulted:\n 1. If it's a kubelet client certificate, it is assigned\n    \"kubernetes.io/kube-apiserver-client-kubelet\".\n 2. If it's a kubelet serving certificate, it is assigned\n    \"kubernetes.io/kubelet-serving\".\n 3. Otherwise, it is assigned \"kubernetes.io/legacy-unknown\".\nDistribution of trust for signers happens out of band. You can select on this field using `spec.signerName`."),
    Column::string("Requestor").about("Base64-encoded PKCS#10 CSR data"),
    Column::string("RequestedDuration")
        .of("io.k8s.api.certificates.v1.CertificateSigningRequestSpec", "expirationSeconds"),
    Column::string("Condition").about("Conditions applied to the request, such as approval or denial."),
];
pub(super) const TRUST_BUNDLE_COLUMNS: &[Column] =
    &[NAME, Column::string("SignerName").of("io.k8s.api.certificates.v1.ClusterTrustBundleSpec", "signerName")];
pub(super) const POD_REQUEST_COLUMNS: &[Column] = &[
    NAME,
    Column::string("PodName").of("io.k8s.api.certificates.v1.PodCertificateRequestSpec", "podName"),
    Column::string("ServiceAccountName")
        .of("io.k8s.api.certificates.v1.PodCertificateRequestSpec", "serviceAccountName"),
    Column::string("NodeName").of("io.k8s.api.certificates.v1.PodCertificateRequestSpec", "nodeName"),
    Column::string("SignerName").of("io.k8s.api.certificates.v1.PodCertificateRequestSpec", "signerName"),
    Column::string("State").about("Is the request Pending, Issued, Denied, or Failed?"),
    Column::string("UnverifiedUserAnnotations")
        .of("io.k8s.api.certificates.v1.PodCertificateRequestSpec", "unverifiedUserAnnotations"),
];
pub(super) fn request_row(request: &Value, now: Timestamp) -> Vec<Value> {
    let wanted = opt_int(request, &["spec", "expirationSeconds"])
        .map_or_else(|| "<none>".to_owned(), |seconds| duration::human(i128::from(seconds) * 1_000_000_000));
    vec![
        json!(cells::name(request)),
        cells::age(request, now),
        json!(cells::or(text(request, &["spec", "signerName"]), "<none>")),
        json!(text(request, &["spec", "username"])),
        json!(wanted),
        json!(status(request)),
    ]
}

fn status(request: &Value) -> String {
    let has = |r#type| cells::condition(request, &["status", "conditions"], r#type).is_some();
    // Denial wins over approval.
    let mut status = if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_owned();
    if has("Failed") {
        status += ",Failed";
    }
    if !text(request, &["status", "certificate"]).is_empty() {
        status += ",Issued";
    }
    status
}

pub(super) fn trust_bundle_row(bundle: &Value, _now: Timestamp) -> Vec<Value> {
    vec![json!(cells::name(bundle)), json!(cells::or(text(bundle, &["spec", "signerName"]), "<none>"))]
}

pub(super) fn pod_request_row(request: &Value, _now: Timestamp) -> Vec<Value> {
    let state = list(request, &["status", "conditions"])
        .iter()
        .rev()
        .map(|condition| text(condition, &["type"]))
        .find(|state| matches!(*state, "Issued" | "Denied" | "Failed"))
        .unwrap_or("Pending");
    let spec = |field| json!(text(request, &["spec", field]));
    vec![
        json!(cells::name(request)),
        spec("podName"),
        spec("serviceAccountName"),
        spec("nodeName"),
        spec("signerName"),
        json!(state),
        json!(cells::labels(request, &["spec", "unverifiedUserAnnotations"])),
    ]
}
