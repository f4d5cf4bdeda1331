//! The macros: `has`, the quantifiers, `map` and `filter`, their forms with two variables, `sortBy`, and those of
//! optional values. Each rewrites its call into plain nodes that stand at the call's place.

use super::{Parser, copy};
use crate::ast::{ACCUMULATOR, Call, Comprehension, Expr, ExprKind, Literal, UNUSED, operator};

/// What became of a call.
pub enum Expansion {
    /// It was a macro.
    Done(Expr),
    /// It was a macro, but at this offset something is wrong with it.
    Wrong(usize, String),
    /// It is an ordinary call; target and arguments are handed back.
    None(Option<Expr>, Vec<Expr>),
}

/// The name under which `sortBy` keeps what it sorts.
const SORT_INPUT: &str = "@__sortBy_input__";
/// The name that accumulators had before they were hidden; it stays reserved.
const OLD_ACCUMULATOR: &str = "__result__";

/// Expands a call, if it is one of a macro.
pub fn expand(p: &mut Parser<'_>, at: usize, function: &str, target: Option<Expr>, args: Vec<Expr>) -> Expansion {
    let Some(target) = target else {
        return match (function, args.len()) {
            ("has", 1) => has(p, at, args),
            _ => Expansion::None(None, args),
        };
    };
    let result = match (function, args.len()) {
        ("all" | "exists" | "exists_one" | "existsOne", 2 | 3) => quantifier(p, at, function, target, args),
        ("map", 2 | 3) => map(p, at, target, args),
        ("filter", 2) => filter(p, at, target, args),
        ("transformList" | "transformMap" | "transformMapEntry", 3 | 4) => transform(p, at, function, target, args),
        ("optMap" | "optFlatMap", 2) => optional(p, at, function, target, args),
        ("sortBy", 2) => sort_by(p, at, target, args),
        ("bind", 3) if p.bindings && target.as_ident() == Some("cel") => cel_bind(p, at, args),
        _ => return Expansion::None(Some(target), args),
    };
    match result {
        Ok(expr) => Expansion::Done(expr),
        Err((at, message)) => Expansion::Wrong(at, message),
    }
}

type Expanded = Result<Expr, (usize, String)>;

fn node(p: &mut Parser<'_>, at: usize, kind: ExprKind) -> Expr {
    p.node(at, kind)
}

fn call(p: &mut Parser<'_>, at: usize, function: &str, args: Vec<Expr>) -> Expr {
    node(p, at, ExprKind::Call(Call { function: function.into(), target: None, args }))
}

fn method(p: &mut Parser<'_>, at: usize, target: Expr, function: &str, args: Vec<Expr>) -> Expr {
    node(p, at, ExprKind::Call(Call { function: function.into(), target: Some(Box::new(target)), args }))
}

fn literal(p: &mut Parser<'_>, at: usize, literal: Literal) -> Expr {
    node(p, at, ExprKind::Literal(literal))
}

fn accumulator(p: &mut Parser<'_>, at: usize) -> Expr {
    node(p, at, ExprKind::Ident(ACCUMULATOR.into()))
}

fn list(p: &mut Parser<'_>, at: usize, elements: Vec<Expr>) -> Expr {
    node(p, at, ExprKind::List { elements, optional: Vec::new() })
}

fn has(p: &mut Parser<'_>, at: usize, mut args: Vec<Expr>) -> Expansion {
    match args.pop() {
        Some(Expr { kind: ExprKind::Select { operand, field, .. }, .. }) => {
            Expansion::Done(node(p, at, ExprKind::Select { operand, field, test: true }))
        }
        Some(arg) => Expansion::Wrong(p.offset(arg.id), "invalid argument to has() macro".into()),
        None => Expansion::None(None, args),
    }
}

/// The variables of a loop, checked: one, or two that differ.
fn variables(p: &Parser<'_>, args: &[Expr], not_a_name: &str) -> Result<(String, Option<String>), (usize, String)> {
    let mut names = Vec::new();
    for arg in args {
        match arg.as_ident() {
            Some(name) => names.push(name.to_owned()),
            None => return Err((p.offset(arg.id), not_a_name.into())),
        }
    }
    if let [first, second] = names.as_slice()
        && first == second
    {
        return Err((p.offset(args[1].id), format!("duplicate variable name: {first}")));
    }
    for (name, arg) in names.iter().zip(args) {
        if name == ACCUMULATOR || name == OLD_ACCUMULATOR {
            return Err((p.offset(arg.id), "iteration variable overwrites accumulator variable".into()));
        }
    }
    let mut names = names.into_iter();
    Ok((names.next().unwrap_or_default(), names.next()))
}

struct Loop {
    range: Expr,
    variables: (String, Option<String>),
    init: Expr,
    condition: Expr,
    step: Expr,
    result: Expr,
}

fn comprehension(p: &mut Parser<'_>, at: usize, l: Loop) -> Expr {
    let Loop { range, variables: (var, var2), init, condition, step, result } = l;
    let accu = ACCUMULATOR.into();
    node(
        p,
        at,
        ExprKind::Comprehension(Box::new(Comprehension { range, var, var2, accu, init, condition, step, result })),
    )
}

fn quantifier(p: &mut Parser<'_>, at: usize, function: &str, range: Expr, mut args: Vec<Expr>) -> Expanded {
    let variables = variables(p, &args[..args.len() - 1], "argument must be a simple name")?;
    let Some(predicate) = args.pop() else { return Err((at, String::new())) };
    let (init, condition, step, result);
    match function {
        "all" => {
            init = literal(p, at, Literal::Bool(true));
            let accu = accumulator(p, at);
            condition = call(p, at, operator::NOT_STRICTLY_FALSE, vec![accu]);
            let accu = accumulator(p, at);
            step = call(p, at, operator::AND, vec![accu, predicate]);
            result = accumulator(p, at);
        }
        "exists" => {
            init = literal(p, at, Literal::Bool(false));
            let accu = accumulator(p, at);
            let not = call(p, at, operator::NOT, vec![accu]);
            condition = call(p, at, operator::NOT_STRICTLY_FALSE, vec![not]);
            let accu = accumulator(p, at);
            step = call(p, at, operator::OR, vec![accu, predicate]);
            result = accumulator(p, at);
        }
        _ => {
            init = literal(p, at, Literal::Int(0));
            condition = literal(p, at, Literal::Bool(true));
            let (accu, one) = (accumulator(p, at), literal(p, at, Literal::Int(1)));
            let more = call(p, at, operator::ADD, vec![accu, one]);
            let same = accumulator(p, at);
            step = call(p, at, operator::CONDITIONAL, vec![predicate, more, same]);
            let (accu, one) = (accumulator(p, at), literal(p, at, Literal::Int(1)));
            result = call(p, at, operator::EQUALS, vec![accu, one]);
        }
    }
    Ok(comprehension(p, at, Loop { range, variables, init, condition, step, result }))
}

/// A loop that gathers: `step` makes the next accumulator, if `keep` holds.
fn gather(
    p: &mut Parser<'_>,
    at: usize,
    range: Expr,
    variables: (String, Option<String>),
    init: Expr,
    keep: Option<Expr>,
    mut step: Expr,
) -> Expr {
    let condition = literal(p, at, Literal::Bool(true));
    if let Some(keep) = keep {
        let same = accumulator(p, at);
        step = call(p, at, operator::CONDITIONAL, vec![keep, step, same]);
    }
    let result = accumulator(p, at);
    comprehension(p, at, Loop { range, variables, init, condition, step, result })
}

fn append(p: &mut Parser<'_>, at: usize, element: Expr) -> Expr {
    let accu = accumulator(p, at);
    let one = list(p, at, vec![element]);
    call(p, at, operator::ADD, vec![accu, one])
}

fn map(p: &mut Parser<'_>, at: usize, range: Expr, mut args: Vec<Expr>) -> Expanded {
    let variables = variables(p, &args[..1], "argument is not an identifier")?;
    let Some(f) = args.pop() else { return Err((at, String::new())) };
    let keep = if args.len() == 2 { args.pop() } else { None };
    let init = list(p, at, Vec::new());
    let step = append(p, at, f);
    Ok(gather(p, at, range, variables, init, keep, step))
}

fn filter(p: &mut Parser<'_>, at: usize, range: Expr, mut args: Vec<Expr>) -> Expanded {
    let variables = variables(p, &args[..1], "argument is not an identifier")?;
    let keep = args.pop();
    let Some(element) = args.pop() else { return Err((at, String::new())) };
    let init = list(p, at, Vec::new());
    let step = append(p, at, element);
    Ok(gather(p, at, range, variables, init, keep, step))
}

fn transform(p: &mut Parser<'_>, at: usize, function: &str, range: Expr, mut args: Vec<Expr>) -> Expanded {
    let variables = variables(p, &args[..2], "argument must be a simple name")?;
    let Some(f) = args.pop() else { return Err((at, String::new())) };
    let keep = if args.len() == 3 { args.pop() } else { None };
    let (init, step) = match function {
        "transformList" => (list(p, at, Vec::new()), append(p, at, f)),
        "transformMap" => {
            let init = node(p, at, ExprKind::Map(Vec::new()));
            let accu = accumulator(p, at);
            let key = node(p, at, ExprKind::Ident(variables.0.clone()));
            (init, call(p, at, "cel.@mapInsert", vec![accu, key, f]))
        }
        _ => {
            let init = node(p, at, ExprKind::Map(Vec::new()));
            let accu = accumulator(p, at);
            (init, call(p, at, "cel.@mapInsert", vec![accu, f]))
        }
    };
    Ok(gather(p, at, range, variables, init, keep, step))
}

/// Evaluates `value` once as `name` within `result`.
fn bind(p: &mut Parser<'_>, at: usize, name: &str, value: Expr, result: Expr) -> Expr {
    let range = list(p, at, Vec::new());
    let condition = literal(p, at, Literal::Bool(false));
    let step = node(p, at, ExprKind::Ident(name.into()));
    let comprehension = Comprehension {
        range,
        var: UNUSED.into(),
        var2: None,
        accu: name.into(),
        init: value,
        condition,
        step,
        result,
    };
    node(p, at, ExprKind::Comprehension(Box::new(comprehension)))
}

fn cel_bind(p: &mut Parser<'_>, at: usize, mut args: Vec<Expr>) -> Expanded {
    let Some(name) = args[0].as_ident().map(str::to_owned) else {
        return Err((p.offset(args[0].id), "cel.bind() variable names must be simple identifiers".to_owned()));
    };
    match (args.pop(), args.pop()) {
        (Some(result), Some(value)) => Ok(bind(p, at, &name, value, result)),
        _ => Err((at, String::new())),
    }
}

fn optional(p: &mut Parser<'_>, at: usize, function: &str, target: Expr, mut args: Vec<Expr>) -> Expanded {
    let Some(name) = args[0].as_ident().map(str::to_owned) else {
        return Err((p.offset(args[0].id), format!("{function}() variable name must be a simple identifier")));
    };
    let Some(result) = args.pop() else { return Err((at, String::new())) };
    let again = copy(p, &target);
    let present = method(p, at, target, "hasValue", Vec::new());
    let value = method(p, at, again, "value", Vec::new());
    let mut bound = bind(p, at, &name, value, result);
    if function == "optMap" {
        bound = call(p, at, "optional.of", vec![bound]);
    }
    let none = call(p, at, "optional.none", Vec::new());
    Ok(call(p, at, operator::CONDITIONAL, vec![present, bound, none]))
}

fn sort_by(p: &mut Parser<'_>, at: usize, target: Expr, args: Vec<Expr>) -> Expanded {
    if !matches!(
        target.kind,
        ExprKind::List { .. }
            | ExprKind::Select { .. }
            | ExprKind::Ident(_)
            | ExprKind::Comprehension(_)
            | ExprKind::Call(_)
    ) {
        let message = "sortBy can only be applied to a list, identifier, comprehension, call or select expression";
        return Err((p.offset(target.id), message.into()));
    }
    let input = node(p, at, ExprKind::Ident(SORT_INPUT.into()));
    let keys = map(p, at, input, args)?;
    let input = node(p, at, ExprKind::Ident(SORT_INPUT.into()));
    let sorted = method(p, at, input, "@sortByAssociatedKeys", vec![keys]);
    Ok(bind(p, at, SORT_INPUT, target, sorted))
}
