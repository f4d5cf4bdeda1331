//! Lease and LeaseCandidate.

use std::cmp::Ordering;

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::names;
use serde_json::Value;

use super::checks::{immutable, messages, name_is_subdomain, non_negative};
use super::object_meta;
use crate::read::Read;

pub(super) fn create(lease: &Value, errors: &mut ErrorList) {
    object_meta::generic(lease, true, name_is_subdomain, errors);
    spec(lease, errors);
}

pub(super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::generic_update(new, old, errors);
    spec(new, errors);
}

fn spec(lease: &Value, errors: &mut ErrorList) {
    let (spec, path) = (&lease["spec"], Path::new("spec"));
    if let Some(seconds) = spec.int("leaseDurationSeconds").filter(|s| *s <= 0) {
        errors.push(field::invalid(&path.child("leaseDurationSeconds"), seconds, "must be greater than 0"));
    }
    non_negative(spec.num("leaseTransitions"), &path.child("leaseTransitions"), errors);
    if let Some(name) = spec.set("strategy").and_then(Value::as_str) {
        strategy(name, &path.child("strategy"), errors);
    }
    if !spec.text("preferredHolder").is_empty() && spec.text("strategy").is_empty() {
        let message = "may only be specified if `strategy` is defined";
        errors.push(field::forbidden(&path.child("preferredHolder"), message));
    }
}

/// One of Kubernetes' own, or somebody's: `domain/Name`.
fn strategy(strategy: &str, path: &Path, errors: &mut ErrorList) {
    // Upstream names the field twice.
    let path = path.child("strategy");
    if strategy.contains('/') {
        messages(names::qualified_name(strategy), strategy, &path, errors);
    } else if strategy != OLDEST {
        errors.push(field::not_supported(&path, strategy, &[OLDEST]));
    }
}

const OLDEST: &str = "OldestEmulationVersion";

pub(super) fn candidate(candidate: &Value, errors: &mut ErrorList) {
    object_meta::generic(candidate, true, |name, _| names::config_map_key(name), errors);
    candidate_spec(&candidate["spec"], errors);
}

pub(super) fn candidate_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::generic_update(new, old, errors);
    candidate_spec(&new["spec"], errors);
    let path = Path::new("spec").child("leaseName");
    immutable(&new["spec"]["leaseName"], &old["spec"]["leaseName"], &path, errors);
}

fn candidate_spec(spec: &Value, errors: &mut ErrorList) {
    let path = Path::new("spec");
    if spec.text("leaseName").is_empty() {
        errors.push(field::required(&path.child("leaseName"), ""));
    }
    let (emulated, binary) = (spec.text("emulationVersion"), spec.text("binaryVersion"));
    let (emulation, version) = (Version::parse(emulated), Version::parse(binary));
    if !emulated.is_empty() && emulation.is_none() {
        errors.push(field::invalid(&path.child("emulationVersion"), emulated, SEMANTIC));
    }
    let at = path.child("binaryVersion");
    if binary.is_empty() {
        errors.push(field::required(&at, ""));
    } else if version.is_none() {
        errors.push(field::invalid(&at, binary, SEMANTIC));
    }
    let (emulation, version) = (emulation.unwrap_or_default(), version.unwrap_or_default());
    if !binary.is_empty() && !emulated.is_empty() && version.precedence(&emulation) == Ordering::Less {
        errors.push(field::invalid(&at, binary, "must be greater than or equal to `emulationVersion`"));
    }
    let name = spec.text("strategy");
    if name.is_empty() {
        errors.push(field::required(&path.child("strategy"), ""));
        return;
    }
    if name == OLDEST && emulation.precedence(&Version::default()) == Ordering::Equal {
        let message = "must be specified when `strategy` is 'OldestEmulationVersion'";
        errors.push(field::required(&path.child("emulationVersion"), message));
    }
    strategy(name, &path.child("strategy"), errors);
}

const SEMANTIC: &str = "must be a valid semantic version";

/// A semantic version; what comes after `+` has no precedence.
#[derive(Default)]
struct Version<'a> {
    numbers: [u64; 3],
    before: Vec<&'a str>,
}

impl<'a> Version<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
        let (text, before) = text.split_once('-').map_or((text, None), |(text, before)| (text, Some(before)));
        let word = |w: &str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let before: Vec<&str> = before.map_or(Vec::new(), |before| before.split('.').collect());
        let fits = build.is_none_or(|build| build.split('.').all(word))
            && before.iter().all(|w| word(w) && (!number(w) || w.len() == 1 || !w.starts_with('0')));
        let mut parts = text.split('.').map(|part| {
            let plain = number(part) && (part.len() == 1 || !part.starts_with('0'));
            part.parse().ok().filter(|_| plain)
        });
        let numbers = [parts.next()??, parts.next()??, parts.next()??];
        (fits && parts.next().is_none()).then_some(Self { numbers, before })
    }

    fn precedence(&self, other: &Self) -> Ordering {
        let rank = |w: &&str| if number(w) { (0, w.parse::<u64>().unwrap_or(u64::MAX)) } else { (1, 0) };
        self.numbers.cmp(&other.numbers).then_with(|| match (self.before.is_empty(), other.before.is_empty()) {
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            _ => {
                let mine = self.before.iter().map(|w| (rank(w), if number(w) { "" } else { *w }));
                mine.cmp(other.before.iter().map(|w| (rank(w), if number(w) { "" } else { *w })))
            }
        })
    }
}

/// Whether a text is a semantic version.
pub(super) fn is_semantic(text: &str) -> bool {
    Version::parse(text).is_some()
}

fn number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for bad in ["", "1", "1.2", "1.2.3.4", "01.2.3", "1.2.x", "v1.2.3", "1.2.3-", "1.2.3-01", "1.2.3+"] {
            assert!(Version::parse(bad).is_none(), "{bad}");
        }
        let ordered = ["1.2.3-alpha", "1.2.3-alpha.1", "1.2.3-alpha.b", "1.2.3-beta", "1.2.3", "1.10.0"];
        for pair in ordered.windows(2) {
            let [a, b] = [pair[0], pair[1]].map(|v| Version::parse(v).expect("a version"));
            assert_eq!(a.precedence(&b), Ordering::Less, "{pair:?}");
        }
    }
}
