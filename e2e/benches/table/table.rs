//! The table: a row per figure, a column per subject, and the ratio.

use crate::server::Kind;

struct Row {
    what: String,
    unit: &'static str,
    keelson: Option<f64>,
    upstream: Option<f64>,
}

#[derive(Default)]
pub struct Table {
    rows: Vec<Row>,
}

impl Table {
    pub fn set(&mut self, what: &str, unit: &'static str, kind: &Kind, value: f64) {
        println!("{what:<48} {value:>10.2} {unit}");
        let index = self.rows.iter().position(|row| row.what == what).unwrap_or_else(|| {
            self.rows.push(Row { what: what.to_owned(), unit, keelson: None, upstream: None });
            self.rows.len() - 1
        });
        match kind {
            Kind::Keelson => self.rows[index].keelson = Some(value),
            Kind::Upstream(_) => self.rows[index].upstream = Some(value),
        }
    }

    /// Ratios are written so that more is better for Keelson, whatever the unit.
    pub fn print(&self) {
        println!("\n| what | unit | Keelson | upstream + etcd | times better |\n|---|---|---:|---:|---:|");
        for row in &self.rows {
            let number = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.2}"));
            let ratio = row.keelson.zip(row.upstream).map(
                |(ours, theirs)| {
                    if row.unit == "/s" { ours / theirs } else { theirs / ours }
                },
            );
            println!(
                "| {} | {} | {} | {} | {} |",
                row.what,
                row.unit,
                number(row.keelson),
                number(row.upstream),
                ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.1}×")),
            );
        }
    }
}
