//! Strict reading: which fields of a tree the type does not know, and which values are of a wrong type.
//!
//! Upstream finds both while decoding JSON into a Go struct. An unknown field is a warning, an error or
//! nothing (`fieldValidation`); a wrong type is always an error, and its text is `encoding/json`'s.
//! Names are compared by case: Kubernetes' decoder is strict about it.

use std::fmt::Write as _;

use apimachinery::duration;
use apimachinery::quantity::Quantity;
use apimachinery::schema::{ObjectType, ProtoEntry, Type, TypeRef};
use apimachinery::time;
use serde_json::Value;

use crate::go_base64;

/// Upstream stops collecting strict errors here.
pub const MAX_UNKNOWN: usize = 100;

/// What [`check_fields`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Paths of unknown fields, `spec.containers[0].foo`, in the tree's order; at most [`MAX_UNKNOWN`].
    pub unknown: Vec<String>,
    /// The first value of a wrong type, in upstream's words; the object cannot be read.
    pub type_error: Option<String>,
}

impl Findings {
    /// The strict errors in upstream's words: `unknown field "spec.foo"`.
    pub fn strict_errors(&self) -> Vec<String> {
        self.unknown.iter().map(|path| format!("unknown field \"{path}\"")).collect()
    }
}

/// Compares a tree with its type.
pub fn check_fields(ty: TypeRef<'_>, value: &Value) -> Findings {
    let mut checker = Checker { path: String::new(), fields: Vec::new(), owner: None, findings: Findings::default() };
    if let Err(error) = checker.value(ty, value) {
        // What a type's own reader says ends the reading and is what the client gets.
        checker.findings.type_error = Some(error);
    }
    checker.findings
}

/// What upstream's converter between trees and structs, through which strategic patches go, says of the first value
/// of a wrong type.
pub fn converter_error(ty: TypeRef<'_>, value: &Value) -> Option<String> {
    let (kind, shown) = match value {
        Value::Null => return None,
        Value::Bool(_) => ("bool", "bool"),
        Value::Number(number) if number.is_f64() => ("float64", "float64"),
        Value::Number(_) => ("int64", "int64"),
        Value::String(_) => ("string", "string"),
        Value::Array(_) => ("slice", "[]interface {}"),
        Value::Object(_) => ("map", "map[string]interface {}"),
    };
    match (ty.ty(), value) {
        (Type::Object(_), Value::Object(map)) => map
            .iter()
            .filter_map(|(name, value)| Some((ty.field(name)?.ty, value)))
            .find_map(|(ty, value)| converter_error(ty, value)),
        (Type::Object(_), _) => Some(format!("cannot restore struct from: {kind}")),
        (Type::Map(inner), Value::Object(map)) => {
            map.values().find_map(|value| converter_error(ty.at(inner.value), value))
        }
        (Type::Map(_), _) => Some(format!("cannot restore map from {kind}")),
        (Type::List(list), Value::Array(items)) => {
            items.iter().find_map(|value| converter_error(ty.at(list.item), value))
        }
        (Type::Bytes, Value::String(text)) => go_base64::decode(text)
            .err()
            .map(|at| format!("error decoding from json: illegal base64 data at input byte {at}")),
        (Type::List(_) | Type::Bytes, _) => Some(format!("cannot restore slice from {kind}")),
        (Type::String(_), Value::String(_)) | (Type::Bool, Value::Bool(_)) | (Type::Double, Value::Number(_)) => None,
        // Go converts integers to strings, and floats to integers, just not here.
        (Type::String(_), Value::Number(number)) if !number.is_f64() => {
            Some(format!("cannot convert {shown} to {}", go_type(ty)))
        }
        (Type::Int32 | Type::Int64, Value::Number(number)) => {
            let whole = number.as_f64().is_none_or(|float| float.fract() == 0.0);
            if whole {
                check_fields(ty, value).type_error
            } else {
                Some(format!("cannot convert {shown} to {}", go_type(ty)))
            }
        }
        (Type::String(_), _) => Some("unrecognized type: string".to_owned()),
        (Type::Bool | Type::Int32 | Type::Int64 | Type::Double, _) => {
            Some(format!("unrecognized type: {}", go_type(ty)))
        }
        _ => check_fields(ty, value).type_error,
    }
}

struct Checker<'a> {
    /// With indexes and map keys, for unknown fields.
    path: String,
    /// Field names only, as Go's error context has them, with the names of inlined structs.
    fields: Vec<&'a str>,
    /// The innermost struct.
    owner: Option<&'a ObjectType>,
    findings: Findings,
}

impl<'a> Checker<'a> {
    fn value(&mut self, ty: TypeRef<'a>, value: &'a Value) -> Result<(), String> {
        if value.is_null() {
            return Ok(());
        }
        match (ty.ty(), value) {
            (Type::Object(object), Value::Object(map)) => {
                let outer = self.owner.replace(object);
                for (name, value) in map {
                    let mark = self.push(name);
                    match ty.field(name) {
                        Some(field) => {
                            let depth = self.fields.len();
                            self.push_inlined(ty, name);
                            self.fields.push(name);
                            self.value(field.ty, value)?;
                            self.fields.truncate(depth);
                        }
                        None if self.findings.unknown.len() < MAX_UNKNOWN && !object.preserve_unknown => {
                            self.findings.unknown.push(self.path.clone());
                        }
                        None => {}
                    }
                    self.path.truncate(mark);
                }
                self.owner = outer;
                Ok(())
            }
            (Type::List(list), Value::Array(items)) => {
                let item = ty.at(list.item);
                for (index, value) in items.iter().enumerate() {
                    let mark = self.path.len();
                    write!(self.path, "[{index}]").expect("writing to a string does not fail");
                    self.value(item, value)?;
                    self.path.truncate(mark);
                }
                Ok(())
            }
            (Type::Map(inner), Value::Object(entries)) => {
                for (key, value) in entries {
                    let mark = self.push(key);
                    self.value(ty.at(inner.value), value)?;
                    self.path.truncate(mark);
                }
                Ok(())
            }
            (Type::SchemaOrBool(schema) | Type::SchemaOrArray(schema) | Type::SchemaOrStringArray(schema), value) => {
                // These read their content by themselves, and not strictly.
                let known = self.findings.unknown.len();
                match value {
                    Value::Object(_) => {
                        self.value(ty.at(*schema), value)?;
                        self.findings.unknown.truncate(known);
                        Ok(())
                    }
                    Value::Array(items) if matches!(ty.ty(), Type::SchemaOrArray(_)) => {
                        items.iter().try_for_each(|item| self.value(ty.at(*schema), item))?;
                        self.findings.unknown.truncate(known);
                        Ok(())
                    }
                    Value::Bool(_) if !matches!(ty.ty(), Type::SchemaOrBool(_)) => {
                        Err(self.mismatch("bool", &go_type(ty)))
                    }
                    Value::Number(_) => Err("boolean or JSON schema expected".to_owned()),
                    _ => Ok(()),
                }
            }
            (_, value) => self.scalar(ty, value),
        }
    }

    /// Names of the inlined structs through which Go reaches the field.
    fn push_inlined(&mut self, ty: TypeRef<'a>, name: &str) {
        let mut at = ty;
        while let Some(object) = at.object() {
            let inlined = object.proto.iter().find_map(|entry| match entry {
                ProtoEntry::Embed { message, .. } => Some(at.at(*message)).filter(|inner| inner.field(name).is_some()),
                ProtoEntry::Field { .. } => None,
            });
            let Some(inner) = inlined else { return };
            self.fields.push(inner.object().map_or("", |object| short(&object.name)));
            at = inner;
        }
    }

    fn scalar(&mut self, ty: TypeRef<'_>, value: &Value) -> Result<(), String> {
        match (ty.ty(), value) {
            (Type::String(_), Value::String(_)) | (Type::Bool, Value::Bool(_)) | (Type::Double, Value::Number(_)) => {
                Ok(())
            }
            (Type::Int32, Value::Number(number)) => match number.as_i64() {
                Some(integer) if i32::try_from(integer).is_ok() => Ok(()),
                _ => self.soft(&format!("number {number}"), "int32"),
            },
            (Type::Int64, Value::Number(number)) => match number.as_i64() {
                Some(_) => Ok(()),
                None => self.soft(&format!("number {number}"), "int64"),
            },
            // Go's own reader, so the first such error stays and the reading goes on.
            (Type::Bytes, Value::String(text)) => {
                if let Err(at) = go_base64::decode(text) {
                    let error = format!("illegal base64 data at input byte {at}");
                    self.findings.type_error.get_or_insert(error);
                }
                Ok(())
            }
            (Type::Time, Value::String(text)) => time::canonical(text).map(drop).map_err(|error| error.to_string()),
            (Type::MicroTime, Value::String(text)) => {
                time::canonical_micro(text).map(drop).map_err(|error| error.to_string())
            }
            (Type::Duration, Value::String(text)) => duration::parse(text).map(drop).map_err(|error| error.to_string()),
            (Type::Quantity, Value::String(text)) => {
                Quantity::parse(text.trim()).map(drop).map_err(|error| error.to_string())
            }
            (Type::Quantity, Value::Number(number)) => {
                Quantity::parse(&number.to_string()).map(drop).map_err(|error| error.to_string())
            }
            // The quantity's own parser gets the JSON text and does not like it.
            (Type::Quantity, _) => Err(QUANTITY_PATTERN.to_owned()),
            (Type::IntOrString, Value::String(_)) => Ok(()),
            (Type::IntOrString, Value::Number(number)) => match number.as_i64() {
                Some(integer) if i32::try_from(integer).is_ok() => Ok(()),
                _ => Err(self.mismatch(&format!("number {number}"), "int32")),
            },
            (Type::IntOrString, other) => Err(self.mismatch(json_name(other), "int32")),
            (Type::Time | Type::MicroTime | Type::Duration, other) => Err(self.mismatch(json_name(other), "string")),
            (Type::RawExtension | Type::Json | Type::FieldsV1 | Type::Unknown, _) => Ok(()),
            (_, other) => self.soft(json_name(other), &go_type(ty)),
        }
    }

    /// Keeps the first mismatch and reads on, as Go does.
    fn soft(&mut self, value: &str, wanted: &str) -> Result<(), String> {
        if self.findings.type_error.is_none() {
            self.findings.type_error = Some(self.mismatch(value, wanted));
        }
        Ok(())
    }

    /// `encoding/json`'s `UnmarshalTypeError`.
    fn mismatch(&self, value: &str, wanted: &str) -> String {
        match self.owner {
            Some(owner) if !self.fields.is_empty() => format!(
                "json: cannot unmarshal {value} into Go struct field {}.{} of type {wanted}",
                short(&owner.name),
                self.fields.join("."),
            ),
            _ => format!("json: cannot unmarshal {value} into Go value of type {wanted}"),
        }
    }

    /// Appends a field name or key and returns where the path ended before.
    fn push(&mut self, name: &str) -> usize {
        let mark = self.path.len();
        if mark > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        mark
    }
}

/// `core/v1.Pod` → `Pod`.
fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or_default()
}

const QUANTITY_PATTERN: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

fn json_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// How Go prints the type.
pub(crate) fn go_type(ty: TypeRef<'_>) -> String {
    match ty.ty() {
        Type::Object(object) => object.name.rsplit('/').next().unwrap_or_default().to_owned(),
        Type::List(list) => format!("[]{}", go_type(ty.at(list.item))),
        Type::Map(map) => format!("map[string]{}", go_type(ty.at(map.value))),
        Type::String(string) if !string.go_name.is_empty() => string.go_name.to_string(),
        Type::String(_) => "string".to_owned(),
        Type::Bytes => "[]uint8".to_owned(),
        Type::Int32 => "int32".to_owned(),
        Type::Int64 => "int64".to_owned(),
        Type::Double => "float64".to_owned(),
        Type::Bool => "bool".to_owned(),
        Type::Time => "v1.Time".to_owned(),
        Type::MicroTime => "v1.MicroTime".to_owned(),
        Type::Duration => "v1.Duration".to_owned(),
        Type::Quantity => "resource.Quantity".to_owned(),
        Type::IntOrString => "intstr.IntOrString".to_owned(),
        Type::RawExtension => "runtime.RawExtension".to_owned(),
        Type::FieldsV1 => "v1.FieldsV1".to_owned(),
        Type::SchemaOrBool(_) => "v1.JSONSchemaPropsOrBool".to_owned(),
        Type::SchemaOrArray(_) => "v1.JSONSchemaPropsOrArray".to_owned(),
        Type::SchemaOrStringArray(_) => "v1.JSONSchemaPropsOrStringArray".to_owned(),
        Type::Json | Type::Unknown => "interface {}".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::table;

    fn check(group: &str, kind: &str, value: Value) -> Findings {
        check_fields(table().find_kind(group, "v1", kind).expect("built in"), &value)
    }

    #[test]
    fn unknown_fields_have_paths() {
        let found = check(
            "",
            "Pod",
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"x": "y"}, "Name": "a"}, "foo": 1,
                   "spec": {"containers": [{"name": "a"}, {"name": "b", "imag": "x", "ports": [{"port": 1}]}], "nodeSelector": {"a": "b"}}}),
        );
        assert_eq!(found.type_error, None);
        assert_eq!(
            found.unknown,
            ["foo", "metadata.Name", "spec.containers[1].imag", "spec.containers[1].ports[0].port"]
        );
        assert_eq!(found.strict_errors()[0], "unknown field \"foo\"");
    }

    #[test]
    fn wrong_types_in_the_words_of_the_converter() {
        for (value, error) in [
            (json!({"spec": "x"}), "cannot restore struct from: string"),
            (json!({"spec": {"nodeSelector": []}}), "cannot restore map from slice"),
            (json!({"spec": {"containers": 5}}), "cannot restore slice from int64"),
            (json!({"metadata": {"uid": ["x"]}}), "unrecognized type: string"),
            (json!({"metadata": {"name": 5}}), "cannot convert int64 to string"),
            (json!({"spec": {"restartPolicy": 5}}), "cannot convert int64 to v1.RestartPolicy"),
            (json!({"spec": {"priority": "x"}}), "unrecognized type: int32"),
            (json!({"spec": {"priority": 1.5}}), "cannot convert float64 to int32"),
            (json!({"spec": {"hostNetwork": 1}}), "unrecognized type: bool"),
        ] {
            let pod = table().find_kind("", "v1", "Pod").expect("built in");
            assert_eq!(converter_error(pod, &value).as_deref(), Some(error), "{value}");
        }
        let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "a"}], "priority": 1}});
        assert_eq!(converter_error(table().find_kind("", "v1", "Pod").expect("built in"), &pod), None);
    }

    #[test]
    fn wrong_types_in_the_words_of_go() {
        for (group, kind, value, error) in [
            (
                "apps",
                "Deployment",
                json!({"spec": {"replicas": "3"}}),
                "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                "apps",
                "Deployment",
                json!({"spec": {"replicas": 1.5}}),
                "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                "",
                "ConfigMap",
                json!({"data": {"a": 1}}),
                "json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
            ),
            (
                "",
                "Pod",
                json!({"spec": {"containers": {"name": "a"}}}),
                "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
            ),
            (
                "",
                "Pod",
                json!({"spec": {"containers": [{"image": 5}]}}),
                "json: cannot unmarshal number into Go struct field Container.spec.containers.image of type string",
            ),
            (
                "",
                "Pod",
                json!({"metadata": []}),
                "json: cannot unmarshal array into Go struct field Pod.metadata of type v1.ObjectMeta",
            ),
            ("", "Pod", json!([]), "json: cannot unmarshal array into Go value of type v1.Pod"),
            ("", "Secret", json!({"data": {"a": "!"}}), "illegal base64 data at input byte 0"),
            ("", "Secret", json!({"data": {"a": "YWI"}}), "illegal base64 data at input byte 0"),
            ("", "Secret", json!({"data": {"a": "YWJj="}}), "illegal base64 data at input byte 4"),
            ("", "Secret", json!({"data": {"a": "YWJjYW"}}), "illegal base64 data at input byte 4"),
            ("", "Secret", json!({"data": {"a": "YWJ!"}}), "illegal base64 data at input byte 3"),
            (
                "",
                "Secret",
                json!({"data": {"a": 5}}),
                "json: cannot unmarshal number into Go struct field Secret.data of type []uint8",
            ),
            (
                "",
                "Pod",
                json!({"metadata": {"annotations": {"a": true}, "creationTimestamp": "x"}}),
                "parsing time \"x\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"x\" as \"2006\"",
            ),
            (
                "",
                "Pod",
                json!({"metadata": {"creationTimestamp": 5}}),
                "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.creationTimestamp of type string",
            ),
            ("", "Pod", json!({"spec": {"containers": [{"resources": {"limits": {"cpu": true}}}]}}), QUANTITY_PATTERN),
            (
                "",
                "Pod",
                json!({"spec": {"containers": [{"livenessProbe": {"httpGet": {"port": true}}}]}}),
                "json: cannot unmarshal bool into Go struct field HTTPGetAction.spec.containers.livenessProbe.ProbeHandler.httpGet.port of type int32",
            ),
            (
                "",
                "Pod",
                json!({"spec": {"restartPolicy": 5}}),
                "json: cannot unmarshal number into Go struct field PodSpec.spec.restartPolicy of type v1.RestartPolicy",
            ),
            (
                "",
                "Pod",
                json!({"spec": {"containers": [5]}}),
                "json: cannot unmarshal number into Go struct field PodSpec.spec.containers of type v1.Container",
            ),
            (
                "",
                "Pod",
                json!({"spec": {"volumes": [{"emptyDir": 5}]}}),
                "json: cannot unmarshal number into Go struct field Volume.spec.volumes.VolumeSource.emptyDir of type v1.EmptyDirVolumeSource",
            ),
            (
                "",
                "Pod",
                json!({"spec": {"volumes": [{"name": "a", "configMap": {"name": 5}}]}}),
                "json: cannot unmarshal number into Go struct field ConfigMapVolumeSource.spec.volumes.VolumeSource.configMap.LocalObjectReference.name of type string",
            ),
            (
                "",
                "Pod",
                json!({"spec": {"nodeSelector": []}}),
                "json: cannot unmarshal array into Go struct field PodSpec.spec.nodeSelector of type map[string]string",
            ),
        ] {
            assert_eq!(check(group, kind, value).type_error.as_deref(), Some(error));
        }
    }
}
