//! `kubectl apply --prune`: what was applied before, is selected, and is in the files no more, goes.

use std::collections::BTreeSet;

use http::Method;
use serde_json::{Value, json};

use super::super::ops::{self, DryRun};
use crate::codec;
use crate::command::Context;
use crate::error::{Error, Result};
use crate::mapper;
use crate::resource::info_of;
use crate::rest::{self, Call};

/// The kinds that are pruned when nobody names others: those of namespaces, then the others.
const DEFAULT: &[(&str, &str)] = &[
    ("v1", "ConfigMap"),
    ("v1", "Endpoints"),
    ("v1", "PersistentVolumeClaim"),
    ("v1", "Pod"),
    ("v1", "ReplicationController"),
    ("v1", "Secret"),
    ("v1", "Service"),
    ("batch/v1", "Job"),
    ("batch/v1", "CronJob"),
    ("networking.k8s.io/v1", "Ingress"),
    ("apps/v1", "DaemonSet"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "ReplicaSet"),
    ("apps/v1", "StatefulSet"),
    ("v1", "Namespace"),
    ("v1", "PersistentVolume"),
];

/// What was applied just now.
#[derive(Debug, Default)]
pub struct Visited {
    pub uids: BTreeSet<String>,
    pub namespaces: BTreeSet<String>,
}

impl Visited {
    /// Notes an object as the server has it.
    pub fn note(&mut self, object: &Value) {
        self.uids.insert(codec::text(object, &["metadata", "uid"]).to_owned());
        let namespace = codec::text(object, &["metadata", "namespace"]);
        if !namespace.is_empty() {
            self.namespaces.insert(namespace.to_owned());
        }
    }
}

/// Refuses combinations of flags that would prune too much.
///
/// # Errors
/// In upstream's words.
pub fn validate(ctx: &Context, selector: Option<&str>) -> Result<()> {
    let flags = &ctx.parsed;
    if flags.bool("all") && selector.is_some() {
        return Err(Error::message("cannot set --all and --selector at the same time"));
    }
    if !flags.bool("prune") {
        return Ok(());
    }
    if flags.bool("force") {
        return Err(Error::message("--force cannot be used with --prune"));
    }
    if !flags.bool("all") && selector.is_none() {
        return Err(Error::message(
            "all resources selected for prune without explicitly passing --all. To prune all resources, pass the --all flag. If you did not mean to prune all resources, specify a label selector",
        ));
    }
    if flags.bool("server-side") {
        return Err(Error::message(
            "--prune is in alpha and doesn't currently work on objects created by server-side apply",
        ));
    }
    Ok(())
}

/// `core/v1/ConfigMap` as apiVersion and kind.
fn parse(text: &str) -> Result<(String, String)> {
    match text.split('/').collect::<Vec<_>>().as_slice() {
        ["core", version, kind] => Ok(((*version).to_owned(), (*kind).to_owned())),
        [group, version, kind] => Ok((format!("{group}/{version}"), (*kind).to_owned())),
        _ => {
            Err(Error::message(format!("invalid GroupVersionKind format: {text}, please follow <group/version/kind>")))
        }
    }
}

/// Deletes what is selected and was not applied.
///
/// # Errors
/// What the API or the transport said.
pub async fn prune(ctx: &Context, visited: &Visited, selector: &str, dry_run: DryRun) -> Result<()> {
    let named = ctx.parsed.list("prune-allowlist").iter().map(|text| parse(text)).collect::<Result<Vec<_>>>()?;
    let default = || DEFAULT.iter().map(|(version, kind)| ((*version).to_owned(), (*kind).to_owned())).collect();
    let kinds: Vec<(String, String)> = if named.is_empty() { default() } else { named };
    let mut namespaced = Vec::new();
    let mut others = Vec::new();
    for (api_version, kind) in kinds {
        match mapper::resolve_kind(&ctx.factory, &api_version, &kind).await? {
            Some(mapping) if mapping.namespaced => namespaced.push(mapping),
            Some(mapping) => others.push(mapping),
            None => {
                return Err(Error::message(format!("no matches for kind {kind:?} in version {api_version:?}")));
            }
        }
    }
    let rest = ctx.factory.rest().await?;
    let everywhere =
        visited.namespaces.iter().flat_map(|namespace| namespaced.iter().map(move |m| (namespace.as_str(), m)));
    for (namespace, mapping) in everywhere.chain(others.iter().map(|mapping| ("", mapping))) {
        let call = Call::get(rest::path(mapping, namespace, "", "")).query("labelSelector", selector);
        for object in codec::flatten(rest.value(call).await?) {
            let applied = !codec::text(&object, &["metadata", "annotations", ops::LAST_APPLIED]).is_empty();
            if !applied || visited.uids.contains(codec::text(&object, &["metadata", "uid"])) {
                continue;
            }
            let info = info_of(mapping.clone(), object);
            if dry_run != DryRun::Client {
                let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"});
                let call = Call::new(Method::DELETE, info.path("")).query("dryRun", dry_run.query()).json(&options);
                rest.value(call).await?;
            }
            ctx.streams.out.line(&format!("{} pruned{}", info.object_name(), dry_run.suffix()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn kinds() {
        let text = |text: &str| text.to_owned();
        assert_eq!(parse("core/v1/ConfigMap").expect("well formed"), (text("v1"), text("ConfigMap")));
        assert_eq!(parse("apps/v1/Deployment").expect("well formed"), (text("apps/v1"), text("Deployment")));
        assert!(parse("ConfigMap").is_err());
    }
}
