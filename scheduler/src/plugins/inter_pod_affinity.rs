//! Keeps pods with and away from other pods: required affinity and anti-affinity of the incoming
//! pod, required anti-affinity of pods already placed, and preferences of both.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::{Handle, Listers, parse_args};
use crate::framework::events::{ClusterEvent, EventKind, interests};
use crate::framework::pod_info::{AffinityTerm, PodInfo};
use crate::framework::snapshot::Snapshot;
use crate::framework::{
    CycleState, Filter, MAX_NODE_SCORE, NodeNames, Place, Plugin, PreFilter, PreScore, Score, Slot, Status, Verdict,
};

/// The plugin's name.
pub const NAME: &str = "InterPodAffinity";

const REASON_EXISTING: &str = "node(s) didn't satisfy existing pods anti-affinity rules";
const REASON_AFFINITY: &str = "node(s) didn't match pod affinity rules";
const REASON_ANTI_AFFINITY: &str = "node(s) didn't match pod anti-affinity rules";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Args {
    hard_pod_affinity_weight: i64,
    ignore_preferred_terms_of_existing_pods: bool,
}

impl Default for Args {
    fn default() -> Self {
        Self { hard_pod_affinity_weight: 1, ignore_preferred_terms_of_existing_pods: false }
    }
}

struct InterPodAffinity {
    hard_weight: i64,
    ignore_existing: bool,
    listers: Arc<dyn Listers>,
    filter_place: Place,
    score_place: Place,
}

/// Label key → label value → count or score.
#[derive(Default)]
struct Topology(HashMap<String, HashMap<String, i64>>);

impl Topology {
    fn add(&mut self, labels: &BTreeMap<String, String>, key: &str, amount: i64) {
        let Some(value) = labels.get(key) else { return };
        if !self.0.contains_key(key) {
            self.0.insert(key.to_owned(), HashMap::new());
        }
        let Some(values) = self.0.get_mut(key) else { return };
        match values.get_mut(value) {
            Some(count) => *count += amount,
            None => {
                values.insert(value.clone(), amount);
            }
        }
    }

    fn get(&self, labels: &BTreeMap<String, String>, key: &str) -> Option<i64> {
        let value = labels.get(key)?;
        Some(self.0.get(key).and_then(|values| values.get(value)).copied().unwrap_or(0))
    }

    fn is_empty(&self) -> bool {
        self.0.values().all(|values| values.values().all(|count| *count == 0))
    }
}

/// Labels of namespaces, looked up once each.
struct NamespaceLabels<'a> {
    listers: &'a dyn Listers,
    known: RefCell<HashMap<String, BTreeMap<String, String>>>,
}

impl<'a> NamespaceLabels<'a> {
    fn new(listers: &'a dyn Listers) -> Self {
        Self { listers, known: RefCell::default() }
    }

    /// Whether `term` chooses `pod`.
    fn matches(&self, term: &AffinityTerm, pod: &PodInfo) -> bool {
        let in_namespace = term.namespaces.contains(pod.namespace())
            || term.namespace_selector.as_ref().is_some_and(|selector| {
                let mut known = self.known.borrow_mut();
                let labels = known
                    .entry(pod.namespace().to_owned())
                    .or_insert_with(|| self.listers.namespace_labels(pod.namespace()).unwrap_or_default());
                selector.matches(&*labels)
            });
        in_namespace && term.selector.matches(&pod.pod.metadata.labels)
    }

    fn matches_all(&self, terms: &[AffinityTerm], pod: &PodInfo) -> bool {
        !terms.is_empty() && terms.iter().all(|term| self.matches(term, pod))
    }
}

struct FilterState {
    /// Anti-affinity of placed pods towards the incoming one.
    existing: Topology,
    /// Pods the incoming one must be with.
    affinity: Topology,
    /// Pods the incoming one must not be with.
    anti_affinity: Topology,
    /// Whether it satisfies its own affinity, which lets the first of a group in.
    matches_itself: bool,
}

impl FilterState {
    fn update(
        &mut self,
        names: &NamespaceLabels<'_>,
        pod: &PodInfo,
        other: &PodInfo,
        labels: &BTreeMap<String, String>,
        by: i64,
    ) {
        for term in &other.required_anti_affinity {
            if names.matches(term, pod) {
                self.existing.add(labels, &term.topology_key, by);
            }
        }
        if names.matches_all(&pod.required_affinity, other) {
            for term in &pod.required_affinity {
                self.affinity.add(labels, &term.topology_key, by);
            }
        }
        for term in &pod.required_anti_affinity {
            if names.matches(term, other) {
                self.anti_affinity.add(labels, &term.topology_key, by);
            }
        }
    }
}

/// Calls `visit` with every placed pod that any of `terms` could choose.
fn each_candidate<'a>(
    terms: impl Iterator<Item = &'a AffinityTerm> + Clone,
    snapshot: &Snapshot,
    mut visit: impl FnMut(Slot, &PodInfo),
) {
    if terms.clone().any(|term| term.namespace_selector.is_some()) {
        for slot in snapshot.known_order() {
            snapshot.node(*slot).pods.iter().for_each(|pod| visit(*slot, pod));
        }
        return;
    }
    let namespaces: BTreeSet<&str> = terms.flat_map(|term| &term.namespaces).map(String::as_str).collect();
    for namespace in namespaces {
        for (slot, pod) in snapshot.pods_in(namespace) {
            if snapshot.node(slot).node.is_some() {
                visit(slot, pod);
            }
        }
    }
}

impl PreFilter for InterPodAffinity {
    fn pre_filter(&self, state: &mut CycleState, pod: &PodInfo, snapshot: &Snapshot) -> Result<NodeNames, Status> {
        let names = NamespaceLabels::new(self.listers.as_ref());
        let mut s = FilterState {
            existing: Topology::default(),
            affinity: Topology::default(),
            anti_affinity: Topology::default(),
            matches_itself: names.matches_all(&pod.required_affinity, pod),
        };
        for slot in snapshot.nodes_with_required_anti_affinity() {
            let node = snapshot.node(slot);
            if node.node.is_none() {
                continue;
            }
            for other in node.pods.iter().filter(|other| !other.required_anti_affinity.is_empty()) {
                for term in &other.required_anti_affinity {
                    if names.matches(term, pod) {
                        s.existing.add(node.labels(), &term.topology_key, 1);
                    }
                }
            }
        }
        if s.existing.is_empty() && pod.required_affinity.is_empty() && pod.required_anti_affinity.is_empty() {
            return Err(Status::skip());
        }
        let terms = pod.required_affinity.iter().chain(&pod.required_anti_affinity);
        each_candidate(terms, snapshot, |slot, other| {
            let labels = snapshot.node(slot).labels();
            if names.matches_all(&pod.required_affinity, other) {
                for term in &pod.required_affinity {
                    s.affinity.add(labels, &term.topology_key, 1);
                }
            }
            for term in &pod.required_anti_affinity {
                if names.matches(term, other) {
                    s.anti_affinity.add(labels, &term.topology_key, 1);
                }
            }
        });
        state.write(self.filter_place, s);
        Ok(None)
    }

    fn add_pod(&self, state: &mut CycleState, pod: &PodInfo, other: &PodInfo, slot: Slot, snapshot: &Snapshot) {
        if let Some(s) = state.read_mut::<FilterState>(self.filter_place) {
            s.update(&NamespaceLabels::new(self.listers.as_ref()), pod, other, snapshot.node(slot).labels(), 1);
        }
    }

    fn remove_pod(&self, state: &mut CycleState, pod: &PodInfo, other: &PodInfo, slot: Slot, snapshot: &Snapshot) {
        if let Some(s) = state.read_mut::<FilterState>(self.filter_place) {
            s.update(&NamespaceLabels::new(self.listers.as_ref()), pod, other, snapshot.node(slot).labels(), -1);
        }
    }
}

impl Filter for InterPodAffinity {
    fn filter(&self, state: &CycleState, pod: &PodInfo, slot: Slot, snapshot: &Snapshot) -> Verdict {
        let Some(s) = state.read::<FilterState>(self.filter_place) else { return Ok(()) };
        let labels = snapshot.node(slot).labels();
        let mut all_there = true;
        for term in &pod.required_affinity {
            match s.affinity.get(labels, &term.topology_key) {
                None => return Err(Status::unresolvable(REASON_AFFINITY)),
                Some(count) => all_there &= count > 0,
            }
        }
        // The first pod of a group that wants to be together has nobody to be with yet.
        let first_of_group = s.affinity.is_empty() && s.matches_itself;
        if !all_there && !first_of_group {
            return Err(Status::unresolvable(REASON_AFFINITY));
        }
        let crowded = |term: &AffinityTerm| s.anti_affinity.get(labels, &term.topology_key).is_some_and(|n| n > 0);
        if pod.required_anti_affinity.iter().any(crowded) {
            return Err(Status::unschedulable(REASON_ANTI_AFFINITY));
        }
        if s.existing.0.keys().any(|key| s.existing.get(labels, key).is_some_and(|n| n > 0)) {
            return Err(Status::unschedulable(REASON_EXISTING));
        }
        Ok(())
    }

    fn depends_on_other_nodes(&self, pod: &PodInfo) -> bool {
        !pod.required_affinity.is_empty() || !pod.required_anti_affinity.is_empty()
    }
}

impl InterPodAffinity {
    /// Adds what the pair of `pod`, to be placed, and `other`, placed, makes of `other`'s topology.
    fn rate(
        &self,
        names: &NamespaceLabels<'_>,
        scores: &mut Topology,
        pod: &PodInfo,
        other: &PodInfo,
        labels: &BTreeMap<String, String>,
    ) {
        let mut add = |matches: bool, term: &AffinityTerm, weight: i64| {
            if matches {
                scores.add(labels, &term.topology_key, weight);
            }
        };
        for (weight, term) in &pod.preferred_affinity {
            add(names.matches(term, other), term, *weight);
        }
        for (weight, term) in &pod.preferred_anti_affinity {
            add(names.matches(term, other), term, -weight);
        }
        if self.hard_weight > 0 {
            for term in &other.required_affinity {
                add(names.matches(term, pod), term, self.hard_weight);
            }
        }
        for (weight, term) in &other.preferred_affinity {
            add(names.matches(term, pod), term, *weight);
        }
        for (weight, term) in &other.preferred_anti_affinity {
            add(names.matches(term, pod), term, -weight);
        }
    }
}

impl PreScore for InterPodAffinity {
    fn pre_score(&self, state: &mut CycleState, pod: &PodInfo, _: &[Slot], snapshot: &Snapshot) -> Verdict {
        let has_preferences = !pod.preferred_affinity.is_empty() || !pod.preferred_anti_affinity.is_empty();
        if self.ignore_existing && !has_preferences {
            return Err(Status::skip());
        }
        let names = NamespaceLabels::new(self.listers.as_ref());
        let mut scores = Topology::default();
        let slots: Vec<Slot> = if has_preferences {
            snapshot.known_order().to_vec()
        } else {
            snapshot.nodes_with_affinity().filter(|slot| snapshot.node(*slot).node.is_some()).collect()
        };
        for slot in slots {
            let node = snapshot.node(slot);
            for other in node.pods.iter().filter(|other| has_preferences || other.has_affinity()) {
                self.rate(&names, &mut scores, pod, other, node.labels());
            }
        }
        // A pod with affinity of its own changes the scores for the next equal one.
        if scores.0.is_empty() && !pod.has_affinity() {
            return Err(Status::skip());
        }
        state.write(self.score_place, scores);
        Ok(())
    }

    fn placed(&self, state: &mut CycleState, pod: &PodInfo, slot: Slot, snapshot: &Snapshot) {
        if let Some(scores) = state.read_mut::<Topology>(self.score_place) {
            let names = NamespaceLabels::new(self.listers.as_ref());
            self.rate(&names, scores, pod, pod, snapshot.node(slot).labels());
        }
    }
}

impl Score for InterPodAffinity {
    fn score(&self, state: &CycleState, _: &PodInfo, slot: Slot, snapshot: &Snapshot) -> i64 {
        let Some(scores) = state.read::<Topology>(self.score_place) else { return 0 };
        let labels = snapshot.node(slot).labels();
        scores.0.keys().filter_map(|key| scores.get(labels, key)).sum()
    }

    fn normalize(&self, _: &CycleState, _: &PodInfo, _: &[Slot], scores: &mut [i64], _: &Snapshot) {
        let (Some(min), Some(max)) = (scores.iter().min().copied(), scores.iter().max().copied()) else { return };
        let span = max - min;
        for score in scores {
            #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // as upstream computes it
            let scaled =
                if span > 0 { (MAX_NODE_SCORE as f64 * ((*score - min) as f64 / span as f64)) as i64 } else { 0 };
            *score = scaled;
        }
    }

    fn depends_on_other_nodes(&self) -> bool {
        true
    }
}

impl InterPodAffinity {
    fn pod_change_helps(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        let names = NamespaceLabels::new(self.listers.as_ref());
        let wanted = |other: &PodInfo| names.matches_all(&pod.required_affinity, other);
        let refused = |other: &PodInfo| {
            pod.required_anti_affinity.iter().any(|term| names.matches(term, other))
                || other.required_anti_affinity.iter().any(|term| names.matches(term, pod))
        };
        match (event.pod.0.as_deref(), event.pod.1.as_deref()) {
            (None, Some(new)) => wanted(new),
            (Some(old), None) => refused(old),
            (Some(old), Some(new)) => (!wanted(old) && wanted(new)) || (refused(old) && !refused(new)),
            (None, None) => false,
        }
    }
}

/// Builds it.
pub fn new(args: &Value, handle: &Handle) -> Result<Plugin, String> {
    let args: Args = parse_args(args)?;
    if !(0..=100).contains(&args.hard_pod_affinity_weight) {
        return Err("hardPodAffinityWeight: not in valid range [0-100]".to_owned());
    }
    let plugin = Arc::new(InterPodAffinity {
        hard_weight: args.hard_pod_affinity_weight,
        ignore_existing: args.ignore_preferred_terms_of_existing_pods,
        listers: handle.listers.clone(),
        filter_place: handle.place(),
        score_place: handle.place(),
    });
    let hinting = plugin.clone();
    let mut waits = interests(
        &[EventKind::AssignedPodAdd, EventKind::AssignedPodDelete, EventKind::AssignedPodUpdateLabel],
        move |pod, event| hinting.pod_change_helps(pod, event),
    );
    waits.extend(interests(&[EventKind::NodeAdd, EventKind::NodeUpdateLabel], |pod, event| {
        let labels = event.node.1.as_ref().map(|node| &node.metadata.labels);
        let keys = || pod.required_affinity.iter().map(|term| &term.topology_key);
        // A node without the labels that affinity is about cannot help.
        labels.is_some_and(|labels| keys().all(|key| labels.contains_key(key)))
    }));
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
    use crate::testing::{NodeBuilder, PodBuilder, node, pod};

    fn plugin() -> Plugin {
        new(&Value::Null, &Handle::new(Arc::new(NoListers), None)).unwrap()
    }

    fn zones() -> [NodeBuilder; 3] {
        [("a", "z1"), ("b", "z1"), ("c", "z2")].map(|(name, zone)| node(name).label("zone", zone))
    }

    fn cluster(pods: &[(&str, PodBuilder)]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for node in zones() {
            snapshot.set_node(node.done());
        }
        for (i, (node, pod)) in pods.iter().enumerate() {
            snapshot.add_pod(pod.clone().uid(&format!("existing-{i}")).info(), node);
        }
        snapshot.order();
        snapshot
    }

    #[track_caller]
    fn check(incoming: PodBuilder, pods: &[(&str, PodBuilder)], expected: [Option<&str>; 3]) {
        let (snapshot, plugin, incoming) = (cluster(pods), plugin(), incoming.info());
        let mut state = CycleState::default();
        let pre = plugin.pre_filter.unwrap().pre_filter(&mut state, &incoming, &snapshot);
        let filter = plugin.filter.unwrap();
        for (name, reason) in ["a", "b", "c"].iter().zip(expected) {
            let slot = snapshot.slot(name).unwrap();
            let verdict = if pre.is_ok() { filter.filter(&state, &incoming, slot, &snapshot) } else { Ok(()) };
            assert_eq!(verdict.err().map(|s| s.message()).as_deref(), reason, "{name}");
        }
    }

    fn app(name: &str) -> PodBuilder {
        pod("other").label("app", name)
    }

    #[test]
    fn required_affinity() {
        let together = || pod("p").affinity("app", "db", "zone");
        check(together(), &[("a", app("db"))], [None, None, Some(REASON_AFFINITY)]);
        check(together(), &[], [Some(REASON_AFFINITY); 3]);
        check(together(), &[("a", app("db").namespace("other"))], [Some(REASON_AFFINITY); 3]);
        // the first of its kind may go anywhere, the second must follow
        check(together().label("app", "db"), &[], [None; 3]);
        check(together().label("app", "db"), &[("c", app("db"))], [Some(REASON_AFFINITY), Some(REASON_AFFINITY), None]);
    }

    #[test]
    fn required_anti_affinity_both_ways() {
        let apart = || pod("p").anti_affinity("app", "db", "zone");
        check(apart(), &[("a", app("db"))], [Some(REASON_ANTI_AFFINITY), Some(REASON_ANTI_AFFINITY), None]);
        let existing = app("web").anti_affinity("app", "db", "zone");
        check(app("db"), &[("c", existing.clone())], [None, None, Some(REASON_EXISTING)]);
        check(app("other"), &[("c", existing)], [None; 3]);
    }

    #[test]
    fn placements_are_followed() {
        let snapshot = cluster(&[]);
        let plugin = plugin();
        let incoming = app("db").anti_affinity("app", "db", "zone").info();
        let (pre, filter) = (plugin.pre_filter.unwrap(), plugin.filter.unwrap());
        let mut state = CycleState::default();
        pre.pre_filter(&mut state, &incoming, &snapshot).unwrap();
        let (a, c) = (snapshot.slot("a").unwrap(), snapshot.slot("c").unwrap());
        assert!(filter.filter(&state, &incoming, a, &snapshot).is_ok());
        pre.add_pod(&mut state, &incoming, &incoming, a, &snapshot);
        assert!(filter.filter(&state, &incoming, a, &snapshot).is_err());
        assert!(filter.filter(&state, &incoming, c, &snapshot).is_ok());
        pre.remove_pod(&mut state, &incoming, &incoming, a, &snapshot);
        assert!(filter.filter(&state, &incoming, a, &snapshot).is_ok());
    }

    fn scores(incoming: PodBuilder, pods: &[(&str, PodBuilder)]) -> Option<Vec<i64>> {
        let (snapshot, plugin, incoming) = (cluster(pods), plugin(), incoming.info());
        let mut state = CycleState::default();
        let slots: Vec<Slot> = ["a", "b", "c"].iter().map(|name| snapshot.slot(name).unwrap()).collect();
        plugin.pre_score.unwrap().pre_score(&mut state, &incoming, &slots, &snapshot).ok()?;
        let score = plugin.score.unwrap();
        let mut scores: Vec<i64> = slots.iter().map(|slot| score.score(&state, &incoming, *slot, &snapshot)).collect();
        score.normalize(&state, &incoming, &slots, &mut scores, &snapshot);
        Some(scores)
    }

    #[test]
    fn preferences_score() {
        assert_eq!(
            scores(pod("p").preferred_affinity(5, "app", "db", "zone"), &[("a", app("db"))]),
            Some(vec![100, 100, 0])
        );
        assert_eq!(
            scores(pod("p").preferred_anti_affinity(5, "app", "db", "zone"), &[("a", app("db"))]),
            Some(vec![0, 0, 100])
        );
        // preferences of pods already there count too
        let existing = app("web").preferred_affinity(3, "app", "db", "zone");
        assert_eq!(scores(app("db"), &[("c", existing)]), Some(vec![0, 0, 100]));
        // a required affinity of theirs counts a little
        let existing = app("web").affinity("app", "db", "kubernetes.io/hostname");
        assert_eq!(scores(app("db"), &[("b", existing)]), Some(vec![0, 100, 0]));
        assert_eq!(scores(app("db"), &[("b", app("web"))]), None);
    }
}
