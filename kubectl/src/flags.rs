//! Command line flags in the manner of Go's pflag, which upstream's users and scripts know:
//! `--name=value`, `--name value`, `-n value`, `-nvalue`, `-n=value`, clustered short booleans,
//! flags after arguments, and everything after `--` taken literally.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `--x`, `--x=false`.
    Bool,
    /// One value, the last given wins.
    String,
    /// A whole number.
    Int,
    /// `1m30s`; a bare number is refused, except 0.
    Duration,
    /// Repeatable; each value is split at commas.
    StringSlice,
    /// Repeatable; values are taken as they are.
    StringArray,
}

/// One flag of a command.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// Long name without dashes.
    pub name: &'static str,
    /// One-letter name.
    pub short: Option<char>,
    /// What it takes.
    pub kind: Kind,
    /// Value when absent, as text.
    pub default: &'static str,
    /// Value when given without one (`--dry-run`).
    pub bare: Option<&'static str>,
    /// One line for the help.
    pub help: &'static str,
}

impl Flag {
    const fn new(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Self {
        Flag { name, short: None, kind, default, bare: None, help }
    }
    /// A switch that is off by default.
    pub const fn bool(name: &'static str, help: &'static str) -> Self {
        Self::new(name, Kind::Bool, "false", help)
    }
    /// A string, empty by default.
    pub const fn string(name: &'static str, help: &'static str) -> Self {
        Self::new(name, Kind::String, "", help)
    }
    /// A whole number.
    pub const fn int(name: &'static str, default: &'static str, help: &'static str) -> Self {
        Self::new(name, Kind::Int, default, help)
    }
    /// A span of time.
    pub const fn duration(name: &'static str, default: &'static str, help: &'static str) -> Self {
        Self::new(name, Kind::Duration, default, help)
    }
    /// A list split at commas.
    pub const fn slice(name: &'static str, help: &'static str) -> Self {
        Self::new(name, Kind::StringSlice, "", help)
    }
    /// A list, one value per flag.
    pub const fn array(name: &'static str, help: &'static str) -> Self {
        Self::new(name, Kind::StringArray, "", help)
    }
    /// With a one-letter name.
    pub const fn short(mut self, short: char) -> Self {
        self.short = Some(short);
        self
    }
    /// With another default.
    pub const fn default(mut self, default: &'static str) -> Self {
        self.default = default;
        self
    }
    /// With a value for when it is given without one.
    pub const fn bare(mut self, value: &'static str) -> Self {
        self.bare = Some(value);
        self
    }
}

/// A parsed command line.
#[derive(Debug, Default, Clone)]
pub struct Parsed {
    given: BTreeMap<&'static str, Vec<String>>,
    known: BTreeMap<&'static str, Flag>,
    /// Arguments that are not flags.
    pub args: Vec<String>,
    /// How many arguments came before `--`, when it was given.
    pub dash: Option<usize>,
}

/// Parses `args` against the flags a command knows.
///
/// # Errors
/// Unknown flags, missing and malformed values, in pflag's words.
pub fn parse(flags: &[Flag], args: &[String]) -> Result<Parsed> {
    let mut parsed = Parsed::default();
    for flag in flags {
        // A command's own flag comes before the global one of its name.
        parsed.known.entry(flag.name).or_insert(*flag);
    }
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--" {
            parsed.dash = Some(parsed.args.len());
            parsed.args.extend(args.cloned());
            break;
        }
        if let Some(long) = arg.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            let Some(flag) = flags.iter().find(|flag| flag.name == name) else {
                if name == "help" {
                    return Err(Error::Exit(HELP));
                }
                return Err(Error::message(format!("unknown flag: --{name}")));
            };
            let value = match value.or_else(|| bare(flag).map(str::to_owned)) {
                Some(value) => value,
                None => {
                    args.next().cloned().ok_or_else(|| Error::message(format!("flag needs an argument: --{name}")))?
                }
            };
            parsed.set(flag, &value)?;
        } else if arg.starts_with('-') && arg.len() > 1 {
            let cluster = &arg[1..];
            let mut rest = cluster;
            while let Some(short) = rest.chars().next() {
                rest = &rest[short.len_utf8()..];
                let Some(flag) = flags.iter().find(|flag| flag.short == Some(short)) else {
                    if short == 'h' {
                        return Err(Error::Exit(HELP));
                    }
                    return Err(Error::message(format!("unknown shorthand flag: '{short}' in -{cluster}")));
                };
                if let Some(value) = rest.strip_prefix('=') {
                    parsed.set(flag, value)?;
                    break;
                }
                if let Some(value) = bare(flag) {
                    parsed.set(flag, value)?;
                    continue;
                }
                if !rest.is_empty() {
                    parsed.set(flag, rest)?;
                    break;
                }
                let value = args
                    .next()
                    .ok_or_else(|| Error::message(format!("flag needs an argument: '{short}' in -{cluster}")))?;
                parsed.set(flag, value)?;
            }
        } else {
            parsed.args.push(arg.clone());
        }
    }
    Ok(parsed)
}

/// The pseudo exit code by which `--help` reaches the dispatcher.
pub const HELP: u8 = 255;

fn bare(flag: &Flag) -> Option<&'static str> {
    flag.bare.or((flag.kind == Kind::Bool).then_some("true"))
}

impl Parsed {
    fn set(&mut self, flag: &Flag, value: &str) -> Result<()> {
        let name = match flag.short {
            Some(short) => format!("-{short}, --{}", flag.name),
            None => format!("--{}", flag.name),
        };
        let invalid = |why: String| Err(Error::message(format!("invalid argument {value:?} for {name:?} flag: {why}")));
        match flag.kind {
            Kind::Bool if go_bool(value).is_none() => {
                return invalid(format!("strconv.ParseBool: parsing {value:?}: invalid syntax"));
            }
            Kind::Int if value.parse::<i64>().is_err() => {
                return invalid(format!("strconv.ParseInt: parsing {value:?}: invalid syntax"));
            }
            Kind::Duration => {
                if let Err(why) = duration(value) {
                    return invalid(why);
                }
            }
            _ => {}
        }
        let values = self.given.entry(flag.name).or_default();
        match flag.kind {
            Kind::StringSlice => values.extend(split_csv(value)),
            Kind::StringArray => values.push(value.to_owned()),
            _ => *values = vec![value.to_owned()],
        }
        Ok(())
    }

    /// Sets a flag as if it had been given.
    pub fn force(&mut self, name: &'static str, value: &str) {
        self.given.insert(name, vec![value.to_owned()]);
    }

    /// The same line without the flags of which `named` is true.
    #[must_use]
    pub fn without(&self, named: impl Fn(&str) -> bool) -> Self {
        let mut rest = self.clone();
        let global = |name: &str| crate::factory::GLOBAL_FLAGS.iter().any(|flag| flag.name == name);
        rest.given.retain(|name, _| !(global(name) && named(name)));
        rest
    }

    /// Whether the flag was given.
    pub fn changed(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// The value of a flag as text.
    pub fn str(&self, name: &str) -> &str {
        match self.given.get(name).and_then(|values| values.last()) {
            Some(value) => value,
            None => self.known.get(name).map_or("", |flag| flag.default),
        }
    }

    /// A switch.
    pub fn bool(&self, name: &str) -> bool {
        go_bool(self.str(name)).unwrap_or(false)
    }

    /// A number.
    pub fn int(&self, name: &str) -> i64 {
        self.str(name).parse().unwrap_or(0)
    }

    /// A span of time; zero and negative spans mean what each command says.
    pub fn duration(&self, name: &str) -> Seconds {
        duration(self.str(name)).unwrap_or(Seconds(0.0))
    }

    /// A repeatable flag.
    pub fn list(&self, name: &str) -> Vec<String> {
        match self.given.get(name) {
            Some(values) => values.clone(),
            None => split_csv(self.str(name)),
        }
    }
}

/// A signed span of time in seconds.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Seconds(pub f64);

impl Seconds {
    /// None for zero or less.
    pub fn positive(self) -> Option<std::time::Duration> {
        (self.0 > 0.0).then(|| std::time::Duration::from_secs_f64(self.0))
    }
}

/// One line of comma-separated values: a quoted value may hold commas.
fn split_csv(value: &str) -> Vec<String> {
    if value.is_empty() {
        return Vec::new();
    }
    let mut out = vec![String::new()];
    let mut quoted = false;
    for c in value.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => out.push(String::new()),
            c => out.last_mut().expect("never empty").push(c),
        }
    }
    out
}

fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Go's duration syntax.
///
/// # Errors
/// Go's words for what is malformed.
pub fn duration(text: &str) -> std::result::Result<Seconds, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(Seconds(0.0));
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let scale = match &rest[..unit] {
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            other => return Err(format!("time: unknown unit {other:?} in duration {text:?}")),
        };
        rest = &rest[unit..];
        total += number * scale;
    }
    Ok(Seconds(sign * total))
}

#[cfg(test)]
mod tests {
    use super::{Flag, Seconds, duration, parse};

    const FLAGS: &[Flag] = &[
        Flag::string("output", "").short('o'),
        Flag::bool("all", "").short('A'),
        Flag::bool("watch", "").short('w'),
        Flag::string("dry-run", "").default("none").bare("unchanged"),
        Flag::slice("filename", "").short('f'),
        Flag::int("tail", "-1", ""),
    ];

    fn args(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn forms() {
        let p = parse(FLAGS, &args("get pods -owide -Aw -f a,b -f=c --tail=5 --dry-run x -- -z")).expect("parses");
        assert_eq!((p.str("output"), p.bool("all"), p.bool("watch")), ("wide", true, true));
        assert_eq!(p.list("filename"), ["a", "b", "c"]);
        assert_eq!((p.int("tail"), p.str("dry-run")), (5, "unchanged"));
        assert_eq!(p.args, ["get", "pods", "x", "-z"]);
        assert_eq!(p.dash, Some(3));
        assert!(!p.changed("none"));
    }

    #[test]
    fn a_commands_own_flag_hides_the_global_one() {
        let flags =
            [&[Flag::string("profile", "").default("own"), Flag::string("user", "")], crate::factory::GLOBAL_FLAGS]
                .concat();
        let parsed = parse(&flags, &args("--user a --context c")).expect("parses");
        assert_eq!((parsed.str("profile"), parsed.str("user")), ("own", "a"));
        let global = parsed.without(|name| name == "user");
        assert_eq!((global.changed("user"), global.str("context")), (false, "c"));
    }

    #[test]
    fn errors() {
        for (line, expected) in [
            ("--nope", "unknown flag: --nope"),
            ("-z", "unknown shorthand flag: 'z' in -z"),
            ("--output", "flag needs an argument: --output"),
            ("-o", "flag needs an argument: 'o' in -o"),
            ("--tail=x", "invalid argument \"x\" for \"--tail\" flag: strconv.ParseInt: parsing \"x\": invalid syntax"),
            (
                "--all=x",
                "invalid argument \"x\" for \"-A, --all\" flag: strconv.ParseBool: parsing \"x\": invalid syntax",
            ),
        ] {
            assert_eq!(parse(FLAGS, &args(line)).expect_err(line).to_string(), expected);
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("1m30s"), Ok(Seconds(90.0)));
        assert_eq!(duration("0"), Ok(Seconds(0.0)));
        assert_eq!(duration("-1s"), Ok(Seconds(-1.0)));
        assert!(duration("5").is_err());
    }
}
