//! `kubectl version` and `kubectl options`.

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use serde_json::{Value, json};

use crate::codec;
use crate::command::{self, Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::rest::{Call, go_arch};

const FLAGS: &[Flag] = &[
    Flag::bool("client", "If true, shows client version only (no server required)."),
    Flag::string("output", "One of 'yaml' or 'json'.").short('o'),
];

/// The kustomize release whose behaviour upstream of this version has.
const KUSTOMIZE: &str = "v5.8.1";

/// `kubectl version`.
pub const COMMAND: Command = Command::new(
    "version",
    "Print the client and server version information for the current context.",
    "",
    &[FLAGS],
    run,
);

/// `kubectl options`.
pub const OPTIONS: Command =
    Command::new("options", "Print the list of flags inherited by all commands.", "", &[], options);

fn options(ctx: &Context) -> LocalBoxFuture<'_, Result<()>> {
    async {
        ctx.streams.out.text(&command::global_flags_help());
        Ok(())
    }
    .boxed_local()
}

fn run(ctx: &Context) -> LocalBoxFuture<'_, Result<()>> {
    version(ctx).boxed_local()
}

async fn version(ctx: &Context) -> Result<()> {
    if !ctx.parsed.args.is_empty() {
        return Err(Error::message(format!("extra arguments: [{}]", ctx.parsed.args.join(" "))));
    }
    let output = ctx.parsed.str("output");
    if !matches!(output, "" | "yaml" | "json") {
        return Err(Error::message("--output must be 'yaml' or 'json'"));
    }
    let client = json!({
        "major": "1", "minor": "36", "gitVersion": crate::VERSION,
        "compiler": "rustc", "platform": format!("{}/{}", std::env::consts::OS, go_arch()),
    });
    let mut info = json!({"clientVersion": client, "kustomizeVersion": KUSTOMIZE});
    let mut failed = None;
    if !ctx.parsed.bool("client") {
        let asked = async { ctx.factory.rest().await?.value(Call::get("/version")).await };
        match asked.await {
            Ok(server) => info["serverVersion"] = server,
            Err(error) => failed = Some(error),
        }
    }
    match output {
        "json" => ctx.streams.out.text(&codec::json_text(&info)),
        "yaml" => ctx.streams.out.text(&codec::yaml_text(&info)),
        _ => {
            ctx.streams.out.line(&format!("Client Version: {}", crate::VERSION));
            ctx.streams.out.line(&format!("Kustomize Version: {KUSTOMIZE}"));
            if let Some(server) = info.get("serverVersion") {
                let version = codec::text(server, &["gitVersion"]);
                ctx.streams.out.line(&format!("Server Version: {version}"));
                if let Some(warning) = skew(server) {
                    ctx.streams.err.line(&warning);
                }
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Warns when the versions are more than one minor apart.
fn skew(server: &Value) -> Option<String> {
    let minor: i64 = codec::text(server, &["minor"]).trim_end_matches('+').parse().ok()?;
    ((minor - 36).abs() > 1).then(|| {
        format!("WARNING: version difference between client (1.36) and server (1.{minor}) exceeds the supported minor version skew of +/-1")
    })
}
