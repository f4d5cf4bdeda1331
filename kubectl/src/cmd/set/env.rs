//! `kubectl set env`: environment variables of containers.

use futures::FutureExt;
use serde_json::{Value, json};

use super::super::ops::{Done, DryRun};
use super::{FLAGS, containers, pod_spec_path, split, submit};
use crate::codec;
use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::mapper;
use crate::printer::PRINT_FLAGS;
use crate::resource::FILE_FLAGS;
use crate::rest::{self, Call};

const ENV_FLAGS: &[Flag] = &[
    Flag::string("containers", "The names of containers in the selected pod templates to change - may use wildcards")
        .short('c')
        .default("*"),
    Flag::array("env", "Specify a key-value pair for an environment variable to set into each container.").short('e'),
    Flag::string("from", "The name of a resource from which to inject environment variables"),
    Flag::slice("keys", "Comma-separated list of keys to import from specified resource"),
    Flag::string("prefix", "Prefix to append to variable names"),
    Flag::bool("list", "If true, display the environment and any changes in the standard format."),
    Flag::bool(
        "overwrite",
        "If true, allow environment to be overwritten, otherwise reject updates that overwrite existing environment.",
    )
    .default("true"),
];

/// `kubectl set env`.
pub const COMMAND: Command = Command::new(
    "env",
    "Update environment variables on a pod template.",
    "RESOURCE/NAME KEY_1=VAL_1 ... KEY_N=VAL_N",
    &[FLAGS, ENV_FLAGS, FILE_FLAGS, PRINT_FLAGS],
    |ctx| env(ctx).boxed_local(),
);

/// A key as the name of a variable: capitals, and underscores for what a name may not hold.
fn variable_name(prefix: &str, key: &str) -> String {
    let key: String = key.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
    format!("{prefix}{}", key.to_uppercase())
}

/// References to the keys of the ConfigMap or Secret that `--from` names.
async fn imported(ctx: &Context) -> Result<Vec<Value>> {
    let flags = &ctx.parsed;
    let from = flags.str("from");
    let keys = flags.list("keys");
    if from.is_empty() {
        return if keys.is_empty() {
            Ok(Vec::new())
        } else {
            Err(Error::message("when specifying --keys, a configmap or secret must be provided with --from"))
        };
    }
    let (resource, name) = from
        .split_once('/')
        .ok_or_else(|| Error::message("arguments in resource/name form must have a single resource and name"))?;
    let mapping = mapper::resolve(&ctx.factory, resource).await?;
    let reference = match mapping.kind.as_str() {
        "ConfigMap" => "configMapKeyRef",
        "Secret" => "secretKeyRef",
        _ => return Err(Error::message("unsupported resource specified in --from")),
    };
    let (namespace, _) = ctx.factory.namespace()?;
    let source = ctx.factory.rest().await?.value(Call::get(rest::path(&mapping, &namespace, name, ""))).await?;
    let found = codec::pairs(&source, &["data"]);
    let found = found.into_iter().filter(|(key, _)| keys.is_empty() || keys.iter().any(|wanted| wanted == key));
    Ok(found
        .map(|(key, _)| {
            json!({"name": variable_name(flags.str("prefix"), key), "valueFrom": {reference: {"name": name, "key": key}}})
        })
        .collect())
}

async fn env(ctx: &Context) -> Result<()> {
    let flags = &ctx.parsed;
    let dry_run = DryRun::from_flags(flags)?;
    let (infos, mut pairs, mut errors) = split(ctx).await?;
    pairs.extend(flags.list("env"));
    let imported = imported(ctx).await?;
    let mut done = Done::from_flags(flags, dry_run)?;
    for mut info in infos {
        let Some(path) = pod_spec_path(&info.mapping.kind) else {
            errors
                .push(Error::message(format!("{}/{} does not have a pod template", info.mapping.resource, info.name)));
            continue;
        };
        let mut object = info.object.clone();
        let wanted = flags.str("containers").to_owned();
        for container in containers(&mut object, path, "containers") {
            let name = codec::text(container, &["name"]).to_owned();
            if wanted != "*" && wanted != name {
                continue;
            }
            let mut variables = codec::list(container, &["env"]).to_vec();
            for variable in &imported {
                match variables.iter_mut().find(|known| known["name"] == variable["name"]) {
                    Some(known) => known.clone_from(variable),
                    None => variables.push(variable.clone()),
                }
            }
            for pair in &pairs {
                let (key, value) = match pair.split_once('=') {
                    Some((key, value)) => (key, Some(value)),
                    None => (pair.trim_end_matches('-'), None),
                };
                let at = variables.iter().position(|variable| variable["name"] == key);
                match (at, value) {
                    (Some(_), Some(_)) if !flags.bool("overwrite") => {
                        return Err(Error::message(format!("'{key}' already has a value, and --overwrite is false")));
                    }
                    (Some(at), Some(value)) => variables[at] = json!({"name": key, "value": value}),
                    (None, Some(value)) => variables.push(json!({"name": key, "value": value})),
                    (Some(at), None) => {
                        variables.remove(at);
                    }
                    (None, None) => {}
                }
            }
            if flags.bool("list") {
                ctx.streams.out.line(&format!("# {} {}, container {name}", info.mapping.kind, info.name));
                for variable in &variables {
                    let shown = match codec::at(variable, &["valueFrom"]) {
                        Some(_) => format!("# {} from a reference", codec::text(variable, &["name"])),
                        None => format!("{}={}", codec::text(variable, &["name"]), codec::text(variable, &["value"])),
                    };
                    ctx.streams.out.line(&shown);
                }
            }
            if variables.is_empty() {
                codec::remove(container, &["env"]);
            } else {
                container["env"] = Value::Array(variables);
            }
        }
        if !flags.bool("list") {
            submit(ctx, &mut info, object, &mut done, dry_run, ("env", "env update to pod template:")).await?;
        }
    }
    Error::aggregate(errors)
}

#[cfg(test)]
mod tests {
    use super::variable_name;

    #[test]
    fn names() {
        assert_eq!(variable_name("P_", "a.b-c"), "P_A_B_C");
        assert_eq!(variable_name("", "x_1"), "X_1");
    }
}
