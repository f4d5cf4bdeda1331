//! Checks of literals that would otherwise fail only when evaluated.

use crate::ast::{Expr, ExprKind, Literal};
use crate::parser::Parsed;
use crate::source::Issue;
use crate::{library, value};

/// Finds literals that are no duration, no timestamp or no regular expression where one is needed.
pub(crate) fn validate(parsed: &Parsed) -> Vec<Issue> {
    let mut issues = Vec::new();
    visit(&parsed.expr, &mut |expr| {
        let ExprKind::Call(call) = &expr.kind else { return };
        let argument = match (call.function.as_str(), call.target.is_some(), call.args.as_slice()) {
            ("duration" | "timestamp", false, [arg]) | ("matches", true, [arg]) | ("matches", false, [_, arg]) => arg,
            _ => return,
        };
        let ExprKind::Literal(Literal::String(text)) = &argument.kind else { return };
        let valid = match call.function.as_str() {
            "duration" => value::parse_duration(text).is_some(),
            "timestamp" => value::parse_timestamp(text).is_some(),
            _ => library::regex::compile(text).is_ok(),
        };
        if !valid {
            let message = format!("invalid {} argument", call.function);
            issues.push(Issue { location: parsed.location(argument.id), message });
        }
    });
    issues
}

/// Calls `each` with every node.
fn visit(expr: &Expr, each: &mut impl FnMut(&Expr)) {
    each(expr);
    match &expr.kind {
        ExprKind::Unspecified | ExprKind::Literal(_) | ExprKind::Ident(_) => {}
        ExprKind::Select { operand, .. } => visit(operand, each),
        ExprKind::Call(call) => {
            for arg in call.target.as_deref().into_iter().chain(&call.args) {
                visit(arg, each);
            }
        }
        ExprKind::List { elements, .. } => elements.iter().for_each(|e| visit(e, each)),
        ExprKind::Map(entries) => entries.iter().for_each(|e| {
            visit(&e.key, each);
            visit(&e.value, each);
        }),
        ExprKind::Struct { fields, .. } => fields.iter().for_each(|f| visit(&f.value, each)),
        ExprKind::Comprehension(c) => {
            for part in [&c.range, &c.init, &c.condition, &c.step, &c.result] {
                visit(part, each);
            }
        }
    }
}

/// Whether any node is this name.
pub(crate) fn mentions(expr: &Expr, name: &str) -> bool {
    let mut found = false;
    visit(expr, &mut |expr| found |= expr.as_ident() == Some(name));
    found
}
