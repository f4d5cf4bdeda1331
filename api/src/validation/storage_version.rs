//! StorageVersion of `internal.apiserver.k8s.io` and StorageVersionMigration.

use apimachinery::field::{self, BadValue, ErrorList, Path};
use apimachinery::names::{self, Messages};
use serde_json::Value;

use super::checks::{IMMUTABLE, immutable, messages, name_is_subdomain, qualified_name};
use super::{conditions, object_meta};
use crate::read::Read;

/// `<group>.<resource>`
fn name_of(name: &str, _: bool) -> Messages {
    let Some((group, resource)) = name.rsplit_once('.') else {
        return vec!["name must be in the form of <group>.<resource>".to_owned()];
    };
    let group = names::dns1123_subdomain(group).into_iter().map(|m| format!("the group segment {m}"));
    let resource = names::dns1035_label(resource).into_iter().map(|m| format!("the resource segment {m}"));
    group.chain(resource).collect()
}

pub(super) fn create(version: &Value, errors: &mut ErrorList) {
    object_meta::create(version, false, name_of, errors);
    status(&version["status"], errors);
}

pub(super) fn update_status(new: &Value, errors: &mut ErrorList) {
    status(&new["status"], errors);
}

fn status(status: &Value, errors: &mut ErrorList) {
    let path = Path::new("status");
    let servers = status.list("storageVersions");
    for (i, server) in servers.iter().enumerate() {
        let (path, id) = (path.child("storageVersions").index(i), server.text("apiServerID"));
        if servers[..i].iter().any(|other| other.text("apiServerID") == id) {
            errors.push(field::duplicate(&path.child("apiServerID"), id));
        }
        self::server(server, &path, errors);
    }
    common_version(servers, status, &path.child("commonEncodingVersion"), errors);
    let conditions = status.list("conditions");
    for (i, condition) in conditions.iter().enumerate() {
        // Upstream's path leaves the list's name out.
        let (path, kind) = (path.index(i), condition.text("type"));
        if let Some(first) = conditions[..i].iter().rposition(|other| other.text("type") == kind) {
            let message = format!("the type of the condition is not unique, it also appears in conditions[{first}]");
            errors.push(field::invalid(&path.child("type"), kind, message));
        }
        for name in ["type", "status"] {
            qualified_name(condition.text(name), &path.child(name), errors);
        }
        for name in ["reason", "message"] {
            if condition.text(name).is_empty() {
                errors.push(field::required(&path.child(name), ""));
            }
        }
    }
}

fn server(server: &Value, path: &Path, errors: &mut ErrorList) {
    let (id, encoding) = (server.text("apiServerID"), server.text("encodingVersion"));
    messages(name_is_subdomain(id, false), id, &path.child("apiServerID"), errors);
    api_version(encoding, &path.child("encodingVersion"), errors);
    let at = path.child("decodableVersions");
    for (i, version) in server.texts("decodableVersions").enumerate() {
        api_version(version, &at.index(i), errors);
    }
    let decodable: Vec<&str> = server.texts("decodableVersions").collect();
    if !decodable.contains(&encoding) {
        let message = format!("decodableVersions must include encodingVersion {encoding}");
        errors.push(field::invalid(&at, &server["decodableVersions"], message));
    }
    for (i, version) in server.texts("servedVersions").enumerate() {
        let path = path.child("servedVersions").index(i);
        api_version(version, &path, errors);
        if !decodable.contains(&version) {
            let all = decodable.join(" ");
            let message =
                format!("individual served version : {version} must be included in decodableVersions : [{all}]");
            errors.push(field::invalid(&path, version, message));
        }
    }
}

fn common_version(servers: &[Value], status: &Value, path: &Path, errors: &mut ErrorList) {
    let first = servers.first().map(|server| server.text("encodingVersion"));
    let actual = first.filter(|first| servers.iter().all(|server| server.text("encodingVersion") == *first));
    let claimed = status.set("commonEncodingVersion").and_then(Value::as_str);
    match (actual, claimed) {
        (None, Some(claimed)) => {
            let message = "should be nil if servers do not agree on the same encoding version, or if there is no server reporting the supported versions yet";
            errors.push(field::invalid(path, claimed, message));
        }
        (Some(actual), None) => {
            let message = format!("the common encoding version is {actual}");
            errors.push(field::invalid(path, BadValue::Value(Value::Null), message));
        }
        (Some(actual), Some(claimed)) if actual != claimed => {
            errors.push(field::invalid(path, claimed, format!("the actual common encoding version is {actual}")));
        }
        _ => {}
    }
}

fn api_version(text: &str, path: &Path, errors: &mut ErrorList) {
    const LABEL: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
    const LABEL_ERROR: &str = "a DNS-1035 label, which must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
    let mut wrong: Vec<String> = Vec::new();
    let mut part = |what: &str, text: &str, check: fn(&str) -> Messages| {
        if text.is_empty() {
            wrong.push(format!("{what} part: must be non-empty"));
        } else {
            wrong.extend(check(text).into_iter().map(|message| format!("{what} part: {message}")));
        }
    };
    match text.split('/').collect::<Vec<_>>()[..] {
        [version] => part("version", version, names::dns1035_label),
        [group, version] => {
            part("group", group, names::dns1123_subdomain);
            part("version", version, names::dns1035_label);
        }
        _ => {
            let label = names::regex_error(LABEL_ERROR, LABEL, &["my-name", "abc-123"]);
            wrong.push(format!(
                "an apiVersion is {label} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyVersion')"
            ));
        }
    }
    if !wrong.is_empty() {
        errors.push(field::invalid(path, text, wrong.join(",")));
    }
}

pub(super) fn migration(migration: &Value, errors: &mut ErrorList) {
    object_meta::create(migration, false, name_is_subdomain, errors);
    let (resource, path) = (&migration["spec"]["resource"], Path::new("spec").child("resource"));
    let (name, group) = (resource.text("resource"), resource.text("group"));
    let wrong = names::dns1035_label(name);
    if name.is_empty() {
        errors.push(field::required(&path.child("resource"), "resource is required to be set"));
    } else if !wrong.is_empty() {
        errors.push(field::invalid(&path.child("resource"), name, wrong.join(",")));
    }
    let wrong = names::dns1123_subdomain(group);
    if !group.is_empty() && !wrong.is_empty() {
        errors.push(field::invalid(&path.child("group"), group, wrong.join(",")));
    }
}

pub(super) fn migration_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    migration(new, errors);
    object_meta::update(new, old, errors);
    immutable(&new["spec"], &old["spec"], &Path::new("spec"), errors);
}

pub(super) fn migration_status(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    let (now, before, path) = (&new["status"], &old["status"], Path::new("status"));
    let (version, known) = (now.text("resourceVersion"), before.text("resourceVersion"));
    let at = path.child("resourceVersion");
    if !version.is_empty() && (!version.bytes().all(|b| b.is_ascii_digit()) || version.starts_with('0')) {
        let message = format!("resource version is not well formed: {version}");
        errors.push(field::invalid(&at, version, message));
    }
    let at_conditions = path.child("conditions");
    conditions::check(now.list("conditions"), &at_conditions, errors);
    if !known.is_empty() && known != version {
        errors.push(field::invalid(&at, version, IMMUTABLE));
    }
    let is = |status: &Value, kind: &str| conditions::is_true(status.list("conditions"), kind);
    let mut complain = |message: String| {
        errors.push(field::invalid(&at_conditions, &now["conditions"], message));
    };
    if is(now, "Succeeded") && is(now, "Failed") {
        complain("Both success and failed conditions cannot be true at the same time".to_owned());
    }
    for (kind, shown) in [("Succeeded", "Success"), ("Failed", "Failed")] {
        if is(before, kind) && !is(now, kind) {
            complain(format!("{shown} condition cannot be set to false once it is true"));
        }
    }
}
