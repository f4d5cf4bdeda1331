//! Levels and versions of the Pod Security Standards, and how a namespace's labels choose them.

use apimachinery::field::{self, ErrorList, Path};
use serde_json::{Map, Value};

/// How much a pod may do, from anything to little.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    /// As labels say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        }
    }

    /// Reads a label or configuration.
    ///
    /// # Errors
    /// Names the levels there are.
    pub fn parse(text: &str) -> Result<Level, String> {
        [Level::Privileged, Level::Baseline, Level::Restricted]
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or_else(|| "must be one of privileged, baseline, restricted".to_string())
    }
}

/// The release whose standards are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// `v1.N`
    Minor(u32),
    Latest,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Version::Minor(minor) => write!(f, "v1.{minor}"),
            Version::Latest => f.write_str("latest"),
        }
    }
}

impl Version {
    /// Reads a label or configuration.
    ///
    /// # Errors
    /// Says which forms there are.
    pub fn parse(text: &str) -> Result<Version, String> {
        if text == "latest" {
            return Ok(Version::Latest);
        }
        text.strip_prefix("v1.")
            .filter(|minor| {
                minor.bytes().all(|byte| byte.is_ascii_digit()) && (*minor == "0" || !minor.starts_with('0'))
            })
            .and_then(|minor| minor.parse().ok())
            .map(Version::Minor)
            .ok_or_else(|| "must be \"latest\" or \"v1.x\"".to_string())
    }
}

/// A level as of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Standard {
    pub level: Level,
    pub version: Version,
}

impl std::fmt::Display for Standard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.level.as_str(), self.version)
    }
}

impl Standard {
    /// Anything goes.
    pub const PRIVILEGED: Standard = Standard { level: Level::Privileged, version: Version::Latest };
}

/// What a namespace asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Pods that violate it are refused.
    pub enforce: Standard,
    /// Violations are recorded.
    pub audit: Standard,
    /// Violations are told to the user.
    pub warn: Standard,
}

impl Default for Policy {
    fn default() -> Self {
        Self { enforce: Standard::PRIVILEGED, audit: Standard::PRIVILEGED, warn: Standard::PRIVILEGED }
    }
}

impl Policy {
    /// Whether there is nothing to check.
    pub fn fully_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|standard| standard.level == Level::Privileged)
    }

    /// What the labels make of the defaults. A label that cannot be read makes enforcement restricted,
    /// and the other modes silent.
    pub fn of(labels: Option<&Map<String, Value>>, defaults: Policy) -> (Policy, ErrorList) {
        let mut policy = defaults;
        let mut errors = ErrorList::new();
        let label = |name: &str| labels?.get(&format!("pod-security.kubernetes.io/{name}"))?.as_str();
        let mut read = |name: &str, standard: &mut Standard, fallback: Level| {
            let mut refuse = |name: &str, value: &str, error: String| {
                let path = Path::new("metadata").child("labels").key(format!("pod-security.kubernetes.io/{name}"));
                errors.push(field::invalid(&path, value, error));
            };
            let mut valid = false;
            if let Some(value) = label(name) {
                standard.level = Level::parse(value).unwrap_or_else(|error| {
                    refuse(name, value, error);
                    fallback
                });
                valid = Level::parse(value).is_ok();
            }
            let name = format!("{name}-version");
            if let Some(value) = label(&name) {
                standard.version = Version::parse(value).unwrap_or_else(|error| {
                    refuse(&name, value, error);
                    Version::Latest
                });
            }
            valid
        };
        let enforces = read("enforce", &mut policy.enforce, Level::Restricted);
        read("audit", &mut policy.audit, Level::Privileged);
        read("warn", &mut policy.warn, Level::Privileged);
        // Who enforces more than is warned of wants to hear of it for workloads, too.
        if enforces && label("warn").is_none() && policy.enforce.level > policy.warn.level {
            policy.warn.level = policy.enforce.level;
            if label("warn-version").is_none() {
                policy.warn.version = policy.enforce.version;
            }
        }
        (policy, errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn labels_choose() {
        let of = |labels: Value| {
            let (policy, errors) = Policy::of(labels.as_object(), Policy::default());
            let errors = if errors.is_empty() { String::new() } else { errors.to_aggregate() };
            (format!("{} {} {}", policy.enforce, policy.audit, policy.warn), errors)
        };
        let label = |name: &str| format!("pod-security.kubernetes.io/{name}");
        for (labels, policy, error) in [
            (json!({}), "privileged:latest privileged:latest privileged:latest", ""),
            (
                json!({label("enforce"): "baseline", label("enforce-version"): "v1.25"}),
                "baseline:v1.25 privileged:latest baseline:v1.25",
                "",
            ),
            (
                json!({label("enforce"): "restricted", label("warn"): "privileged"}),
                "restricted:latest privileged:latest privileged:latest",
                "",
            ),
            (
                json!({label("enforce"): "strong"}),
                "restricted:latest privileged:latest privileged:latest",
                "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strong\": must be one of privileged, baseline, restricted",
            ),
            (
                json!({label("warn-version"): "v1.01"}),
                "privileged:latest privileged:latest privileged:latest",
                "metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: \"v1.01\": must be \"latest\" or \"v1.x\"",
            ),
        ] {
            assert_eq!(of(labels.clone()), (policy.to_string(), error.to_string()), "{labels}");
        }
    }
}
