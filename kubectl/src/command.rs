//! The command tree: finding the command a line names, parsing its flags, telling what went wrong.

use futures::future::LocalBoxFuture;

use crate::error::{Error, Result};
use crate::factory::{Factory, GLOBAL_FLAGS};
use crate::flags::{self, Flag, HELP, Kind, Parsed};
use crate::streams::Streams;

/// What a command's function gets.
pub struct Context {
    /// Where it reads and writes.
    pub streams: Streams,
    /// Its flags and arguments.
    pub parsed: Parsed,
    /// Its connection.
    pub factory: Factory,
    /// `kubectl create secret`: how messages call it.
    pub path: String,
}

impl Context {
    /// An error that points to the command's help.
    pub fn usage_error(&self, message: &str) -> Error {
        Error::message(format!("{message}\nSee '{} -h' for help and examples", self.path))
    }
}

impl Context {
    /// Refuses arguments.
    ///
    /// # Errors
    /// When there are any.
    pub fn no_arguments(&self) -> Result<()> {
        if self.parsed.args.is_empty() {
            return Ok(());
        }
        Err(self.usage_error(&format!("unexpected arguments: [{}]", self.parsed.args.join(" "))))
    }
}

/// A command's function.
pub type Run = for<'a> fn(&'a Context) -> LocalBoxFuture<'a, Result<()>>;

/// A command, or a group of commands.
pub struct Command {
    /// Its word.
    pub name: &'static str,
    /// Other words for it.
    pub aliases: &'static [&'static str],
    /// One line about it.
    pub short: &'static str,
    /// What follows the word: `(TYPE NAME | -f FILENAME)`.
    pub usage: &'static str,
    /// Its flags, beside the global ones.
    pub flags: &'static [&'static [Flag]],
    /// What it does; None for a group.
    pub run: Option<Run>,
    /// The commands below it.
    pub children: &'static [Command],
}

impl Command {
    /// A command without aliases and children.
    pub const fn new(
        name: &'static str,
        short: &'static str,
        usage: &'static str,
        flags: &'static [&'static [Flag]],
        run: Run,
    ) -> Self {
        Command { name, aliases: &[], short, usage, flags, run: Some(run), children: &[] }
    }

    /// A group.
    pub const fn group(name: &'static str, short: &'static str, children: &'static [Command]) -> Self {
        Command { name, aliases: &[], short, usage: "", flags: &[], run: None, children }
    }

    /// With other words for it.
    pub const fn aliases(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    fn answers_to(&self, word: &str) -> bool {
        self.name == word || self.aliases.contains(&word)
    }
}

/// Runs a command line; returns the exit code.
pub async fn dispatch(root: &'static Command, args: &[String], streams: Streams, client: Option<kube::Client>) -> u8 {
    if let Some(("__complete", words)) = args.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        crate::cmd::complete(root, words, &streams.out, client).await;
        return 0;
    }
    let err = streams.err.clone();
    match run(root, args, streams, client).await {
        Ok(()) => 0,
        Err(error) => {
            let (text, code) = error.report();
            if !text.is_empty() {
                err.text(&if text.ends_with('\n') { text } else { format!("{text}\n") });
            }
            // Help is no failure; a remote command may end with any code.
            if matches!(error, Error::Exit(HELP)) { 0 } else { code }
        }
    }
}

async fn run(root: &'static Command, args: &[String], streams: Streams, client: Option<kube::Client>) -> Result<()> {
    let mut command = root;
    let mut path = root.name.to_owned();
    let mut rest = args.to_vec();
    while let Some(at) = first_argument(&rest, command) {
        let word = rest[at].clone();
        match command.children.iter().find(|child| child.answers_to(&word)) {
            Some(child) => {
                command = child;
                path = format!("{path} {}", child.name);
                rest.remove(at);
            }
            None if command.run.is_none() => {
                if word == "help" && path == root.name {
                    rest.remove(at);
                    rest.push("--help".into());
                    continue;
                }
                if path == root.name && at == 0 {
                    crate::cmd::run_plugin(&rest)?;
                }
                return Err(unknown(command, &path, &word));
            }
            None => break,
        }
    }
    let known: Vec<Flag> = command.flags.iter().flat_map(|flags| flags.iter()).chain(GLOBAL_FLAGS).copied().collect();
    let parsed = match flags::parse(&known, &rest) {
        Ok(parsed) => parsed,
        Err(Error::Exit(HELP)) => {
            streams.out.text(&help(command, &path));
            return Ok(());
        }
        Err(error) => return Err(Error::message(format!("{error}\nSee '{path} --help' for usage."))),
    };
    let Some(run) = command.run else {
        // A group alone does nothing, which below the root is a mistake.
        if path == root.name {
            streams.out.text(&help(command, &path));
            return Ok(());
        }
        streams.err.text(&help(command, &path));
        return Err(Error::Exit(1));
    };
    // A command's own `--user` is not the kubeconfig's.
    let own = |name: &str| command.flags.iter().flat_map(|flags| flags.iter()).any(|flag| flag.name == name);
    let factory = Factory::new(parsed.without(own), streams.err.clone(), client);
    run(&Context { streams, parsed, factory, path }).await
}

/// Where the first word is that is neither a flag nor a flag's value.
fn first_argument(args: &[String], command: &Command) -> Option<usize> {
    let known = || command.flags.iter().flat_map(|flags| flags.iter()).chain(GLOBAL_FLAGS);
    let takes_value = |flag: &&Flag| flag.kind != Kind::Bool && flag.bare.is_none();
    let mut index = 0;
    while let Some(arg) = args.get(index) {
        if arg == "--" {
            return None;
        }
        if let Some(long) = arg.strip_prefix("--") {
            if !long.contains('=') && known().any(|flag| flag.name == long && takes_value(&flag)) {
                index += 1;
            }
        } else if let Some(short) = arg.strip_prefix('-').filter(|short| !short.is_empty()) {
            let alone = short.chars().count() == 1;
            if alone && known().any(|flag| flag.short == short.chars().next() && takes_value(&flag)) {
                index += 1;
            }
        } else {
            return Some(index);
        }
        index += 1;
    }
    None
}

fn unknown(command: &Command, path: &str, word: &str) -> Error {
    if path.contains(' ') {
        return Error::message(format!("unknown command {word:?}\nSee '{path} -h' for help and examples"));
    }
    let mut text = format!("unknown command {word:?} for {path:?}");
    let near: Vec<&str> = command
        .children
        .iter()
        .filter(|child| strsim::levenshtein(child.name, word) <= 2 || child.name.starts_with(word))
        .map(|child| child.name)
        .collect();
    if near.is_empty() {
        text.push_str(&format!("\nRun '{path} --help' for usage."));
    } else {
        text.push_str("\n\nDid you mean this?\n");
        near.iter().for_each(|name| text.push_str(&format!("\t{name}\n")));
    }
    Error::message(text)
}

fn help(command: &Command, path: &str) -> String {
    let mut text = format!("{}\n", command.short);
    if !command.children.is_empty() {
        text.push_str("\nAvailable Commands:\n");
        let width = command.children.iter().map(|child| child.name.len()).max().unwrap_or(0);
        for child in command.children {
            text.push_str(&format!("  {:width$}   {}\n", child.name, child.short));
        }
    }
    let flags: Vec<&Flag> = command.flags.iter().flat_map(|flags| flags.iter()).collect();
    if !flags.is_empty() {
        text.push_str("\nOptions:\n");
        for flag in &flags {
            text.push_str(&flag_help(flag));
        }
    }
    text.push_str("\nUsage:\n  ");
    text.push_str(path);
    if command.run.is_some() {
        if !command.usage.is_empty() {
            text.push_str(&format!(" {}", command.usage));
        }
        text.push_str(if flags.is_empty() { "\n" } else { " [options]\n" });
    } else {
        text.push_str(" SUBCOMMAND [options]\n");
        text.push_str(&format!("\nUse \"{path} <command> --help\" for more information about a given command.\n"));
    }
    text.push_str("Use \"kubectl options\" for a list of global command-line options (applies to all commands).\n");
    text
}

/// A flag as help shows it.
pub fn flag_help(flag: &Flag) -> String {
    let short = flag.short.map_or_else(|| "    ".to_owned(), |short| format!("-{short}, "));
    let value = match flag.kind {
        Kind::Bool | Kind::Int | Kind::Duration => flag.default.to_owned(),
        Kind::String => format!("'{}'", flag.default),
        Kind::StringSlice | Kind::StringArray => "[]".to_owned(),
    };
    format!("    {short}--{}={value}:\n\t{}\n\n", flag.name, flag.help)
}

/// The flags every command takes, as `kubectl options` lists them.
pub fn global_flags_help() -> String {
    let mut text = "The following options can be passed to any command:\n\n".to_owned();
    for flag in GLOBAL_FLAGS {
        text.push_str(&flag_help(flag));
    }
    text
}
