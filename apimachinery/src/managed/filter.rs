//! Which of the fields that a request changed its writer may own.

use crate::fieldset::{PathElement, Set};

/// What an endpoint resets, and therefore gives nobody; or the little that it takes.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// Everything but these paths and all below them.
    Exclude(Set),
    /// Only paths that begin with one of these.
    Include(Vec<Vec<Step>>),
}

/// One step of an included path.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// This element.
    Is(PathElement),
    /// Any element.
    Any,
}

impl Step {
    fn matches(&self, element: &PathElement) -> bool {
        match self {
            Self::Is(wanted) => wanted == element,
            Self::Any => true,
        }
    }
}

impl Filter {
    /// Everything may be owned.
    pub fn all() -> Self {
        Self::Exclude(Set::new())
    }

    /// Everything but these fields.
    pub fn without(paths: &[&[&str]]) -> Self {
        Self::Exclude(Set::of_fields(paths))
    }

    /// Only what is below one of these paths of field names; `*` stands for any element.
    pub fn only(paths: &[&[&str]]) -> Self {
        let step = |name: &&str| if *name == "*" { Step::Any } else { Step::Is(PathElement::field(name)) };
        Self::Include(paths.iter().map(|path| path.iter().map(step).collect()).collect())
    }

    /// What is left of a set.
    pub fn apply(&self, set: Set) -> Set {
        match self {
            Self::Exclude(reset) if reset.is_empty() => set,
            Self::Exclude(reset) => set.recursive_difference(reset),
            Self::Include(paths) => {
                let paths: Vec<&[Step]> = paths.iter().map(Vec::as_slice).collect();
                included(set, &paths)
            }
        }
    }
}

fn included(set: Set, paths: &[&[Step]]) -> Set {
    if paths.iter().any(|path| path.is_empty()) {
        return set;
    }
    let mut out = Set::new();
    let rest = |element: &PathElement| -> Vec<&[Step]> {
        paths.iter().filter(|path| path[0].matches(element)).map(|path| &path[1..]).collect()
    };
    out.members = set.members.into_iter().filter(|member| rest(member).iter().any(|path| path.is_empty())).collect();
    for (element, child) in set.children {
        let rest = rest(&element);
        if !rest.is_empty() {
            let child = included(child, &rest);
            if !child.is_empty() {
                out.children.insert(element, child);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn filters() {
        let set = Set::from_fields_v1(&json!({
            "f:spec": {
                "f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}, "f:resources": {"f:limits": {}}}},
                "f:nodeName": {},
            },
            "f:status": {".": {}, "f:phase": {}},
        }))
        .unwrap();
        assert_eq!(Filter::all().apply(set.clone()), set);
        assert_eq!(
            Filter::without(&[&["status"], &["spec", "containers"]]).apply(set.clone()).to_fields_v1(),
            json!({"f:spec": {"f:nodeName": {}}})
        );
        assert_eq!(
            Filter::only(&[&["spec", "containers", "*", "resources"], &["status", "phase"]]).apply(set).to_fields_v1(),
            json!({
                "f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {"f:resources": {"f:limits": {}}}}},
                "f:status": {"f:phase": {}},
            })
        );
    }
}
