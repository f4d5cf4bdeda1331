//! RuntimeClass.

use std::collections::BTreeSet;

use apimachinery::field::{self, BadValue, ErrorList, Path};
use apimachinery::gotext::quote;
use serde_json::{Value, json};

use super::checks::{dns1123_label, immutable, labels, name_is_subdomain};
use super::object_meta;
use super::pod::resources::container_resources;
use super::pod::scheduling::tolerations;
use crate::read::Read;

pub(super) fn create(class: &Value, errors: &mut ErrorList) {
    object_meta::generic(class, false, name_is_subdomain, errors);
    let handler = class.text("handler");
    if handler.is_empty() {
        errors.push(field::required(&Path::new("handler"), ""));
    } else {
        dns1123_label(handler, &Path::new("handler"), errors);
    }
    if let Some(fixed) = class["overhead"].set("podFixed") {
        container_resources(&json!({ "limits": fixed }), &BTreeSet::new(), &Path::new("overhead"), errors);
    }
    let Some(scheduling) = class.set("scheduling") else { return };
    let path = Path::new("scheduling");
    labels(&scheduling["nodeSelector"], &path.child("nodeSelector"), errors);
    let (list, path) = (scheduling.list("tolerations"), path.child("tolerations"));
    tolerations(list, &path, errors);
    let mut seen = BTreeSet::new();
    for (i, toleration) in list.iter().enumerate() {
        if !seen.insert(["key", "operator", "value", "effect"].map(|f| toleration.text(f))) {
            let [key, operator, value, effect] =
                ["key", "operator", "value", "effect"].map(|f| quote(toleration.text(f)));
            let seconds = &toleration["tolerationSeconds"];
            let shown = format!(
                "{{\"Key\":{key},\"Operator\":{operator},\"Value\":{value},\"Effect\":{effect},\"TolerationSeconds\":{seconds}}}"
            );
            errors.push(field::duplicate(&path.index(i), BadValue::Raw(shown)));
        }
    }
}

pub(super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    create(new, errors);
    object_meta::generic_update(new, old, errors);
    immutable(&new["handler"], &old["handler"], &Path::new("handler"), errors);
}
