//! `kubectl convert`: manifests of old versions, written in versions that are served. What upstream has as a plugin of its
//! own is part of this program; it asks no server.

use apimachinery::gvk::GroupVersion;
use apimachinery::object::ObjectExt as _;
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use serde_json::{Value, json};

use crate::codec;
use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::printer::{self, PRINT_FLAGS, Printer};
use crate::resource::{Builder, FILE_FLAGS};

const FLAGS: &[Flag] = &[
    Flag::bool("local", "If true, convert will NOT try to contact api-server but run locally.").default("true"),
    Flag::string(
        "output-version",
        "Output the formatted object with the given group version (for ex: 'extensions/v1beta1').",
    ),
];

/// `kubectl convert`.
pub const COMMAND: Command = Command::new(
    "convert",
    "Convert config files between different API versions.",
    "-f FILENAME",
    &[FLAGS, FILE_FLAGS, PRINT_FLAGS],
    run,
);

fn run(ctx: &Context) -> LocalBoxFuture<'_, Result<()>> {
    std::future::ready(convert(ctx)).boxed_local()
}

fn convert(ctx: &Context) -> Result<()> {
    let flags = &ctx.parsed;
    let builder = Builder::from_flags(&ctx.factory, flags)?;
    if !builder.has_files() {
        return Err(Error::message("must specify one of -f and -k"));
    }
    let wanted = match flags.str("output-version") {
        "" => None,
        text => Some(GroupVersion::parse(text).map_err(|error| Error::message(error.to_string()))?),
    };
    let mut converted = Vec::new();
    let (mut documents, mut errors) = (0, Vec::new());
    for (source, text) in builder.sources(&ctx.streams)? {
        let parsed = codec::documents(&text).map_err(|why| Error::message(format!("error parsing {source}: {why}")))?;
        for document in parsed {
            documents += 1;
            for object in codec::flatten(document) {
                match one(object, wanted.as_ref()) {
                    Ok(object) => converted.push(object),
                    Err(why) => errors.push(Error::message(format!("unable to recognize {source:?}: {why}"))),
                }
            }
        }
    }
    if documents == 0 {
        return Err(Error::message("no objects passed to convert"));
    }
    Error::aggregate(errors)?;
    let shown = match converted.as_slice() {
        [only] if documents == 1 => only.clone(),
        _ => json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": converted}),
    };
    let given = printer::from_flags(flags, printer::FORMATS)?;
    let mut printer = given.unwrap_or(Printer::Yaml { managed_fields: true, printed: 0 });
    ctx.streams.out.text(&printer.print(&shown, None)?);
    Ok(())
}

/// One object in the version that is wanted, where its kind has that one, or in the one that is served best.
fn one(object: Value, wanted: Option<&GroupVersion>) -> std::result::Result<Value, String> {
    let kind = object.kind().to_owned();
    let version = GroupVersion::parse(object.api_version()).map_err(|error| error.to_string())?;
    let in_wanted = wanted.and_then(|to| api::table().find_resource_by_kind(&to.group, &to.version, &kind));
    let best = || api::conversion::preferred(&version.group, &kind);
    let to = in_wanted
        .or_else(best)
        .ok_or_else(|| format!("no matches for kind {kind:?} in version {:?}", version.to_string()))?;
    api::conversion::upgrade(object, to, |_, _| {})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(object: Value, wanted: Option<&str>) -> std::result::Result<Value, String> {
        let wanted = wanted.map(|text| GroupVersion::parse(text).expect("a version"));
        one(object, wanted.as_ref())
    }

    #[test]
    fn objects_go_to_the_version_that_is_served() {
        let role =
            json!({"apiVersion": "rbac.authorization.k8s.io/v1beta1", "kind": "Role", "metadata": {"name": "a"}});
        assert_eq!(to(role, None).expect("known")["apiVersion"], "rbac.authorization.k8s.io/v1");
        let scaler = json!({
            "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
            "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50,
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}},
        });
        let v2 = to(scaler.clone(), None).expect("known");
        assert_eq!(
            v2["spec"]["metrics"][0]["resource"]["target"],
            json!({"type": "Utilization", "averageUtilization": 50})
        );
        let v1 = to(v2, Some("autoscaling/v1")).expect("known");
        assert_eq!(v1["spec"]["targetCPUUtilizationPercentage"], 50);
        // A version that the kind does not have.
        assert_eq!(to(scaler, Some("apps/v1")).expect("known")["apiVersion"], "autoscaling/v2");
    }

    #[test]
    fn what_no_table_has_is_refused() {
        let odd = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a"}});
        assert_eq!(to(odd, None).unwrap_err(), r#"no matches for kind "Widget" in version "example.com/v1""#);
    }
}
