//! Subjects × verbs × objects of the bootstrap roles, against upstream's answers.
//!
//! `testdata/bootstrap-matrix.txt` has what upstream's authorizer allows with the bootstrap policy: for each subject
//! and namespace (`*` is the whole cluster) a mask of the verbs in hexadecimal and the numbers of the objects that it
//! is about, in ranges. What is not listed is refused; both are checked, some 630,000 answers.

use std::collections::BTreeMap;

use super::*;
use crate::config::features;

const FACTS: &str = include_str!("testdata/bootstrap-matrix.txt");

/// The index of a new cluster, and a user `via:ROLE` for each cluster role.
fn bootstrap() -> Index {
    let mut index = Index::default();
    for value in policy::objects(&features::defaults()) {
        let text = |path: &str| value.pointer(path).and_then(serde_json::Value::as_str).unwrap_or_default().to_string();
        let (kind, namespace, name) = (text("/kind"), text("/metadata/namespace"), text("/metadata/name"));
        let object: Object = serde_json::from_value(value).expect("an object of the group");
        if !kind.ends_with("Binding") {
            index.put_role(&namespace, &name, Some(object.rules.unwrap_or_default().into()));
            if kind == "ClusterRole" {
                let subject =
                    Subject { kind: "User".into(), name: format!("via:{name}").as_str().into(), namespace: None };
                index.put_binding(Binding {
                    namespace: "".into(),
                    name: format!("matrix:{name}").as_str().into(),
                    role: RoleRef { kind: "ClusterRole".into(), name: name.as_str().into() },
                    subjects: vec![subject],
                });
            }
            continue;
        }
        index.put_binding(Binding {
            namespace: namespace.as_str().into(),
            name: name.as_str().into(),
            role: object.role_ref,
            subjects: object.subjects.unwrap_or_default(),
        });
    }
    index
}

/// One object of the matrix.
struct Asked {
    group: String,
    resource: String,
    subresource: String,
    name: String,
}

impl Asked {
    fn parse(text: &str) -> Self {
        let (object, name) = text.split_once('=').unwrap_or((text, ""));
        let mut parts = object.splitn(3, '/').map(str::to_string);
        let mut next = || parts.next().unwrap_or_default();
        let group = Some(next()).filter(|group| group != "core").unwrap_or_default();
        Self { group, resource: next(), subresource: next(), name: name.to_string() }
    }
}

fn user(kind: &str, name: &str) -> UserInfo {
    let (name, groups) = if kind == "group" { ("somebody", vec![name.to_string()]) } else { (name, Vec::new()) };
    UserInfo { name: name.to_string(), groups, ..UserInfo::default() }
}

fn numbers(text: &str) -> impl Iterator<Item = usize> {
    let number = |text: &str| text.parse::<usize>().expect("a number");
    text.split(' ').flat_map(move |range| match range.split_once('-') {
        Some((first, last)) => number(first)..=number(last),
        None => number(range)..=number(range),
    })
}

/// Compares what the index allows with what is listed; answers how much was asked, and what differs.
struct Comparison {
    index: Index,
    verbs: Vec<String>,
    objects: Vec<Asked>,
    paths: Vec<String>,
    asked: usize,
    differences: Vec<String>,
}

impl Comparison {
    fn ask(&mut self, attributes: &Attributes, wanted: bool) {
        self.asked += 1;
        if matches!(self.index.judge(attributes), Verdict::Allowed(_)) != wanted {
            self.differences.push(format!("{wanted}: {attributes:?}"));
        }
    }

    fn objects(&mut self, user: &UserInfo, namespace: &str, masks: &BTreeMap<usize, u32>) {
        let (verbs, objects) = (std::mem::take(&mut self.verbs), std::mem::take(&mut self.objects));
        for (at, object) in objects.iter().enumerate() {
            let mask = masks.get(&at).copied().unwrap_or_default();
            for (bit, verb) in verbs.iter().enumerate() {
                let attributes = Attributes {
                    user: user.clone().into(),
                    verb: verb.clone(),
                    namespace: namespace.to_string(),
                    group: object.group.clone(),
                    version: "*".to_string(),
                    resource: object.resource.clone(),
                    subresource: object.subresource.clone(),
                    name: object.name.clone(),
                    is_resource: true,
                    ..Attributes::default()
                };
                self.ask(&attributes, mask >> bit & 1 == 1);
            }
        }
        (self.verbs, self.objects) = (verbs, objects);
    }

    fn paths(&mut self, user: &UserInfo, allowed: &BTreeMap<&str, Vec<&str>>) {
        for path in self.paths.clone() {
            for verb in ["get", "post"] {
                let attributes = Attributes {
                    user: user.clone().into(),
                    verb: verb.to_string(),
                    path: path.clone(),
                    ..Attributes::default()
                };
                self.ask(&attributes, allowed.get(path.as_str()).is_some_and(|verbs| verbs.contains(&verb)));
            }
        }
    }
}

#[test]
fn the_bootstrap_roles_allow_what_upstreams_do() {
    let words = |text: &str| text.split(' ').map(str::to_string).collect::<Vec<_>>();
    let mut lines = FACTS.lines().filter(|line| !line.starts_with('#')).peekable();
    let mut comparison = Comparison {
        index: bootstrap(),
        verbs: Vec::new(),
        objects: Vec::new(),
        paths: Vec::new(),
        asked: 0,
        differences: Vec::new(),
    };
    while let Some(line) = lines.next() {
        let (what, rest) = line.split_once(' ').expect("a word and what follows");
        // The rows below a subject.
        let mut rows = Vec::new();
        while let Some(row) = lines.next_if(|line| line.starts_with("  ")) {
            rows.push(row.trim_start().split_once(": ").expect("verbs and objects"));
        }
        match what {
            "verbs" => comparison.verbs = words(rest),
            "object" => comparison.objects.push(Asked::parse(rest)),
            "paths" => comparison.paths = words(rest),
            "paths-of" => {
                let (kind, name) = rest.split_once(' ').expect("a subject");
                let mut allowed: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
                for (verbs, paths) in rows {
                    paths.split(' ').for_each(|path| allowed.entry(path).or_default().extend(verbs.split(' ')));
                }
                comparison.paths(&user(kind, name), &allowed);
            }
            kind => {
                let (name, namespace) = rest.rsplit_once(" in ").expect("a subject and a place");
                let mut masks = BTreeMap::new();
                for (mask, objects) in rows {
                    let mask = u32::from_str_radix(mask, 16).expect("a mask");
                    masks.extend(numbers(objects).map(|at| (at, mask)));
                }
                let namespace = if namespace == "*" { "" } else { namespace };
                comparison.objects(&user(kind, name), namespace, &masks);
            }
        }
    }
    let Comparison { asked, differences, .. } = comparison;
    assert_eq!(asked, 632_292, "the whole matrix");
    assert!(
        differences.is_empty(),
        "{} differences:\n{}",
        differences.len(),
        differences[..differences.len().min(20)].join("\n")
    );
}
