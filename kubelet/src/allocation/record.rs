//! One pod's grant, and the file of all of them.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::{Deserialize, Serialize};

use super::admit::same_amount;
use crate::pod::PodExt;

/// What a pod was granted, and what its running containers were last set to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Record {
    /// By container, init containers included.
    pub containers: BTreeMap<String, ResourceRequirements>,
    pub pod: Option<ResourceRequirements>,
    pub actuated: BTreeMap<String, ResourceRequirements>,
    pub actuated_pod: Option<ResourceRequirements>,
}

impl Record {
    /// A grant of what the pod asks for.
    pub fn of(pod: &Pod) -> Self {
        let mut record = Self::default();
        record.grant(pod);
        record
    }

    /// Grants what the pod asks for now.
    pub fn grant(&mut self, pod: &Pod) {
        let all = pod.pod_spec().containers.iter().chain(pod.init_containers());
        self.containers = all.map(|c| (c.name.clone(), c.resources.clone().unwrap_or_default())).collect();
        self.pod = pod.pod_spec().resources.clone();
    }

    /// Whether the pod asks for exactly this.
    pub fn same_as(&self, pod: &Pod) -> bool {
        let mut all = pod.pod_spec().containers.iter().chain(pod.init_containers());
        let none = ResourceRequirements::default();
        all.all(|c| {
            let granted = self.containers.get(&c.name);
            granted.is_none_or(|granted| same(granted, c.resources.as_ref().unwrap_or(&none)))
        }) && same(self.pod.as_ref().unwrap_or(&none), pod.pod_spec().resources.as_ref().unwrap_or(&none))
    }

    /// The pod with the granted amounts in its spec; the same object when they are what it asks for.
    pub fn apply(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        if self.same_as(pod) {
            return pod.clone();
        }
        let mut granted = (**pod).clone();
        if let Some(spec) = granted.spec.as_mut() {
            for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
                if let Some(resources) = self.containers.get(&container.name) {
                    container.resources = Some(resources.clone());
                }
            }
            spec.resources = self.pod.clone();
        }
        Arc::new(granted)
    }
}

fn same(a: &ResourceRequirements, b: &ResourceRequirements) -> bool {
    same_list(a.requests.as_ref(), b.requests.as_ref()) && same_list(a.limits.as_ref(), b.limits.as_ref())
}

fn same_list(a: Option<&BTreeMap<String, Quantity>>, b: Option<&BTreeMap<String, Quantity>>) -> bool {
    static NONE: BTreeMap<String, Quantity> = BTreeMap::new();
    let (a, b) = (a.unwrap_or(&NONE), b.unwrap_or(&NONE));
    a.len() == b.len()
        && a.iter().all(|(name, amount)| b.get(name).is_some_and(|other| same_amount(&amount.0, &other.0)))
}

/// What the file says; nothing when it is missing. One that cannot be read grants nothing: pods are then
/// weighed anew.
pub fn load(file: &Path) -> BTreeMap<String, Record> {
    match std::fs::read(file).map(|bytes| serde_json::from_slice(&bytes)) {
        Ok(Ok(records)) => records,
        Ok(Err(error)) => {
            tracing::warn!(%error, path = %file.display(), "failed to read what pods were granted");
            BTreeMap::new()
        }
        Err(_) => BTreeMap::new(),
    }
}

/// Writes the file anew, whole or not at all.
pub fn save<'a>(file: &Path, records: impl Iterator<Item = (&'a String, &'a Record)>) -> io::Result<()> {
    let records: BTreeMap<&String, &Record> = records.collect();
    let draft = file.with_extension("new");
    std::fs::write(&draft, serde_json::to_vec(&records).map_err(io::Error::other)?)?;
    std::fs::rename(&draft, file)
}
