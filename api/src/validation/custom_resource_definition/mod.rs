//! CustomResourceDefinitions: upstream's `pkg/apis/apiextensions/validation`.
//!
//! Upstream validates an internal form in which what all versions have in common stands at the top;
//! paths of errors are that form's, so [`hoist`] makes it first.

pub mod approval;
mod conversion;
mod defaults;
mod paths;
mod rules;
mod schema;
mod shown;
mod structural;
#[cfg(test)]
mod tests;

use apimachinery::field::{self, BadValue, ErrorList, Path};
use apimachinery::gotext;
use apimachinery::names;
use serde_json::{Map, Value, json};

use super::checks::immutable;
use super::object_meta;
use crate::read::Read;

/// As many fields may be selectable.
const MAX_SELECTABLE_FIELDS: usize = 8;

/// What is required of a new definition; an old one may keep its sins.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub recognized_review_version: bool,
    pub immutable_names: bool,
    pub openapi_schema: bool,
    pub valid_property_type: bool,
    pub structural_schema: bool,
    pub pruned_defaults: bool,
    pub atomic_sets: bool,
    pub map_list_keys: bool,
    /// Versions whose schema is the old one's: the cost of their rules is not counted again.
    pub unchanged: Vec<String>,
    /// Expressions that were there before.
    pub old_rules: bool,
    /// Authorities that cannot be read: of a definition that is not served yet, or had them before.
    pub invalid_ca_bundle: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            recognized_review_version: true,
            immutable_names: false,
            openapi_schema: true,
            valid_property_type: true,
            structural_schema: true,
            pruned_defaults: true,
            atomic_sets: true,
            map_list_keys: true,
            unchanged: Vec::new(),
            old_rules: false,
            invalid_ca_bundle: true,
        }
    }
}

pub(super) fn create(object: &Value, errors: &mut ErrorList) {
    let spec = hoist(&object["spec"]);
    object_meta::generic(object, false, super::checks::name_is_subdomain, errors);
    let wanted = format!("{}.{}", spec["names"].text("plural"), spec.text("group"));
    let name = object["metadata"].text("name");
    if !name.is_empty() && name != wanted {
        let path = Path::new("metadata").child("name");
        errors.push(field::invalid(&path, name, "must be spec.names.plural+\".\"+spec.group"));
    }
    self::spec(&spec, &Options::default(), errors);
    status(object, errors);
    stored_versions(object, errors);
    approval::validate(object, None, errors);
    preserve_unknown(object, None, errors);
}

pub(super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let (spec, old_spec) = (hoist(&new["spec"]), hoist(&old["spec"]));
    object_meta::generic_update(new, old, errors);
    let schemas: Vec<&Value> = schemas(&old_spec).collect();
    let has = |wrong: &dyn Fn(&Value) -> bool| schemas.iter().any(|schema| schema::any(schema, wrong));
    let established = old["status"]
        .list("conditions")
        .iter()
        .any(|condition| condition.text("type") == "Established" && condition.text("status") == "True");
    let reviews = old_spec["conversion"].list("conversionReviewVersions");
    let options = Options {
        recognized_review_version: reviews.is_empty()
            || reviews.iter().any(|version| matches!(version.as_str(), Some("v1" | "v1beta1"))),
        immutable_names: established,
        openapi_schema: old_spec["validation"].set("openAPIV3Schema").is_some()
            || old_spec.list("versions").iter().all(|version| version["schema"].set("openAPIV3Schema").is_some()),
        valid_property_type: !has(&schema::has_invalid_type),
        structural_schema: !schemas.iter().any(|schema| structural::is_violated(schema)),
        pruned_defaults: !schemas.iter().any(|schema| defaults::are_unpruned(schema)),
        atomic_sets: !has(&schema::has_granular_set),
        map_list_keys: !has(&|schema| {
            let mut found = ErrorList::new();
            schema::map_list_keys(schema, &Path::new(""), &mut found);
            !found.is_empty()
        }),
        unchanged: new["spec"]
            .list("versions")
            .iter()
            .filter(|version| {
                let before = old["spec"].list("versions").iter().find(|had| had.text("name") == version.text("name"));
                before.is_some_and(|before| before["schema"] == version["schema"])
            })
            .map(|version| version.text("name").to_owned())
            .collect(),
        old_rules: true,
        invalid_ca_bundle: !established || conversion::has_invalid_ca_bundle(&old_spec["conversion"]),
    };
    self::spec(&spec, &options, errors);
    let path = Path::new("spec");
    if options.immutable_names {
        immutable(&spec["scope"], &old_spec["scope"], &path.child("scope"), errors);
        let kind = path.child("names").child("kind");
        immutable(&spec["names"]["kind"], &old_spec["names"]["kind"], &kind, errors);
    }
    immutable(&spec["group"], &old_spec["group"], &path.child("group"), errors);
    let plural = path.child("names").child("plural");
    immutable(&spec["names"]["plural"], &old_spec["names"]["plural"], &plural, errors);
    status(new, errors);
    stored_versions(new, errors);
    approval::validate(new, Some(old), errors);
    preserve_unknown(new, Some(old), errors);
}

pub(super) fn update_status(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::generic_update(new, old, errors);
    status(new, errors);
}

/// The internal form: what all versions say alike stands beside them, and the webhook's parts stand
/// beside each other.
fn hoist(spec: &Value) -> Value {
    let mut spec = spec.clone();
    let versions = spec.list("versions").to_vec();
    let first = versions.first().cloned().unwrap_or_default();
    let mut versions = versions;
    for (name, top) in [
        ("subresources", "subresources"),
        ("schema", "validation"),
        ("additionalPrinterColumns", "additionalPrinterColumns"),
        ("selectableFields", "selectableFields"),
    ] {
        if !versions.is_empty() && versions.iter().all(|version| version[name] == first[name]) {
            for version in &mut versions {
                version.as_object_mut().map(|map| map.remove(name));
            }
            if !first[name].is_null() {
                spec[top] = first[name].clone();
            }
        }
    }
    if let Some(map) = spec.as_object_mut() {
        if map.get("versions").is_some_and(|versions| !versions.is_null()) {
            map.insert("versions".into(), versions.into());
        }
        if let Some(conversion) = map.get_mut("conversion").and_then(Value::as_object_mut)
            && let Some(webhook) = conversion.remove("webhook")
        {
            for (from, to) in
                [("clientConfig", "webhookClientConfig"), ("conversionReviewVersions", "conversionReviewVersions")]
            {
                if let Some(value) = webhook.get(from).filter(|value| !value.is_null()) {
                    conversion.insert(to.into(), value.clone());
                }
            }
        }
    }
    spec
}

/// Every schema of an internal spec.
fn schemas(spec: &Value) -> impl Iterator<Item = &Value> {
    let top = spec["validation"].set("openAPIV3Schema");
    top.into_iter().chain(spec.list("versions").iter().filter_map(|version| version["schema"].set("openAPIV3Schema")))
}

fn dns_label(value: &str, path: &Path, errors: &mut ErrorList) {
    let wrong = names::dns1035_label(value);
    if !wrong.is_empty() {
        let wrong: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        errors.push(field::invalid(path, value, wrong.join(",")));
    }
}

fn spec(spec: &Value, options: &Options, errors: &mut ErrorList) {
    let path = Path::new("spec");
    let mut options = options.clone();
    let group = spec.text("group");
    let group_path = path.child("group");
    let wrong = names::dns1123_subdomain(group);
    if group.is_empty() {
        errors.push(field::required(&group_path, ""));
    } else if !wrong.is_empty() {
        let wrong: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        errors.push(field::invalid(&group_path, group, wrong.join(",")));
    } else if !group.contains('.') {
        errors.push(field::invalid(&group_path, group, "should be a domain with at least one dot"));
    }
    one_of(spec.text("scope"), &["Cluster", "Namespaced"], &path.child("scope"), errors);
    let preserve = spec.flag("preserveUnknownFields");
    if !preserve {
        options.structural_schema = true;
    }
    let versions = spec.list("versions");
    let top = spec["validation"].set("openAPIV3Schema").is_some();
    for (i, version) in versions.iter().enumerate().filter(|_| !top) {
        if version["schema"].set("openAPIV3Schema").is_some() {
            continue;
        }
        let path = path.child("versions").index(i).child("schema").child("openAPIV3Schema");
        if options.openapi_schema {
            errors.push(field::required(&path, ""));
        } else if !preserve && version.flag("served") {
            errors.push(field::required(&path, "because otherwise all fields are pruned"));
        }
    }
    if schemas(spec).any(|schema| schema::any(schema, &|schema| schema.set("default").is_some())) {
        options.structural_schema = true;
        if preserve {
            let path = path.child("preserveUnknownFields");
            errors.push(field::invalid(&path, true, "must be false in order to use defaults in the schema"));
        }
    }
    if schemas(spec).any(|schema| schema::any(schema, &schema::has_extensions)) {
        options.structural_schema = true;
    }
    self::versions(spec, &options, &path, errors);
    // The internal form names the first version once more.
    if let Some(first) = versions.first().filter(|first| !first.text("name").is_empty()) {
        dns_label(first.text("name"), &path.child("version"), errors);
    }
    for name in ["plural", "singular", "kind", "listKind"] {
        if spec["names"].text(name).is_empty() {
            errors.push(field::required(&path.child("names").child(name), ""));
        }
    }
    self::names(&spec["names"], &path.child("names"), errors);
    let any_status =
        has_status(&spec["subresources"]) || versions.iter().any(|version| has_status(&version["subresources"]));
    let unchanged = versions.first().is_some_and(|version| options.unchanged.iter().any(|n| n == version.text("name")));
    schema::validate(&spec["validation"], any_status, &options, unchanged, &path.child("validation"), errors);
    subresources(&spec["subresources"], &path.child("subresources"), errors);
    for (i, column) in spec.list("additionalPrinterColumns").iter().enumerate() {
        self::column(column, &path.child("additionalPrinterColumns").index(i), errors);
    }
    if !spec.list("selectableFields").is_empty() {
        let fields = path.child("selectableFields");
        if top {
            selectable(spec.list("selectableFields"), &spec["validation"]["openAPIV3Schema"], &fields, errors);
        } else {
            errors.push(field::invalid(&fields, "", "may only be set when validations.schema is included"));
        }
    }
    let conversion = &spec["conversion"];
    if !conversion.is_null() && conversion.text("strategy") != "None" && preserve {
        errors.push(field::invalid(
            &path.child("conversion").child("strategy"),
            conversion.text("strategy"),
            "must be None if spec.preserveUnknownFields is true",
        ));
    }
    conversion::validate(conversion, &options, &path.child("conversion"), errors);
}

fn one_of(value: &str, accepted: &[&str], path: &Path, errors: &mut ErrorList) {
    if value.is_empty() {
        errors.push(field::required(path, ""));
    } else if !accepted.contains(&value) {
        errors.push(field::not_supported(path, value, accepted));
    }
}

fn versions(spec: &Value, options: &Options, path: &Path, errors: &mut ErrorList) {
    let versions = spec.list("versions");
    let versions_path = path.child("versions");
    let mut stored = 0;
    let mut names: Vec<&str> = Vec::new();
    let mut unique = true;
    for (i, version) in versions.iter().enumerate() {
        let path = versions_path.index(i);
        stored += usize::from(version.flag("storage"));
        let name = version.text("name");
        unique &= !names.contains(&name);
        names.push(name);
        dns_label(name, &path.child("name"), errors);
        deprecation(version, &path.child("deprecationWarning"), errors);
        let per_version = versions.iter().any(|version| version.set("subresources").is_some());
        let own = if per_version { &version["subresources"] } else { &spec["subresources"] };
        let unchanged = options.unchanged.iter().any(|known| known == name);
        schema::validate(&version["schema"], has_status(own), options, unchanged, &path.child("schema"), errors);
        subresources(&version["subresources"], &path.child("subresources"), errors);
        for (i, column) in version.list("additionalPrinterColumns").iter().enumerate() {
            self::column(column, &path.child("additionalPrinterColumns").index(i), errors);
        }
        let fields = version.list("selectableFields");
        if !fields.is_empty() {
            let path = path.child("selectableFields");
            match version["schema"].set("openAPIV3Schema") {
                Some(schema) => selectable(fields, schema, &path, errors),
                None => errors.push(field::invalid(
                    &path,
                    "",
                    "may only be set when `version.schema.openAPIV3Schema` is not included",
                )),
            }
        }
    }
    let given = spec.set("versions").is_some();
    let shown = || if given { shown::versions(versions) } else { BadValue::Raw("null".into()) };
    if !unique {
        errors.push(field::invalid(&versions_path, shown(), "must contain unique version names"));
    }
    if stored != 1 {
        errors.push(field::invalid(&versions_path, shown(), "must have exactly one version marked as storage version"));
    }
}

fn has_status(subresources: &Value) -> bool {
    subresources.set("status").is_some()
}

fn deprecation(version: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(warning) = version.set("deprecationWarning").and_then(Value::as_str) else { return };
    let mut wrong = |why: String| errors.push(field::invalid(path, warning, why));
    if !version.flag("deprecated") {
        return wrong("can only be set for deprecated versions".to_owned());
    }
    if warning.len() > 256 {
        wrong("must be <= 256 characters long".to_owned());
    }
    if warning.is_empty() {
        wrong("must not be an empty string".to_owned());
    }
    if let Some((at, _)) = warning.char_indices().find(|(_, c)| !gotext::is_print(*c)) {
        wrong(format!("must only contain printable UTF-8 characters; non-printable character found at index {at}"));
    }
}

fn names(names: &Value, path: &Path, errors: &mut ErrorList) {
    for name in ["plural", "singular"] {
        let text = names.text(name);
        if !text.is_empty() {
            dns_label(text, &path.child(name), errors);
        }
    }
    for name in ["kind", "listKind"] {
        let text = names.text(name);
        let wrong = names::dns1035_label(&text.to_lowercase());
        if !text.is_empty() && !wrong.is_empty() {
            let wrong: Vec<String> = wrong.iter().map(ToString::to_string).collect();
            let message = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
            errors.push(field::invalid(&path.child(name), text, message));
        }
    }
    for (i, name) in names.list("shortNames").iter().filter_map(Value::as_str).enumerate() {
        dns_label(name, &path.child("shortNames").index(i), errors);
    }
    let kind = names.text("kind");
    if !kind.is_empty() && kind == names.text("listKind") {
        errors.push(field::invalid(&path.child("listKind"), kind, "kind and listKind may not be the same"));
    }
    for (i, name) in names.list("categories").iter().filter_map(Value::as_str).enumerate() {
        dns_label(name, &path.child("categories").index(i), errors);
    }
}

fn status(object: &Value, errors: &mut ErrorList) {
    names(&object["status"]["acceptedNames"], &Path::new("status").child("acceptedNames"), errors);
}

fn stored_versions(object: &Value, errors: &mut ErrorList) {
    let path = Path::new("status").child("storedVersions");
    let stored = object["status"].list("storedVersions");
    if stored.is_empty() {
        errors.push(field::invalid(&path, BadValue::Raw("null".into()), "must have at least one stored version"));
        return;
    }
    let versions = object["spec"].list("versions");
    // Of two versions of one name the first is the stored one.
    let mut open: Vec<&Value> = stored.iter().collect();
    for version in versions {
        let found = open.iter().position(|name| **name == version["name"]);
        if version.flag("storage") && found.is_none() {
            let message = format!("must have the storage version {}", version.text("name"));
            errors.push(field::invalid(&path, json!(stored), message));
        }
        if let Some(at) = found {
            open.remove(at);
        }
    }
    for (i, name) in stored.iter().enumerate() {
        if versions.iter().all(|version| version["name"] != *name) {
            let shown = name.as_str().unwrap_or_default();
            errors.push(field::invalid(
                &path.index(i),
                shown,
                format!(
                    "missing from spec.versions; {shown} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {shown} and removes {shown} from status.storedVersions"
                ),
            ));
        }
    }
}

fn preserve_unknown(new: &Value, old: Option<&Value>, errors: &mut ErrorList) {
    let preserves = |object: &Value| object["spec"].flag("preserveUnknownFields");
    if old.is_none_or(|old| !preserves(old)) && preserves(new) {
        errors.push(field::invalid(
            &Path::new("spec").child("preserveUnknownFields"),
            true,
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        ));
    }
}

fn simple_json_path(text: &str, path: &Path, errors: &mut ErrorList) -> bool {
    if text.starts_with('.') {
        return true;
    }
    errors.push(field::invalid(path, text, "must be a simple json path starting with ."));
    false
}

fn subresources(subresources: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(scale) = subresources.set("scale") else { return };
    for (name, child, prefix) in [
        ("specReplicasPath", "scale.specReplicasPath", ".spec."),
        ("statusReplicasPath", "scale.statusReplicasPath", ".status."),
    ] {
        let (text, path) = (scale.text(name), path.child(child));
        if text.is_empty() {
            errors.push(field::required(&path, ""));
        } else if simple_json_path(text, &path, errors) && !text.starts_with(prefix) {
            let under = prefix.trim_end_matches('.');
            errors.push(field::invalid(&path, text, format!("should be a json path under {under}")));
        }
    }
    let text = scale.text("labelSelectorPath");
    let path = path.child("scale.labelSelectorPath");
    if !text.is_empty()
        && simple_json_path(text, &path, errors)
        && !text.starts_with(".spec.")
        && !text.starts_with(".status.")
    {
        errors.push(field::invalid(&path, text, "should be a json path under either .spec or .status"));
    }
}

fn column(column: &Value, path: &Path, errors: &mut ErrorList) {
    const TYPES: &[&str] = &["boolean", "date", "integer", "number", "string"];
    const FORMATS: &[&str] = &["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
    if column.text("name").is_empty() {
        errors.push(field::required(&path.child("name"), ""));
    }
    let kind = column.text("type");
    let must = format!("must be one of {}", TYPES.join(","));
    if kind.is_empty() {
        errors.push(field::required(&path.child("type"), must));
    } else if !TYPES.contains(&kind) {
        errors.push(field::invalid(&path.child("type"), kind, must));
    }
    let format = column.text("format");
    if !format.is_empty() && !FORMATS.contains(&format) {
        let must = format!("must be one of {}", FORMATS.join(","));
        errors.push(field::invalid(&path.child("format"), format, must));
    }
    let json_path = column.text("jsonPath");
    let path = path.child("JSONPath");
    if json_path.is_empty() {
        errors.push(field::required(&path, ""));
    } else {
        simple_json_path(json_path, &path, errors);
    }
}

fn selectable(fields: &[Value], schema: &Value, path: &Path, errors: &mut ErrorList) {
    let mut seen: Vec<String> = Vec::new();
    for (i, selectable) in fields.iter().enumerate() {
        let text = selectable.text("jsonPath");
        let path = path.index(i).child("jsonPath");
        if text.is_empty() {
            errors.push(field::required(&path, ""));
            continue;
        }
        let (steps, found) = match paths::find(text, schema, false) {
            Ok(found) => found,
            Err(why) => {
                errors.push(field::invalid(&path, text, format!("is an invalid path: {why}")));
                continue;
            }
        };
        if steps.first().is_some_and(|step| step == "metadata") {
            errors.push(field::invalid(&path, text, "must not point to fields in metadata"));
        }
        if !matches!(found.text("type"), "string" | "boolean" | "integer") {
            errors.push(field::invalid(
                &path,
                text,
                "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
            ));
        }
        let canonical = steps.join(".");
        if seen.contains(&canonical) {
            errors.push(field::duplicate(&path, text));
        } else {
            seen.push(canonical);
        }
    }
    if seen.len() > MAX_SELECTABLE_FIELDS {
        errors.push(field::too_many(path, seen.len(), MAX_SELECTABLE_FIELDS));
    }
}

/// Formats in the schemas of a definition that mean nothing to upstream, which warns of them.
pub fn unrecognized_formats(object: &Value) -> Vec<String> {
    let spec = hoist(&object["spec"]);
    let found = std::cell::RefCell::new(Vec::new());
    for schema in schemas(&spec) {
        schema::any(schema, &|schema| {
            let format = schema.text("format");
            if !format.is_empty() && !crate::custom::formats::is_recognized(format, schema.text("type")) {
                found.borrow_mut().push(format.to_owned());
            }
            false
        });
    }
    found.into_inner()
}

/// A schema's members by name.
fn members<'a>(schema: &'a Value, name: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    schema.get(name).and_then(Value::as_object).into_iter().flat_map(Map::iter)
}
