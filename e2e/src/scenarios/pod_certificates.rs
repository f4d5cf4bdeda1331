//! Certificates of pods (KEP-4317), with this program as the signer: the kubelet asks, what is signed reaches the pod's
//! files, and a refusal is told.

use std::time::Duration;

use anyhow::{Context, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use component_base::clock::{Clock as _, RealClock};
use component_base::pki::Ca;
use serde_json::{Value, json};

use crate::cluster::{Cluster, eventually, finish};

const NAMESPACE: &str = "e2e-pod-certificates";
const SIGNER: &str = "e2e.example.com/pods";

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "shell", "image": "busybox:1.37", "command": ["sleep", "3600"],
                "volumeMounts": [{"name": "identity", "mountPath": "/identity"}],
            }],
            "volumes": [{"name": "identity", "projected": {"sources": [{"podCertificate": {
                "signerName": SIGNER, "keyType": "ECDSAP256", "maxExpirationSeconds": 86400,
                "credentialBundlePath": "bundle.pem", "keyPath": "key.pem", "certificateChainPath": "chain.pem",
                "userAnnotations": {"e2e.example.com/for": name},
            }}]}}],
        },
    })
}

/// The request for a pod's certificate.
async fn request(cluster: &Cluster, pod: &str) -> anyhow::Result<Value> {
    eventually(&format!("request for {pod}"), async || {
        let all = cluster.get(&format!("podcertificaterequests -n {NAMESPACE}")).await?;
        let mut all = all["items"].as_array().cloned().unwrap_or_default().into_iter();
        all.find(|request| request["spec"]["podName"] == pod).context("none")
    })
    .await
}

async fn answer(cluster: &Cluster, request: &Value, status: Value) -> anyhow::Result<()> {
    let name = request["metadata"]["name"].as_str().unwrap_or_default();
    let line = format!("patch podcertificaterequest {name} -n {NAMESPACE} --subresource=status --type=merge -p");
    let mut command = cluster.command(&line);
    command.arg(json!({ "status": status }).to_string());
    finish(&mut command, None).await.map(drop)
}

fn condition(kind: &str, reason: &str, now: &str) -> Value {
    json!([{"type": kind, "status": "True", "reason": reason, "message": "e2e", "lastTransitionTime": now}])
}

async fn file(cluster: &Cluster, name: &str) -> anyhow::Result<String> {
    finish(&mut cluster.command(&format!("exec -n {NAMESPACE} signed -- cat /identity/{name}")), None).await
}

pub async fn certificates_reach_pods(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.kubectl(&format!("create namespace {NAMESPACE}")).await?;
    for name in ["signed", "denied"] {
        cluster.kubectl_with(&format!("create -n {NAMESPACE} -f -"), &pod(name).to_string()).await?;
    }
    let authority = Ca::new("e2e pods")?;
    let asked = request(cluster, "signed").await?;
    let spec = &asked["spec"];
    let node = cluster.get(&format!("node {}", spec["nodeName"].as_str().unwrap_or_default())).await?;
    ensure!(spec["nodeUID"] == node["metadata"]["uid"], "{spec}");
    ensure!(spec["unverifiedUserAnnotations"]["e2e.example.com/for"] == "signed", "{spec}");
    let stub = STANDARD.decode(spec["stubPKCS10Request"].as_str().context("a stub")?)?;
    let stub =
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n", STANDARD.encode(stub));
    let now = jiff::Timestamp::from_second(RealClock::new().now().as_second())?;
    let life = Duration::from_secs(24 * 3600);
    let chain = authority.sign_request(&stub, &["client auth"], now, Duration::ZERO, life)?;
    let (start, refresh, end) = (now.to_string(), (now + life / 2).to_string(), (now + life).to_string());
    let status = json!({
        "conditions": condition("Issued", "Issued", &start), "certificateChain": chain,
        "notBefore": start, "beginRefreshAt": refresh, "notAfter": end,
    });
    answer(cluster, &asked, status).await?;
    cluster.kubectl(&format!("wait -n {NAMESPACE} --for=condition=Ready pod/signed --timeout=60s")).await?;
    let (key, shown) = (file(cluster, "key.pem").await?, file(cluster, "chain.pem").await?);
    ensure!(key.starts_with("-----BEGIN PRIVATE KEY-----"), "a key");
    ensure!(shown.split_whitespace().eq(chain.split_whitespace()), "{shown}");
    ensure!(file(cluster, "bundle.pem").await? == key + &shown, "both in one file");

    let refused = request(cluster, "denied").await?;
    answer(cluster, &refused, json!({"conditions": condition("Denied", "NotToday", &start)})).await?;
    eventually("event of the refusal", async || {
        let events = cluster.get(&format!("events -n {NAMESPACE} --field-selector=reason=Denied")).await?;
        let text = events["items"][0]["message"].as_str().unwrap_or_default().to_owned();
        ensure!(text.contains("was denied, reason=\"NotToday\", message=\"e2e\""), "{text:?}");
        Ok(())
    })
    .await?;
    cluster.kubectl(&format!("delete namespace {NAMESPACE} --wait=false")).await?;
    Ok(())
}
