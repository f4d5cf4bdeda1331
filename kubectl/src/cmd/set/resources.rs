//! `kubectl set resources`: requests and limits of containers.

use futures::FutureExt;
use serde_json::{Map, Value, json};

use super::super::ops::{Done, DryRun};
use super::{FLAGS, builder, containers, pod_spec_path, submit};
use crate::codec;
use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::printer::PRINT_FLAGS;
use crate::resource::FILE_FLAGS;

const RESOURCE_FLAGS: &[Flag] = &[
    Flag::string("containers", "The names of containers in the selected pod templates to change, all containers are selected by default - may use wildcards")
        .short('c')
        .default("*"),
    Flag::string("limits", "The resource requirement requests for this container. For example, 'cpu=100m,memory=256Mi'."),
    Flag::string("requests", "The resource requirement requests for this container. For example, 'cpu=100m,memory=256Mi'."),
];

/// `kubectl set resources`.
pub const COMMAND: Command = Command::new(
    "resources",
    "Update resource requests/limits on objects with pod templates.",
    "(-f FILENAME | TYPE NAME) ([--limits=LIMITS & --requests=REQUESTS]",
    &[FLAGS, RESOURCE_FLAGS, FILE_FLAGS, PRINT_FLAGS],
    |ctx| set(ctx).boxed_local(),
);

/// `cpu=1,memory=1Gi` as quantities in canonical form.
fn parse(text: &str) -> Result<Map<String, Value>> {
    let mut found = Map::new();
    for pair in text.split(',').filter(|_| !text.is_empty()) {
        let parts: Vec<&str> = pair.split('=').collect();
        let [name, quantity] = parts.as_slice() else {
            return Err(Error::message(format!("Invalid argument syntax {pair}, expected <resource>=<value>")));
        };
        let quantity: apimachinery::quantity::Quantity =
            quantity.parse().map_err(|error| Error::message(format!("{error}")))?;
        found.insert((*name).to_owned(), json!(quantity.to_string()));
    }
    Ok(found)
}

async fn set(ctx: &Context) -> Result<()> {
    let flags = &ctx.parsed;
    let dry_run = DryRun::from_flags(flags)?;
    let builder = builder(ctx)?;
    if flags.str("limits").is_empty() && flags.str("requests").is_empty() {
        return Err(Error::message(
            "you must specify an update to requests or limits (in the form of --requests/--limits)",
        ));
    }
    let wanted = [("limits", parse(flags.str("limits"))?), ("requests", parse(flags.str("requests"))?)];
    let (infos, mut errors) = builder.objects(&ctx.factory, &ctx.streams).await?;
    let mut done = Done::from_flags(flags, dry_run)?;
    let selector = flags.str("containers");
    for mut info in infos {
        let Some(path) = pod_spec_path(&info.mapping.kind) else {
            errors.push(Error::message(format!(
                "error: {} the object is not a pod or does not have a pod template: {}\n",
                info.object_name(),
                info.mapping.kind
            )));
            continue;
        };
        let mut object = info.object.clone();
        let mut found = false;
        for field in ["containers", "initContainers"] {
            for container in containers(&mut object, path, field) {
                if !matches(selector, codec::text(container, &["name"])) {
                    continue;
                }
                found = true;
                for (kind, quantities) in &wanted {
                    for (name, quantity) in quantities {
                        codec::set(container, &["resources", kind, name], quantity.clone());
                    }
                }
            }
        }
        if !found {
            errors.push(Error::message(format!("error: unable to find container named {selector}")));
            continue;
        }
        submit(
            ctx,
            &mut info,
            object,
            &mut done,
            dry_run,
            ("resource requirements", "resources update to pod template"),
        )
        .await?;
    }
    Error::aggregate(errors)
}

/// Whether a name fits a pattern in which `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut last = first;
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
        last = part;
    }
    rest.is_empty() || (pattern.contains('*') && last.is_empty()) || (pattern.contains('*') && name.ends_with(last))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{matches, parse};

    #[test]
    fn quantities() {
        assert_eq!(json!(parse("cpu=1000m,memory=1Gi").expect("parses")), json!({"cpu": "1", "memory": "1Gi"}));
        assert!(parse("").expect("nothing").is_empty());
        assert!(parse("cpu=x").is_err() && parse("cpu").is_err());
    }

    #[test]
    fn patterns() {
        for (pattern, name, expected) in
            [("*", "a", true), ("a*", "ab", true), ("a", "ab", false), ("*b", "ab", true), ("*b", "ba", false)]
        {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
