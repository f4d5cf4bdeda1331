//! The options of `meta/v1`: ListOptions, CreateOptions, UpdateOptions, PatchOptions and
//! DeleteOptions, from the query or, for deletes, from the body; with upstream's checks and texts.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::gvk::GroupKind;
use apimachinery::status::Status;
use serde_json::Value;

use super::Query;

/// What `fieldValidation` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    /// The default: problems become Warning headers.
    #[default]
    Warn,
    Strict,
}

/// `CreateOptions`, `UpdateOptions` and `PatchOptions`, which differ in `force` only.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub field_manager: String,
    pub field_validation: FieldValidation,
    /// Apply only.
    pub force: Option<bool>,
}

/// What is being validated, which names the options in the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteKind {
    Create,
    Update,
    Patch,
    Apply,
}

impl WriteOptions {
    /// Reads and checks the query.
    ///
    /// # Errors
    /// 422 naming the option.
    pub fn parse(query: &Query, kind: WriteKind) -> Result<Self, Status> {
        let mut errors = ErrorList::new();
        let mut options = Self {
            field_manager: query.get("fieldManager").unwrap_or_default().to_string(),
            force: query.has("force").then(|| query.flag("force")),
            ..Self::default()
        };
        match kind {
            WriteKind::Apply if options.field_manager.is_empty() => {
                errors.push(field::required(&Path::new("fieldManager"), "is required for apply patch"))
            }
            WriteKind::Patch if options.force.is_some() => {
                errors.push(field::forbidden(&Path::new("force"), "may not be specified for non-apply patch"))
            }
            _ => {}
        }
        check_field_manager(&options.field_manager, &mut errors);
        options.dry_run = dry_run(&query_dry_run(query), &mut errors);
        match query.get("fieldValidation").unwrap_or_default() {
            "" | "Warn" => {}
            "Ignore" => options.field_validation = FieldValidation::Ignore,
            "Strict" => options.field_validation = FieldValidation::Strict,
            other => errors.push(field::not_supported(
                &Path::new("fieldValidation"),
                other,
                &["", "Ignore", "Strict", "Warn"],
            )),
        }
        let name = match kind {
            WriteKind::Create => "CreateOptions",
            WriteKind::Update => "UpdateOptions",
            WriteKind::Patch | WriteKind::Apply => "PatchOptions",
        };
        finish(name, errors)?;
        Ok(options)
    }
}

fn query_dry_run(query: &Query) -> Vec<String> {
    query.all("dryRun").map(str::to_string).collect()
}

fn dry_run(values: &[String], errors: &mut ErrorList) -> bool {
    if values.iter().any(|value| value != "All") {
        errors.push(field::not_supported(&Path::new("dryRun"), Value::from(values.to_vec()), &["All"]));
    }
    !values.is_empty()
}

fn check_field_manager(manager: &str, errors: &mut ErrorList) {
    let path = Path::new("fieldManager");
    if manager.len() > 128 {
        errors.push(field::too_long(&path, 128));
    }
    for (at, c) in manager.char_indices() {
        if c.is_control() || (c.is_whitespace() && c != ' ') {
            errors.push(field::invalid(
                &path,
                manager,
                format!("invalid character U+{:04X} (at position {at})", c as u32),
            ));
        }
    }
}

fn finish(kind: &str, errors: ErrorList) -> Result<(), Status> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(&GroupKind::new("meta.k8s.io", kind), "", &errors))
}

/// `resourceVersionMatch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionMatch {
    Exact,
    NotOlderThan,
}

/// `ListOptions`.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    pub label_selector: String,
    pub field_selector: String,
    pub watch: bool,
    pub bookmarks: bool,
    pub resource_version: String,
    pub version_match: Option<VersionMatch>,
    pub timeout_seconds: Option<i64>,
    /// Negative and zero mean no limit.
    pub limit: i64,
    pub continue_token: String,
    pub send_initial_events: Option<bool>,
}

impl ListOptions {
    /// Reads and checks the query. `watch` says what the verb turned out to be.
    ///
    /// # Errors
    /// 400 for numbers that are none, 422 for combinations upstream forbids.
    pub fn parse(query: &Query, watch: bool) -> Result<Self, Status> {
        let text = |name: &str| query.get(name).unwrap_or_default().to_string();
        let options = Self {
            label_selector: text("labelSelector"),
            field_selector: text("fieldSelector"),
            watch,
            bookmarks: query.flag("allowWatchBookmarks"),
            resource_version: text("resourceVersion"),
            version_match: None,
            timeout_seconds: query.integer("timeoutSeconds").map_err(Status::bad_request)?,
            limit: query.integer("limit").map_err(Status::bad_request)?.unwrap_or_default(),
            continue_token: text("continue"),
            send_initial_events: query.has("sendInitialEvents").then(|| query.flag("sendInitialEvents")),
        };
        let mut options = options;
        let mut matching = query.get("resourceVersionMatch").unwrap_or_default();
        // A watch from "now" that says nothing of initial events asks for them; the old paths do not.
        let legacy = matches!(options.resource_version.as_str(), "" | "0");
        if query.flag("watch") && legacy && matching.is_empty() && options.send_initial_events.is_none() {
            options.send_initial_events = Some(true);
            matching = "NotOlderThan";
        }
        let mut errors = ErrorList::new();
        if watch {
            options.check_watch(matching, &mut errors);
        } else {
            options.check_list(matching, &mut errors);
        }
        finish("ListOptions", errors)?;
        Ok(Self {
            version_match: match matching {
                "Exact" => Some(VersionMatch::Exact),
                "NotOlderThan" => Some(VersionMatch::NotOlderThan),
                _ => None,
            },
            ..options
        })
    }

    fn check_list(&self, matching: &str, errors: &mut ErrorList) {
        let path = Path::new("resourceVersionMatch");
        if !matching.is_empty() {
            if self.resource_version.is_empty() {
                errors.push(field::forbidden(
                    &path,
                    "resourceVersionMatch is forbidden unless resourceVersion is provided",
                ));
            }
            if !self.continue_token.is_empty() {
                errors.push(field::forbidden(&path, "resourceVersionMatch is forbidden when continue is provided"));
            }
            if !matches!(matching, "Exact" | "NotOlderThan") {
                errors.push(field::not_supported(&path, matching, &["Exact", "NotOlderThan", ""]));
            }
            if matching == "Exact" && self.resource_version == "0" {
                errors.push(field::forbidden(
                    &path,
                    "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                ));
            }
        }
        if self.send_initial_events.is_some() {
            errors.push(field::forbidden(&Path::new("sendInitialEvents"), "sendInitialEvents is forbidden for list"));
        }
    }

    fn check_watch(&self, matching: &str, errors: &mut ErrorList) {
        let path = Path::new("resourceVersionMatch");
        if self.send_initial_events.is_some() && matching != "NotOlderThan" {
            errors.push(field::forbidden(
                &path,
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
        if !matching.is_empty() {
            if self.send_initial_events.is_none() {
                errors.push(field::forbidden(
                    &path,
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                ));
            }
            if matching != "NotOlderThan" {
                errors.push(field::not_supported(&path, matching, &["NotOlderThan"]));
            }
            if !self.continue_token.is_empty() {
                errors.push(field::forbidden(&path, "resourceVersionMatch is forbidden when continue is provided"));
            }
        }
    }
}

/// What becomes of dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

/// `DeleteOptions`.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub dry_run: bool,
    pub grace_period_seconds: Option<i64>,
    pub propagation: Option<Propagation>,
    /// The deprecated `orphanDependents`.
    pub orphan_dependents: Option<bool>,
    pub precondition_uid: Option<String>,
    pub precondition_resource_version: Option<String>,
    /// `ignoreStoreReadErrorWithClusterBreakingPotential`, which counts for nothing unless its gate is open.
    pub ignore_store_read_error: bool,
}

impl DeleteOptions {
    /// Reads the options from the body if there is one, else from the query.
    ///
    /// # Errors
    /// 400 for a query that does not parse, 422 for values that are not allowed.
    pub fn parse(query: &Query, body: Option<&Value>) -> Result<Self, Status> {
        let (options, errors) = Self::read(query, body)?;
        finish("DeleteOptions", errors)?;
        Ok(options)
    }

    /// As [`DeleteOptions::parse`] of a body, with what is not allowed beside it, for those who find that out later.
    pub fn unchecked(body: &Value) -> Result<(Self, Result<(), Status>), Status> {
        let (options, errors) = Self::read(&Query::default(), Some(body))?;
        Ok((options, finish("DeleteOptions", errors)))
    }

    fn read(query: &Query, body: Option<&Value>) -> Result<(Self, ErrorList), Status> {
        let mut errors = ErrorList::new();
        let mut options = Self::default();
        let propagation;
        let dry_run_values;
        if let Some(body) = body {
            options.grace_period_seconds = body.get("gracePeriodSeconds").and_then(Value::as_i64);
            options.orphan_dependents = body.get("orphanDependents").and_then(Value::as_bool);
            let unsafe_option = body.get("ignoreStoreReadErrorWithClusterBreakingPotential");
            options.ignore_store_read_error = unsafe_option.and_then(Value::as_bool).unwrap_or_default();
            let precondition = |name: &str| {
                body.get("preconditions").and_then(|p| p.get(name)).and_then(Value::as_str).map(str::to_string)
            };
            options.precondition_uid = precondition("uid");
            options.precondition_resource_version = precondition("resourceVersion");
            propagation = body.get("propagationPolicy").and_then(Value::as_str).map(str::to_string);
            dry_run_values = body
                .get("dryRun")
                .and_then(Value::as_array)
                .map(|list| list.iter().filter_map(Value::as_str).map(str::to_string).collect())
                .unwrap_or_default();
        } else {
            options.grace_period_seconds = query.integer("gracePeriodSeconds").map_err(Status::bad_request)?;
            options.orphan_dependents = query.has("orphanDependents").then(|| query.flag("orphanDependents"));
            options.ignore_store_read_error = query.flag("ignoreStoreReadErrorWithClusterBreakingPotential");
            propagation = query.get("propagationPolicy").map(str::to_string);
            dry_run_values = query_dry_run(query);
        }
        let path = Path::new("propagationPolicy");
        if let Some(policy) = propagation {
            if options.orphan_dependents.is_some() {
                errors.push(field::invalid(
                    &path,
                    policy.as_str(),
                    "orphanDependents and deletionPropagation cannot be both set",
                ));
            }
            match policy.as_str() {
                "Orphan" => options.propagation = Some(Propagation::Orphan),
                "Background" => options.propagation = Some(Propagation::Background),
                "Foreground" => options.propagation = Some(Propagation::Foreground),
                other => {
                    errors.push(field::not_supported(&path, other, &["Foreground", "Background", "Orphan", "nil"]))
                }
            }
        }
        options.dry_run = dry_run(&dry_run_values, &mut errors);
        Ok((options, errors))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_combinations() {
        for (query, watch, want) in [
            ("limit=5&continue=x", false, ""),
            ("limit=-1", false, ""),
            ("limit=x", false, "strconv.ParseInt: parsing \"x\": invalid syntax"),
            (
                "resourceVersionMatch=Exact",
                false,
                "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
            ),
            (
                "sendInitialEvents=true",
                false,
                "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
            ),
            (
                "sendInitialEvents=true",
                true,
                "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ),
            ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", true, ""),
        ] {
            let got =
                ListOptions::parse(&Query::parse(query), watch).map_or_else(|status| status.message, |_| String::new());
            assert_eq!(got, want, "{query}");
        }
    }

    #[test]
    fn write_options() {
        let parse =
            |query: &str, kind| WriteOptions::parse(&Query::parse(query), kind).map_err(|status| status.message);
        assert!(parse("dryRun=All&fieldValidation=Strict", WriteKind::Create).unwrap().dry_run);
        assert_eq!(
            parse("", WriteKind::Apply).unwrap_err(),
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
        );
        assert!(parse("fieldValidation=Nope", WriteKind::Create).is_err());
        assert!(parse("dryRun=Some", WriteKind::Update).is_err());
    }

    #[test]
    fn delete_options() {
        let body = serde_json::json!({"propagationPolicy": "Foreground", "gracePeriodSeconds": 0, "preconditions": {"uid": "x"}});
        let options = DeleteOptions::parse(&Query::parse("gracePeriodSeconds=5"), Some(&body)).unwrap();
        assert_eq!(options.grace_period_seconds, Some(0));
        assert_eq!(options.propagation, Some(Propagation::Foreground));
        assert_eq!(options.precondition_uid.as_deref(), Some("x"));
        let options = DeleteOptions::parse(&Query::parse("gracePeriodSeconds=5"), None).unwrap();
        assert_eq!(options.grace_period_seconds, Some(5));
        assert!(DeleteOptions::parse(&Query::parse("propagationPolicy=x"), None).is_err());
    }
}
