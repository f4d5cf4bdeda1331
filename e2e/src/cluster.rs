//! The cluster under test: kubectl as a process, a kube-rs client, and waiting with a bound.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Time between two looks at what the API shows.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What a scenario speaks to.
#[derive(Clone)]
pub struct Cluster {
    pub kubectl: PathBuf,
    pub kubeconfig: PathBuf,
    pub client: kube::Client,
    local: bool,
    extras: bool,
}

impl Cluster {
    /// The cluster that a kubeconfig names. `local`: `keelson up` made it on this machine. `extras`: it has what is off
    /// by default.
    pub async fn open(kubectl: PathBuf, kubeconfig: PathBuf, local: bool, extras: bool) -> anyhow::Result<Cluster> {
        let file = kube::config::Kubeconfig::read_from(&kubeconfig)?;
        let mut config = kube::Config::from_custom_kubeconfig(file, &Default::default()).await?;
        // An answer is what is looked at here, whatever it says: 504 is one that kube would ask for again.
        config.default_retry = false;
        let client = kube::Client::try_from(config)?;
        Ok(Cluster { kubectl, kubeconfig, client, local, extras })
    }

    pub fn is_local(&self) -> bool {
        self.local
    }

    pub fn has_extras(&self) -> bool {
        self.extras
    }

    /// A kubectl command with our kubeconfig.
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.env("KUBECONFIG", &self.kubeconfig).args(line.split_whitespace()).kill_on_drop(true);
        command
    }

    /// Runs kubectl with the words of `line` and gives what it printed.
    pub async fn kubectl(&self, line: &str) -> anyhow::Result<String> {
        let mut command = self.command(line);
        finish(&mut command, None).await.with_context(|| format!("kubectl {line}"))
    }

    /// As [`Cluster::kubectl`], with something on its standard input.
    pub async fn kubectl_with(&self, line: &str, input: &str) -> anyhow::Result<String> {
        let mut command = self.command(line);
        finish(&mut command, Some(input)).await.with_context(|| format!("kubectl {line}"))
    }

    /// An object as JSON.
    pub async fn get(&self, what: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.kubectl(&format!("get {what} -o json")).await?)?)
    }

    /// The pods of a label that are Ready and not being deleted.
    pub async fn ready_pods(&self, selector: &str) -> anyhow::Result<Vec<Value>> {
        let list = self.get(&format!("pods -l {selector}")).await?;
        let pods = list["items"].as_array().cloned().unwrap_or_default();
        Ok(pods.into_iter().filter(|pod| is_ready(pod) && pod["metadata"]["deletionTimestamp"].is_null()).collect())
    }

    /// Waits until exactly `count` pods of a label are there and all Ready.
    pub async fn settled(&self, selector: &str, count: usize) -> anyhow::Result<Vec<Value>> {
        eventually(&format!("{count} Ready pods of {selector}"), async || {
            let all = self.get(&format!("pods -l {selector}")).await?;
            let ready = self.ready_pods(selector).await?;
            let there = all["items"].as_array().map_or(0, Vec::len);
            if there != count || ready.len() != count {
                bail!("{there} pods, {} Ready", ready.len());
            }
            Ok(ready)
        })
        .await
    }
}

pub fn is_ready(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// Asks until the answer is good, for a minute at most; the last refusal is the error.
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) if tokio::time::Instant::now() > deadline => {
                return Err(error.context(format!("no {what} after a minute")));
            }
            Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

/// Runs a command to its end; a failure carries what it wrote to its standard error.
pub async fn finish(command: &mut Command, input: Option<&str>) -> anyhow::Result<String> {
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        stdin.write_all(input.as_bytes()).await?;
    }
    let output = child.wait_with_output().await?;
    if !output.status.success() {
        bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
