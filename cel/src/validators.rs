//! Checks of literals that would otherwise fail only when evaluated, or not at all: durations, timestamps, regular
//! expressions, formats, and lists and maps whose parts are of different types.

use crate::ast::{Call, Entry, Expr, ExprKind, Id, Literal};
use crate::checker::Checked;
use crate::library::{self, format_string};
use crate::parser::Parsed;
use crate::source::Issue;
use crate::types::Type;
use crate::value;

/// Finds all that is wrong with literals.
pub(crate) fn validate(parsed: &Parsed, checked: &Checked) -> Vec<Issue> {
    let mut found: Vec<(Id, String)> = Vec::new();
    visit(&parsed.expr, false, &mut |expr, within_format| match &expr.kind {
        ExprKind::Call(call) => {
            found.extend(argument(call));
            found.extend(format(expr.id, call, checked));
        }
        ExprKind::List { elements, optional } if !within_format => found.extend(list(elements, optional, checked)),
        ExprKind::Map(entries) if !within_format => map(entries, checked, &mut found),
        _ => {}
    });
    found.into_iter().map(|(id, message)| Issue { location: parsed.location(id), message }).collect()
}

/// A literal argument that is no duration, no timestamp or no regular expression.
fn argument(call: &Call) -> Option<(Id, String)> {
    let argument = match (call.function.as_str(), call.target.is_some(), call.args.as_slice()) {
        ("duration" | "timestamp", false, [arg]) | ("matches", true, [arg]) | ("matches", false, [_, arg]) => arg,
        _ => return None,
    };
    let valid = match (&argument.kind, call.function.as_str()) {
        (ExprKind::Literal(Literal::String(text)), "duration") => apimachinery::duration::parse(text).is_ok(),
        (ExprKind::Literal(Literal::String(text)), "timestamp") => value::parse_timestamp(text).is_some(),
        (ExprKind::Literal(Literal::String(text)), _) => library::regex::compile(text).is_ok(),
        (ExprKind::Literal(Literal::Int(seconds)), "timestamp") => value::Timestamp::new(*seconds, 0).is_ok(),
        _ => true,
    };
    (!valid).then(|| (argument.id, format!("invalid {} argument", call.function)))
}

/// A literal format with literal arguments that do not suit it.
fn format(id: Id, call: &Call, checked: &Checked) -> Option<(Id, String)> {
    let ("format", Some(target), [args]) = (call.function.as_str(), &call.target, call.args.as_slice()) else {
        return None;
    };
    let (ExprKind::Literal(Literal::String(text)), ExprKind::List { elements, .. }) = (&target.kind, &args.kind) else {
        return None;
    };
    let mut used = 0;
    for verb in format_string::verbs(text) {
        let verb = match verb {
            Ok(verb) => verb,
            Err(message) => return Some((id, message)),
        };
        let Some(element) = elements.get(used) else {
            return Some((id, format!("index {used} out of range")));
        };
        used += 1;
        if let Some(found) = suits(verb, element, checked) {
            return Some(found);
        }
    }
    if used < elements.len() {
        let message = format!("too many arguments supplied to string.format (expected {used}, got {})", elements.len());
        return Some((id, message));
    }
    None
}

fn suits(verb: char, arg: &Expr, checked: &Checked) -> Option<(Id, String)> {
    let of = checked.type_of(arg.id);
    let fits = of.is_dyn()
        || match verb {
            's' => return shown(arg, checked),
            'd' | 'o' => matches!(of, Type::Int | Type::Uint),
            'f' | 'e' => matches!(of, Type::Double | Type::String),
            'b' => matches!(of, Type::Int | Type::Uint | Type::Bool),
            _ => matches!(of, Type::Int | Type::Uint | Type::String | Type::Bytes),
        };
    (!fits).then(|| {
        let rule = format_string::rule(verb);
        (arg.id, format!("error during formatting: {rule}, was given {}", of.runtime_name()))
    })
}

/// What `%s` cannot show, within lists and maps too.
fn shown(arg: &Expr, checked: &Checked) -> Option<(Id, String)> {
    let of = checked.type_of(arg.id);
    let fits = !matches!(of, Type::Opaque(..) | Type::Object(_));
    if !fits {
        let rule = format_string::rule('s');
        return Some((arg.id, format!("error during formatting: {rule}, was given {}", of.runtime_name())));
    }
    match &arg.kind {
        ExprKind::List { elements, .. } => elements.iter().find_map(|e| shown(e, checked)),
        ExprKind::Map(entries) => {
            entries.iter().find_map(|e| shown(&e.key, checked).or_else(|| shown(&e.value, checked)))
        }
        _ => None,
    }
}

fn differs(expected: &Type, id: Id, found: &Type) -> Option<(Id, String)> {
    (expected != found).then(|| (id, format!("expected type '{expected}' but found '{found}'")))
}

/// The first element that is of another type than the first of all.
fn list(elements: &[Expr], optional: &[usize], checked: &Checked) -> Option<(Id, String)> {
    let of = |at: usize, element: &Expr| {
        let of = checked.type_of(element.id);
        if optional.contains(&at) { of.unwrap_optional().unwrap_or(of).clone() } else { of.clone() }
    };
    let expected = of(0, elements.first()?);
    elements.iter().enumerate().find_map(|(at, element)| differs(&expected, element.id, &of(at, element)))
}

/// All keys and values that are of other types than the first.
fn map(entries: &[Entry], checked: &Checked, found: &mut Vec<(Id, String)>) {
    let value = |entry: &Entry| {
        let of = checked.type_of(entry.value.id);
        if entry.optional { of.unwrap_optional().unwrap_or(of).clone() } else { of.clone() }
    };
    let Some(first) = entries.first() else { return };
    let (key_type, value_type) = (checked.type_of(first.key.id), value(first));
    for entry in entries {
        found.extend(differs(key_type, entry.key.id, checked.type_of(entry.key.id)));
        found.extend(differs(&value_type, entry.value.id, &value(entry)));
    }
}

/// Calls `each` with every node, and whether it is somewhere within a call of `format`.
fn visit(expr: &Expr, within_format: bool, each: &mut impl FnMut(&Expr, bool)) {
    each(expr, within_format);
    match &expr.kind {
        ExprKind::Unspecified | ExprKind::Literal(_) | ExprKind::Ident(_) => {}
        ExprKind::Select { operand, .. } => visit(operand, within_format, each),
        ExprKind::Call(call) => {
            let within_format = within_format || call.function == "format";
            for arg in call.target.as_deref().into_iter().chain(&call.args) {
                visit(arg, within_format, each);
            }
        }
        ExprKind::List { elements, .. } => elements.iter().for_each(|e| visit(e, within_format, each)),
        ExprKind::Map(entries) => entries.iter().for_each(|e| {
            visit(&e.key, within_format, each);
            visit(&e.value, within_format, each);
        }),
        ExprKind::Struct { fields, .. } => fields.iter().for_each(|f| visit(&f.value, within_format, each)),
        ExprKind::Comprehension(c) => {
            for part in [&c.range, &c.init, &c.condition, &c.step, &c.result] {
                visit(part, within_format, each);
            }
        }
    }
}

/// Whether any node is this name.
pub(crate) fn mentions(expr: &Expr, name: &str) -> bool {
    let mut found = false;
    visit(expr, false, &mut |expr, _| found |= expr.as_ident() == Some(name));
    found
}
