//! How a component is doing: since when it runs, in which version, and where else to look.

use std::collections::BTreeSet;

use apimachinery::time;
use serde_json::{Value, json};

use super::{Pages, delimiter, heading};
use crate::version;

/// What is no use to somebody who debugs.
const NOT_DEBUGGING: [&str; 5] = ["/apis", "/api", "/openid", "/openapi", "/.well-known"];

/// The first parts of paths, each once and sorted, without those of the API itself.
pub fn folders(paths: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<String> {
    let folders: BTreeSet<String> = paths
        .into_iter()
        .filter_map(|path| Some(format!("/{}", path.as_ref().split('/').nth(1).filter(|part| !part.is_empty())?)))
        .filter(|folder| !NOT_DEBUGGING.contains(&folder.as_str()))
        .collect();
    folders.into_iter().collect()
}

/// Seconds since the process began.
fn uptime(pages: &Pages) -> i64 {
    pages.clock.now().duration_since(pages.started).as_secs().max(0)
}

/// For people.
pub fn text(pages: &Pages) -> String {
    let (up, delimiter) = (uptime(pages), delimiter(pages));
    let started = pages.started.to_zoned(jiff::tz::TimeZone::system());
    let lines = [
        ("Started", started.strftime("%a %b %e %H:%M:%S %Z %Y").to_string()),
        ("Up", format!("{} hr {:02} min {:02} sec", up / 3600, up / 60 % 60, up % 60)),
        ("Go version", String::new()),
        ("Binary version", version::release().to_string()),
        ("Emulation version", version::minor().to_string()),
        ("Paths", pages.paths.iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" ")),
    ];
    let mut out = heading(pages.component, "statusz") + "\n";
    for (name, value) in lines {
        if name == "Paths" && value.is_empty() {
            out.push('\n');
        } else {
            out += &format!("{name}{delimiter} {value}\n");
        }
    }
    out
}

/// For programs, but for what every object has.
pub fn object(pages: &Pages) -> Value {
    json!({
        "startTime": time::format(pages.started),
        "uptimeSeconds": uptime(pages),
        // No part of these programs is Go, and the field is not optional.
        "goVersion": "",
        "binaryVersion": version::release(),
        "emulationVersion": version::minor(),
        "paths": pages.paths,
    })
}
