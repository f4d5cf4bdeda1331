//! Node selectors, node affinity and tolerations, parsed once per pod.

use std::collections::BTreeMap;

use crate::objects::{NodeSelectorRequirement, NodeSelectorTerm, Pod, Taint, Toleration};

type Labels = BTreeMap<String, String>;

/// The only field node selectors may name.
const METADATA_NAME: &str = "metadata.name";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Gt,
    Lt,
}

/// One requirement on a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

impl Requirement {
    fn parse(source: &NodeSelectorRequirement) -> Option<Self> {
        let operator = match source.operator.as_str() {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            "Gt" => Operator::Gt,
            "Lt" => Operator::Lt,
            _ => return None,
        };
        Some(Self { key: source.key.clone(), operator, values: source.values.clone() })
    }

    fn matches(&self, value: Option<&str>) -> bool {
        let listed = |value: &str| self.values.iter().any(|v| v == value);
        match (self.operator, value) {
            (Operator::In, Some(value)) => listed(value),
            (Operator::NotIn, Some(value)) => !listed(value),
            (Operator::NotIn | Operator::DoesNotExist, None) | (Operator::Exists, Some(_)) => true,
            (Operator::Gt | Operator::Lt, Some(value)) => {
                let wanted = self.values.first().and_then(|v| v.parse::<i64>().ok());
                match (value.parse::<i64>(), wanted) {
                    (Ok(value), Some(wanted)) if self.operator == Operator::Gt => value > wanted,
                    (Ok(value), Some(wanted)) => value < wanted,
                    _ => false,
                }
            }
            _ => false,
        }
    }
}

/// One term: all its requirements must hold. A term that says nothing, or cannot be read, matches
/// no node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Term {
    labels: Vec<Requirement>,
    names: Vec<Requirement>,
    never: bool,
}

impl Term {
    /// Parses a term.
    pub fn parse(source: &NodeSelectorTerm) -> Self {
        let labels: Option<Vec<_>> = source.match_expressions.iter().map(Requirement::parse).collect();
        let names: Option<Vec<_>> = source
            .match_fields
            .iter()
            .map(|r| if r.key == METADATA_NAME { Requirement::parse(r) } else { None })
            .collect();
        let never = labels.is_none()
            || names.is_none()
            || (source.match_expressions.is_empty() && source.match_fields.is_empty());
        Self { labels: labels.unwrap_or_default(), names: names.unwrap_or_default(), never }
    }

    /// Whether a node of this name and these labels satisfies the term.
    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        !self.never
            && self.labels.iter().all(|r| r.matches(labels.get(&r.key).map(String::as_str)))
            && self.names.iter().all(|r| r.matches(Some(name)))
    }

    /// The node names the term restricts itself to.
    fn node_names(&self) -> Option<Vec<&str>> {
        let mut names: Option<Vec<&str>> = None;
        for requirement in self.names.iter().filter(|r| r.operator == Operator::In) {
            let these = requirement.values.iter().map(String::as_str);
            names = Some(match names {
                None => these.collect(),
                Some(known) => these.filter(|name| known.contains(name)).collect(),
            });
        }
        names
    }
}

/// What a pod requires of its node: every label of `nodeSelector`, and one of the required terms.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RequiredNodeAffinity {
    node_selector: Vec<(String, String)>,
    terms: Option<Vec<Term>>,
}

impl RequiredNodeAffinity {
    /// Parses a pod's requirements.
    pub fn of(pod: &Pod) -> Self {
        let terms = pod
            .spec
            .affinity
            .as_ref()
            .and_then(|a| a.node_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref())
            .map(|selector| selector.node_selector_terms.iter().map(Term::parse).collect());
        Self { node_selector: pod.spec.node_selector.clone().into_iter().collect(), terms }
    }

    /// Whether nothing is required.
    pub fn is_empty(&self) -> bool {
        self.node_selector.is_empty() && self.terms.is_none()
    }

    /// Whether a node of this name and these labels will do.
    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        self.node_selector.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.terms.as_ref().is_none_or(|terms| terms.iter().any(|term| term.matches(name, labels)))
    }

    /// When every term names its nodes: those names. Nothing else needs to be looked at.
    pub fn node_names(&self) -> Option<Vec<&str>> {
        let terms = self.terms.as_ref().filter(|terms| !terms.is_empty())?;
        let mut all = Vec::new();
        for term in terms {
            all.extend(term.node_names()?);
        }
        all.sort_unstable();
        all.dedup();
        Some(all)
    }
}

impl Toleration {
    /// Whether it tolerates `taint`.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        if !self.effect.is_empty() && self.effect != taint.effect {
            return false;
        }
        if !self.key.is_empty() && self.key != taint.key {
            return false;
        }
        match self.operator.as_str() {
            "" | "Equal" => self.value == taint.value,
            "Exists" => true,
            _ => false,
        }
    }
}

/// Whether any of `tolerations` tolerates `taint`.
pub fn tolerated(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| toleration.tolerates(taint))
}

/// The first taint that keeps pods with these tolerations from being placed.
pub fn untolerated<'a>(taints: &'a [Taint], tolerations: &[Toleration]) -> Option<&'a Taint> {
    taints
        .iter()
        .filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"))
        .find(|taint| !tolerated(tolerations, taint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(spec: serde_json::Value, labels: &[(&str, &str)], expected: bool) {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!(RequiredNodeAffinity::of(&pod).matches("n1", &labels), expected, "{spec}");
    }

    fn required(terms: serde_json::Value) -> serde_json::Value {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
    }

    fn expression(key: &str, operator: &str, values: &[&str]) -> serde_json::Value {
        json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]})
    }

    #[test]
    fn required_node_affinity() {
        check(json!({}), &[], true);
        check(json!({"nodeSelector": {"a": "b"}}), &[("a", "b")], true);
        check(json!({"nodeSelector": {"a": "b"}}), &[("a", "c")], false);
        for (operator, values, labels, expected) in [
            ("In", &["b", "c"][..], &[("a", "c")][..], true),
            ("In", &["b"], &[], false),
            ("NotIn", &["b"], &[("a", "c")], true),
            ("NotIn", &["b"], &[], true),
            ("NotIn", &["b"], &[("a", "b")], false),
            ("Exists", &[], &[("a", "")], true),
            ("Exists", &[], &[], false),
            ("DoesNotExist", &[], &[], true),
            ("DoesNotExist", &[], &[("a", "")], false),
            ("Gt", &["1"], &[("a", "2")], true),
            ("Gt", &["2"], &[("a", "2")], false),
            ("Lt", &["3"], &[("a", "2")], true),
            ("Lt", &["3"], &[("a", "x")], false),
            ("Strange", &["3"], &[("a", "3")], false),
        ] {
            check(required(json!([expression("a", operator, values)])), labels, expected);
        }
        // terms are alternatives, an empty one matches nothing, and no term at all neither
        check(required(json!([{}, expression("a", "Exists", &[])])), &[("a", "1")], true);
        check(required(json!([{}])), &[("a", "1")], false);
        check(required(json!([])), &[("a", "1")], false);
        check(
            required(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}])),
            &[],
            true,
        );
        check(
            required(json!([{"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["n1"]}]}])),
            &[],
            false,
        );
        check(required(json!([{"matchFields": [{"key": "spec.x", "operator": "Exists"}]}])), &[], false);
    }

    #[test]
    fn names_are_found() {
        let named =
            |names: &[&str]| json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": names}]});
        let of = |terms: serde_json::Value| {
            let pod: Pod = serde_json::from_value(json!({"spec": required(terms)})).unwrap();
            RequiredNodeAffinity::of(&pod).node_names().map(|n| n.into_iter().map(String::from).collect::<Vec<_>>())
        };
        assert_eq!(of(json!([named(&["b"]), named(&["a"])])), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(of(json!([named(&["b"]), expression("a", "Exists", &[])])), None);
        assert_eq!(of(json!([])), None);
    }

    #[test]
    fn tolerations() {
        let taint = Taint { key: "k".into(), value: "v".into(), effect: "NoSchedule".into() };
        for (key, operator, value, effect, expected) in [
            ("k", "Equal", "v", "NoSchedule", true),
            ("k", "", "v", "", true),
            ("k", "Equal", "w", "NoSchedule", false),
            ("k", "Exists", "", "NoSchedule", true),
            ("k", "Exists", "", "NoExecute", false),
            ("", "Exists", "", "", true),
            ("j", "Exists", "", "", false),
        ] {
            let toleration =
                Toleration { key: key.into(), operator: operator.into(), value: value.into(), effect: effect.into() };
            assert_eq!(toleration.tolerates(&taint), expected, "{toleration:?}");
        }
        let prefer = Taint { effect: "PreferNoSchedule".into(), ..taint.clone() };
        assert!(untolerated(std::slice::from_ref(&prefer), &[]).is_none());
        assert_eq!(untolerated(&[prefer, taint.clone()], &[]), Some(&taint));
    }
}
