//! APIServices of what this server serves itself: built-in group versions when it starts, those of
//! CustomResourceDefinitions as long as there is one.
//!
//! An object is this server's to keep when it carries the label; one that somebody else made, or whose
//! label was taken off, is left alone.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use http::Method;
use serde_json::{Value, json};

use super::priorities;
use crate::server::{Server, in_process};

/// The label of objects that are kept automatically, and how.
const LABEL: &str = "kube-aggregator.kubernetes.io/automanaged";
const PATH: &str = "/apis/apiregistration.k8s.io/v1/apiservices";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Put right once, when the server starts.
    OnStart,
    /// Put right whenever it differs.
    Always,
}

impl Mode {
    fn label(self) -> &'static str {
        match self {
            Mode::OnStart => "onstart",
            Mode::Always => "true",
        }
    }

    fn of(object: &Value) -> Option<Self> {
        match object.label(LABEL)? {
            "onstart" => Some(Mode::OnStart),
            "true" => Some(Mode::Always),
            _ => None,
        }
    }
}

/// What to do about one APIService.
#[derive(Debug, PartialEq)]
enum Step {
    Nothing,
    Create(Value),
    Update(Value),
    /// With this uid.
    Delete(String),
}

/// Keeps the APIServices of this server.
#[derive(Default)]
pub struct Registrar {
    built_in: BTreeMap<String, Value>,
    /// Served group versions of each CustomResourceDefinition.
    custom: BTreeMap<String, Vec<(String, String)>>,
    /// How many definitions bring a name.
    wanted: BTreeMap<String, usize>,
    /// Those that were there before this server.
    at_start: HashSet<String>,
    synced: HashSet<String>,
}

fn name_of(group: &str, version: &str) -> String {
    format!("{version}.{group}")
}

fn object(group: &str, version: &str, (group_priority, version_priority): (i64, i64), mode: Mode) -> Value {
    let mut spec = json!({
        "version": version,
        "groupPriorityMinimum": group_priority,
        "versionPriority": version_priority,
    });
    if !group.is_empty() {
        spec["group"] = group.into();
    }
    json!({
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": name_of(group, version), "labels": {LABEL: mode.label()}},
        "spec": spec,
    })
}

impl Registrar {
    /// Wants the group versions of `built_in` that have a priority.
    pub fn new(built_in: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut registrar = Self::default();
        for (group, version) in built_in {
            if let Some(priorities) = priorities::of(&group, &version) {
                let object = object(&group, &version, priorities, Mode::OnStart);
                registrar.built_in.insert(name_of(&group, &version), object);
            }
        }
        registrar
    }

    /// The names of built-in APIServices.
    pub fn built_in(&self) -> BTreeSet<String> {
        self.built_in.keys().cloned().collect()
    }

    /// Remembers what is there before anything is changed.
    pub fn started(&mut self, names: impl IntoIterator<Item = String>) {
        if self.at_start.is_empty() && self.synced.is_empty() {
            self.at_start.extend(names);
        }
    }

    /// Takes note of a CustomResourceDefinition (`None`: it is gone); the names to look at again.
    pub fn definition(&mut self, name: &str, definition: Option<&Value>) -> Vec<String> {
        let now: Vec<(String, String)> = definition
            .map(|definition| {
                let group = definition.str_at(&["spec", "group"]).unwrap_or_default();
                definition
                    .list_at(&["spec", "versions"])
                    .iter()
                    .filter(|version| version.bool_at(&["served"]).unwrap_or(false))
                    .map(|version| (group.to_string(), version.name_field().to_string()))
                    .collect()
            })
            .unwrap_or_default();
        let before = self.custom.remove(name).unwrap_or_default();
        if before == now {
            if !now.is_empty() {
                self.custom.insert(name.to_string(), now);
            }
            return Vec::new();
        }
        let mut touched = Vec::new();
        for (group, version) in &before {
            let name = name_of(group, version);
            if let Some(count) = self.wanted.get_mut(&name) {
                *count -= 1;
                if *count == 0 {
                    self.wanted.remove(&name);
                }
            }
            touched.push(name);
        }
        for (group, version) in &now {
            let name = name_of(group, version);
            *self.wanted.entry(name.clone()).or_default() += 1;
            touched.push(name);
        }
        if !now.is_empty() {
            self.custom.insert(name.to_string(), now);
        }
        touched.sort();
        touched.dedup();
        touched
    }

    /// Every name that something is wanted of, or that is there.
    pub fn names(&self) -> BTreeSet<String> {
        self.built_in.keys().chain(self.wanted.keys()).chain(&self.at_start).cloned().collect()
    }

    fn desired(&self, name: &str) -> Option<(Value, Mode)> {
        if let Some(object) = self.built_in.get(name) {
            return Some((object.clone(), Mode::OnStart));
        }
        self.wanted.get(name)?;
        let (version, group) = name.split_once('.')?;
        Some((object(group, version, priorities::CUSTOM, Mode::Always), Mode::Always))
    }

    /// Upstream's table of what is wanted against what is there.
    fn step(&self, name: &str, current: Option<&Value>) -> Step {
        let synced = self.synced.contains(name);
        let desired = self.desired(name);
        match (&desired, current) {
            (None, None) => Step::Nothing,
            (Some((_, Mode::OnStart)), _) if synced => Step::Nothing,
            (Some((object, _)), None) => Step::Create(object.clone()),
            (_, Some(current)) => {
                let Some(mode) = Mode::of(current) else { return Step::Nothing };
                if mode == Mode::OnStart && (!self.at_start.contains(name) || synced) {
                    return Step::Nothing;
                }
                let Some((object, _)) = &desired else { return Step::Delete(current.uid().to_string()) };
                if current.get("spec") == object.get("spec") {
                    return Step::Nothing;
                }
                let mut changed = current.clone();
                changed["spec"] = object["spec"].clone();
                Step::Update(changed)
            }
        }
    }

    /// Puts one APIService right.
    ///
    /// # Errors
    /// What a write was answered; try again later.
    pub async fn sync(&mut self, server: &Arc<Server>, name: &str, current: Option<&Value>) -> Result<(), Status> {
        apply(server, name, self.step(name, current)).await?;
        self.synced.insert(name.to_string());
        Ok(())
    }

    /// Puts several right at once.
    ///
    /// # Errors
    /// Of each one that failed, by name.
    pub async fn sync_all(
        &mut self,
        server: &Arc<Server>,
        names: impl IntoIterator<Item = String>,
        current: impl Fn(&str) -> Option<Value>,
    ) -> Vec<(String, Status)> {
        let steps: Vec<(String, Step)> = names
            .into_iter()
            .map(|name| {
                let step = self.step(&name, current(&name).as_ref());
                (name, step)
            })
            .collect();
        let results = futures::future::join_all(steps.into_iter().map(|(name, step)| async move {
            let result = apply(server, &name, step).await;
            (name, result)
        }))
        .await;
        let mut failed = Vec::new();
        for (name, result) in results {
            match result {
                Ok(()) => {
                    self.synced.insert(name);
                }
                Err(status) => failed.push((name, status)),
            }
        }
        failed
    }
}

async fn apply(server: &Arc<Server>, name: &str, step: Step) -> Result<(), Status> {
    let path = format!("{PATH}/{name}");
    let result = match step {
        Step::Nothing => return Ok(()),
        Step::Create(object) => in_process::request(server, Method::POST, PATH, Some(&object)).await,
        Step::Update(object) => in_process::request(server, Method::PUT, &path, Some(&object)).await,
        Step::Delete(uid) => {
            let options = json!({
                "apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid},
            });
            in_process::request(server, Method::DELETE, &path, Some(&options)).await
        }
    };
    match result {
        Ok(_) => Ok(()),
        // Somebody was quicker; the watch brings what they did.
        Err(status) if status.is_already_exists() || status.is_not_found() || status.is_conflict() => Ok(()),
        Err(status) => Err(status),
    }
}

/// The field `name` of an element of a list.
trait Named {
    fn name_field(&self) -> &str;
}

impl Named for Value {
    fn name_field(&self) -> &str {
        self.str_at(&["name"]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(label: Option<&str>, priority: i64) -> Value {
        let mut object = json!({
            "metadata": {"name": "v1.apps", "uid": "u"},
            "spec": {"group": "apps", "version": "v1", "groupPriorityMinimum": priority, "versionPriority": 15},
        });
        if let Some(label) = label {
            object["metadata"]["labels"] = json!({LABEL: label});
        }
        object
    }

    #[test]
    fn wanted_against_present() {
        let mut registrar = Registrar::new([("apps".to_string(), "v1".to_string())]);
        assert!(matches!(registrar.step("v1.apps", None), Step::Create(_)));
        assert_eq!(registrar.step("v1.other", None), Step::Nothing);
        assert_eq!(registrar.step("v1.apps", Some(&stored(None, 1))), Step::Nothing, "not ours");
        let added_later = stored(Some("onstart"), 1);
        assert_eq!(registrar.step("v1.apps", Some(&added_later)), Step::Nothing);
        registrar.started(["v1.apps".to_string(), "v1.gone".to_string()]);
        assert!(matches!(registrar.step("v1.apps", Some(&added_later)), Step::Update(_)));
        assert_eq!(registrar.step("v1.apps", Some(&stored(Some("onstart"), 17800))), Step::Nothing);
        assert_eq!(registrar.step("v1.gone", Some(&stored(Some("onstart"), 1))), Step::Delete("u".to_string()));
        registrar.synced.insert("v1.apps".to_string());
        assert_eq!(registrar.step("v1.apps", None), Step::Nothing, "once is enough");
    }

    #[test]
    fn definitions_come_and_go() {
        let mut registrar = Registrar::default();
        let definition = |served: bool| {
            json!({"spec": {"group": "example.com", "versions": [
                {"name": "v1", "served": true}, {"name": "v2", "served": served},
            ]}})
        };
        assert_eq!(registrar.definition("a", Some(&definition(true))), ["v1.example.com", "v2.example.com"]);
        assert_eq!(registrar.definition("b", Some(&definition(false))), ["v1.example.com"]);
        assert!(registrar.definition("b", Some(&definition(false))).is_empty());
        let Step::Create(object) = registrar.step("v2.example.com", None) else { panic!("wanted") };
        assert_eq!(object["spec"]["groupPriorityMinimum"], 1000);
        assert_eq!(object["metadata"]["labels"][LABEL], "true");
        assert_eq!(registrar.definition("a", None), ["v1.example.com", "v2.example.com"]);
        let ours = stored(Some("true"), 1000);
        assert_eq!(registrar.step("v2.example.com", Some(&ours)), Step::Delete("u".to_string()));
        assert!(matches!(registrar.step("v1.example.com", Some(&ours)), Step::Update(_)), "b still brings it");
    }
}
