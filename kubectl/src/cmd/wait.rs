//! `kubectl wait`: until a condition holds, a field has a value, or things are there or gone.

use std::time::Duration;

use apimachinery::jsonpath::{self, JsonPath};
use futures::{FutureExt, StreamExt};
use serde_json::Value;

use super::ops::{Done, DryRun};
use crate::codec;
use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::printer::PRINT_FLAGS;
use crate::resource::{Builder, FILE_FLAGS, Info};
use crate::rest::{self, Call};

const FLAGS: &[Flag] = &[
    Flag::bool("all", "Select all resources in the namespace of the specified resource types"),
    Flag::bool("all-namespaces", "If present, list the requested object(s) across all namespaces.").short('A'),
    Flag::string("field-selector", "Selector (field query) to filter on, supports '=', '==', and '!='."),
    Flag::array(
        "for",
        "The condition to wait on: [create|delete|condition=condition-name[=condition-value]|jsonpath='{JSONPath expression}'=[JSONPath value]].",
    ),
    Flag::bool("local", "If true, annotation will NOT contact api-server but run locally."),
    Flag::string("selector", "Selector (label query) to filter on.").short('l'),
    Flag::duration(
        "timeout",
        "30s",
        "The length of time to wait before giving up. Zero means check once and don't wait, negative means wait for a week.",
    ),
];

/// `kubectl wait`.
pub const COMMAND: Command = Command::new(
    "wait",
    "Experimental: Wait for a specific condition on one or many resources.",
    "([-f FILENAME] | resource.group/resource.name | resource.group [(-l label | --all)]) [--for=create|--for=delete|--for condition=available|--for=jsonpath='{}'[=value]]",
    &[FLAGS, FILE_FLAGS, PRINT_FLAGS],
    |ctx| wait(ctx).boxed_local(),
);

const WEEK: Duration = Duration::from_secs(168 * 3600);

/// What is waited for.
enum Goal {
    Create,
    Delete,
    Condition { name: String, value: String },
    Path { path: JsonPath, value: Option<String> },
}

fn parse(text: &str) -> Result<Goal> {
    let lower = text.to_lowercase();
    if lower == "create" {
        return Ok(Goal::Create);
    }
    if lower == "delete" {
        return Ok(Goal::Delete);
    }
    if let Some(condition) = text.strip_prefix("condition=") {
        let (name, value) = condition.split_once('=').unwrap_or((condition, "true"));
        return Ok(Goal::Condition { name: name.to_lowercase(), value: value.to_lowercase() });
    }
    if let Some(rest) = text.strip_prefix("jsonpath=") {
        let end = rest.rfind('}').map_or(rest.len(), |end| end + 1);
        let (expression, value) = rest.split_at(end);
        let value = value.strip_prefix('\'').unwrap_or(value);
        let value = match value.strip_prefix('=') {
            Some("") => {
                return Err(Error::message(
                    "jsonpath wait has to have a value after equal sign, like --for=jsonpath='{.status.readyReplicas}'=3",
                ));
            }
            Some(value) => Some(value.trim_matches(|c| c == '\'' || c == '"').to_owned()),
            None => None,
        };
        let expression = expression.trim_matches(|c| c == '\'' || c == '"');
        let relaxed = jsonpath::relaxed(expression).map_err(|error| Error::message(error.to_string()))?;
        let path =
            JsonPath::parse(&relaxed).map_err(|error| Error::message(error.to_string()))?.allow_missing_keys(true);
        return Ok(Goal::Path { path, value });
    }
    Err(Error::message(format!("unrecognized condition: {text:?}")))
}

impl Goal {
    /// Whether an object has it.
    fn reached(&self, object: &Value) -> Result<bool> {
        match self {
            Goal::Create => Ok(true),
            Goal::Delete => Ok(false),
            Goal::Condition { name, value } => {
                let condition = codec::list(object, &["status", "conditions"])
                    .iter()
                    .find(|condition| codec::text(condition, &["type"]).to_lowercase() == *name);
                let Some(condition) = condition else { return Ok(false) };
                // A condition about an older spec says nothing yet.
                let generation = codec::int(object, &["metadata", "generation"]).unwrap_or(0);
                let observed = codec::int(condition, &["observedGeneration"])
                    .or_else(|| codec::int(object, &["status", "observedGeneration"]));
                Ok(observed.is_none_or(|observed| observed >= generation)
                    && codec::text(condition, &["status"]).to_lowercase() == *value)
            }
            Goal::Path { path, value } => {
                let found = path.find(object).map_err(|error| Error::message(error.to_string()))?;
                let found: Vec<_> = found.into_iter().flatten().collect();
                match (found.as_slice(), value) {
                    ([], _) => Ok(false),
                    (_, None) => Ok(true),
                    ([one], Some(value)) => match &**one {
                        Value::Array(_) | Value::Object(_) => {
                            Err(Error::message("jsonpath leads to a nested object or list which is not supported"))
                        }
                        scalar => Ok(jsonpath::to_text(scalar) == *value),
                    },
                    _ => Err(Error::message("given jsonpath expression matches more than one value")),
                }
            }
        }
    }
}

async fn wait(ctx: &Context) -> Result<()> {
    let flags = &ctx.parsed;
    let goals = flags.list("for").iter().map(|text| parse(text)).collect::<Result<Vec<_>>>()?;
    if goals.is_empty() {
        return Err(Error::message("unrecognized condition: []"));
    }
    let seconds = flags.duration("timeout").0;
    let limit = if seconds < 0.0 { WEEK } else { Duration::from_secs_f64(seconds) };
    let deadline = tokio::time::Instant::now() + limit;
    let builder = Builder::from_flags(&ctx.factory, flags)?;
    let mut done = Done::from_flags(flags, DryRun::None)?;
    let (mut infos, mut errors) = builder.objects(&ctx.factory, &ctx.streams).await?;
    let creating = goals.iter().any(|goal| matches!(goal, Goal::Create));
    while creating && infos.is_empty() && errors.iter().all(Error::is_not_found) {
        if tokio::time::Instant::now() + Duration::from_millis(500) > deadline {
            return Err(Error::message("timed out waiting for the condition"));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        (infos, errors) = builder.objects(&ctx.factory, &ctx.streams).await?;
    }
    if goals.iter().all(|goal| matches!(goal, Goal::Delete)) {
        // What is not there is what was wanted.
        errors.retain(|error| !error.is_not_found());
        Error::aggregate(errors)?;
        for info in infos {
            let uid = codec::text(&info.object, &["metadata", "uid"]).to_owned();
            super::delete::wait_gone(&ctx.factory, &info, Some(&uid), Some(deadline)).await?;
            done.print(&ctx.streams, &info, "condition met")?;
        }
        return Ok(());
    }
    Error::aggregate(errors)?;
    if infos.is_empty() {
        return Err(Error::message("no matching resources found"));
    }
    let mut errors = Vec::new();
    for mut info in infos {
        match reach_all(ctx, &mut info, &goals, deadline).await {
            Ok(()) => done.print(&ctx.streams, &info, "condition met")?,
            Err(error) => errors.push(error),
        }
    }
    Error::aggregate(errors)
}

async fn reach_all(ctx: &Context, info: &mut Info, goals: &[Goal], deadline: tokio::time::Instant) -> Result<()> {
    for goal in goals {
        let reached = tokio::time::timeout_at(deadline, reach(ctx, info, goal)).await;
        reached.unwrap_or_else(|_| {
            Err(Error::message(format!(
                "timed out waiting for the condition on {}/{}",
                info.mapping.resource, info.name
            )))
        })?;
    }
    Ok(())
}

/// Follows an object until it has what is waited for.
async fn reach(ctx: &Context, info: &mut Info, goal: &Goal) -> Result<()> {
    let rest = ctx.factory.rest().await?;
    let path = rest::path(&info.mapping, &info.namespace, "", "");
    let selector = format!("metadata.name={}", info.name);
    loop {
        let list = rest.value(Call::get(&path).query("fieldSelector", &selector)).await?;
        if let Some(object) =
            codec::flatten(list.clone()).into_iter().next().filter(|object| object["metadata"]["name"].is_string())
        {
            info.object = object;
            if goal.reached(&info.object)? {
                return Ok(());
            }
        }
        let version = codec::text(&list, &["metadata", "resourceVersion"]).to_owned();
        let events =
            rest.watch(Call::get(&path).query("fieldSelector", &selector).query("resourceVersion", version)).await?;
        let mut events = std::pin::pin!(events);
        while let Some(Ok(event)) = events.next().await {
            match codec::text(&event, &["type"]) {
                "ADDED" | "MODIFIED" => {
                    info.object = event["object"].clone();
                    if goal.reached(&info.object)? {
                        return Ok(());
                    }
                }
                "DELETED" => {
                    return Err(Error::message(format!("{} {:?} was deleted", info.mapping.resource, info.name)));
                }
                _ => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::parse;

    #[test]
    fn goals() {
        let pod = json!({"metadata": {"generation": 2}, "status": {"phase": "Running", "observedGeneration": 2,
            "conditions": [{"type": "Ready", "status": "True"}]}});
        for (text, expected) in [
            ("condition=Ready", true),
            ("condition=ready=false", false),
            ("jsonpath={.status.phase}=Running", true),
            ("jsonpath='{.status.phase}'=Pending", false),
            ("jsonpath={.status.nope}", false),
            ("create", true),
        ] {
            assert_eq!(parse(text).expect("well formed").reached(&pod).expect("comparable"), expected, "{text}");
        }
        assert!(parse("nonsense").is_err());
    }
}
