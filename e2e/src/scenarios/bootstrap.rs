//! Bootstrap tokens sign `kube-public/cluster-info`: who knows a token can tell that what anybody may read is the
//! cluster's own word.

use anyhow::{Context, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::{Value, json};

use crate::cluster::{Cluster, eventually};

const ID: &str = "e2esig";
const KEY: &str = "0123456789abcdef";

/// The content's signature by the token, if the ConfigMap has one that holds.
fn holds(map: &Value) -> anyhow::Result<()> {
    let content = map["data"]["kubeconfig"].as_str().context("a kubeconfig")?;
    let signature = map["data"][format!("jws-kubeconfig-{ID}")].as_str().context("a signature of the token")?;
    let (header, tag) = signature.split_once("..").context("a signature without its content")?;
    let head: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header)?)?;
    ensure!(head == json!({"alg": "HS256", "kid": ID}), "{head}");
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    let key = hmac::Key::new(hmac::HMAC_SHA256, KEY.as_bytes());
    let tag = URL_SAFE_NO_PAD.decode(tag)?;
    ensure!(hmac::verify(&key, signed.as_bytes(), &tag).is_ok(), "a signature of something else");
    Ok(())
}

async fn write(cluster: &Cluster, server: &str) -> anyhow::Result<()> {
    let kubeconfig =
        format!("apiVersion: v1\nkind: Config\nclusters: [{{name: \"\", cluster: {{server: {server}}}}}]\n");
    let patch = json!({"data": {"kubeconfig": kubeconfig}}).to_string();
    let mut command = cluster.command("patch configmap cluster-info -n kube-public --type=merge -p");
    command.arg(patch);
    crate::cluster::finish(&mut command, None).await.map(drop)
}

async fn info(cluster: &Cluster) -> anyhow::Result<Value> {
    cluster.get("configmap cluster-info -n kube-public").await
}

pub async fn tokens_sign_cluster_info(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.kubectl("create configmap cluster-info -n kube-public").await?;
    write(cluster, "https://192.0.2.1:6443").await?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": format!("bootstrap-token-{ID}"), "namespace": "kube-system"},
        "stringData": {"token-id": ID, "token-secret": KEY, "usage-bootstrap-signing": "true"},
    });
    cluster.kubectl_with("create -f -", &secret.to_string()).await?;
    eventually("signature", async || holds(&info(cluster).await?)).await?;

    let before = info(cluster).await?["data"][format!("jws-kubeconfig-{ID}")].clone();
    write(cluster, "https://192.0.2.2:6443").await?;
    eventually("signature of what changed", async || {
        let map = info(cluster).await?;
        ensure!(map["data"][format!("jws-kubeconfig-{ID}")] != before, "still the old one");
        holds(&map)
    })
    .await?;

    cluster.kubectl(&format!("delete secret bootstrap-token-{ID} -n kube-system")).await?;
    eventually("end of the signature", async || {
        let map = info(cluster).await?;
        ensure!(map["data"].get(format!("jws-kubeconfig-{ID}")).is_none(), "it is still there");
        Ok(())
    })
    .await?;
    cluster.kubectl("delete configmap cluster-info -n kube-public").await?;
    Ok(())
}
