//! Certificates that end: a kubelet asks for its next ones while everything goes on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use component_base::clock::{Clock as _, RealClock};
use component_base::pki::{Ca, Facts, Pair, Profile, Store, Usage, facts};
use serde_json::Value;

use crate::cluster::{Cluster, eventually, finish};
use crate::machine;

/// Folders of a cluster of `keelson up`.
const PKI: &str = "/var/lib/keelson/pki";
const NODE: &str = "node-1";
const NODE_PKI: &str = "/var/lib/keelson/nodes/node-1/kubelet/pki";
/// So short that a kubelet, which asks when seven to nine tenths of a certificate's life are over, asks at once: a
/// certificate's life begins five minutes before it is made.
const SHORT: Duration = Duration::from_secs(30);

/// Which certificates a node's kubelet uses now.
fn current() -> anyhow::Result<BTreeMap<&'static str, Facts>> {
    let mut found = BTreeMap::new();
    for base in ["kubelet-client", "kubelet-server"] {
        let pair = Store::new(Path::new(NODE_PKI), base).current().with_context(|| format!("no {base}"))?;
        found.insert(base, facts(&pair.cert_pem)?);
    }
    Ok(found)
}

/// Gives node 1's kubelet certificates that are about to end.
async fn shorten(cluster: &Cluster) -> anyhow::Result<()> {
    let authority = Pair::read(Path::new(PKI), "ca")?.context("the authority's key is not here")?;
    let authority = Ca::from_pem(authority)?;
    let node = cluster.get(&format!("node/{NODE}")).await?;
    let address = node["status"]["addresses"].as_array().into_iter().flatten().find(|a| a["type"] == "InternalIP");
    let address = address.and_then(|a| a["address"].as_str()).context("a node without an address")?;
    let profile = Profile {
        sans: vec![NODE.to_owned(), address.to_owned()],
        usage: Usage::Both,
        validity: SHORT,
        ..Profile::client(&format!("system:node:{NODE}"), &["system:nodes"])
    };
    for base in ["kubelet-client", "kubelet-server"] {
        Store::new(Path::new(NODE_PKI), base).update(&authority.issue(&profile)?, RealClock::new().now())?;
    }
    Ok(())
}

/// Containers by pod, with their ids and restarts: what must stay as it is.
fn containers(pods: &Value) -> BTreeMap<String, String> {
    let pods = pods["items"].as_array().into_iter().flatten();
    let of = |pod: &Value| (pod["metadata"]["name"].to_string(), pod["status"]["containerStatuses"].to_string());
    pods.map(of).collect()
}

/// Runs something in a pod of node 1, which the API server reaches by the serving certificate.
async fn exec(cluster: &Cluster, pod: &str) -> anyhow::Result<()> {
    let said = finish(&mut cluster.command(&format!("exec {pod} -- hostname")), None).await?;
    ensure!(said.trim() == pod, "{said:?}");
    Ok(())
}

pub async fn a_kubelet_rotates_while_everything_goes_on(cluster: &Cluster) -> anyhow::Result<()> {
    let name = "rotation";
    let overrides = format!(r#"{{"spec":{{"nodeName":"{NODE}","terminationGracePeriodSeconds":0}}}}"#);
    let mut run = cluster.command(&format!("run {name} --image=busybox:1.37 --restart=Never"));
    run.args(["--overrides", &overrides, "--", "sleep", "3600"]);
    finish(&mut run, None).await?;
    cluster.kubectl(&format!("wait --for=condition=Ready pod/{name} --timeout=60s")).await?;
    exec(cluster, name).await?;
    let before = containers(&cluster.get("pods").await?);

    shorten(cluster).await?;
    let short = current()?;
    machine::kill_and_return(&format!("{NODE}-kubelet")).await?;
    let fresh = eventually("certificates of the next generation", async || {
        let now = current()?;
        for (base, facts) in &now {
            let old = &short[base];
            ensure!(facts.not_after > old.not_after, "{base} still ends at {}", facts.not_after);
            ensure!(facts.common_name == format!("system:node:{NODE}"), "{base}: {}", facts.common_name);
        }
        Ok(now)
    })
    .await?;
    ensure!(fresh["kubelet-client"].client && fresh["kubelet-server"].server, "{fresh:?}");
    ensure!(fresh["kubelet-server"].names.iter().any(|name| name == NODE), "{:?}", fresh["kubelet-server"].names);

    // Both were asked for by the node itself, approved, and signed by the cluster.
    let requests = cluster.get("certificatesigningrequests").await?;
    let mut signers: Vec<&str> = Vec::new();
    for request in requests["items"].as_array().into_iter().flatten() {
        if request["spec"]["username"] == format!("system:node:{NODE}") && request["status"]["certificate"].is_string()
        {
            signers.extend(request["spec"]["signerName"].as_str());
        }
    }
    for signer in ["kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"] {
        ensure!(signers.contains(&signer), "{signer} signed nothing: {signers:?}");
    }

    // Once the old ones have ended, the node reports and is reached by the new ones alone.
    let end = short.values().map(|facts| facts.not_after).max().context("there are two")?;
    while RealClock::new().now() <= end {
        exec(cluster, name).await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let renewed = |lease: &Value| lease["spec"]["renewTime"].as_str().map(String::from);
    let lease = format!("lease/{NODE} -n kube-node-lease");
    let seen = renewed(&cluster.get(&lease).await?);
    eventually("next sign of life", async || {
        let now = renewed(&cluster.get(&lease).await?);
        ensure!(now != seen, "still {now:?}");
        Ok(())
    })
    .await?;
    exec(cluster, name).await?;
    let after = containers(&cluster.get("pods").await?);
    ensure!(before == after, "pods were disturbed: {before:?} became {after:?}");

    let shown = shown()?;
    for base in ["kubelet-client", "kubelet-server"] {
        ensure!(shown.contains(&format!("{NODE}/{base}-current")), "keelson certs does not show {base}: {shown}");
    }
    cluster.kubectl(&format!("delete pod {name} --wait=false")).await?;
    Ok(())
}

/// What `keelson certs show` says, of the program beside this one.
fn shown() -> anyhow::Result<String> {
    let programs: PathBuf = std::env::current_exe()?.parent().context("a program has a folder")?.into();
    let output = std::process::Command::new(programs.join("keelson")).args(["certs", "show"]).output()?;
    Ok(String::from_utf8(output.stdout)?)
}
