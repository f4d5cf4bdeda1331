//! Strict reading: which fields of a tree the type does not know, and which values are of a wrong type.
//!
//! Upstream finds both while decoding JSON into a Go struct. An unknown field is a warning, an error or
//! nothing (`fieldValidation`); a wrong type is always an error, and its text is `encoding/json`'s.
//! Names are compared by case: Kubernetes' decoder is strict about it. JSON is checked while it is read
//! ([`apimachinery::json::decode`]); this is for trees that came another way.

use std::fmt::Write as _;

use apimachinery::gotext;
use apimachinery::json::{self, Token};
use apimachinery::schema::{ObjectType, Type, TypeRef};
use serde_json::Value;

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
                            json::inlined(ty, name, &mut self.fields);
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
            (
                Type::SchemaOrBool(schema) | Type::SchemaOrArray(schema) | Type::SchemaOrStringArray(schema),
                Value::Object(_),
            ) => self.by_itself(ty.at(*schema), std::slice::from_ref(value)),
            (Type::SchemaOrArray(schema), Value::Array(items)) => self.by_itself(ty.at(*schema), items),
            (_, value) => self.fit(ty, value),
        }
    }

    /// These read their content by themselves, and not strictly.
    fn by_itself(&mut self, ty: TypeRef<'a>, values: &'a [Value]) -> Result<(), String> {
        let known = self.findings.unknown.len();
        values.iter().try_for_each(|value| self.value(ty, value))?;
        self.findings.unknown.truncate(known);
        Ok(())
    }

    /// Holds a value against its type. The first that does not fit is kept and the reading goes on, as Go does, unless
    /// the type reads its value by itself.
    fn fit(&mut self, ty: TypeRef<'_>, value: &Value) -> Result<(), String> {
        let digits;
        let token = match value {
            Value::Null => return Ok(()),
            Value::Bool(_) => Token::Bool,
            Value::Number(_) => {
                digits = gotext::json(value);
                Token::Number(&digits)
            }
            Value::String(text) => Token::String(text),
            Value::Array(_) => Token::Array,
            Value::Object(_) => Token::Object,
        };
        let Some(misfit) = json::misfit(ty, token) else { return Ok(()) };
        let owner = self.owner.filter(|_| !self.fields.is_empty()).map_or("", |owner| json::short(&owner.name));
        let text = misfit.cause.at(owner, &self.fields.join("."));
        if misfit.ends {
            return Err(text);
        }
        self.findings.type_error.get_or_insert(text);
        Ok(())
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
            (
                "",
                "Pod",
                json!({"spec": {"containers": [{"resources": {"limits": {"cpu": true}}}]}}),
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            ),
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
            let ty = table().find_kind(group, "v1", kind).expect("built in");
            let read = json::decode(value.to_string().as_bytes(), Some(ty)).expect("JSON");
            assert_eq!(read.type_error.as_deref(), Some(error));
            assert_eq!(check(group, kind, value).type_error.as_deref(), Some(error));
        }
    }
}
