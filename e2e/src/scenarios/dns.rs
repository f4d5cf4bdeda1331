//! Cluster DNS as a pod meets it: names of Services, endpoints and pods, addresses, what exists nowhere, and the
//! resolver file that each policy makes.

use anyhow::{Context, ensure};

use crate::cluster::{Cluster, eventually, finish, is_ready};

const NAMESPACE: &str = "e2e-dns";
const MANIFEST: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: shell, image: busybox:1.37, command: [sleep, "3600"]}]
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec:
  clusterIP: None
  selector: {app: db}
  ports: [{name: sql, port: 5432}]
---
apiVersion: v1
kind: Pod
metadata: {name: db-0, labels: {app: db}}
spec:
  hostname: first
  subdomain: db
  terminationGracePeriodSeconds: 0
  containers: [{name: shell, image: busybox:1.37, command: [sleep, "3600"]}]
---
apiVersion: v1
kind: Service
metadata: {name: early}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector: {app: late}
  ports: [{name: http, port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: strict}
spec:
  clusterIP: None
  selector: {app: late}
  ports: [{name: http, port: 80}]
---
apiVersion: v1
kind: Pod
metadata: {name: late, labels: {app: late}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: shell
    image: busybox:1.37
    command: [sleep, "3600"]
    readinessProbe: {exec: {command: ["false"]}}
---
apiVersion: v1
kind: Service
metadata: {name: other-name}
spec: {type: ExternalName, externalName: kubernetes.default.svc.cluster.local}
---
apiVersion: v1
kind: Pod
metadata: {name: own-resolver}
spec:
  terminationGracePeriodSeconds: 0
  dnsPolicy: None
  dnsConfig:
    nameservers: [192.0.2.53]
    searches: [example.test]
    options: [{name: ndots, value: "2"}, {name: edns0}]
  containers: [{name: shell, image: busybox:1.37, command: [sleep, "3600"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: nodes-resolver}
spec:
  terminationGracePeriodSeconds: 0
  dnsPolicy: Default
  containers: [{name: shell, image: busybox:1.37, command: [sleep, "3600"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: on-the-node}
spec:
  terminationGracePeriodSeconds: 0
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  containers: [{name: shell, image: busybox:1.37, command: [sleep, "3600"]}]
"#;

/// Runs a script in a pod of ours and gives what it printed, whether it went well or not.
async fn script(cluster: &Cluster, pod: &str, script: &str) -> anyhow::Result<String> {
    let mut exec = cluster.command(&format!("exec -n {NAMESPACE} {pod} -- sh -c"));
    finish(exec.arg(format!("{{ {script}; }} 2>&1; true")), None).await
}

/// Asks in a pod until the answer holds `want`: what has just been made takes a moment to be known.
async fn resolves(cluster: &Cluster, pod: &str, question: &str, want: &str) -> anyhow::Result<()> {
    eventually(&format!("answer to {question}"), async || {
        let said = script(cluster, pod, &format!("nslookup {question}")).await?;
        ensure!(said.contains(want), "{want:?} is not in {said:?}");
        Ok(())
    })
    .await
}

async fn address(cluster: &Cluster, pod: &str) -> anyhow::Result<String> {
    eventually(&format!("address of {pod}"), async || {
        let pod = cluster.get(&format!("pod/{pod} -n {NAMESPACE}")).await?;
        Ok(pod["status"]["podIP"].as_str().context("it has none")?.to_owned())
    })
    .await
}

async fn dns_address(cluster: &Cluster) -> anyhow::Result<String> {
    let service = cluster.get("service/kube-dns -n kube-system").await?;
    let ports: Vec<&str> =
        service["spec"]["ports"].as_array().into_iter().flatten().filter_map(|port| port["name"].as_str()).collect();
    ensure!(ports == ["dns", "dns-tcp", "metrics"], "{ports:?}");
    Ok(service["spec"]["clusterIP"].as_str().context("no address")?.to_owned())
}

pub async fn names_of_services_and_pods(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.kubectl(&format!("create namespace {NAMESPACE}")).await?;
    cluster.kubectl_with(&format!("apply -n {NAMESPACE} -f -"), MANIFEST).await?;
    for pod in ["client", "db-0", "own-resolver", "nodes-resolver", "on-the-node"] {
        eventually(&format!("Ready {pod}"), async || {
            let pod = cluster.get(&format!("pod/{pod} -n {NAMESPACE}")).await?;
            ensure!(is_ready(&pod), "{}", pod["status"]);
            Ok(())
        })
        .await?;
    }
    let kubernetes = cluster.get("service/kubernetes").await?;
    let api = kubernetes["spec"]["clusterIP"].as_str().unwrap_or_default();
    let db = address(cluster, "db-0").await?;
    let domain = "svc.cluster.local";
    let reversed = |ip: &str| ip.split('.').rev().collect::<Vec<_>>().join(".") + ".in-addr.arpa";
    for (question, want) in [
        (format!("kubernetes.default.{domain}"), format!("Address: {api}")),
        (format!("db.{NAMESPACE}.{domain}"), format!("Address: {db}")),
        (format!("first.db.{NAMESPACE}.{domain}"), format!("Address: {db}")),
        (format!("-type=srv _https._tcp.kubernetes.default.{domain}"), format!("443 kubernetes.default.{domain}")),
        (format!("-type=srv _sql._tcp.db.{NAMESPACE}.{domain}"), format!("5432 first.db.{NAMESPACE}.{domain}")),
        (format!("-type=ptr {}", reversed(api)), format!("kubernetes.default.{domain}")),
        (format!("-type=ptr {}", reversed(&db)), format!("first.db.{NAMESPACE}.{domain}")),
        (format!("{}.{NAMESPACE}.pod.cluster.local", db.replace('.', "-")), format!("Address: {db}")),
        (format!("other-name.{NAMESPACE}.{domain}"), format!("Address: {api}")),
        (format!("early.{NAMESPACE}.{domain}"), format!("Address: {}", address(cluster, "late").await?)),
    ] {
        resolves(cluster, "client", &question, &want).await?;
    }
    // A pod on the node's own network reaches it at the same address.
    resolves(cluster, "on-the-node", &format!("kubernetes.default.{domain}"), &format!("Address: {api}")).await?;
    // The C library's resolver, with the search path that the kubelet wrote, and a request to what it found.
    let page = script(cluster, "client", "wget -q -O - http://hostnames.default/").await?;
    ensure!(page.starts_with("hostnames-"), "no replica answered: {page:?}");
    let own = script(cluster, "db-0", "hostname -f").await?;
    ensure!(own.trim() == format!("first.db.{NAMESPACE}.{domain}"), "{own:?}");
    Ok(())
}

pub async fn names_that_do_not_exist(cluster: &Cluster) -> anyhow::Result<()> {
    for name in ["nope.default", "nope.nope", &format!("strict.{NAMESPACE}"), &format!("nope.db.{NAMESPACE}")] {
        let said = script(cluster, "client", &format!("nslookup -type=a {name}.svc.cluster.local.")).await?;
        ensure!(said.contains("NXDOMAIN"), "{name}: {said:?}");
    }
    // One that is there, without a record of this kind: no error, and no address.
    let said = script(cluster, "client", "nslookup -type=aaaa kubernetes.default.svc.cluster.local.").await?;
    ensure!(!said.contains("NXDOMAIN") && !said.contains("SERVFAIL"), "{said:?}");
    // Of others, whoever the node asks says so; where nobody does, that is said.
    let said = script(cluster, "client", "nslookup -type=a keelson.invalid.").await?;
    ensure!(said.contains("NXDOMAIN") || said.contains("SERVFAIL") || said.contains("REFUSED"), "{said:?}");
    resolves(cluster, "client", "kubernetes.default.svc.cluster.local", "Address: ").await
}

pub async fn resolver_files(cluster: &Cluster) -> anyhow::Result<()> {
    let dns = dns_address(cluster).await?;
    let searches = format!("search {NAMESPACE}.svc.cluster.local svc.cluster.local cluster.local");
    for (pod, wanted, unwanted) in [
        ("client", vec![format!("nameserver {dns}"), searches.clone(), "options ndots:5".into()], None),
        ("on-the-node", vec![format!("nameserver {dns}"), searches, "options ndots:5".into()], None),
        (
            "own-resolver",
            vec!["nameserver 192.0.2.53".into(), "search example.test".into(), "options ndots:2 edns0".into()],
            Some(dns.as_str()),
        ),
        ("nodes-resolver", vec!["nameserver ".into()], Some(dns.as_str())),
    ] {
        let file = script(cluster, pod, "cat /etc/resolv.conf").await?;
        for line in wanted {
            ensure!(file.contains(&line), "{pod}: {line:?} is not in {file:?}");
        }
        ensure!(unwanted.is_none_or(|unwanted| !file.contains(unwanted)), "{pod}: {file:?}");
    }
    cluster.kubectl(&format!("delete namespace {NAMESPACE} --wait=false")).await?;
    Ok(())
}
