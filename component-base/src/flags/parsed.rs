//! What a command line said, flag by flag.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Error, Flag, Kind};
use crate::duration;
use crate::featuregate::parse_bool;

#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) kind: Kind,
    pub(super) texts: Vec<String>,
    pub(super) changed: bool,
    pub(super) former: bool,
}

impl Held {
    /// The value as pflag writes it.
    fn shown(&self) -> String {
        let last = self.texts.last().map_or("", String::as_str);
        let items =
            || self.texts.iter().flat_map(|text| text.split(',')).map(str::trim).filter(|item| !item.is_empty());
        match self.kind {
            Kind::String => last.to_string(),
            Kind::Bool => (parse_bool(last) == Some(true)).to_string(),
            Kind::Int => parse_int(last).map_or_else(|| last.to_string(), |number| number.to_string()),
            Kind::Float => last.parse::<f64>().map_or_else(|_| last.to_string(), |number| number.to_string()),
            Kind::Duration => duration::parse(last).map_or_else(|_| last.to_string(), duration::format),
            Kind::Strings => format!("[{}]", items().collect::<Vec<_>>().join(",")),
            Kind::Array if self.changed => {
                format!("[{}]", self.texts.iter().map(|text| csv_field(text)).collect::<Vec<_>>().join(","))
            }
            Kind::Array => "[]".to_string(),
            Kind::Map => {
                let pairs = items().filter_map(|pair| pair.split_once('='));
                let pairs: BTreeMap<_, _> = pairs.map(|(key, value)| (key.trim(), value.trim())).collect();
                pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
            }
        }
    }
}

/// A field of comma-separated values, as Go's `encoding/csv` writes it.
fn csv_field(text: &str) -> String {
    let quoted = text.contains([',', '"', '\r', '\n']) || text.starts_with(' ');
    if quoted { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_string() }
}

/// The values of a parsed command line.
#[derive(Debug, Clone)]
pub struct Parsed {
    pub(super) values: BTreeMap<String, Held>,
    pub(super) positional: Vec<String>,
    pub(super) order: Vec<String>,
}

impl Parsed {
    pub(super) fn set(&mut self, flag: &Flag, value: String) -> Result<(), Error> {
        let invalid = |reason: String| Error::Invalid { name: flag.name.clone(), value: value.clone(), reason };
        let number = |what: &str| format!("strconv.{what}: parsing \"{value}\": invalid syntax");
        match flag.kind {
            Kind::Bool if parse_bool(&value).is_none() => return Err(invalid(number("ParseBool"))),
            Kind::Int if parse_int(&value).is_none() => return Err(invalid(number("ParseInt"))),
            Kind::Float if value.parse::<f64>().is_err() => {
                return Err(invalid(number("ParseFloat")));
            }
            Kind::Duration => {
                duration::parse(&value).map_err(|error| invalid(error.to_string()))?;
            }
            Kind::Map => {
                if let Some(bad) = value.split(',').find(|pair| !pair.is_empty() && !pair.contains('=')) {
                    return Err(invalid(format!("malformed pair, expect string=string: {bad}")));
                }
            }
            _ => {}
        }
        let held = self.values.get_mut(&flag.name).expect("every declared flag has a value");
        let repeatable = matches!(flag.kind, Kind::Strings | Kind::Array | Kind::Map);
        if !held.changed || !repeatable {
            held.texts.clear();
        }
        held.texts.push(value);
        held.changed = true;
        self.order.push(flag.name.clone());
        Ok(())
    }

    fn held(&self, name: &str, kinds: &[Kind]) -> &Held {
        let held = self.values.get(name).unwrap_or_else(|| panic!("flag --{name} is not declared"));
        assert!(kinds.contains(&held.kind), "flag --{name} is a {:?}", held.kind);
        held
    }

    fn text(&self, name: &str, kind: Kind) -> &str {
        self.held(name, &[kind]).texts.last().map_or("", String::as_str)
    }

    /// Whether the command line set this flag.
    pub fn changed(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(|held| held.changed)
    }

    /// Names of the flags that were set, in the order they came.
    pub fn set_flags(&self) -> &[String] {
        &self.order
    }

    pub fn string(&self, name: &str) -> String {
        self.text(name, Kind::String).to_string()
    }

    /// A string flag, `None` while it is empty.
    pub fn nonempty(&self, name: &str) -> Option<String> {
        Some(self.string(name)).filter(|text| !text.is_empty())
    }

    pub fn bool(&self, name: &str) -> bool {
        parse_bool(self.text(name, Kind::Bool)).expect("checked while parsing")
    }

    pub fn int(&self, name: &str) -> i64 {
        parse_int(self.text(name, Kind::Int)).expect("checked while parsing")
    }

    pub fn float(&self, name: &str) -> f64 {
        self.text(name, Kind::Float).parse().expect("checked while parsing")
    }

    pub fn duration(&self, name: &str) -> Duration {
        duration::parse(self.text(name, Kind::Duration)).expect("checked while parsing")
    }

    pub fn strings(&self, name: &str) -> Vec<String> {
        let held = self.held(name, &[Kind::Strings, Kind::Array]);
        if held.kind == Kind::Array {
            return held.texts.iter().filter(|_| held.changed).cloned().collect();
        }
        held.texts
            .iter()
            .flat_map(|text| text.split(','))
            .map(|item| item.trim().to_string())
            .filter(|item| !item.is_empty())
            .collect()
    }

    pub fn map(&self, name: &str) -> BTreeMap<String, String> {
        self.held(name, &[Kind::Map])
            .texts
            .iter()
            .flat_map(|text| text.split(','))
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.trim().to_string(), value.trim().to_string()))
            .collect()
    }

    /// Every flag of upstream's with what it is set to, as pflag writes it: what `/flagz` shows.
    pub fn shown(&self) -> BTreeMap<String, String> {
        let flags = self.values.iter().filter(|(_, held)| !held.former || held.changed);
        let mut shown: BTreeMap<_, _> = flags.map(|(name, held)| (name.clone(), held.shown())).collect();
        // pflag's own, which only ever is on while help is printed.
        shown.insert("help".to_string(), "false".to_string());
        shown
    }

    /// Arguments that are no flags.
    pub fn args(&self) -> &[String] {
        &self.positional
    }
}

fn parse_int(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let value = if let Some(hex) = digits.strip_prefix("0x") {
        i64::from_str_radix(hex, 16).ok()?
    } else if let Some(octal) = digits.strip_prefix("0o") {
        i64::from_str_radix(octal, 8).ok()?
    } else {
        digits.parse().ok()?
    };
    Some(if negative { -value } else { value })
}
