//! Any text as an expression: it is compiled or refused, and evaluates within its budget.
#![no_main]

use cel::{Activation, DeclType, Env, Value};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let item = DeclType::object("self.items", [("name", DeclType::string()), ("port", DeclType::int())]);
    let of = DeclType::object(
        "self",
        [("items", DeclType::list(item, 10)), ("labels", DeclType::map(DeclType::string(), 10)), ("any", DeclType::dynamic())],
    );
    let env = Env::new().declared("self", &of).sizes(of.clone()).mutation();
    let Ok(program) = env.compile(text) else { return };
    let json = serde_json::json!({
        "items": [{"name": "a", "port": 1}, {"name": "b", "port": 2}],
        "labels": {"a": "b"},
        "any": {"x": [1, 2.5, "y", null, true]},
    });
    let Ok(value) = Value::from_json(&json, Some(&of)) else { return };
    let evaluated = program.eval(&Activation::new().with("self", value), 100_000);
    let _ = evaluated.value.map(|value| (value.to_json(), value.to_string()));
});
