//! `--feature-gates=A=true,B=false`: named switches with a default and a stage.
//!
//! Components list the gates they know; gates of upstream that Keelson has no switch for are
//! accepted when the caller names them as known, and refused otherwise, as upstream refuses them.

use std::collections::BTreeMap;

/// How far a feature has come; decides what `AllAlpha` and `AllBeta` touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Alpha,
    Beta,
    /// Generally available: may be locked to its default.
    Ga,
}

/// One gate: its name, its default, its stage and whether it may still be changed.
#[derive(Debug, Clone, Copy)]
pub struct Gate {
    pub name: &'static str,
    pub default: bool,
    pub stage: Stage,
    pub locked: bool,
}

/// Why a setting was refused; texts equal upstream's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("unrecognized feature gate: {0}")]
    Unknown(String),
    #[error("cannot set feature gate {name} to {value}, feature is locked to {default}")]
    Locked { name: String, value: bool, default: bool },
    #[error("invalid value of {name}={value}, err: strconv.ParseBool: parsing \"{value}\": invalid syntax")]
    NotBool { name: String, value: String },
}

/// The resolved set of gates.
#[derive(Debug, Clone)]
pub struct FeatureGates {
    gates: BTreeMap<&'static str, (Gate, bool)>,
}

impl FeatureGates {
    /// All gates at their defaults.
    pub fn new(known: &[Gate]) -> Self {
        Self { gates: known.iter().map(|gate| (gate.name, (*gate, gate.default))).collect() }
    }

    /// Applies settings, as from `--feature-gates` or a config file.
    pub fn set(&mut self, settings: &BTreeMap<String, String>) -> Result<(), Error> {
        let mut explicit = Vec::new();
        for (name, value) in settings {
            let on = parse_bool(value).ok_or_else(|| Error::NotBool { name: name.clone(), value: value.clone() })?;
            match name.as_str() {
                "AllAlpha" => self.set_stage(Stage::Alpha, on),
                "AllBeta" => self.set_stage(Stage::Beta, on),
                _ => explicit.push((name, on)),
            }
        }
        for (name, on) in explicit {
            let (gate, value) = self.gates.get_mut(name.as_str()).ok_or_else(|| Error::Unknown(name.clone()))?;
            if gate.locked && on != gate.default {
                return Err(Error::Locked { name: name.clone(), value: on, default: gate.default });
            }
            *value = on;
        }
        Ok(())
    }

    fn set_stage(&mut self, stage: Stage, on: bool) {
        for (gate, value) in self.gates.values_mut() {
            if gate.stage == stage && !gate.locked {
                *value = on;
            }
        }
    }

    /// Whether a gate is on; a gate nobody declared is off.
    pub fn enabled(&self, name: &str) -> bool {
        self.gates.get(name).is_some_and(|(_, value)| *value)
    }
}

/// Go's `strconv.ParseBool`.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[Gate] = &[
        Gate { name: "Old", default: true, stage: Stage::Ga, locked: true },
        Gate { name: "New", default: false, stage: Stage::Alpha, locked: false },
    ];

    fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    #[test]
    fn gates_follow_settings() {
        let mut gates = FeatureGates::new(KNOWN);
        assert!(!gates.enabled("New"));
        gates.set(&settings(&[("AllAlpha", "true")])).unwrap();
        assert!(gates.enabled("New"));
        gates.set(&settings(&[("AllAlpha", "true"), ("New", "false")])).unwrap();
        assert!(!gates.enabled("New"), "an explicit setting wins over AllAlpha");
        assert_eq!(
            gates.set(&settings(&[("Old", "false")])).unwrap_err().to_string(),
            "cannot set feature gate Old to false, feature is locked to true"
        );
        assert_eq!(
            gates.set(&settings(&[("Nope", "true")])).unwrap_err().to_string(),
            "unrecognized feature gate: Nope"
        );
    }
}
