//! An operator written with kube-rs: a ConfigMap for every RustWidget. It shows what operators lean on:
//! the runtime's watcher and Controller, finalizers, server-side apply, owner references, status.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::finalizer::{self, Event, finalizer};
use kube::runtime::watcher;
use kube::{Client, Resource, ResourceExt};
use serde_json::json;

const FINALIZER: &str = "e2e.example.com/farewell";
const MANAGER: &str = "e2e-operator";
/// After a failure.
const AGAIN: Duration = Duration::from_secs(1);

struct Context {
    client: Client,
    resource: ApiResource,
}

/// Runs until it is dropped.
pub async fn run(client: Client, resource: ApiResource) {
    let widgets: Api<DynamicObject> = Api::default_namespaced_with(client.clone(), &resource);
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let context = Arc::new(Context { client, resource: resource.clone() });
    Controller::new_with(widgets, watcher::Config::default(), resource)
        .owns(maps, watcher::Config::default())
        .run(reconcile, |_, _, _| Action::requeue(AGAIN), context)
        .for_each(|_| std::future::ready(()))
        .await;
}

async fn reconcile(widget: Arc<DynamicObject>, context: Arc<Context>) -> Result<Action, finalizer::Error<kube::Error>> {
    let namespace = widget.namespace().unwrap_or_default();
    let widgets: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), &namespace, &context.resource);
    finalizer(&widgets, FINALIZER, widget, |event| async {
        match event {
            Event::Apply(widget) => apply(&widget, &widgets, &context).await,
            Event::Cleanup(widget) => farewell(&widget, &context).await,
        }
    })
    .await
}

async fn apply(widget: &DynamicObject, widgets: &Api<DynamicObject>, context: &Context) -> Result<Action, kube::Error> {
    let (name, namespace) = (widget.name_any(), widget.namespace().unwrap_or_default());
    let size = &widget.data["spec"]["size"];
    let map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "ownerReferences": [widget.controller_owner_ref(&context.resource)]},
        "data": {"size": size.to_string()},
    });
    let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), &namespace);
    maps.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(map)).await?;
    let status = json!({"status": {"size": size, "observedGeneration": widget.metadata.generation}});
    widgets.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(Action::await_change())
}

async fn farewell(widget: &DynamicObject, context: &Context) -> Result<Action, kube::Error> {
    let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), &widget.namespace().unwrap_or_default());
    let mut map = ConfigMap::default();
    map.metadata.name = Some(format!("{}-gone", widget.name_any()));
    match maps.create(&PostParams::default(), &map).await {
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {}
        other => drop(other?),
    }
    Ok(Action::await_change())
}
