//! `x-kubernetes-validations`: CEL rules of a schema, compiled once and evaluated under a budget
//! (upstream's `pkg/apiserver/schema/cel`).

use std::sync::Arc;

use apimachinery::field::{self, BadValue, ErrorList, FieldError, Path};
use cel::{Activation, CompileError, DeclKind, DeclType, Env, Program, Type};
use serde_json::Value;

use super::{Correlated, Kind, ListType, Node, Rule, paths};

/// What all rules of one object may cost together.
pub const BUDGET: i64 = 10_000_000;

/// The longest message that an expression may make.
const MAX_MESSAGE: usize = 5 * 1024;

impl cel::Schema for Node {
    fn type_name(&self) -> &str {
        self.kind.as_str()
    }

    fn format(&self) -> &str {
        self.values.as_deref().map_or("", |values| &values.format)
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

    fn items(&self) -> Option<&dyn cel::Schema> {
        self.items.as_deref().map(|node| node as &dyn cel::Schema)
    }

    fn additional_properties(&self) -> Option<&dyn cel::Schema> {
        self.additional().map(|node| node as &dyn cel::Schema)
    }

    fn properties(&self, each: &mut dyn FnMut(&str, &dyn cel::Schema, bool, bool)) {
        let required = self.values.as_deref().map_or(&[][..], |values| &*values.required);
        for (name, node) in &self.properties {
            each(name, node, required.contains(name), node.default.is_some());
        }
    }

    fn max_length(&self) -> Option<u64> {
        self.values.as_deref()?.max_length.map(not_negative)
    }

    fn max_items(&self) -> Option<u64> {
        self.values.as_deref()?.max_items.map(not_negative)
    }

    fn max_properties(&self) -> Option<u64> {
        self.values.as_deref()?.max_properties.map(not_negative)
    }

    fn longest_enum(&self) -> Option<u64> {
        let values = self.values.as_deref().filter(|values| !values.choices.is_empty())?;
        let length = |value: &Value| value.as_str().map_or(0, |text| text.len() as u64);
        values.choices.iter().map(length).max()
    }

    fn list_kind(&self) -> cel::ListKind {
        match self.list_type {
            ListType::Set => cel::ListKind::Set,
            ListType::Map => cel::ListKind::Map(self.list_map_keys.iter().map(ToString::to_string).collect()),
            ListType::Unset | ListType::Atomic => cel::ListKind::Atomic,
        }
    }
}

fn not_negative(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// How expressions see a schema; `None` if they cannot.
pub fn declare(node: &Node, root: bool) -> Option<Arc<DeclType>> {
    DeclType::from_schema(node, root, "selfType")
}

/// How expressions see the value of a property of what they see.
pub fn of_property(decl: &DeclType, name: &str) -> Option<Arc<DeclType>> {
    let DeclKind::Object(object) = &decl.kind else { return None };
    object.fields.get(cel::escape(name)?.as_ref()).map(|field| field.decl.clone())
}

/// How expressions see what a list or a map holds.
pub fn of_element(decl: &DeclType) -> Option<Arc<DeclType>> {
    match &decl.kind {
        DeclKind::List(of, _) | DeclKind::Map(of) => Some(of.clone()),
        _ => None,
    }
}

/// What compiling a rule came to.
#[derive(Debug, Default)]
pub struct Compiled {
    pub program: Option<Program>,
    /// Why there is none; a rule of nothing but spaces has neither.
    pub error: Option<String>,
    pub message: Option<Program>,
    pub message_error: Option<String>,
    pub uses_old_self: bool,
    /// `fieldPath` in the form of errors.
    field_path: String,
}

fn text_of(error: &CompileError, issues: &str, program: &str) -> String {
    match error {
        CompileError::Issues(_) => format!("{issues}: {error}"),
        CompileError::Program(..) => format!("{program}: {error}"),
    }
}

/// Compiles the rules of one schema.
pub fn compile(rules: &[Rule], node: &Node, decl: &Arc<DeclType>) -> Vec<Compiled> {
    let plain = Env::new().declared("self", decl).sizes(decl.clone());
    let optional = plain.clone().variable("oldSelf", Type::optional(decl.cel_type()));
    let plain = plain.declared("oldSelf", decl);
    rules
        .iter()
        .map(|rule| compile_one(rule, node, if rule.optional_old_self == Some(true) { &optional } else { &plain }))
        .collect()
}

fn compile_one(rule: &Rule, node: &Node, env: &Env) -> Compiled {
    let mut out = Compiled::default();
    if rule.rule.trim().is_empty() {
        return out;
    }
    match env.compile(&rule.rule) {
        Err(error) if error.output_type().is_none_or(|found| *found == Type::Bool) => {
            out.error = Some(text_of(&error, "compilation failed", "program instantiation failed"));
            return out;
        }
        Ok(program) if *program.output_type() == Type::Bool => {
            out.uses_old_self = program.mentions("oldSelf");
            out.program = Some(program);
        }
        // The type is looked at before the plan.
        Ok(_) | Err(_) => {
            out.error = Some("cel expression must evaluate to a bool".to_owned());
            return out;
        }
    }
    if !rule.message_expression.is_empty() {
        match env.compile(&rule.message_expression) {
            Err(error) if error.output_type().is_none_or(|found| *found == Type::String) => {
                let text =
                    text_of(&error, "messageExpression compilation failed", "messageExpression instantiation failed");
                out.message_error = Some(text);
                return out;
            }
            Ok(program) if *program.output_type() == Type::String => out.message = Some(program),
            Ok(_) | Err(_) => {
                out.message_error = Some("messageExpression must evaluate to a string".to_owned());
                return out;
            }
        }
    }
    if !rule.field_path.is_empty() {
        out.field_path = normal(&rule.field_path, node).unwrap_or_default();
    }
    out
}

/// A `fieldPath` as paths of errors are written.
fn normal(path: &str, node: &Node) -> Option<String> {
    let mut at = node;
    let mut out: Option<Path> = None;
    for step in paths::steps(path, true).ok()? {
        let next = if at.properties.is_empty() { at.additional()? } else { at.property(&step)? };
        out = Some(match (out, at.properties.is_empty()) {
            (None, false) => Path::new(step),
            (None, true) => Path::nil().key(step),
            (Some(path), false) => path.child(step),
            (Some(path), true) => path.key(step),
        });
        at = next;
    }
    out.map(|path| path.to_string())
}

/// The rules of a schema and of everything below it.
#[derive(Debug)]
pub struct Programs {
    rules: Box<[Rule]>,
    compiled: Vec<Compiled>,
    /// Rules are there but expressions cannot see the value.
    uncompilable: bool,
    decl: Option<Arc<DeclType>>,
    kind: Kind,
    properties: Box<[(Box<str>, Programs)]>,
    additional: Option<Box<Programs>>,
    items: Option<Box<Programs>>,
    all_of: Box<[Programs]>,
}

impl Programs {
    /// Compiles all rules of a schema; `None` if there are none. `root` is set for whole objects.
    pub fn compile(node: &Node, root: bool) -> Option<Programs> {
        if !node.has_rules {
            return None;
        }
        Self::at(node, node, declare(node, root))
    }

    /// `rules` is a schema of values (`allOf`) over `node`, or `node` itself.
    fn at(rules: &Node, node: &Node, decl: Option<Arc<DeclType>>) -> Option<Programs> {
        if !rules.has_rules {
            return None;
        }
        let element = decl.as_deref().and_then(of_element);
        let items = match (&rules.items, &node.items) {
            (Some(rules), Some(node)) => Self::at(rules, node, element.clone()).map(Box::new),
            _ => None,
        };
        let additional = match (rules.additional(), node.additional()) {
            (Some(rules), Some(node)) => Self::at(rules, node, element).map(Box::new),
            _ => None,
        };
        let mut properties = Vec::new();
        for (name, property) in rules.properties.iter().filter(|(_, property)| property.has_rules) {
            let Some(below) = node.property(name) else { continue };
            let field = match cel::escape(name) {
                Some(_) => decl.as_deref().and_then(|decl| of_property(decl, name)),
                None => declare(below, below.embedded),
            };
            let Some(field) = field else { continue };
            if let Some(programs) = Self::at(property, below, Some(field)) {
                properties.push((name.clone(), programs));
            }
        }
        let all_of = rules.values.iter().flat_map(|values| values.all_of.iter());
        let all_of = all_of.filter_map(|branch| Self::at(branch, node, decl.clone())).collect();
        let compiled = match &decl {
            Some(decl) if !rules.rules.is_empty() => compile(&rules.rules, node, decl),
            _ => Vec::new(),
        };
        Some(Programs {
            uncompilable: decl.is_none() && !rules.rules.is_empty(),
            rules: rules.rules.clone(),
            compiled,
            decl,
            kind: node.kind,
            properties: properties.into(),
            additional,
            items,
            all_of,
        })
    }

    /// What the rules have against a value. `old` is what it replaces; errors of what did not
    /// change become warnings.
    pub fn validate(&self, path: &Path, new: &Value, old: Option<&Value>, node: &Node) -> Findings {
        let mut run = Run { findings: Findings::default(), budget: BUDGET };
        let current = old.map(|old| Correlated { old, new, node });
        self.value(path, new, old, node, Ratchet { current, parent: None }, &mut run);
        run.findings
    }

    /// As [`Programs::validate`], without ratcheting.
    pub fn validate_strictly(&self, path: &Path, new: &Value, old: Option<&Value>, node: &Node) -> ErrorList {
        let mut run = Run { findings: Findings::default(), budget: BUDGET };
        self.value(path, new, old, node, Ratchet::default(), &mut run);
        run.findings.errors
    }

    fn value<'a>(
        &self,
        path: &Path,
        new: &'a Value,
        old: Option<&'a Value>,
        node: &'a Node,
        ratchet: Ratchet<'a>,
        run: &mut Run,
    ) {
        if new.is_null() || run.budget < 0 {
            return;
        }
        self.expressions(path, new, old.filter(|old| !old.is_null()), ratchet, run);
        for branch in &self.all_of {
            branch.value(path, new, old, node, Ratchet { current: None, parent: ratchet.parent }, run);
        }
        match new {
            Value::Array(items) => {
                let (Some(programs), Some(item)) = (&self.items, node.items.as_deref()) else { return };
                for (index, value) in items.iter().enumerate() {
                    let before = old.and_then(|old| Correlated { old, new, node }.index(index)).map(|found| found.old);
                    programs.value(&path.index(index), value, before, item, ratchet.index(index), run);
                }
            }
            Value::Object(map) => {
                for (name, value) in map {
                    let before = old.and_then(|old| old.get(name));
                    if let (Some(programs), Some(additional)) = (&self.additional, node.additional()) {
                        let path = path.key(name.clone());
                        programs.value(&path, value, before, additional, ratchet.key(name), run);
                    }
                    let programs = self.properties.binary_search_by(|(known, _)| (**known).cmp(name));
                    if let (Ok(at), Some(property)) = (programs, node.property(name)) {
                        let path = path.child(name.clone());
                        self.properties[at].1.value(&path, value, before, property, ratchet.key(name), run);
                    }
                }
            }
            _ => {}
        }
    }

    fn expressions(&self, path: &Path, new: &Value, old: Option<&Value>, ratchet: Ratchet<'_>, run: &mut Run) {
        let kind = self.kind.as_str();
        if self.uncompilable {
            let why = "rule compiler initialization error: failed to convert to declType for CEL validation rules";
            run.findings.errors.push(field::invalid(path, kind, why));
            return;
        }
        let Some(decl) = self.decl.as_deref().filter(|_| !self.compiled.is_empty()) else { return };
        if run.budget <= 0 {
            return run.exhausted(path, kind);
        }
        let value = |json| cel::Value::from_json(json, Some(decl));
        let (this, before) = (value(new), old.map(value));
        for (rule, compiled) in self.rules.iter().zip(&self.compiled) {
            if let Some(error) = &compiled.error {
                run.findings.errors.push(field::invalid(path, kind, format!("rule compile error: {error}")));
                continue;
            }
            let Some(program) = &compiled.program else { continue };
            let optional = rule.optional_old_self == Some(true);
            if compiled.uses_old_self && before.is_none() && !optional {
                continue;
            }
            // A value that is not what its format says has none: whoever asks for it gets an error.
            let mut variables = Activation::new();
            if let Ok(this) = &this {
                variables.set("self", this.clone());
            }
            match (&before, optional) {
                (Some(Ok(before)), true) => variables.set("oldSelf", cel::Value::some(before.clone())),
                (None, true) => variables.set("oldSelf", cel::Value::none()),
                (Some(Ok(before)), false) => variables.set("oldSelf", before.clone()),
                (Some(Err(_)), _) | (None, false) => {}
            }
            let unreadable = match (&this, &before) {
                (Err(error), _) if program.mentions("self") => Some(error),
                (_, Some(Err(error))) if compiled.uses_old_self => Some(error),
                _ => None,
            };
            let evaluated = program.eval(&variables, cel::PER_CALL_LIMIT);
            let cost = i64::try_from(evaluated.cost).unwrap_or(i64::MAX);
            if cost > run.budget {
                return run.exhausted(path, kind);
            }
            run.budget -= cost;
            match evaluated.value {
                Ok(cel::Value::Bool(true)) => continue,
                Ok(_) => {}
                Err(error) => {
                    let shown = shown(rule);
                    let text = unreadable.unwrap_or(&error).to_string();
                    let over = text.starts_with("operation cancelled: actual cost limit exceeded");
                    let why = if text.starts_with("no such overload") {
                        format!(
                            "'{text}': call arguments did not match a supported operator, function or macro signature for rule: {shown}"
                        )
                    } else if over {
                        format!(
                            "'{text}': no further validation rules will be run due to call cost exceeds limit for rule: {shown}"
                        )
                    } else {
                        format!("{text} evaluating rule: {shown}")
                    };
                    run.findings.errors.push(field::invalid(path, kind, why));
                    if over {
                        run.budget = -1;
                        return;
                    }
                    continue;
                }
            }
            let at =
                if compiled.field_path.is_empty() { path.clone() } else { path.child(compiled.field_path.clone()) };
            let forgiven = !compiled.uses_old_self && ratchet.forgives();
            let detail = match compiled.message.as_ref().map(|program| message(program, rule, &variables, run)) {
                Some(Err(why)) => {
                    run.add(field::invalid(&at, kind, why), forgiven);
                    run.budget = -1;
                    return;
                }
                Some(Ok(Some(text))) => text,
                Some(Ok(None)) | None => match rule.message.trim() {
                    "" => format!("failed rule: {}", shown(rule)),
                    text => text.to_owned(),
                },
            };
            let bad = match self.kind {
                Kind::Object | Kind::Array => BadValue::Omitted,
                _ => BadValue::Value(new.clone()),
            };
            run.add(
                match &*rule.reason {
                    "FieldValueForbidden" => field::forbidden(&at, detail),
                    "FieldValueRequired" => field::required(&at, detail),
                    "FieldValueDuplicate" => field::duplicate(&at, bad),
                    _ => field::invalid(&at, bad, detail),
                },
                forgiven,
            );
        }
    }
}

/// What upstream calls a rule in messages.
fn shown(rule: &Rule) -> &str {
    if rule.message.is_empty() { rule.rule.trim() } else { rule.message.trim() }
}

/// Evaluates a message; `None` when there is none after all.
fn message(
    program: &Program,
    rule: &Rule,
    variables: &Activation<'_>,
    run: &mut Run,
) -> Result<Option<String>, String> {
    let evaluated = program.eval(variables, cel::PER_CALL_LIMIT);
    let cost = i64::try_from(evaluated.cost).unwrap_or(i64::MAX);
    if cost > run.budget {
        return Err(
            "messageExpression evaluation failed due to running out of cost budget, no further validation rules will be run"
                .to_owned(),
        );
    }
    let value = match evaluated.value {
        Ok(value) => value,
        Err(cel::Error::CostExceeded) => {
            return Err(format!(
                "no further validation rules will be run due to call cost exceeds limit for messageExpression: {}",
                apimachinery::gotext::quote(&rule.message_expression)
            ));
        }
        Err(_) => {
            run.budget -= cost;
            return Ok(None);
        }
    };
    run.budget -= cost;
    let text = value.as_str().unwrap_or_default().trim();
    let fine = !text.is_empty() && text.len() <= MAX_MESSAGE && !text.contains('\n');
    Ok(fine.then(|| text.to_owned()))
}

/// What rules had to say.
#[derive(Debug, Default)]
pub struct Findings {
    pub errors: ErrorList,
    /// Errors of what did not change.
    pub warnings: Vec<String>,
}

struct Run {
    findings: Findings,
    budget: i64,
}

impl Run {
    fn exhausted(&mut self, path: &Path, kind: &str) {
        let why = "validation failed due to running out of cost budget, no further validation rules will be run";
        self.findings.errors.push(field::invalid(path, kind, why));
        self.budget = -1;
    }

    fn add(&mut self, error: FieldError, forgiven: bool) {
        if forgiven {
            self.findings.warnings.push(error.to_string());
        } else {
            self.findings.errors.push(error);
        }
    }
}

/// What the value at hand replaces, and what the nearest value above that can be told does.
#[derive(Clone, Copy, Default)]
struct Ratchet<'a> {
    current: Option<Correlated<'a>>,
    parent: Option<Correlated<'a>>,
}

impl<'a> Ratchet<'a> {
    fn key(&self, name: &str) -> Ratchet<'a> {
        match self.current {
            None => *self,
            // Of the object itself these change with its version.
            Some(_) if self.parent.is_none() && matches!(name, "apiVersion" | "kind") => Ratchet::default(),
            Some(current) => Ratchet { current: current.key(name), parent: Some(current) },
        }
    }

    fn index(&self, index: usize) -> Ratchet<'a> {
        match self.current {
            None => *self,
            Some(current) => Ratchet { current: current.index(index), parent: Some(current) },
        }
    }

    fn forgives(&self) -> bool {
        self.current.or(self.parent).is_some_and(|correlated| correlated.is_unchanged())
    }
}

/// What the rules of a schema have against its own default, as a change and as something new.
pub fn of_default(path: &Path, default: &Value, node: &Node) -> ErrorList {
    let Some(programs) = Programs::compile(node, node.embedded) else { return ErrorList::new() };
    let errors = programs.validate_strictly(path, default, Some(default), node);
    if errors.is_empty() { programs.validate_strictly(path, default, None, node) } else { errors }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(schema: Value, new: Value, old: Option<Value>) -> Vec<String> {
        let node = Node::compile(&schema);
        let programs = Programs::compile(&node, false).expect("there are rules");
        let findings = programs.validate(&Path::new("spec"), &new, old.as_ref(), &node);
        findings.errors.iter().map(ToString::to_string).collect()
    }

    fn limits(rules: Value) -> Value {
        json!({"type": "object", "x-kubernetes-validations": rules, "properties": {
            "min": {"type": "integer"}, "max": {"type": "integer"}}})
    }

    #[test]
    fn rules_and_their_messages() {
        let wrong = json!({"min": 3, "max": 1});
        for (rule, expected) in [
            (json!({"rule": "self.min <= self.max"}), "spec: Invalid value: failed rule: self.min <= self.max"),
            (
                json!({"rule": "self.min <= self.max", "message": "min is above max"}),
                "spec: Invalid value: min is above max",
            ),
            (
                json!({"rule": "self.min <= self.max", "messageExpression": "'min is ' + string(self.min)", "fieldPath": ".min"}),
                "spec.min: Invalid value: min is 3",
            ),
            (
                json!({"rule": "self.min <= self.max", "message": "no", "reason": "FieldValueForbidden"}),
                "spec: Forbidden: no",
            ),
        ] {
            assert_eq!(check(limits(json!([rule])), wrong.clone(), None), [expected]);
        }
        assert!(check(limits(json!([{"rule": "self.min <= self.max"}])), json!({"min": 1, "max": 1}), None).is_empty());
    }

    #[test]
    fn transitions_and_ratcheting() {
        let schema = json!({"type": "object", "properties": {
            "a": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "a is immutable"}]},
            "b": {"type": "string", "x-kubernetes-validations": [{"rule": "size(self) < 3", "message": "b is long"}]},
            "c": {"type": "string", "x-kubernetes-validations": [
                {"rule": "!oldSelf.hasValue() || self == oldSelf.value()", "optionalOldSelf": true, "message": "c"}]},
        }});
        assert!(check(schema.clone(), json!({"a": "x", "c": "y"}), None).is_empty());
        assert_eq!(
            check(schema.clone(), json!({"a": "y"}), Some(json!({"a": "x"}))),
            ["spec.a: Invalid value: \"y\": a is immutable"]
        );
        assert!(check(schema.clone(), json!({"b": "long", "a": "x"}), Some(json!({"b": "long"}))).is_empty());
        assert_eq!(check(schema.clone(), json!({"b": "longer"}), Some(json!({"b": "long"}))).len(), 1);
        assert_eq!(check(schema, json!({"c": "z"}), Some(json!({"c": "y"}))), ["spec.c: Invalid value: \"z\": c"]);
    }
}
