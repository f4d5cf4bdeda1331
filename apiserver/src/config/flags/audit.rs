//! `--audit-*`.

use std::path::PathBuf;

use component_base::flags::{FlagSet, Parsed};

use super::super::Error;
use crate::audit::WebhookOptions;
use crate::audit::options::{Batch, Delivery, Format, LOG, LogOptions, Mode, Throttle, Truncate, WEBHOOK};
use std::time::Duration;

const VERSION: &str = "audit.k8s.io/v1";
const MODES: &str = "batch,blocking,blocking-strict";
const FORMATS: &str = "legacy,json";

/// Every flag, with upstream's defaults.
pub fn add(f: &mut FlagSet) {
    f.string("audit-policy-file", "", "Path to the file that defines the audit policy configuration.")
        .string("audit-log-path", "", "If set, all requests coming to the apiserver will be logged to this file.  '-' means standard out.")
        .int("audit-log-maxage", 366, "The maximum number of days to retain old audit log files based on the timestamp encoded in their filename. Setting a value of 0 means old audit log files are not removed based on age.")
        .int("audit-log-maxbackup", 100, "The maximum number of old audit log files to retain. Setting a value of 0 will mean there's no restriction on the number of files.")
        .int("audit-log-maxsize", 100, "The maximum size in megabytes of the audit log file before it gets rotated. Setting to 0 disables rotation (not recommended).")
        .string("audit-log-format", "json", "Format of saved audits: \"legacy\" is a line of text for each event, \"json\" is structured.")
        .string("audit-log-version", VERSION, "API group and version used for serializing audit events written to log.")
        .bool("audit-log-compress", false, "If set, the rotated log files will be compressed using gzip.")
        .string("audit-webhook-config-file", "", "Path to a kubeconfig formatted file that defines the audit webhook configuration.")
        .duration("audit-webhook-initial-backoff", Duration::from_secs(10), "The amount of time to wait before retrying the first failed request.")
        .duration("audit-webhook-batch-initial-backoff", Duration::from_secs(10), "Deprecated, use --audit-webhook-initial-backoff instead.")
        .string("audit-webhook-version", VERSION, "API group and version used for serializing audit events written to webhook.");
    for (plugin, defaults) in [("log", LOG), ("webhook", WEBHOOK)] {
        delivery_flags(f, plugin, &defaults);
    }
}

fn delivery_flags(f: &mut FlagSet, plugin: &str, defaults: &Delivery) {
    let name = |flag: &str| format!("audit-{plugin}-{flag}");
    let mode = if defaults.mode == Mode::Batch { "batch" } else { "blocking" };
    let batch = defaults.batch;
    let throttle = batch.throttle.unwrap_or(Throttle { qps: 0.0, burst: 0 });
    f.string(&name("mode"), mode, "Whether requests wait for their audit events: batch, blocking, or blocking-strict, which refuses a request whose first event is lost.")
        .int(&name("batch-buffer-size"), batch.buffer_size, "The size of the buffer to store events before batching and writing. Only used in batch mode.")
        .int(&name("batch-max-size"), batch.max_size, "The maximum size of a batch. Only used in batch mode.")
        .duration(&name("batch-max-wait"), batch.max_wait, "The amount of time to wait before force writing the batch that hadn't reached the max size. Only used in batch mode.")
        .bool(&name("batch-throttle-enable"), batch.throttle.is_some(), "Whether batching throttling is enabled. Only used in batch mode.")
        .float(&name("batch-throttle-qps"), throttle.qps, "Maximum average number of batches per second. Only used in batch mode.")
        .int(&name("batch-throttle-burst"), throttle.burst, "Maximum number of requests sent at the same moment if ThrottleQPS was not utilized before. Only used in batch mode.")
        .bool(&name("truncate-enabled"), defaults.truncate.enabled, "Whether event and batch truncating is enabled.")
        .int(&name("truncate-max-batch-size"), defaults.truncate.max_batch_size, "Maximum size of the batch sent to the underlying backend.")
        .int(&name("truncate-max-event-size"), defaults.truncate.max_event_size, "Maximum size of the audit event sent to the underlying backend: first request and response are removed, and if that is not enough the event is discarded.");
}

fn delivery(flags: &Parsed, plugin: &str) -> Result<Delivery, Error> {
    let name = |flag: &str| format!("audit-{plugin}-{flag}");
    let version = flags.string(&name("version"));
    if version != VERSION {
        return Err(Error::Combination(format!("invalid group version, allowed versions are [{VERSION:?}]")));
    }
    let mode = flags.string(&name("mode"));
    let mode = Mode::parse(&mode).ok_or_else(|| {
        Error::Combination(format!("invalid audit {plugin} mode {mode}, allowed modes are {MODES:?}"))
    })?;
    let throttle =
        Throttle { qps: flags.float(&name("batch-throttle-qps")), burst: flags.int(&name("batch-throttle-burst")) };
    Ok(Delivery {
        mode,
        batch: Batch {
            buffer_size: flags.int(&name("batch-buffer-size")),
            max_size: flags.int(&name("batch-max-size")),
            max_wait: flags.duration(&name("batch-max-wait")),
            throttle: flags.bool(&name("batch-throttle-enable")).then_some(throttle),
        },
        truncate: Truncate {
            enabled: flags.bool(&name("truncate-enabled")),
            max_batch_size: flags.int(&name("truncate-max-batch-size")),
            max_event_size: flags.int(&name("truncate-max-event-size")),
        },
    })
}

/// The log, if there is one.
///
/// # Errors
/// What cannot work.
pub fn log(flags: &Parsed) -> Result<Option<LogOptions>, Error> {
    let Some(path) = flags.nonempty("audit-log-path") else { return Ok(None) };
    let format = flags.string("audit-log-format");
    let options = LogOptions {
        path: PathBuf::from(path),
        max_age: flags.int("audit-log-maxage"),
        max_backups: flags.int("audit-log-maxbackup"),
        max_size: flags.int("audit-log-maxsize"),
        compress: flags.bool("audit-log-compress"),
        format: match format.as_str() {
            "json" => Format::Json,
            "legacy" => Format::Legacy,
            _ => {
                return Err(Error::Combination(format!(
                    "invalid audit log format {format}, allowed formats are {FORMATS:?}"
                )));
            }
        },
        delivery: delivery(flags, "log")?,
    };
    options.validate().map_err(Error::Combination)?;
    Ok(Some(options))
}

/// The webhook, if there is one.
///
/// # Errors
/// What cannot work.
pub fn webhook(flags: &Parsed) -> Result<Option<WebhookOptions>, Error> {
    let Some(path) = flags.nonempty("audit-webhook-config-file") else { return Ok(None) };
    let old = "audit-webhook-batch-initial-backoff";
    let backoff = if flags.changed(old) { old } else { "audit-webhook-initial-backoff" };
    let options = WebhookOptions {
        kubeconfig: PathBuf::from(path),
        initial_backoff: flags.duration(backoff),
        delivery: delivery(flags, "webhook")?,
    };
    options.delivery.validate("webhook").map_err(Error::Combination)?;
    Ok(Some(options))
}

#[cfg(test)]
mod tests {
    use crate::Config;

    #[test]
    fn flags_are_read_and_checked() {
        let base = "--storage-backend=embedded --data-dir=/x --audit-log-path=/l --audit-webhook-config-file=/w";
        let parse = |more: &str| {
            let line = format!("{base} {more}");
            Config::from_args(line.split_whitespace().map(String::from)).map(|(config, _)| config)
        };
        let config = parse("--audit-log-maxage=3 --audit-log-compress --audit-log-mode=blocking-strict").unwrap();
        let log = config.audit_log.unwrap();
        assert_eq!((log.max_age, log.max_backups, log.max_size, log.compress), (3, 100, 100, true));
        assert_eq!(log.delivery.mode, super::Mode::BlockingStrict);
        let webhook = config.audit_webhook.unwrap();
        assert_eq!(webhook.delivery, super::WEBHOOK);
        assert_eq!(webhook.initial_backoff.as_secs(), 10);
        for (more, want) in [
            (
                "--audit-log-mode=soon",
                "invalid audit log mode soon, allowed modes are \"batch,blocking,blocking-strict\"",
            ),
            ("--audit-log-format=xml", "invalid audit log format xml, allowed formats are \"legacy,json\""),
            (
                "--audit-log-version=audit.k8s.io/v1beta1",
                "invalid group version, allowed versions are [\"audit.k8s.io/v1\"]",
            ),
            (
                "--audit-webhook-batch-max-size=0",
                "invalid audit batch webhook max batch size 0, must be a positive number",
            ),
        ] {
            assert_eq!(parse(more).unwrap_err().to_string(), want, "{more}");
        }
    }
}
