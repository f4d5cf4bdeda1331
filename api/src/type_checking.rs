//! The expressions of a ValidatingAdmissionPolicy against the types that it is about: warnings, never errors.
//!
//! Upstream: `staging/src/k8s.io/apiserver/pkg/admission/plugin/policy/validating/typechecking.go`. Types are read from
//! OpenAPI v3 documents, so those of CustomResourceDefinitions and extension servers are like any others.

use std::sync::Arc;

use apimachinery::gvk::GroupVersionKind;
use apimachinery::object::ObjectExt as _;
use cel::{DeclType, ListKind, Schema};
use serde_json::Value;

use crate::expressions::{self, Variables};

/// No more types are checked for one rule.
pub const MOST_TYPES: usize = 10;

/// A type that a policy is about; without a declaration nothing is known of it.
#[derive(Clone, Debug)]
pub struct Checked {
    pub kind: GroupVersionKind,
    pub decl: Option<Arc<DeclType>>,
}

/// A warning: where the expression is, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    pub field_ref: String,
    pub warning: String,
}

/// A schema of an OpenAPI document, with references followed.
#[derive(Debug, Default)]
struct Node {
    kind: String,
    format: String,
    int_or_string: bool,
    embedded: bool,
    nullable: bool,
    items: Option<Box<Node>>,
    additional: Option<Box<Node>>,
    /// Name, schema, whether it is required, whether it has a default.
    properties: Vec<(String, Node, bool, bool)>,
}

impl Schema for Node {
    fn type_name(&self) -> &str {
        &self.kind
    }

    fn format(&self) -> &str {
        &self.format
    }

    fn int_or_string(&self) -> bool {
        self.int_or_string
    }

    fn embedded_resource(&self) -> bool {
        self.embedded
    }

    fn nullable(&self) -> bool {
        self.nullable
    }

    fn items(&self) -> Option<&dyn Schema> {
        self.items.as_deref().map(|node| node as &dyn Schema)
    }

    fn additional_properties(&self) -> Option<&dyn Schema> {
        self.additional.as_deref().map(|node| node as &dyn Schema)
    }

    fn properties(&self, each: &mut dyn FnMut(&str, &dyn Schema, bool, bool)) {
        for (name, node, required, defaulted) in &self.properties {
            each(name, node, *required, *defaulted);
        }
    }

    fn list_kind(&self) -> ListKind {
        ListKind::Atomic
    }
}

/// Reads a schema; a type within itself is an object of which nothing is known.
fn node<'d>(document: &'d Value, schema: &'d Value, within: &mut Vec<&'d str>) -> Node {
    let reference = schema.str_at(&["$ref"]).or_else(|| match schema.list_at(&["allOf"]) {
        [only] => only.str_at(&["$ref"]),
        _ => None,
    });
    if let Some(name) = reference.and_then(|reference| reference.rsplit('/').next()) {
        if within.contains(&name) {
            return Node { kind: "object".to_string(), ..Node::default() };
        }
        let Some(target) = document.at(&["components", "schemas", name]) else { return Node::default() };
        within.push(name);
        let mut found = node(document, target, within);
        within.pop();
        found.nullable |= schema.bool_at(&["nullable"]) == Some(true);
        return found;
    }
    let text = |field: &str| schema.str_at(&[field]).unwrap_or_default().to_string();
    let flag = |field: &str| schema.bool_at(&[field]) == Some(true);
    let required = schema.list_at(&["required"]);
    let mut child = |schema: &'d Value| Box::new(node(document, schema, within));
    let items = schema.get("items").filter(|items| items.is_object()).map(&mut child);
    let additional = schema.get("additionalProperties").filter(|values| values.is_object()).map(&mut child);
    let properties = schema
        .map_at(&["properties"])
        .into_iter()
        .flatten()
        .map(|(name, property)| {
            let is_required = required.iter().any(|required| required == name);
            (name.clone(), *child(property), is_required, property.get("default").is_some())
        })
        .collect();
    Node {
        kind: text("type"),
        format: text("format"),
        int_or_string: flag("x-kubernetes-int-or-string") || schema.str_at(&["format"]) == Some("int-or-string"),
        embedded: flag("x-kubernetes-embedded-resource"),
        nullable: flag("nullable"),
        items,
        additional,
        properties,
    }
}

/// The declaration of a kind in an OpenAPI v3 document of its group and version; `None` if the document does not have
/// the kind, `Some(None)` if there is nothing to say about it.
pub fn declare(document: &Value, kind: &GroupVersionKind) -> Option<Option<Arc<DeclType>>> {
    let is = |schema: &Value| {
        schema.list_at(&["x-kubernetes-group-version-kind"]).iter().any(|found| {
            let text = |field: &str| found.str_at(&[field]).unwrap_or_default();
            text("group") == &*kind.group && text("version") == &*kind.version && text("kind") == &*kind.kind
        })
    };
    let (name, schema) = document.map_at(&["components", "schemas"])?.iter().find(|(_, schema)| is(schema))?;
    let node = node(document, schema, &mut vec![name.as_str()]);
    Some(DeclType::from_schema(&node, true, &kind.kind))
}

/// Checks the expressions of a policy.
pub fn check(policy: &Value, types: &[Checked], params: Option<Option<Arc<DeclType>>>) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for (index, validation) in policy.list_at(&["spec", "validations"]).iter().enumerate() {
        for field in ["expression", "messageExpression"] {
            let text = validation.str_at(&[field]).unwrap_or_default();
            if text.is_empty() && field == "messageExpression" {
                continue;
            }
            let wrong = |checked: &Checked| {
                let issues = issues(policy, checked, params.clone(), text)?;
                let GroupVersionKind { group, version, kind } = &checked.kind;
                Some(format!("{group}/{version}, Kind={kind}: {issues}\n"))
            };
            let wrong: Vec<String> = types.iter().filter_map(wrong).collect();
            if !wrong.is_empty() {
                let field_ref = format!("spec.validations[{index}].{field}");
                warnings.push(Warning { field_ref, warning: wrong.join("\n") });
            }
        }
    }
    warnings
}

/// What is wrong with an expression about objects of a type.
fn issues(policy: &Value, checked: &Checked, params: Option<Option<Arc<DeclType>>>, text: &str) -> Option<String> {
    let env = expressions::typed_environment(checked.decl.as_deref(), params.as_ref().map(Option::as_deref));
    let declared = policy.list_at(&["spec", "variables"]);
    let mut variables = Variables::of(declared.len());
    for variable in declared {
        let expression = variable.str_at(&["expression"]).unwrap_or_default();
        let program = variables.within(&env).compile(expression).ok();
        variables.add(variable.str_at(&["name"]).unwrap_or_default(), program.as_ref().map(cel::Program::output_type));
    }
    match variables.within(&env).compile(text) {
        Err(cel::CompileError::Issues(issues)) => Some(issues.to_string()),
        // Nothing is evaluated here, so what cannot be planned does not matter.
        Ok(_) | Err(cel::CompileError::Program(..)) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document() -> Value {
        json!({"components": {"schemas": {
            "apps.v1.Deployment": {
                "type": "object",
                "properties": {
                    "apiVersion": {"type": "string"},
                    "kind": {"type": "string"},
                    "metadata": {"default": {}, "allOf": [{"$ref": "#/components/schemas/meta"}]},
                    "spec": {"default": {}, "allOf": [{"$ref": "#/components/schemas/spec"}]},
                },
                "x-kubernetes-group-version-kind": [{"group": "apps", "version": "v1", "kind": "Deployment"}],
            },
            "meta": {"type": "object", "properties": {
                "name": {"type": "string"},
                "generateName": {"type": "string"},
                "labels": {"type": "object", "additionalProperties": {"type": "string", "default": ""}},
            }},
            "spec": {"type": "object", "required": ["port"], "properties": {
                "replicas": {"type": "integer", "format": "int32"},
                "port": {"x-kubernetes-int-or-string": true},
                "self": {"$ref": "#/components/schemas/spec"},
                "names": {"type": "array", "items": {"type": "string"}},
            }},
        }}})
    }

    fn warn(validations: Value, variables: Value) -> Vec<Warning> {
        let kind = GroupVersionKind::new("apps", "v1", "Deployment");
        let decl = declare(&document(), &kind).expect("the document has it");
        assert!(decl.is_some());
        let policy = json!({"spec": {"validations": validations, "variables": variables}});
        check(&policy, &[Checked { kind, decl }], None)
    }

    #[test]
    fn fields_and_types_are_known() {
        let found = warn(
            json!([
                {"expression": "object.spec.replicas > 1 && object.spec.names.all(n, n != '')"},
                {"expression": "object.spec.replicsa > 1", "messageExpression": "'have ' + object.spec.replicas"},
                {"expression": "object.metadata.labels['a'] == 1"},
                {"expression": "variables.count > '1'"},
                {"expression": "object.spec.self.anything == 1"},
                {"expression": "object.spec.port == 80 || object.spec.port == 'http'"},
            ]),
            json!([{"name": "count", "expression": "object.spec.replicas + 1"}]),
        );
        let refs: Vec<&str> = found.iter().map(|warning| warning.field_ref.as_str()).collect();
        assert_eq!(
            refs,
            [
                "spec.validations[1].expression",
                "spec.validations[1].messageExpression",
                "spec.validations[2].expression",
                "spec.validations[3].expression",
                "spec.validations[4].expression",
            ]
        );
        assert_eq!(
            found[0].warning,
            "apps/v1, Kind=Deployment: ERROR: <input>:1:12: undefined field 'replicsa'\n | object.spec.replicsa > 1\n | ...........^\n"
        );
        assert!(found[3].warning.contains("found no matching overload for '_>_' applied to '(int, string)'"));
        assert!(found[4].warning.contains("undefined field 'anything'"), "a type within itself is not followed");
    }
}
