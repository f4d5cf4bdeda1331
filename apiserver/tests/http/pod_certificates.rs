//! Requests for certificates of pods (KEP-4317): what they must say, who may end them, and how.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use component_base::pki::{self, Ca};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{Fixture, UserInfo};

const PATH: &str = "/apis/certificates.k8s.io/v1beta1/namespaces/default/podcertificaterequests";

async fn server() -> Fixture {
    Fixture::with(|config| {
        config.feature_gates = vec![("PodCertificateRequest".to_string(), true)];
        config.runtime_config = vec![("certificates.k8s.io/v1beta1/podcertificaterequests".to_string(), true)];
    })
    .await
}

fn request(name: &str, stub: &[u8]) -> Value {
    json!({
        "apiVersion": "certificates.k8s.io/v1beta1", "kind": "PodCertificateRequest", "metadata": {"name": name},
        "spec": {
            "signerName": "example.com/s", "podName": "p", "podUID": "pu", "serviceAccountName": "a",
            "serviceAccountUID": "au", "nodeName": "n", "nodeUID": "nu", "stubPKCS10Request": STANDARD.encode(stub),
        },
    })
}

fn causes(body: &Value) -> Vec<String> {
    let causes = body["details"]["causes"].as_array().into_iter().flatten();
    causes
        .map(|cause| format!("{}: {}", cause["field"].as_str().unwrap(), cause["message"].as_str().unwrap()))
        .collect()
}

#[tokio::test]
async fn requests_say_whose_they_are() {
    let server = server().await;
    let (_, stub) = pki::stub_request("ED25519").unwrap();
    let answer = server.post(PATH, &request("good", &stub)).await;
    assert_eq!(answer.code, 201, "{}", answer.text);
    assert_eq!(answer.body["spec"]["maxExpirationSeconds"], 86400);
    // Selectable by its node, which is how kubelets follow theirs.
    let found = server.get(&format!("{PATH}?fieldSelector=spec.nodeName%3Dn")).await;
    assert_eq!(found.body["items"].as_array().map(Vec::len), Some(1), "{}", found.text);

    let mut bad = request("bad", b"junk");
    bad["spec"]["signerName"] = "sub.kubernetes.io/s".into();
    bad["spec"]["podUID"] = "".into();
    bad["spec"]["maxExpirationSeconds"] = 90000.into();
    bad["spec"]["unverifiedUserAnnotations"] = json!({"plain": "x"});
    let answer = server.post(PATH, &bad).await;
    assert_eq!(
        causes(&answer.body),
        [
            "spec.unverifiedUserAnnotations: Invalid value: \"plain\": must be a domain-prefixed key (such as \"acme.io/foo\")",
            "spec.podUID: Invalid value: \"\": must not be empty",
            "spec.maxExpirationSeconds: Invalid value: 90000: must be in the range [3600, 86400]",
            "spec.stubPKCS10Request: Invalid value: must be a valid PKCS#10 CSR",
        ]
    );
    // The last byte of the signature.
    let mut forged = stub.clone();
    *forged.last_mut().unwrap() ^= 1;
    let answer = server.post(PATH, &request("forged", &forged)).await;
    assert_eq!(causes(&answer.body), ["spec.stubPKCS10Request: Invalid value: invalid signature"]);
    let mut neither = request("neither", &stub);
    neither["spec"]["pkixPublicKey"] = "eA==".into();
    let answer = server.post(PATH, &neither).await;
    let message = "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set";
    assert_eq!(causes(&answer.body), [format!("spec: Invalid value: {message}")]);
}

/// A status by which a request is issued, with a certificate that lives from now on for this many seconds.
fn issued(authority: &Ca, stub: &[u8], seconds: u64) -> Value {
    let pem =
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n", STANDARD.encode(stub));
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
    let life = Duration::from_secs(seconds);
    let chain = authority.sign_request(&pem, &["client auth"], now, Duration::ZERO, life).unwrap();
    let now_text = now.to_string();
    json!({
        "conditions": [{
            "type": "Issued", "status": "True", "reason": "R", "message": "", "lastTransitionTime": now_text,
        }],
        "certificateChain": chain, "notBefore": now_text, "beginRefreshAt": (now + life / 2).to_string(),
        "notAfter": (now + life).to_string(),
    })
}

#[tokio::test]
async fn who_may_sign_ends_a_request_once() {
    let server = server().await;
    let (_, stub) = pki::stub_request("ECDSAP256").unwrap();
    server.post(PATH, &request("r", &stub)).await;
    let authority = Ca::new("signer").unwrap();
    let path = format!("{PATH}/r/status");
    let patch = async |status: &Value| {
        let body = json!({ "status": status }).to_string();
        server.ask("PATCH", &path, "application/merge-patch+json", body).await
    };
    let good = issued(&authority, &stub, 7200);

    // May update the subresource, but not sign for the signer.
    for object in [
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "updater"},
            "rules": [{"apiGroups": ["certificates.k8s.io"], "resources": ["podcertificaterequests/status"], "verbs": ["*"]}],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "updater"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "updater"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "joe"}],
        }),
    ] {
        let plural = if object["kind"] == "ClusterRole" { "clusterroles" } else { "clusterrolebindings" };
        let made = server.post(&format!("/apis/rbac.authorization.k8s.io/v1/{plural}"), &object).await;
        assert_eq!(made.code, 201, "{}", made.text);
    }
    let joe = UserInfo::new("joe", &["system:authenticated"]);
    let mut object = server.get(&format!("{PATH}/r")).await.body;
    object["status"] = good.clone();
    let mut answer = server.ask_as(joe.clone(), "PUT", &path, &object).await;
    for _ in 0..400 {
        if answer.code != 403 {
            break;
        }
        // The role is on its way.
        tokio::time::sleep(Duration::from_millis(10)).await;
        answer = server.ask_as(joe.clone(), "PUT", &path, &object).await;
    }
    assert_eq!(answer.code, 422, "{}", answer.text);
    let message = "spec.signerName: Forbidden: User \"joe\" is not permitted to \"sign\" for signer \"example.com/s\"";
    assert_eq!(causes(&answer.body), [message]);

    let with = |field: &str, value: Value| {
        let mut status = good.clone();
        status[field] = value;
        status
    };
    let (_, other) = pki::stub_request("ECDSAP256").unwrap();
    let mut two = good.clone();
    let mut denied = two["conditions"][0].clone();
    denied["type"] = "Denied".into();
    two["conditions"].as_array_mut().unwrap().push(denied.clone());
    let mut early = issued(&authority, &stub, 7200);
    early["notBefore"] = "2026-01-01T00:00:00Z".into();
    for (status, want) in [
        (
            with("conditions", json!([])),
            "status is immutable unless transitioning to \"Issued\", \"Denied\", or \"Failed\"",
        ),
        (with("conditions", json!([denied])), "non-condition status fields must be empty when denying or failing"),
        (two, "There may be at most one condition with type \"Issued\", \"Denied\", or \"Failed\""),
        (with("certificateChain", "".into()), "issued certificate chain must contain at least one certificate"),
        (issued(&authority, &other, 7200), "leaf certificate was not issued to the requested public key"),
        (issued(&authority, &stub, 1800), "leaf certificate lifetime must be >= 1 hour"),
        (issued(&authority, &stub, 90000), "leaf certificate lifetime must be <= spec.maxExpirationSeconds (86400)"),
        (early, "must be set to within 5 minutes of kube-apiserver's current time"),
        (
            with("notAfter", good["notBefore"].clone()),
            "must be set to the NotAfter time encoded in the leaf certificate",
        ),
        (with("beginRefreshAt", good["notBefore"].clone()), "must be at least 10 minutes after status.notBefore"),
        (with("beginRefreshAt", good["notAfter"].clone()), "must be at least 10 minutes before status.notAfter"),
        (with("beginRefreshAt", Value::Null), "must be present and in the range [notbefore+10min, notafter-10min]"),
    ] {
        let answer = patch(&status).await;
        assert_eq!(answer.code, 422, "{want}: {}", answer.text);
        assert!(answer.text.contains(&want.replace('"', "\\\"")), "{want}: {}", answer.text);
    }
    let answer = patch(&good).await;
    assert_eq!(answer.code, 200, "{}", answer.text);
    let answer = patch(&with("beginRefreshAt", Value::Null)).await;
    let message = "status: Invalid value: immutable after PodCertificateRequest is issued, denied, or failed";
    assert_eq!(causes(&answer.body), [message]);
}
