//! `kubectl rollout status`: how far a rollout is, until it is done.

use futures::future::LocalBoxFuture;
use futures::{FutureExt, StreamExt};
use serde_json::Value;

use super::workloads;
use crate::codec;
use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::resource::{FILE_FLAGS, Info};
use crate::rest::{self, Call};

const FLAGS: &[Flag] = &[
    Flag::int("revision", "0", "Pin to a specific revision for showing its status. Defaults to 0 (last revision)."),
    Flag::string("selector", "Selector (label query) to filter on.").short('l'),
    Flag::duration("timeout", "0s", "The length of time to wait before ending watch, zero means never."),
    Flag::bool("watch", "Watch the status of the rollout until it's done.").short('w').default("true"),
];

/// `kubectl rollout status`.
pub const COMMAND: Command = Command::new(
    "status",
    "Show the status of the rollout.",
    "(TYPE NAME | TYPE/NAME) [flags]",
    &[FLAGS, FILE_FLAGS],
    run,
);

fn run(ctx: &Context) -> LocalBoxFuture<'_, Result<()>> {
    async {
        let (infos, errors) = workloads(ctx).await?;
        if infos.is_empty() && errors.is_empty() {
            let (namespace, _) = ctx.factory.namespace()?;
            ctx.streams.err.line(&format!("No resources found in {namespace} namespace."));
            return Ok(());
        }
        Error::aggregate(errors)?;
        for info in infos {
            let following = follow(ctx, &info);
            match ctx.parsed.duration("timeout").positive() {
                Some(limit) => tokio::time::timeout(limit, following)
                    .await
                    .unwrap_or_else(|_| Err(Error::message("timed out waiting for the condition")))?,
                None => following.await?,
            }
        }
        Ok(())
    }
    .boxed_local()
}

/// Says each state until the rollout is done.
async fn follow(ctx: &Context, info: &Info) -> Result<()> {
    let rest = ctx.factory.rest().await?;
    let path = rest::path(&info.mapping, &info.namespace, "", "");
    let selector = format!("metadata.name={}", info.name);
    let revision = ctx.parsed.int("revision");
    loop {
        let list = rest.value(Call::get(&path).query("fieldSelector", &selector)).await?;
        let version = codec::text(&list, &["metadata", "resourceVersion"]).to_owned();
        let Some(object) = codec::list(&list, &["items"]).first() else {
            return Err(Error::message("object has been deleted"));
        };
        let (text, done) = status(&info.mapping.kind, object, revision)?;
        ctx.streams.out.text(&text);
        if done || !ctx.parsed.bool("watch") {
            return Ok(());
        }
        let events =
            rest.watch(Call::get(&path).query("fieldSelector", &selector).query("resourceVersion", version)).await?;
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            let event = event?;
            match codec::text(&event, &["type"]) {
                "ADDED" | "MODIFIED" => {
                    let (text, done) = status(&info.mapping.kind, &event["object"], revision)?;
                    ctx.streams.out.text(&text);
                    if done {
                        return Ok(());
                    }
                }
                "DELETED" => return Err(Error::message("object has been deleted")),
                // The watch is too old: list again.
                _ => break,
            }
        }
    }
}

/// One line about a workload, and whether its rollout is done.
pub(super) fn status(kind: &str, object: &Value, revision: i64) -> Result<(String, bool)> {
    let name = codec::text(object, &["metadata", "name"]);
    let int = |path: &[&str]| codec::int(object, path).unwrap_or(0);
    let state = |field: &str| int(&["status", field]);
    let observed = int(&["metadata", "generation"]) <= state("observedGeneration");
    let wanted = codec::int(object, &["spec", "replicas"]);
    match kind {
        "Deployment" => {
            if revision > 0 {
                let running: i64 =
                    codec::text(object, &["metadata", "annotations", "deployment.kubernetes.io/revision"])
                        .parse()
                        .map_err(|_| Error::message(format!("cannot get the revision of deployment {name:?}")))?;
                if running != revision {
                    return Err(Error::message(format!(
                        "desired revision ({revision}) is different from the running revision ({running})"
                    )));
                }
            }
            if !observed {
                return Ok(("Waiting for deployment spec update to be observed...\n".into(), false));
            }
            let late = codec::list(object, &["status", "conditions"])
                .iter()
                .any(|c| c["type"] == "Progressing" && c["reason"] == "ProgressDeadlineExceeded");
            if late {
                return Err(Error::message(format!("deployment {name:?} exceeded its progress deadline")));
            }
            let (updated, total, available) = (state("updatedReplicas"), state("replicas"), state("availableReplicas"));
            let waiting = format!("Waiting for deployment {name:?} rollout to finish: ");
            if let Some(wanted) = wanted.filter(|wanted| updated < *wanted) {
                return Ok((format!("{waiting}{updated} out of {wanted} new replicas have been updated...\n"), false));
            }
            if total > updated {
                return Ok((format!("{waiting}{} old replicas are pending termination...\n", total - updated), false));
            }
            if available < updated {
                return Ok((format!("{waiting}{available} of {updated} updated replicas are available...\n"), false));
            }
            Ok((format!("deployment {name:?} successfully rolled out\n"), true))
        }
        "DaemonSet" => {
            if codec::text(object, &["spec", "updateStrategy", "type"]) != "RollingUpdate" {
                return Err(Error::message("rollout status is only available for RollingUpdate strategy type"));
            }
            if !observed {
                return Ok(("Waiting for daemon set spec update to be observed...\n".into(), false));
            }
            let (updated, desired, available) =
                (state("updatedNumberScheduled"), state("desiredNumberScheduled"), state("numberAvailable"));
            let waiting = format!("Waiting for daemon set {name:?} rollout to finish: ");
            if updated < desired {
                return Ok((format!("{waiting}{updated} out of {desired} new pods have been updated...\n"), false));
            }
            if available < desired {
                return Ok((format!("{waiting}{available} of {desired} updated pods are available...\n"), false));
            }
            Ok((format!("daemon set {name:?} successfully rolled out\n"), true))
        }
        "StatefulSet" => {
            if codec::text(object, &["spec", "updateStrategy", "type"]) != "RollingUpdate" {
                return Err(Error::message("rollout status is only available for RollingUpdate strategy type"));
            }
            if state("observedGeneration") == 0 || !observed {
                return Ok(("Waiting for statefulset spec update to be observed...\n".into(), false));
            }
            if let Some(wanted) = wanted.filter(|wanted| state("readyReplicas") < *wanted) {
                return Ok((format!("Waiting for {} pods to be ready...\n", wanted - state("readyReplicas")), false));
            }
            if let Some(rolling) = codec::at(object, &["spec", "updateStrategy", "rollingUpdate"]) {
                let updated = state("updatedReplicas");
                if let (Some(wanted), Some(partition)) = (wanted, codec::int(rolling, &["partition"]))
                    && updated < wanted - partition
                {
                    return Ok((
                        format!(
                            "Waiting for partitioned roll out to finish: {updated} out of {} new pods have been updated...\n",
                            wanted - partition
                        ),
                        false,
                    ));
                }
                return Ok((format!("partitioned roll out complete: {updated} new pods have been updated...\n"), true));
            }
            let revision = |field| codec::text(object, &["status", field]);
            if revision("updateRevision") != revision("currentRevision") {
                return Ok((
                    format!(
                        "waiting for statefulset rolling update to complete {} pods at revision {}...\n",
                        state("updatedReplicas"),
                        revision("updateRevision")
                    ),
                    false,
                ));
            }
            Ok((
                format!(
                    "statefulset rolling update complete {} pods at revision {}...\n",
                    state("currentReplicas"),
                    revision("currentRevision")
                ),
                true,
            ))
        }
        other => Err(Error::message(format!("no status viewer has been implemented for {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::status;

    #[test]
    fn deployments() {
        let deployment = |generation: i64, observed: i64, updated: i64, total: i64, available: i64| {
            json!({"metadata": {"name": "d", "generation": generation}, "spec": {"replicas": 3},
                "status": {"observedGeneration": observed, "updatedReplicas": updated, "replicas": total, "availableReplicas": available}})
        };
        for (object, expected, done) in [
            (deployment(2, 1, 0, 0, 0), "Waiting for deployment spec update to be observed...\n", false),
            (
                deployment(1, 1, 1, 3, 3),
                "Waiting for deployment \"d\" rollout to finish: 1 out of 3 new replicas have been updated...\n",
                false,
            ),
            (
                deployment(1, 1, 3, 4, 3),
                "Waiting for deployment \"d\" rollout to finish: 1 old replicas are pending termination...\n",
                false,
            ),
            (
                deployment(1, 1, 3, 3, 2),
                "Waiting for deployment \"d\" rollout to finish: 2 of 3 updated replicas are available...\n",
                false,
            ),
            (deployment(1, 1, 3, 3, 3), "deployment \"d\" successfully rolled out\n", true),
        ] {
            assert_eq!(status("Deployment", &object, 0).expect("no error"), (expected.to_owned(), done));
        }
    }
}
