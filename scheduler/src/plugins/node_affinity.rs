//! Node selectors and node affinity, of the pod and of the profile (`addedAffinity`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::{Handle, default_normalize, parse_args};
use crate::framework::events::{EventKind, interests};
use crate::framework::pod_info::PodInfo;
use crate::framework::selector::Term;
use crate::framework::snapshot::Snapshot;
use crate::framework::{CycleState, Filter, NodeNames, Plugin, PreFilter, PreScore, Score, Slot, Status, Verdict};
use crate::objects::{Node, NodeAffinity as NodeAffinitySpec};

/// The plugin's name.
pub const NAME: &str = "NodeAffinity";

const REASON_POD: &str = "node(s) didn't match Pod's node affinity/selector";
const REASON_ENFORCED: &str = "node(s) didn't match scheduler-enforced node affinity";
const REASON_CONFLICT: &str = "pod affinity terms conflict";

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Args {
    added_affinity: Option<NodeAffinitySpec>,
}

struct NodeAffinity {
    added_required: Option<Vec<Term>>,
    added_preferred: Vec<(i64, Term)>,
}

impl NodeAffinity {
    fn enforced(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.added_required.as_ref().is_none_or(|terms| terms.iter().any(|term| term.matches(name, labels)))
    }
}

impl PreFilter for NodeAffinity {
    fn pre_filter(&self, _: &mut CycleState, pod: &PodInfo, _: &Snapshot) -> Result<NodeNames, Status> {
        if self.added_required.is_none() && pod.required_node_affinity.is_empty() {
            return Err(Status::skip());
        }
        let Some(names) = pod.required_node_affinity.node_names() else { return Ok(None) };
        if names.is_empty() {
            return Err(Status::unresolvable(REASON_CONFLICT));
        }
        Ok(Some(names.into_iter().map(String::from).collect::<BTreeSet<_>>()))
    }
}

impl Filter for NodeAffinity {
    fn filter(&self, _: &CycleState, pod: &PodInfo, slot: Slot, snapshot: &Snapshot) -> Verdict {
        let node = snapshot.node(slot);
        if !self.enforced(&node.name, node.labels()) {
            return Err(Status::unresolvable(REASON_ENFORCED));
        }
        if !pod.required_node_affinity.matches(&node.name, node.labels()) {
            return Err(Status::unresolvable(REASON_POD));
        }
        Ok(())
    }
}

impl PreScore for NodeAffinity {
    fn pre_score(&self, _: &mut CycleState, pod: &PodInfo, _: &[Slot], _: &Snapshot) -> Verdict {
        if pod.preferred_node_affinity.is_empty() && self.added_preferred.is_empty() {
            return Err(Status::skip());
        }
        Ok(())
    }
}

impl Score for NodeAffinity {
    fn score(&self, _: &CycleState, pod: &PodInfo, slot: Slot, snapshot: &Snapshot) -> i64 {
        let node = snapshot.node(slot);
        self.added_preferred
            .iter()
            .chain(&pod.preferred_node_affinity)
            .filter(|(_, term)| term.matches(&node.name, node.labels()))
            .map(|(weight, _)| weight)
            .sum()
    }

    fn normalize(&self, _: &CycleState, _: &PodInfo, _: &[Slot], scores: &mut [i64], _: &Snapshot) {
        default_normalize(scores, false);
    }
}

/// Builds it.
pub fn new(args: &Value, _: &Handle) -> Result<Plugin, String> {
    let added = parse_args::<Args>(args)?.added_affinity.unwrap_or_default();
    let plugin = Arc::new(NodeAffinity {
        added_required: added
            .required_during_scheduling_ignored_during_execution
            .map(|selector| selector.node_selector_terms.iter().map(Term::parse).collect()),
        added_preferred: added
            .preferred_during_scheduling_ignored_during_execution
            .iter()
            .map(|term| (term.weight, Term::parse(&term.preference)))
            .collect(),
    });
    let filter = plugin.clone();
    let waits = interests(&[EventKind::NodeAdd, EventKind::NodeUpdateLabel], move |pod, event| {
        let fits = |node: &Node| {
            let (name, labels) = (&node.metadata.name, &node.metadata.labels);
            filter.enforced(name, labels) && pod.required_node_affinity.matches(name, labels)
        };
        event.node.1.as_deref().is_some_and(fits) && !event.node.0.as_deref().is_some_and(fits)
    });
    Ok(Plugin {
        name: NAME,
        pre_filter: Some(plugin.clone()),
        filter: Some(plugin.clone()),
        pre_score: Some(plugin.clone()),
        score: Some(plugin),
        interests: waits,
        ..Plugin::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::NoListers;
    use crate::testing::{node, pod};
    use serde_json::json;

    fn plugin(args: &Value) -> Plugin {
        new(args, &Handle::new(Arc::new(NoListers), None)).unwrap()
    }

    #[test]
    fn filtering_and_added_affinity() {
        let added = json!({"addedAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]}}});
        for (args, pod, zone, expected) in [
            (Value::Null, pod("p").node_selector("zone", "a"), "a", Ok(())),
            (Value::Null, pod("p").node_selector("zone", "a"), "b", Err(Status::unresolvable(REASON_POD))),
            (Value::Null, pod("p").node_affinity_in("zone", &["a", "b"]), "b", Ok(())),
            (added.clone(), pod("p"), "a", Ok(())),
            (added.clone(), pod("p"), "b", Err(Status::unresolvable(REASON_ENFORCED))),
            (added, pod("p").node_selector("zone", "b"), "a", Err(Status::unresolvable(REASON_POD))),
        ] {
            let mut snapshot = Snapshot::default();
            snapshot.set_node(node("n").label("zone", zone).done());
            let filter = plugin(&args).filter.unwrap();
            assert_eq!(filter.filter(&CycleState::default(), &pod.info(), 0, &snapshot), expected);
        }
    }

    #[test]
    fn pre_filter_restricts_nodes() {
        let plugin = plugin(&Value::Null).pre_filter.unwrap();
        let run = |pod: Arc<PodInfo>| plugin.pre_filter(&mut CycleState::default(), &pod, &Snapshot::default());
        assert_eq!(run(pod("p").info()), Err(Status::skip()));
        assert_eq!(run(pod("p").node_affinity_name("n1").info()), Ok(Some(BTreeSet::from(["n1".to_owned()]))));
        assert_eq!(run(pod("p").node_selector("a", "b").info()), Ok(None));
    }

    #[test]
    fn scoring() {
        let mut snapshot = Snapshot::default();
        snapshot.set_node(node("a").label("foo", "bar").label("az", "1").done());
        snapshot.set_node(node("b").label("foo", "bar").done());
        snapshot.set_node(node("c").done());
        let pod = pod("p").preferred_node(2, "foo", &["bar"]).preferred_node(5, "az", &["1"]).info();
        let plugin = plugin(&Value::Null).score.unwrap();
        let state = CycleState::default();
        let mut scores: Vec<i64> = (0..3).map(|slot| plugin.score(&state, &pod, slot, &snapshot)).collect();
        assert_eq!(scores, [7, 2, 0]);
        plugin.normalize(&state, &pod, &[0, 1, 2], &mut scores, &snapshot);
        assert_eq!(scores, [100, 28, 0]);
    }
}
