//! `kubectl completion`: scripts for shells, and `kubectl __complete`, which they call at every Tab.

use futures::FutureExt;

use crate::codec;
use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::factory::{Factory, GLOBAL_FLAGS};
use crate::flags::{self, Flag, Kind};
use crate::mapper;
use crate::rest::{self, Call};
use crate::streams::Output;

/// `kubectl completion`.
pub const COMMAND: Command = Command::new(
    "completion",
    "Output shell completion code for the specified shell (bash, zsh, fish, or powershell).",
    "SHELL",
    &[],
    |ctx| completion(ctx).boxed_local(),
);

const BASH: &str = r#"# bash completion for kubectl
__kubectl_complete()
{
    local IFS=$'\n' word=${COMP_WORDS[COMP_CWORD]}
    COMPREPLY=($(compgen -W "$("${COMP_WORDS[0]}" __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)" -- "$word"))
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == */ ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -o default -F __kubectl_complete kubectl
"#;

const ZSH: &str = r#"#compdef kubectl
# zsh completion for kubectl
_kubectl()
{
    local -a found
    found=("${(@f)$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    compadd -a found
}
if [ "$funcstack[1]" = "_kubectl" ]; then
    _kubectl
else
    compdef _kubectl kubectl
fi
"#;

const FISH: &str = r#"# fish completion for kubectl
function __kubectl_complete
    set --local words (commandline --tokenize-raw --cut-at-cursor) (commandline --current-token --cut-at-cursor)
    $words[1] __complete $words[2..-1] 2>/dev/null
end
complete --command kubectl --no-files --arguments '(__kubectl_complete)'
"#;

const POWERSHELL: &str = r#"# powershell completion for kubectl
Register-ArgumentCompleter -Native -CommandName 'kubectl' -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $words = @($commandAst.CommandElements | Select-Object -Skip 1 | ForEach-Object { "$_" })
    if ($wordToComplete -eq '') { $words += '' }
    & kubectl __complete @words 2>$null | ForEach-Object {
        [System.Management.Automation.CompletionResult]::new($_, $_, 'ParameterValue', $_)
    }
}
"#;

async fn completion(ctx: &Context) -> Result<()> {
    let [shell] = ctx.parsed.args.as_slice() else {
        return Err(ctx.usage_error(match ctx.parsed.args.len() {
            0 => "shell not specified",
            _ => "too many arguments. Expected only the shell type",
        }));
    };
    let script = match shell.as_str() {
        "bash" => BASH,
        "zsh" => ZSH,
        "fish" => FISH,
        "powershell" => POWERSHELL,
        other => return Err(ctx.usage_error(&format!("Unsupported shell type {other:?}."))),
    };
    ctx.streams.out.text(script);
    Ok(())
}

/// Verbs whose arguments are a type and names.
const TYPED: &[&str] = &[
    "get",
    "describe",
    "delete",
    "edit",
    "label",
    "annotate",
    "patch",
    "scale",
    "autoscale",
    "expose",
    "wait",
    "status",
    "history",
    "undo",
    "pause",
    "resume",
    "restart",
];
/// Verbs whose arguments are pods.
const PODS: &[&str] = &["logs", "exec", "attach", "port-forward", "debug", "cp", "pod"];
/// Verbs whose arguments are nodes.
const NODES: &[&str] = &["cordon", "uncordon", "drain", "taint", "node"];

/// What the last word may become; an empty last word may become anything.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Words(Vec<String>),
    Types,
    Names(String),
}

fn wanted(root: &'static Command, words: &[String]) -> Wanted {
    let Some((last, before)) = words.split_last() else { return Wanted::Words(Vec::new()) };
    let mut command = root;
    let mut args: Vec<&str> = Vec::new();
    let mut literal = false;
    let mut skip = false;
    for word in before {
        if std::mem::take(&mut skip) {
            continue;
        }
        if word == "--" {
            literal = true;
        } else if !literal && word.starts_with('-') {
            skip = takes_value(command, word);
        } else if let Some(child) =
            command.children.iter().find(|c| c.name == word || c.aliases.contains(&word.as_str()))
        {
            command = child;
        } else {
            args.push(word);
        }
    }
    if literal || skip {
        return Wanted::Words(Vec::new());
    }
    if last.starts_with('-') {
        let all = command.flags.iter().flat_map(|flags| flags.iter()).chain(GLOBAL_FLAGS);
        let mut names: Vec<String> = all.map(|flag| format!("--{}", flag.name)).collect();
        names.sort();
        names.dedup();
        return Wanted::Words(names);
    }
    if !command.children.is_empty() && args.is_empty() {
        return Wanted::Words(command.children.iter().map(|child| child.name.to_owned()).collect());
    }
    let names_of = |kind: &str| Wanted::Names(kind.to_owned());
    match (command.name, args.as_slice(), last.split_once('/')) {
        (name, _, Some((kind, _))) if TYPED.contains(&name) || PODS.contains(&name) => names_of(kind),
        (name, [], None) if TYPED.contains(&name) => Wanted::Types,
        (name, [kind, ..], None) if TYPED.contains(&name) => names_of(kind),
        (name, [], None) if PODS.contains(&name) => names_of("pods"),
        (name, _, None) if NODES.contains(&name) => names_of("nodes"),
        ("explain", [], None) => Wanted::Types,
        _ => Wanted::Words(Vec::new()),
    }
}

fn takes_value(command: &Command, word: &str) -> bool {
    let known = || command.flags.iter().flat_map(|flags| flags.iter()).chain(GLOBAL_FLAGS);
    let needs = |flag: &Flag| flag.kind != Kind::Bool && flag.bare.is_none();
    if word.contains('=') {
        return false;
    }
    match word.strip_prefix("--") {
        Some(long) => known().find(|flag| flag.name == long).is_some_and(needs),
        None => known().find(|flag| flag.short.is_some_and(|short| word == format!("-{short}"))).is_some_and(needs),
    }
}

/// Prints what the last of `words` may become, a line each. An API that does not answer completes nothing.
pub async fn complete(root: &'static Command, words: &[String], out: &Output, client: Option<kube::Client>) {
    let last = words.last().map(String::as_str).unwrap_or_default();
    let found = match wanted(root, words) {
        Wanted::Words(words) => words,
        other => asked(words, &other, client).await.unwrap_or_default(),
    };
    found.iter().filter(|word| word.starts_with(last)).for_each(|word| out.line(word));
}

async fn asked(words: &[String], wanted: &Wanted, client: Option<kube::Client>) -> Result<Vec<String>> {
    // The flags that say which cluster and namespace; what else stands on the line does not matter.
    let mut given = Vec::new();
    let mut rest_of_line = words.iter();
    while let Some(word) = rest_of_line.next() {
        let name = word.trim_start_matches('-').split('=').next().unwrap_or_default();
        let known = GLOBAL_FLAGS.iter().find(|flag| {
            word.starts_with("--") && flag.name == name || flag.short.is_some_and(|short| *word == format!("-{short}"))
        });
        if let Some(flag) = known {
            given.push(word.clone());
            if flag.kind != Kind::Bool && flag.bare.is_none() && !word.contains('=') {
                given.extend(rest_of_line.next().cloned());
            }
        }
    }
    let parsed = flags::parse(GLOBAL_FLAGS, &given)?;
    let factory = Factory::new(parsed, Output::new(std::io::sink()), client);
    match wanted {
        Wanted::Types => {
            let mapper = factory.mapper().await?;
            let mut names: Vec<String> = mapper.plurals();
            names.sort();
            names.dedup();
            Ok(names)
        }
        Wanted::Names(kind) => {
            let mapping = mapper::resolve(&factory, kind).await?;
            let (namespace, _) = factory.namespace()?;
            let namespace = if mapping.namespaced { namespace } else { String::new() };
            let call = Call::get(rest::path(&mapping, &namespace, "", ""))
                .accept("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json");
            let list = factory.rest().await?.value(call).await?;
            let slashed = words.last().is_some_and(|word| word.contains('/'));
            Ok(codec::list(&list, &["items"])
                .iter()
                .map(|item| codec::text(item, &["metadata", "name"]))
                .map(|name| if slashed { format!("{kind}/{name}") } else { name.to_owned() })
                .collect())
        }
        Wanted::Words(_) => Err(Error::message("nothing to ask for")),
    }
}

#[cfg(test)]
mod tests {
    use super::{Wanted, wanted};
    use crate::cmd::ROOT;

    fn of(line: &str) -> Wanted {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        wanted(&ROOT, &words)
    }

    #[test]
    fn what_may_follow() {
        assert!(matches!(of("ge"), Wanted::Words(words) if words.contains(&"get".to_owned())));
        assert!(matches!(of("rollout "), Wanted::Words(words) if words.contains(&"status".to_owned())));
        assert!(matches!(of("get --out"), Wanted::Words(words) if words.contains(&"--output".to_owned())));
        assert_eq!(of("get po"), Wanted::Types);
        assert_eq!(of("-n kube-system get pods "), Wanted::Names("pods".into()));
        assert_eq!(of("get deployment/x"), Wanted::Names("deployment".into()));
        assert_eq!(of("logs -f "), Wanted::Names("pods".into()));
        assert_eq!(of("drain "), Wanted::Names("nodes".into()));
        assert_eq!(of("exec p -- l"), Wanted::Words(Vec::new()));
        assert_eq!(of("get -o "), Wanted::Words(Vec::new()));
    }
}
