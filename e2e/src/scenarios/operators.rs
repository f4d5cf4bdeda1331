//! Operators with a definition of their own, written with kube-rs and with Python's kopf. Each keeps a
//! ConfigMap for every Widget: made, changed, and taken leave of through a finalizer.

use std::process::Stdio;

use anyhow::ensure;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use serde_json::json;

use super::clients;
use crate::cluster::{Cluster, eventually};
use crate::operator;

const GROUP: &str = "e2e.example.com";

pub async fn kube_rs(cluster: &Cluster) -> anyhow::Result<()> {
    let resource = define(cluster, "RustWidget").await?;
    // The operator ends with the scenario: a dropped JoinSet aborts what it runs.
    let mut running = tokio::task::JoinSet::new();
    running.spawn(operator::run(cluster.client.clone(), resource.clone()));
    reconciles(cluster, &resource).await?;
    restored(cluster, &resource).await?;
    remove(cluster, &resource).await
}

pub async fn kopf(cluster: &Cluster) -> anyhow::Result<()> {
    let python = clients::python_with(&["kubernetes", "kopf"]).await?;
    let resource = define(cluster, "KopfWidget").await?;
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/kopf_operator.py");
    let mut command = tokio::process::Command::new(python);
    command.args(["-m", "kopf", "run", "--standalone", "--quiet", "--namespace", "default", program]);
    command.env("KUBECONFIG", &cluster.kubeconfig).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _operator = command.spawn()?;
    reconciles(cluster, &resource).await?;
    remove(cluster, &resource).await
}

/// Creates the definition and waits until it is served.
async fn define(cluster: &Cluster, kind: &str) -> anyhow::Result<ApiResource> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1", kind));
    let definition: CustomResourceDefinition = serde_json::from_value(json!({
        "metadata": {"name": format!("{}.{GROUP}", resource.plural)},
        "spec": {
            "group": GROUP,
            "names": {"kind": kind, "plural": resource.plural, "singular": kind.to_lowercase()},
            "scope": "Namespaced",
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "properties": {
                        "spec": {"type": "object", "required": ["size"], "properties": {"size": {"type": "integer", "minimum": 0}}},
                        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    },
                }},
            }],
        },
    }))?;
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    definitions.create(&PostParams::default(), &definition).await?;
    cluster.kubectl(&format!("wait --for=condition=Established crd/{}.{GROUP}", resource.plural)).await?;
    Ok(resource)
}

async fn remove(cluster: &Cluster, resource: &ApiResource) -> anyhow::Result<()> {
    cluster.kubectl(&format!("delete crd {}.{GROUP}", resource.plural)).await?;
    cluster.kubectl(&format!("delete configmap {}-gone", resource.plural)).await?;
    Ok(())
}

/// Create, update and delete, each followed by the operator.
async fn reconciles(cluster: &Cluster, resource: &ApiResource) -> anyhow::Result<()> {
    let name = resource.plural.as_str();
    let widgets: Api<DynamicObject> = Api::default_namespaced_with(cluster.client.clone(), resource);
    let widget = DynamicObject::new(name, resource).data(json!({"spec": {"size": 1}}));
    widgets.create(&PostParams::default(), &widget).await?;
    follows(cluster, &widgets, name, 1).await?;

    let refused = widgets.patch(name, &PatchParams::default(), &Patch::Merge(json!({"spec": {"size": -1}}))).await;
    ensure!(matches!(refused, Err(kube::Error::Api(ref status)) if status.code == 422), "{refused:?}");
    widgets.patch(name, &PatchParams::default(), &Patch::Merge(json!({"spec": {"size": 2}}))).await?;
    follows(cluster, &widgets, name, 2).await?;

    widgets.delete(name, &DeleteParams::default()).await?;
    eventually("a farewell, and nothing left", async || {
        cluster.get(&format!("configmap {name}-gone")).await?;
        ensure!(widgets.get_opt(name).await?.is_none(), "the widget is still there");
        let map = cluster.kubectl(&format!("get configmap {name} --ignore-not-found -o name")).await?;
        ensure!(map.is_empty(), "its ConfigMap is still there");
        Ok(())
    })
    .await
}

/// What the operator makes of a size: the ConfigMap, owned by the widget, and the widget's status.
async fn follows(cluster: &Cluster, widgets: &Api<DynamicObject>, name: &str, size: i64) -> anyhow::Result<()> {
    eventually(&format!("size {size}"), async || {
        let widget = widgets.get(name).await?;
        ensure!(!widget.finalizers().is_empty(), "no finalizer");
        ensure!(widget.data["status"]["size"] == size, "status {}", widget.data["status"]);
        ensure!(widget.data["status"]["observedGeneration"] == json!(widget.metadata.generation), "an old status");
        let map = cluster.get(&format!("configmap {name}")).await?;
        let data = &map["data"]["size"];
        ensure!(data.as_str() == Some(size.to_string().as_str()), "size {data}");
        let owner = &map["metadata"]["ownerReferences"][0];
        ensure!(owner["uid"] == json!(widget.metadata.uid) && owner["controller"] == true, "owner {owner}");
        Ok(())
    })
    .await
}

/// An operator that watches what it owns puts it back.
async fn restored(cluster: &Cluster, resource: &ApiResource) -> anyhow::Result<()> {
    let name = resource.plural.as_str();
    cluster.kubectl(&format!("delete configmap {name}-gone")).await?;
    let widgets: Api<DynamicObject> = Api::default_namespaced_with(cluster.client.clone(), resource);
    widgets
        .create(&PostParams::default(), &DynamicObject::new(name, resource).data(json!({"spec": {"size": 3}})))
        .await?;
    follows(cluster, &widgets, name, 3).await?;
    cluster.kubectl(&format!("delete configmap {name}")).await?;
    follows(cluster, &widgets, name, 3).await?;
    widgets.delete(name, &DeleteParams::default()).await?;
    eventually("a farewell", async || cluster.get(&format!("configmap {name}-gone")).await).await?;
    Ok(())
}
