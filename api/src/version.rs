//! What `/version` answers and what every binary calls itself.

use serde_json::{Value, json};

/// The Kubernetes release whose API this is, marked as ours.
pub const GIT_VERSION: &str = "v1.36.2+keelson";
pub const MAJOR: &str = "1";
pub const MINOR: &str = "36";

/// `version.Info`.
pub fn version() -> Value {
    let platform = format!(
        "linux/{}",
        match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
    );
    json!({
        "major": MAJOR,
        "minor": MINOR,
        "emulationMajor": MAJOR,
        "emulationMinor": MINOR,
        "minCompatibilityMajor": MAJOR,
        "minCompatibilityMinor": "35",
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": platform,
    })
}
