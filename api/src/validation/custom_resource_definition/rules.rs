//! Rules of a new schema: they compile, and their worst cost is bearable.

use std::sync::Arc;

use apimachinery::field::{self, BadValue, ErrorList, Path};
use cel::DeclType;
use serde_json::{Value, json};

use super::shown;
use crate::custom::{Node, rules};
use crate::read::Read;

/// What one rule may cost by estimate.
const LIMIT: u64 = 10_000_000;
/// What all rules of a schema may.
const TOTAL_LIMIT: u64 = 100_000_000;

/// Where the walk is, as rules see it.
#[derive(Clone)]
pub(super) struct Place {
    /// Set where rules are, here or above.
    decl: Option<Arc<DeclType>>,
    within: bool,
    /// How often the place can be in one object; `None` is without bound.
    cardinality: Option<u64>,
    embedded: bool,
}

/// Compiles rules on the walk over a schema and adds up what they cost.
pub(super) struct Checker {
    root: Place,
    /// The cost of unchanged rules is not held against them one by one.
    unchanged: bool,
    total: u64,
    expensive: Vec<(u64, Path)>,
}

fn times(a: u64, b: u64) -> u64 {
    a.saturating_mul(b)
}

fn limit(schema: &Value, name: &str) -> Option<u64> {
    schema.int(name).map(|limit| u64::try_from(limit).unwrap_or_default())
}

impl Checker {
    pub(super) fn new(schema: &Value, unchanged: bool, _old: bool) -> Checker {
        let within = !schema.list("x-kubernetes-validations").is_empty();
        let decl = within.then(|| rules::declare(&Node::compile(schema), true)).flatten();
        let root = Place { decl, within, cardinality: Some(1), embedded: true };
        Checker { root, unchanged, total: 0, expensive: Vec::new() }
    }

    pub(super) fn root(&self) -> Place {
        self.root.clone()
    }

    fn child(&self, at: &Place, schema: &Value, decl: Option<Arc<DeclType>>, cardinality: Option<u64>) -> Place {
        let within = at.within || !schema.list("x-kubernetes-validations").is_empty();
        let embedded = schema.flag("x-kubernetes-embedded-resource");
        let decl = match decl {
            Some(decl) => Some(decl),
            None if within => rules::declare(&Node::compile(schema), embedded),
            None => None,
        };
        Place { decl, within, cardinality, embedded }
    }

    pub(super) fn property(&self, at: &Place, name: &str, schema: &Value) -> Option<Place> {
        let decl = at.decl.as_deref().and_then(|decl| rules::of_property(decl, name));
        Some(self.child(at, schema, decl, at.cardinality))
    }

    /// The place of what a map holds; `schema` is the map's.
    pub(super) fn additional(&self, at: &Place, schema: &Value) -> Option<Place> {
        let many = limit(schema, "maxProperties");
        let decl = at.decl.as_deref().and_then(rules::of_element);
        let cardinality = at.cardinality.zip(many).map(|(a, b)| times(a, b));
        Some(self.child(at, &schema["additionalProperties"], decl, cardinality))
    }

    /// The place of what a list holds; `schema` is the list's.
    pub(super) fn items(&self, at: &Place, schema: &Value) -> Option<Place> {
        let many = limit(schema, "maxItems");
        let decl = at.decl.as_deref().and_then(rules::of_element);
        let cardinality = at.cardinality.zip(many).map(|(a, b)| times(a, b));
        Some(self.child(at, &schema["items"], decl, cardinality))
    }

    /// Compiles the rules of one place.
    pub(super) fn check(
        &mut self,
        list: &[Value],
        at: &Place,
        path: &Path,
        uncorrelatable: Option<&Path>,
        errors: &mut ErrorList,
    ) {
        let Some(decl) = &at.decl else {
            errors.push(field::internal(
                path,
                "internal error: failed to construct type information for x-kubernetes-validations rules: unable to convert structural schema to CEL declarations",
            ));
            return;
        };
        // Paths of fields were checked against the schema itself before.
        let node =
            Node::compile(&json!({"x-kubernetes-validations": list, "x-kubernetes-embedded-resource": at.embedded}));
        let compiled = rules::compile(&node.rules, &node, decl);
        for (i, (rule, compiled)) in list.iter().zip(&compiled).enumerate() {
            let path = path.index(i);
            let rule_path = path.child("rule");
            let often = at.cardinality.unwrap_or_else(|| decl.max_cardinality());
            let cost = compiled.program.as_ref().map_or(0, |program| times(program.cost().max, often));
            self.observe(cost, "estimated rule cost", &rule_path, errors);
            if let Some(error) = &compiled.error {
                errors.push(field::invalid(&rule_path, BadValue::Raw(shown::rule_text(rule)), error.clone()));
            }
            let message_path = path.child("messageExpression");
            if let Some(error) = &compiled.message_error {
                errors.push(field::invalid(&message_path, BadValue::Raw(shown::rule_text(rule)), error.clone()));
            } else if let Some(program) = &compiled.message {
                self.observe(program.cost().max, "estimated messageExpression cost", &message_path, errors);
            }
            if compiled.uses_old_self {
                if let Some(above) = uncorrelatable {
                    let message =
                        format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {above}");
                    errors.push(field::invalid(&rule_path, rule.text("rule"), message));
                }
            } else if let Some(optional) = rule.set("optionalOldSelf") {
                let message = "may not be set if oldSelf is not used in rule";
                errors.push(field::invalid(&path.child("optionalOldSelf"), optional, message));
            }
        }
    }

    fn observe(&mut self, cost: u64, what: &str, path: &Path, errors: &mut ErrorList) {
        if !self.unchanged && cost > LIMIT {
            errors.push(field::forbidden(path, over(what, cost, LIMIT)));
        }
        self.total = self.total.saturating_add(cost);
        if cost >= TOTAL_LIMIT / 100 {
            self.expensive.push((cost, path.clone()));
            self.expensive.sort_by_key(|found| std::cmp::Reverse(found.0));
            self.expensive.truncate(4);
        }
    }

    /// Whether all rules together cost too much.
    pub(super) fn total(&self, path: &Path, errors: &mut ErrorList) {
        if self.total <= TOTAL_LIMIT {
            return;
        }
        for (_, path) in &self.expensive {
            errors.push(field::forbidden(
                path,
                "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema",
            ));
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        errors.push(field::forbidden(path, over(what, self.total, TOTAL_LIMIT)));
    }
}

fn over(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}
