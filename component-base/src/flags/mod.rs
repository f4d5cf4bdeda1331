//! Command-line flags with pflag's syntax, which clap's derive cannot express.
//!
//! `--name=value`, `--name value`, `-n value`, booleans as `--name` or `--name=false`, lists that
//! are comma-separated and repeatable, `k=v` maps, Go durations. An unknown flag is an error that
//! names the nearest known one. Help and `--version` are answered by [`FlagSet::parse_or_exit`].
//!
//! A [`FlagSet`] declares; [`Parsed`] answers. Asking `Parsed` for a name that was not declared, or
//! with another type, is a programming error and panics.

mod parsed;

use std::fmt::Write as _;
use std::time::Duration;

use crate::duration;
use parsed::Held;
pub use parsed::Parsed;

/// The type of a flag, which decides how its text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    String,
    Bool,
    Int,
    Float,
    Duration,
    /// Comma-separated, repeatable; the first use replaces the default.
    Strings,
    /// Repeatable, each use is one value (commas kept), as pflag's `StringArray`.
    Array,
    /// `k=v` pairs, comma-separated, repeatable.
    Map,
}

impl Kind {
    fn type_name(self) -> &'static str {
        match self {
            Kind::String => "string",
            Kind::Bool => "",
            Kind::Int => "int",
            Kind::Float => "float",
            Kind::Duration => "duration",
            Kind::Strings => "strings",
            Kind::Array => "stringArray",
            Kind::Map => "mapStringString",
        }
    }
}

#[derive(Debug, Clone)]
struct Flag {
    name: String,
    short: Option<char>,
    kind: Kind,
    default: String,
    usage: String,
    hidden: bool,
    /// Upstream has no such flag any more.
    former: bool,
}

/// What is wrong with a command line. The texts equal pflag's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The flag does not exist; `nearest` is the closest known one.
    #[error("unknown flag: --{name}{}", did_you_mean(.nearest))]
    Unknown { name: String, nearest: Option<String> },
    #[error("unknown shorthand flag: '{flag}' in -{group}")]
    UnknownShort { flag: char, group: String },
    #[error("flag needs an argument: --{0}")]
    NeedsArgument(String),
    #[error("invalid argument \"{value}\" for \"--{name}\" flag: {reason}")]
    Invalid { name: String, value: String, reason: String },
    #[error("bad flag syntax: {0}")]
    Syntax(String),
    /// `--help` was asked for.
    #[error("help requested")]
    Help,
}

fn did_you_mean(nearest: &Option<String>) -> String {
    match nearest {
        Some(name) => format!("; did you mean --{name}?"),
        None => String::new(),
    }
}

/// The flags a command declares.
#[derive(Debug, Clone)]
pub struct FlagSet {
    command: String,
    about: String,
    flags: Vec<Flag>,
    interspersed: bool,
}

impl FlagSet {
    /// An empty set for a command of this name; `about` is the first paragraph of its help.
    pub fn new(command: &str, about: &str) -> Self {
        Self { command: command.to_string(), about: about.to_string(), flags: Vec::new(), interspersed: true }
    }

    /// Stops flag parsing at the first positional argument.
    pub fn stop_at_first_argument(&mut self) -> &mut Self {
        self.interspersed = false;
        self
    }

    fn declare(&mut self, name: &str, kind: Kind, default: String, usage: &str) -> &mut Self {
        assert!(!self.flags.iter().any(|flag| flag.name == name), "flag redefined: {name}");
        self.flags.push(Flag {
            name: name.to_string(),
            short: None,
            kind,
            default,
            usage: usage.to_string(),
            hidden: false,
            former: false,
        });
        self
    }

    /// Whether a flag of this name is declared.
    pub fn contains(&self, name: &str) -> bool {
        self.flags.iter().any(|flag| flag.name == name)
    }

    pub fn string(&mut self, name: &str, default: &str, usage: &str) -> &mut Self {
        self.declare(name, Kind::String, default.to_string(), usage)
    }

    pub fn bool(&mut self, name: &str, default: bool, usage: &str) -> &mut Self {
        self.declare(name, Kind::Bool, default.to_string(), usage)
    }

    pub fn int(&mut self, name: &str, default: i64, usage: &str) -> &mut Self {
        self.declare(name, Kind::Int, default.to_string(), usage)
    }

    pub fn float(&mut self, name: &str, default: f64, usage: &str) -> &mut Self {
        self.declare(name, Kind::Float, default.to_string(), usage)
    }

    pub fn duration(&mut self, name: &str, default: Duration, usage: &str) -> &mut Self {
        self.declare(name, Kind::Duration, duration::format(default), usage)
    }

    /// A comma-separated, repeatable list.
    pub fn strings(&mut self, name: &str, default: &[&str], usage: &str) -> &mut Self {
        self.declare(name, Kind::Strings, default.join(","), usage)
    }

    /// A repeatable flag whose values keep their commas.
    pub fn array(&mut self, name: &str, usage: &str) -> &mut Self {
        self.declare(name, Kind::Array, String::new(), usage)
    }

    /// `k=v` pairs.
    pub fn map(&mut self, name: &str, usage: &str) -> &mut Self {
        self.declare(name, Kind::Map, String::new(), usage)
    }

    /// Gives the flag declared last a one-letter form.
    pub fn short(&mut self, letter: char) -> &mut Self {
        let flag = self.flags.last_mut().expect("short follows a declaration");
        flag.short = Some(letter);
        self
    }

    /// Accepts upstream flags whose subject Keelson does not have: they parse, `help` hides them. A name may come with
    /// upstream's default behind an equals sign; without, that is the empty value of the kind.
    pub fn accepted(&mut self, kind: Kind, names: &[&str]) -> &mut Self {
        for name in names {
            let empty = match kind {
                Kind::Bool => "false",
                Kind::Int | Kind::Float => "0",
                Kind::Duration => "0s",
                _ => "",
            };
            let (name, default) = name.split_once('=').unwrap_or((name, empty));
            self.declare(name, kind, default.to_string(), "Accepted for compatibility.");
            self.flags.last_mut().expect("just declared").hidden = true;
        }
        self
    }

    /// As [`FlagSet::accepted`], of flags that upstream had in former releases.
    pub fn former(&mut self, kind: Kind, names: &[&str]) -> &mut Self {
        let known = self.flags.len();
        self.accepted(kind, names);
        self.flags[known..].iter_mut().for_each(|flag| flag.former = true);
        self
    }

    /// The flags every upstream component has: `-v`, `--vmodule`, `--logging-format`, `--version`,
    /// `--feature-gates` and the deprecated klog ones.
    pub fn common(&mut self) -> &mut Self {
        self.int("v", 0, "number for the log level verbosity").short('v');
        self.string("vmodule", "", "comma-separated list of pattern=N settings for file-filtered logging");
        self.string("logging-format", "text", "Sets the log format. Permitted formats: \"json\", \"text\".");
        self.string("version", "false", "--version, --version=raw prints version information and quits");
        self.map(
            "feature-gates",
            "A set of key=value pairs that describe feature gates for alpha/experimental features.",
        );
        self.accepted(Kind::Duration, &["log-flush-frequency=5s"]);
        self.accepted(Kind::Bool, &["log-text-split-stream", "log-json-split-stream"]);
        self.accepted(Kind::String, &["log-text-info-buffer-size=0", "log-json-info-buffer-size=0"]);
        self.former(
            Kind::Bool,
            &["alsologtostderr", "logtostderr", "one-output", "skip-headers", "skip-log-headers", "add-dir-header"],
        );
        self.former(Kind::String, &["log-dir", "log-file", "log-file-max-size", "stderrthreshold", "log-backtrace-at"]);
        self.accepted(Kind::Strings, &["emulated-version", "min-compatibility-version"]);
        self
    }

    /// Parses arguments (without the program's name).
    pub fn parse<I, S>(&self, args: I) -> Result<Parsed, Error>
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        let mut parsed = Parsed {
            values: self
                .flags
                .iter()
                .map(|flag| {
                    let texts = vec![flag.default.clone()];
                    (flag.name.clone(), Held { kind: flag.kind, texts, changed: false, former: flag.former })
                })
                .collect(),
            positional: Vec::new(),
            order: Vec::new(),
        };
        let mut args = args.into_iter().map(Into::into);
        while let Some(arg) = args.next() {
            if arg == "--" {
                parsed.positional.extend(args);
                break;
            }
            if let Some(body) = arg.strip_prefix("--") {
                if body.is_empty() || body.starts_with('-') || body.starts_with('=') {
                    return Err(Error::Syntax(arg));
                }
                let (name, value) = match body.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_string())),
                    None => (body, None),
                };
                // As upstream's normalization: underscores and dashes are the same.
                let name = name.replace('_', "-");
                let Some(flag) = self.flags.iter().find(|flag| flag.name == name) else {
                    if name == "help" {
                        return Err(Error::Help);
                    }
                    return Err(Error::Unknown { nearest: self.nearest(&name), name });
                };
                let value = match value {
                    Some(value) => value,
                    None if flag.kind == Kind::Bool || flag.name == "version" => "true".to_string(),
                    None => args.next().ok_or_else(|| Error::NeedsArgument(flag.name.clone()))?,
                };
                parsed.set(flag, value)?;
            } else if arg.len() > 1 && arg.starts_with('-') {
                let group = arg[1..].to_string();
                let mut rest = group.as_str();
                while let Some(letter) = rest.chars().next() {
                    rest = &rest[letter.len_utf8()..];
                    let Some(flag) = self.flags.iter().find(|flag| flag.short == Some(letter)) else {
                        if letter == 'h' {
                            return Err(Error::Help);
                        }
                        return Err(Error::UnknownShort { flag: letter, group });
                    };
                    if let Some(value) = rest.strip_prefix('=') {
                        parsed.set(flag, value.to_string())?;
                        break;
                    }
                    if flag.kind == Kind::Bool {
                        parsed.set(flag, "true".to_string())?;
                        continue;
                    }
                    let value = if rest.is_empty() {
                        args.next().ok_or_else(|| Error::NeedsArgument(flag.name.clone()))?
                    } else {
                        rest.to_string()
                    };
                    parsed.set(flag, value)?;
                    break;
                }
            } else {
                parsed.positional.push(arg);
                if !self.interspersed {
                    parsed.positional.extend(args);
                    break;
                }
            }
        }
        Ok(parsed)
    }

    /// Parses the process's arguments the way a component's `main` wants: prints help or the
    /// version and exits 0, prints an error and exits 1 (upstream's components use 1), else answers.
    pub fn parse_or_exit<I, S>(&self, args: I) -> Parsed
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        match self.parse(args) {
            Ok(parsed) => {
                if parsed.values.contains_key("version") && parsed.string("version") != "false" {
                    println!("Kubernetes {}", crate::version::git_version());
                    std::process::exit(0);
                }
                parsed
            }
            Err(Error::Help) => {
                print!("{}", self.help());
                std::process::exit(0);
            }
            Err(error) => {
                eprintln!("Error: {error}");
                std::process::exit(1);
            }
        }
    }

    /// The help text.
    pub fn help(&self) -> String {
        let mut out = format!("{}\n\nUsage:\n  {} [flags]\n\nFlags:\n", self.about, self.command);
        let mut flags: Vec<_> = self.flags.iter().filter(|flag| !flag.hidden).collect();
        flags.sort_by(|a, b| a.name.cmp(&b.name));
        let heads: Vec<String> = flags
            .iter()
            .map(|flag| {
                let short = flag.short.map_or("    ".to_string(), |letter| format!("-{letter}, "));
                format!("  {short}--{} {}", flag.name, flag.kind.type_name()).trim_end().to_string()
            })
            .collect();
        let width = heads.iter().map(String::len).max().unwrap_or(0).min(48);
        for (flag, head) in flags.iter().zip(heads) {
            let default = match flag.default.as_str() {
                "" | "false" | "0" | "0s" => String::new(),
                text if flag.kind == Kind::String => format!(" (default \"{text}\")"),
                text => format!(" (default {text})"),
            };
            writeln!(out, "{head:width$}   {}{default}", flag.usage).expect("writing to a String cannot fail");
        }
        out
    }

    fn nearest(&self, name: &str) -> Option<String> {
        self.flags
            .iter()
            .map(|flag| (strsim::levenshtein(&flag.name, name), &flag.name))
            .min()
            .filter(|(distance, known)| *distance <= (known.len().max(name.len()) / 2).max(2))
            .map(|(_, known)| known.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> FlagSet {
        let mut set = FlagSet::new("kube-test", "Tests.");
        set.string("kubeconfig", "", "path")
            .bool("leader-elect", true, "elect")
            .int("kube-api-burst", 30, "burst")
            .float("kube-api-qps", 20.0, "qps")
            .duration("node-monitor-grace-period", Duration::from_secs(50), "grace")
            .strings("controllers", &["*"], "list")
            .map("labels", "labels")
            .common();
        set
    }

    #[test]
    fn reads_every_form() {
        let parsed = set()
            .parse([
                "--kubeconfig",
                "/a=b",
                "--leader-elect=false",
                "--kube-api-qps=1.5",
                "-v=4",
                "--node_monitor_grace_period=1m",
                "--controllers=*,-foo",
                "--controllers",
                "bar",
                "--labels=a=b,c=d=e",
                "rest",
                "--",
                "--not-a-flag",
            ])
            .unwrap();
        assert_eq!(parsed.string("kubeconfig"), "/a=b");
        assert!(!parsed.bool("leader-elect"));
        assert_eq!(parsed.float("kube-api-qps"), 1.5);
        assert_eq!(parsed.int("v"), 4);
        assert_eq!(parsed.int("kube-api-burst"), 30);
        assert!(!parsed.changed("kube-api-burst"));
        assert_eq!(parsed.duration("node-monitor-grace-period"), Duration::from_secs(60));
        assert_eq!(parsed.strings("controllers"), ["*", "-foo", "bar"]);
        assert_eq!(parsed.map("labels")["c"], "d=e");
        assert_eq!(parsed.args(), ["rest", "--not-a-flag"]);
        assert_eq!(set().parse(["-v", "3"]).unwrap().int("v"), 3);
        assert!(set().parse(["--leader-elect"]).unwrap().bool("leader-elect"));
        assert_eq!(set().parse(Vec::<String>::new()).unwrap().strings("controllers"), ["*"]);
    }

    #[test]
    fn values_are_shown_as_pflag_writes_them() {
        let mut set = set();
        set.array("issuer", "issuers").accepted(Kind::Int, &["lease-reuse-duration-seconds=60"]);
        let shown = set
            .parse([
                "--kube-api-qps=1.50",
                "--node-monitor-grace-period=90s",
                "--leader-elect=0",
                "--controllers=*,-foo",
                "--controllers=bar",
                "--labels=c=d,a=b",
                "--issuer=a",
                "--issuer=b,c",
                "--alsologtostderr",
            ])
            .unwrap()
            .shown();
        for (name, value) in [
            ("kubeconfig", ""),
            ("kube-api-qps", "1.5"),
            ("kube-api-burst", "30"),
            ("node-monitor-grace-period", "1m30s"),
            ("leader-elect", "false"),
            ("controllers", "[*,-foo,bar]"),
            ("labels", "a=b,c=d"),
            ("issuer", "[a,\"b,c\"]"),
            ("lease-reuse-duration-seconds", "60"),
            ("emulated-version", "[]"),
            ("version", "false"),
            ("help", "false"),
            ("alsologtostderr", "true"),
        ] {
            assert_eq!(shown.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(!shown.contains_key("logtostderr"), "upstream has none");
    }

    #[test]
    fn errors_have_pflags_texts() {
        for (args, text) in [
            (vec!["--kubeconfg=x"], "unknown flag: --kubeconfg; did you mean --kubeconfig?"),
            (vec!["--completely-different-thing-altogether"], "unknown flag: --completely-different-thing-altogether"),
            (vec!["--kubeconfig"], "flag needs an argument: --kubeconfig"),
            (
                vec!["--kube-api-burst=x"],
                "invalid argument \"x\" for \"--kube-api-burst\" flag: strconv.ParseInt: parsing \"x\": invalid syntax",
            ),
            (vec!["-x"], "unknown shorthand flag: 'x' in -x"),
            (
                vec!["--labels=a"],
                "invalid argument \"a\" for \"--labels\" flag: malformed pair, expect string=string: a",
            ),
        ] {
            assert_eq!(set().parse(args).unwrap_err().to_string(), text);
        }
    }
}
