//! Trust bundles (KEP-3257): what a pod sees of them in a projected volume, by name and by signer, as they change; and
//! the bundle of the API server's own authority, which the controller manager publishes.

use anyhow::{Context, ensure};
use component_base::pki::Ca;
use serde_json::json;

use crate::cluster::{Cluster, eventually, finish};

const NAMESPACE: &str = "e2e-trust";
const BUNDLE: &str = "e2e-trust-anchors";
const SIGNER: &str = "kubernetes.io/kube-apiserver-serving";

/// One file for a bundle by its name, one for the bundles of the API server's signer, one for a bundle that is not there.
const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: shell
    image: busybox:1.37
    command: [sleep, "3600"]
    volumeMounts: [{name: trust, mountPath: /trust}]
  volumes:
  - name: trust
    projected:
      sources:
      - clusterTrustBundle: {name: e2e-trust-anchors, path: named.pem}
      - clusterTrustBundle: {signerName: kubernetes.io/kube-apiserver-serving, labelSelector: {}, path: server.pem}
      - clusterTrustBundle: {name: e2e-trust-none, optional: true, path: none.pem}
"#;

/// Certificates in PEM, one line each, in any order.
fn bodies(pem: &str) -> Vec<String> {
    let mut found: Vec<String> = pem
        .split("-----BEGIN CERTIFICATE-----")
        .skip(1)
        .filter_map(|part| part.split("-----END").next())
        .map(|body| body.split_whitespace().collect())
        .collect();
    found.sort();
    found
}

async fn file(cluster: &Cluster, name: &str) -> anyhow::Result<String> {
    let line = format!("exec -n {NAMESPACE} reader -- cat /trust/{name}");
    finish(&mut cluster.command(&line), None).await
}

async fn publish(cluster: &Cluster, authorities: &[&Ca]) -> anyhow::Result<()> {
    let pem: String = authorities.iter().map(|authority| authority.cert_pem()).collect();
    let bundle = json!({
        "apiVersion": "certificates.k8s.io/v1beta1",
        "kind": "ClusterTrustBundle",
        "metadata": {"name": BUNDLE},
        "spec": {"trustBundle": pem},
    });
    cluster.kubectl_with("apply -f -", &bundle.to_string()).await.map(drop)
}

pub async fn bundles_reach_pods(cluster: &Cluster) -> anyhow::Result<()> {
    let (one, other) = (Ca::new("one")?, Ca::new("other")?);
    cluster.kubectl(&format!("create namespace {NAMESPACE}")).await?;
    publish(cluster, &[&one]).await?;
    cluster.kubectl_with(&format!("apply -n {NAMESPACE} -f -"), POD).await?;
    cluster.kubectl(&format!("wait -n {NAMESPACE} --for=condition=Ready pod/reader --timeout=60s")).await?;
    ensure!(bodies(&file(cluster, "named.pem").await?) == bodies(one.cert_pem()), "the bundle by its name");
    ensure!(file(cluster, "none.pem").await?.is_empty(), "a bundle that is not there");

    // What the controller manager published is the authority that every namespace is given, too.
    let root = cluster.get(&format!("configmap kube-root-ca.crt -n {NAMESPACE}")).await?;
    let root = root["data"]["ca.crt"].as_str().context("an authority")?.to_owned();
    let served = bodies(&file(cluster, "server.pem").await?);
    ensure!(served == bodies(&root), "the API server's authority");
    let published = cluster.get(&format!("clustertrustbundles --field-selector=spec.signerName={SIGNER}")).await?;
    let names: Vec<&str> =
        published["items"].as_array().into_iter().flatten().filter_map(|b| b["metadata"]["name"].as_str()).collect();
    ensure!(names.len() == 1 && names[0].starts_with("kubernetes.io:kube-apiserver-serving:"), "{names:?}");

    publish(cluster, &[&other, &one]).await?;
    let both = bodies(&(one.cert_pem().to_owned() + other.cert_pem()));
    eventually("changed bundle in the pod", async || {
        ensure!(bodies(&file(cluster, "named.pem").await?) == both, "still the old one");
        Ok(())
    })
    .await?;

    // The published one comes back, under the same name.
    cluster.kubectl(&format!("delete clustertrustbundle {}", names[0])).await?;
    eventually("bundle of the API server", async || {
        cluster.get(&format!("clustertrustbundle {}", names[0])).await.map(drop)
    })
    .await?;
    cluster.kubectl(&format!("delete clustertrustbundle {BUNDLE}")).await?;
    cluster.kubectl(&format!("delete namespace {NAMESPACE} --wait=false")).await?;
    Ok(())
}
