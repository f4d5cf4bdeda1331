//! The table: a row per figure, a column per subject, the ratio and the budget.

use crate::figures::{Budget, FIGURES, Figure};
use crate::subject::Kind;

/// A measured figure, with a second one in brackets where that helps (PSS beside RSS).
#[derive(Clone, Copy, Debug)]
struct Value {
    value: f64,
    beside: Option<f64>,
}

/// What was measured, and why something was not.
#[derive(Default)]
pub struct Table {
    values: Vec<(Kind, &'static str, Value)>,
    notes: Vec<String>,
}

impl Table {
    pub fn set(&mut self, kind: Kind, what: &'static str, value: f64) {
        self.put(kind, what, Value { value, beside: None });
    }

    /// A memory figure: resident, and proportional in brackets.
    pub fn set_memory(&mut self, kind: Kind, what: &'static str, memory: crate::process::Memory) {
        self.put(kind, what, Value { value: memory.resident_mib, beside: Some(memory.proportional_mib) });
    }

    fn put(&mut self, kind: Kind, what: &'static str, value: Value) {
        println!("  {what:<58} {:>12} {}", text(value), figure(what).unit);
        self.values.push((kind, what, value));
    }

    /// Says why a figure is missing.
    pub fn note(&mut self, why: String) {
        println!("  {why}");
        self.notes.push(why);
    }

    fn get(&self, kind: Kind, what: &str) -> Option<Value> {
        self.values.iter().find(|(of, name, _)| *of == kind && *name == what).map(|(.., value)| *value)
    }

    /// Prints the rows of `parts`. Ratios are written so that more is better for Keelson, whatever the unit.
    pub fn print(&self, wanted: impl Fn(&str) -> bool, upstream: &str) {
        println!("\n| what | unit | Keelson | {upstream} | times better | budget | reached |");
        println!("|---|---|---:|---:|---:|---:|---|");
        for figure in FIGURES.iter().filter(|figure| wanted(figure.part)) {
            let (ours, theirs) = (self.get(Kind::Keelson, figure.what), self.get(Kind::Upstream, figure.what));
            let ratio = ours.zip(theirs).map(|(ours, theirs)| ratio(figure, ours.value, theirs.value));
            let budget = match figure.budget {
                Budget::AtMost(most) => format!("≤ {}", number(most)),
                Budget::AtLeast(least) => format!("≥ {}", number(least)),
                Budget::Times(times) => format!("{times}×"),
                Budget::Nothing => "–".to_owned(),
            };
            let reached = ours.and_then(|ours| figure.reached(ours.value, ratio));
            let cell = |value: Option<Value>| value.map_or("–".to_owned(), text);
            println!(
                "| {} | {} | {} | {} | {} | {budget} | {} |",
                figure.what,
                figure.unit,
                cell(ours),
                cell(theirs),
                ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.1}×")),
                reached.map_or("–", |reached| if reached { "yes" } else { "no" }),
            );
        }
        println!("\nMemory is resident, with proportional in brackets. A dash: not measured, not known, or no budget.");
        for note in &self.notes {
            println!("{note}");
        }
    }
}

fn figure(what: &str) -> &'static Figure {
    FIGURES.iter().find(|figure| figure.what == what).expect("only rows of the table are measured")
}

fn ratio(figure: &Figure, ours: f64, theirs: f64) -> f64 {
    if figure.more_is_better() { ours / theirs } else { theirs / ours }
}

fn text(value: Value) -> String {
    match value.beside {
        Some(beside) => format!("{} ({})", number(value.value), number(beside)),
        None => number(value.value),
    }
}

/// Three digits that count, and thousands apart.
fn number(value: f64) -> String {
    if value >= 1_000.0 {
        let whole = format!("{value:.0}");
        let (head, tail) = whole.split_at(whole.len() - 3);
        format!("{head},{tail}")
    } else if value >= 100.0 || value.fract() == 0.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}
