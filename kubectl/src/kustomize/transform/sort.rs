//! The order of the output.

use std::cmp::{Ordering, Reverse};

use crate::kustomize::id::Id;
use crate::kustomize::kustomization::{LegacySortOptions, SortOptions};
use crate::kustomize::resources::Resources;
use crate::kustomize::{Error, Order, Result};

const FIRST: &[&str] = &[
    "Namespace",
    "ResourceQuota",
    "StorageClass",
    "CustomResourceDefinition",
    "ServiceAccount",
    "PodSecurityPolicy",
    "Role",
    "ClusterRole",
    "RoleBinding",
    "ClusterRoleBinding",
    "ConfigMap",
    "Secret",
    "Endpoints",
    "Service",
    "LimitRange",
    "PriorityClass",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Deployment",
    "StatefulSet",
    "CronJob",
    "PodDisruptionBudget",
];

const LAST: &[&str] = &["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"];

/// Sorts by what the kustomization says, else by what the command says.
///
/// # Errors
/// When the kustomization names no order there is.
pub fn sort(resources: &mut Resources, options: Option<&SortOptions>, order: Order) -> Result<()> {
    let legacy = match options {
        None if order == Order::None => return Ok(()),
        None => None,
        Some(options) => match options.order.as_str() {
            "legacy" => options.legacy_sort_options.clone(),
            "fifo" if options.legacy_sort_options.is_some() => {
                return Err(Error::new(
                    "the field 'sortOptions.legacySortOptions' is set but the selected sort order is 'fifo', not 'legacy'",
                ));
            }
            "fifo" => return Ok(()),
            _ => return Err(Error::new("the field 'sortOptions.order' must be one of [fifo, legacy]")),
        },
    };
    let texts = |list: &[&str]| list.iter().map(|kind| (*kind).to_owned()).collect();
    let legacy = legacy.unwrap_or_else(|| LegacySortOptions { order_first: texts(FIRST), order_last: texts(LAST) });
    resources.0.sort_by(|a, b| compare(&a.id(), &b.id(), &legacy));
    Ok(())
}

/// Before all others when negative, after them when positive.
fn rank(kind: &str, options: &LegacySortOptions) -> Reverse<usize> {
    let (first, last) = (&options.order_first, &options.order_last);
    let middle = last.len() + 1;
    if let Some(at) = last.iter().rposition(|known| known == kind) {
        return Reverse(last.len() - at);
    }
    match first.iter().rposition(|known| known == kind) {
        Some(at) => Reverse(middle + first.len() - at),
        None => Reverse(middle),
    }
}

fn compare(a: &Id, b: &Id, options: &LegacySortOptions) -> Ordering {
    if a.gvk != b.gvk {
        let by_rank = rank(&a.gvk.kind, options).cmp(&rank(&b.gvk.kind, options));
        let by_name = gvk_text(a).cmp(&gvk_text(b));
        let namespaces = a.gvk.kind == "Namespace" && b.gvk.kind == "Namespace";
        let core = a.gvk.group.is_empty() || b.gvk.group.is_empty();
        return by_rank.then(if namespaces && core { by_name.reverse() } else { by_name });
    }
    let or = |text: &str, absent: &str| if text.is_empty() { absent.to_owned() } else { text.to_owned() };
    let key = |id: &Id| format!("{}|{}|{}", id.gvk, or(&id.namespace, "~X"), or(&id.name, "~N"));
    key(a).cmp(&key(b))
}

fn gvk_text(id: &Id) -> String {
    let or = |text: &str, absent: &str| if text.is_empty() { absent.to_owned() } else { text.to_owned() };
    format!("{}_{}_{}", or(&id.gvk.group, "~G"), or(&id.gvk.version, "~V"), or(&id.gvk.kind, "~K"))
}
