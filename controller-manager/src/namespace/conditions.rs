//! What a deleted namespace says about its deletion: five conditions, in upstream's words.

use std::collections::BTreeMap;

use client::{Resource, Timestamp};

use crate::types::{Condition, whole_seconds};

/// (condition, reason and message when all is well)
const ALL: [(&str, &str, &str); 5] = [
    ("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered", "All resources successfully discovered"),
    ("NamespaceDeletionGroupVersionParsingFailure", "ParsedGroupVersions", "All legacy kube types successfully parsed"),
    (
        "NamespaceDeletionContentFailure",
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    ("NamespaceContentRemaining", "ContentRemoved", "All content successfully removed"),
    ("NamespaceFinalizersRemaining", "ContentHasNoFinalizers", "All content-preserving finalizers finished"),
];

/// What one pass over a namespace found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    discovery: Vec<String>,
    failures: Vec<String>,
    left: BTreeMap<String, usize>,
    finalizers: BTreeMap<String, usize>,
}

impl Findings {
    pub fn discovery_failed(&mut self, group_versions: &[String]) {
        self.discovery.extend_from_slice(group_versions);
    }

    pub fn deletion_failed(&mut self, message: String) {
        self.failures.push(message);
    }

    pub fn left(&mut self, resource: &Resource, count: usize, finalizers: BTreeMap<String, usize>) {
        if count > 0 {
            self.left.insert(format!("{}.{}", resource.plural, resource.group), count);
        }
        for (finalizer, count) in finalizers {
            *self.finalizers.entry(finalizer).or_default() += count;
        }
    }

    pub fn is_anything_left(&self) -> bool {
        !self.left.is_empty()
    }

    /// What must be tried again because it went wrong. Undiscovered groups may hold content.
    pub fn failure(&self) -> Option<String> {
        if !self.discovery.is_empty() {
            return Some(self.discovery_message());
        }
        (!self.failures.is_empty()).then(|| self.failure_message())
    }

    fn discovery_message(&self) -> String {
        format!(
            "Discovery failed for some groups, {} failing: unable to retrieve the complete list of server APIs: {}",
            self.discovery.len(),
            self.discovery.join(", ")
        )
    }

    fn failure_message(&self) -> String {
        let mut failures = self.failures.clone();
        failures.sort();
        format!("Failed to delete all resource types, {} remaining: {}", failures.len(), failures.join(", "))
    }

    /// The reason and message of a condition that does not hold up.
    fn trouble(&self, kind: &str) -> Option<(&'static str, String)> {
        let list = |counts: &BTreeMap<String, usize>, text: &dyn Fn(&str, usize) -> String| {
            counts.iter().map(|(name, count)| text(name, *count)).collect::<Vec<_>>().join(", ")
        };
        match kind {
            "NamespaceDeletionDiscoveryFailure" if !self.discovery.is_empty() => {
                Some(("DiscoveryFailed", self.discovery_message()))
            }
            "NamespaceDeletionContentFailure" if !self.failures.is_empty() => {
                Some(("ContentDeletionFailed", self.failure_message()))
            }
            "NamespaceContentRemaining" if !self.left.is_empty() => Some((
                "SomeResourcesRemain",
                format!(
                    "Some resources are remaining: {}",
                    list(&self.left, &|name, count| format!("{name} has {count} resource instances"))
                ),
            )),
            "NamespaceFinalizersRemaining" if !self.finalizers.is_empty() => Some((
                "SomeFinalizersRemain",
                format!(
                    "Some content in the namespace has finalizers remaining: {}",
                    list(&self.finalizers, &|name, count| format!("{name} in {count} resource instances"))
                ),
            )),
            _ => None,
        }
    }

    /// Brings the conditions up to date; true when one changed.
    pub fn apply(&self, conditions: &mut Vec<Condition>, now: Timestamp) -> bool {
        let mut changed = false;
        for (kind, ok_reason, ok_message) in ALL {
            let (status, reason, message) = match self.trouble(kind) {
                Some((reason, message)) => ("True", reason, message),
                None => ("False", ok_reason, ok_message.to_string()),
            };
            match conditions.iter_mut().find(|condition| condition.kind == kind) {
                None => {
                    conditions.push(Condition {
                        kind: kind.into(),
                        status: status.into(),
                        reason: reason.into(),
                        message,
                        last_transition_time: Some(whole_seconds(now)),
                        ..Condition::default()
                    });
                    changed = true;
                }
                Some(known) if known.status != status || known.reason != reason || known.message != message => {
                    if known.status != status {
                        known.last_transition_time = Some(whole_seconds(now));
                    }
                    known.status = status.into();
                    known.reason = reason.into();
                    known.message = message;
                    changed = true;
                }
                Some(_) => {}
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use client::resources::PODS;

    #[test]
    fn conditions_tell_what_is_left() {
        let now = Timestamp::from_second(5).unwrap();
        let mut conditions = Vec::new();
        let mut findings = Findings::default();
        findings.left(&PODS, 2, BTreeMap::from([("example.com/hold".to_string(), 1)]));
        assert!(findings.is_anything_left());
        assert!(findings.apply(&mut conditions, now));
        assert_eq!(conditions.len(), 5);
        assert_eq!(conditions[3].message, "Some resources are remaining: pods. has 2 resource instances");
        assert_eq!(
            conditions[4].message,
            "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
        );
        assert!(!findings.apply(&mut conditions, now), "nothing changed");
        assert!(Findings::default().apply(&mut conditions, now));
        assert_eq!(conditions[3].status, "False");
        assert_eq!(conditions[3].message, "All content successfully removed");
    }
}
