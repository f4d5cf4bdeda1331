//! What the reviews of one request share: its options, who is to be asked again, and annotations for the audit log.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::request::Latencies;
use crate::request::notes::{Annotation, Annotations};
use crate::request::options::{DeleteOptions, WriteOptions};

/// The options of a request, written out only when somebody wants to see them.
#[derive(Debug, Default)]
pub enum RequestOptions<'a> {
    /// There are none.
    #[default]
    None,
    /// `CreateOptions`, `UpdateOptions` or `PatchOptions`.
    Write(&'static str, &'a WriteOptions),
    /// `DeleteOptions`
    Delete(&'a DeleteOptions),
}

impl RequestOptions<'_> {
    /// As webhooks and expressions see them.
    pub fn to_value(&self) -> Value {
        let (kind, dry_run) = match self {
            RequestOptions::None => return Value::Null,
            RequestOptions::Write(kind, options) => (*kind, options.dry_run),
            RequestOptions::Delete(options) => ("DeleteOptions", options.dry_run),
        };
        let mut value = json!({"apiVersion": "meta.k8s.io/v1", "kind": kind});
        if dry_run {
            value["dryRun"] = json!(["All"]);
        }
        match self {
            RequestOptions::None => {}
            RequestOptions::Write(kind, options) => {
                if !options.field_manager.is_empty() {
                    value["fieldManager"] = options.field_manager.clone().into();
                }
                // A patch that becomes a create or an update is shown with the options of that.
                if let Some(force) = options.force.filter(|_| *kind == "PatchOptions") {
                    value["force"] = force.into();
                }
            }
            RequestOptions::Delete(options) => {
                let mut set = |name: &str, of: Option<Value>| {
                    if let Some(of) = of {
                        value[name] = of;
                    }
                };
                set("gracePeriodSeconds", options.grace_period_seconds.map(Value::from));
                set("orphanDependents", options.orphan_dependents.map(Value::from));
                set("propagationPolicy", options.propagation.map(|policy| format!("{policy:?}").into()));
                let mut preconditions = serde_json::Map::new();
                preconditions.extend(options.precondition_uid.clone().map(|uid| ("uid".into(), uid.into())));
                let version = options.precondition_resource_version.clone();
                preconditions.extend(version.map(|version| ("resourceVersion".into(), version.into())));
                set("preconditions", (!preconditions.is_empty()).then_some(Value::Object(preconditions)));
            }
        }
        value
    }
}

/// State of one request.
#[derive(Debug, Default)]
pub struct Review<'a> {
    /// The options of the request.
    pub options: RequestOptions<'a>,
    reinvocation: Mutex<Reinvocation>,
    /// For the audit log.
    pub annotations: Annotations,
    /// Of calls to webhooks.
    pub latencies: Latencies,
}

/// Who was asked, and who is to be asked again because others changed the object since.
#[derive(Debug, Default)]
pub struct Reinvocation {
    /// This is the second time.
    again: bool,
    /// There must be a second time.
    wanted: bool,
    /// Of webhooks.
    pub webhooks: Asked,
    /// Of mutating policies.
    pub policies: Asked,
}

/// One plugin's part of it.
#[derive(Debug, Default)]
pub struct Asked {
    /// The object after the plugin ran.
    last: Option<Value>,
    /// Who was asked and wants to be asked again after changes.
    before: BTreeSet<String>,
    /// Who is to be asked again.
    again: BTreeSet<String>,
}

impl Asked {
    fn require(&mut self) {
        let before = std::mem::take(&mut self.before);
        self.again.extend(before);
    }
}

/// Picks a plugin's part.
type Part = fn(&mut Reinvocation) -> &mut Asked;

impl<'a> Review<'a> {
    /// Of a request with these options.
    pub fn of(options: RequestOptions<'a>) -> Self {
        Review { options, ..Review::default() }
    }

    /// A plugin begins; whether it does so for the second time.
    pub fn begin(&self, part: Part, object: &Value) -> bool {
        let mut state = self.reinvocation.lock();
        let again = state.again;
        let asked = part(&mut state);
        if again && asked.last.as_ref() != Some(object) {
            asked.require();
        }
        again
    }

    /// A plugin has done its work.
    pub fn end(&self, part: Part, object: &Value) {
        part(&mut self.reinvocation.lock()).last = Some(object.clone());
    }

    /// Somebody changed the object: those before are to be asked again.
    pub fn changed(&self, part: Part) {
        let mut state = self.reinvocation.lock();
        state.wanted = true;
        part(&mut state).require();
    }

    /// Somebody was asked who wants to be asked again after later changes.
    pub fn asked(&self, part: Part, uid: &str) {
        part(&mut self.reinvocation.lock()).before.insert(uid.to_string());
    }

    /// Whether somebody is to be asked again.
    pub fn is_wanted_again(&self, part: Part, uid: &str) -> bool {
        part(&mut self.reinvocation.lock()).again.contains(uid)
    }

    /// Whether all mutating plugins must run a second time; there is no third.
    pub fn repeat(&self) -> bool {
        let mut state = self.reinvocation.lock();
        let repeat = state.wanted && !state.again;
        state.again |= repeat;
        repeat
    }

    /// Adds an annotation for the audit log. One that is there stays.
    pub fn annotate(&self, key: &str, value: &str) {
        self.annotations.add(key, Annotation { value: value.to_string(), detailed: false });
    }

    /// Adds an annotation that shows what is in the request.
    pub fn annotate_detailed(&self, key: &str, value: &str) {
        self.annotations.add(key, Annotation { value: value.to_string(), detailed: true });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A webhook that was asked before another changed the object is asked again, once; the one that changed it is not.
    #[test]
    fn who_was_asked_before_a_change_is_asked_again() {
        let review = Review::default();
        let part: Part = |state| &mut state.webhooks;
        let object = json!({});
        assert!(!review.begin(part, &object));
        review.asked(part, "first");
        review.changed(part);
        review.asked(part, "second");
        review.end(part, &object);
        assert!(review.repeat());
        assert!(review.begin(part, &object), "the object is as it was left, so only the change counts");
        assert!(review.is_wanted_again(part, "first"));
        assert!(!review.is_wanted_again(part, "second"));
        review.end(part, &object);
        assert!(!review.repeat(), "there is no third time");
    }

    #[test]
    fn another_plugins_change_asks_all_again() {
        let review = Review::default();
        let part: Part = |state| &mut state.policies;
        review.begin(part, &json!({"a": 1}));
        review.asked(part, "policy");
        review.end(part, &json!({"a": 1}));
        review.changed(|state| &mut state.webhooks);
        assert!(review.repeat());
        review.begin(part, &json!({"a": 2}));
        assert!(review.is_wanted_again(part, "policy"));
    }
}
