//! A table of expressions with what upstream's own evaluation makes of them: value or error, type, cost, and the range
//! of costs that it estimates. Lines are `expression`, outcome (`=` a value, `!` an error, `p` one of planning, `x` the
//! first line of a refusal), type, cost, range; tabs lie between.

use std::fmt::Write as _;

use serde_json::json;

use crate::{Activation, CompileError, Env, Type, Value};

const TABLE: &str = include_str!("testdata/libraries.txt");

/// On one line.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('\t', "\\t").replace('\r', "\\r")
}

/// A value as the table shows it: maps are sorted.
fn shown(value: &Value<'_>) -> String {
    match value {
        Value::List(list) => {
            let items: Vec<String> = list.iter().flatten().map(|item| shown(&item)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Map(map) => {
            let item = |key| format!("{key}: {}", map.get(key).ok().flatten().map_or_else(String::new, |v| shown(&v)));
            let keys = map.keys();
            let mut items: Vec<String> = keys.iter().map(item).collect();
            items.sort();
            format!("{{{}}}", items.join(", "))
        }
        Value::Optional(Some(value)) => format!("optional({})", shown(value)),
        other => other.to_string(),
    }
}

fn outcome(env: &Env, expression: &str) -> String {
    let program = match env.compile(expression) {
        Ok(program) => program,
        Err(CompileError::Issues(issues)) => {
            return format!("x {}", escaped(issues.to_string().lines().next().unwrap_or_default()));
        }
        Err(CompileError::Program(error, _)) => return format!("p {}", escaped(&error.to_string())),
    };
    let object = json!({"a": "x", "n": 3, "l": [1, 2]});
    let variables = Activation::new().with("object", Value::from_json(&object, None).unwrap());
    let evaluated = program.eval(&variables, crate::PER_CALL_LIMIT);
    let (what, range) = (evaluated.value.map(|value| shown(&value)), program.cost());
    let mut line = match what {
        Ok(value) => format!("= {}", escaped(&value)),
        Err(error) => format!("! {}", escaped(&error.to_string())),
    };
    let _ = write!(line, "\t{}\t{}\t{}..{}", program.output_type(), evaluated.cost, range.min, range.max);
    line
}

#[test]
fn libraries_are_evaluated_as_upstream_does() {
    let env = Env::new().variable("object", Type::Dyn);
    let mut wrong = String::new();
    let mut count = 0;
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let (expression, want) = line.split_once('\t').unwrap();
        let found = outcome(&env, expression);
        if found != want {
            count += 1;
            let _ = writeln!(wrong, "{expression}\n  upstream {want}\n  here     {found}");
        }
    }
    assert!(count == 0, "{count} differ:\n{wrong}");
}
