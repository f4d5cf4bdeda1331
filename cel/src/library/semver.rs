//! Kubernetes' semantic versions.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use apimachinery::gotext::quote;

use super::{Functions, text};
use crate::cost::Cost;
use crate::error::Error;
use crate::types::Type;
use crate::value::{Result, Value};

/// A version per semver.org 2.0.
#[derive(Clone, Debug)]
pub struct Semver {
    numbers: [u64; 3],
    pre: Vec<Identifier>,
    build: Vec<String>,
}

#[derive(Clone, Debug)]
enum Identifier {
    Number(u64),
    Text(String),
}

impl fmt::Display for Semver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        write!(f, "{major}.{minor}.{patch}")?;
        for (at, pre) in self.pre.iter().enumerate() {
            f.write_str(if at == 0 { "-" } else { "." })?;
            match pre {
                Identifier::Number(n) => n.fmt(f)?,
                Identifier::Text(text) => f.write_str(text)?,
            }
        }
        for (at, build) in self.build.iter().enumerate() {
            write!(f, "{}{build}", if at == 0 { "+" } else { "." })?;
        }
        Ok(())
    }
}

impl Semver {
    /// The order of versions: what is built differently is equal.
    pub fn compare(&self, other: &Semver) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => {
                for (a, b) in self.pre.iter().zip(&other.pre) {
                    let order = match (a, b) {
                        (Identifier::Number(a), Identifier::Number(b)) => a.cmp(b),
                        (Identifier::Number(_), Identifier::Text(_)) => Ordering::Less,
                        (Identifier::Text(_), Identifier::Number(_)) => Ordering::Greater,
                        (Identifier::Text(a), Identifier::Text(b)) => a.cmp(b),
                    };
                    if order.is_ne() {
                        return order;
                    }
                }
                self.pre.len().cmp(&other.pre.len())
            }
        })
    }

    fn parse(text: &str) -> std::result::Result<Semver, Error> {
        let fail = |message: String| Err(Error::new(message));
        if text.is_empty() {
            return fail("Version string empty".into());
        }
        let mut parts = text.splitn(3, '.');
        let (Some(major), Some(minor), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
            return fail("No Major.Minor.Patch elements found".into());
        };
        let (rest, build) = rest.split_once('+').map_or((rest, None), |(rest, build)| (rest, Some(build)));
        let (patch, pre) = rest.split_once('-').map_or((rest, None), |(patch, pre)| (patch, Some(pre)));
        let numbers =
            [number(major, "major", "Major")?, number(minor, "minor", "Minor")?, number(patch, "patch", "Patch")?];
        let mut version = Semver { numbers, pre: Vec::new(), build: Vec::new() };
        for part in pre.into_iter().flat_map(|pre| pre.split('.')) {
            if part.is_empty() {
                return fail("Prerelease is empty".into());
            }
            if part.bytes().all(|b| b.is_ascii_digit()) {
                if part.len() > 1 && part.starts_with('0') {
                    return fail(format!("Numeric PreRelease version must not contain leading zeroes {}", quote(part)));
                }
                version.pre.push(Identifier::Number(parse_number(part)?));
            } else if allowed(part) {
                version.pre.push(Identifier::Text(part.into()));
            } else {
                return fail(format!("Invalid character(s) found in prerelease {}", quote(part)));
            }
        }
        for part in build.into_iter().flat_map(|build| build.split('.')) {
            if part.is_empty() {
                return fail("Build meta data is empty".into());
            }
            if !allowed(part) {
                return fail(format!("Invalid character(s) found in build meta data {}", quote(part)));
            }
            version.build.push(part.into());
        }
        Ok(version)
    }

    /// Takes also `v1.02` for `1.2.0`.
    fn parse_tolerant(text: &str) -> std::result::Result<Semver, Error> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let mut parts: Vec<String> = text
            .splitn(3, '.')
            .map(|part| {
                if part.len() <= 1 {
                    return part.to_owned();
                }
                let trimmed = part.trim_start_matches('0');
                if trimmed.starts_with(|c: char| c.is_ascii_digit()) {
                    trimmed.to_owned()
                } else {
                    format!("0{trimmed}")
                }
            })
            .collect();
        if parts.len() < 3 {
            if parts.last().is_some_and(|last| last.contains(['+', '-'])) {
                return Err(Error::new("short version cannot contain PreRelease/Build meta data"));
            }
            parts.resize(3, "0".into());
        }
        Semver::parse(&parts.join("."))
    }
}

fn allowed(part: &str) -> bool {
    part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn number(part: &str, name: &str, title: &str) -> std::result::Result<u64, Error> {
    if !part.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Error::new(format!("Invalid character(s) found in {name} number {}", quote(part))));
    }
    if part.len() > 1 && part.starts_with('0') {
        return Err(Error::new(format!("{title} number must not contain leading zeroes {}", quote(part))));
    }
    parse_number(part)
}

fn parse_number(part: &str) -> std::result::Result<u64, Error> {
    part.parse().map_err(|_| {
        let why = if part.is_empty() { "invalid syntax" } else { "value out of range" };
        Error::new(format!("strconv.ParseUint: parsing {}: {why}", quote(part)))
    })
}

/// Declares them.
pub fn declare(f: &mut Functions) {
    let semver = Type::named("kubernetes.Semver");
    let one = std::slice::from_ref(&semver);
    let pair = [semver.clone(), semver.clone()];
    let lenient = [Type::String, Type::Bool];
    f.global("semver", "string_to_semver", &[Type::String], semver.clone(), Cost::Parse, make);
    f.global("semver", "string_bool_to_semver", &lenient, semver.clone(), Cost::Parse, make);
    f.global("isSemver", "is_semver_string", &[Type::String], Type::Bool, Cost::Parse, |args| {
        Ok(Value::Bool(make(args).is_ok()))
    });
    f.global("isSemver", "is_semver_string_bool", &lenient, Type::Bool, Cost::Parse, |args| {
        Ok(Value::Bool(make(args).is_ok()))
    });
    f.member("isGreaterThan", "semver_is_greater_than", &pair, Type::Bool, Cost::Nominal, |args| {
        Ok(Value::Bool(of(&args[0])?.compare(of(&args[1])?).is_gt()))
    });
    f.member("isLessThan", "semver_is_less_than", &pair, Type::Bool, Cost::Nominal, |args| {
        Ok(Value::Bool(of(&args[0])?.compare(of(&args[1])?).is_lt()))
    });
    f.member("compareTo", "semver_compare_to", &pair, Type::Int, Cost::Nominal, |args| {
        Ok(Value::Int(of(&args[0])?.compare(of(&args[1])?) as i64))
    });
    f.member("major", "semver_major", one, Type::Int, Cost::Nominal, |args| Ok(part(of(&args[0])?, 0)));
    f.member("minor", "semver_minor", one, Type::Int, Cost::Nominal, |args| Ok(part(of(&args[0])?, 1)));
    f.member("patch", "semver_patch", one, Type::Int, Cost::Nominal, |args| Ok(part(of(&args[0])?, 2)));
}

fn make<'a>(args: &mut [Value<'a>]) -> Result<'a> {
    let raw = text(&args[0])?;
    let lenient = matches!(args.get(1), Some(Value::Bool(true)));
    let version = if lenient { Semver::parse_tolerant(raw) } else { Semver::parse(raw) }?;
    Ok(Value::Semver(Arc::new(version)))
}

fn part<'a>(version: &Semver, at: usize) -> Value<'a> {
    // Go wraps around here.
    Value::Int(version.numbers[at].cast_signed())
}

fn of<'v>(value: &'v Value<'_>) -> std::result::Result<&'v Semver, Error> {
    match value {
        Value::Semver(version) => Ok(version),
        _ => Err(Error::no_such_overload()),
    }
}
