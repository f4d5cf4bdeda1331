//! Jobs and CronJobs.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{self, at, int, list, opt_int, opt_text, text};
use super::{AGE, Column, NAME, duration};

pub(super) const COLUMNS: &[Column] = &[
    NAME,
    Column::string("Status").about("Status of the job."),
    Column::string("Completions").of("io.k8s.api.batch.v1.JobStatus", "succeeded"),
    Column::string("Duration").about("Time required to complete the job."),
    AGE,
    Column::string("Containers").about("Names of each container in the template.").wide(),
    Column::string("Images").about("Images referenced by each container in the template.").wide(),
    Column::string("Selector").of("io.k8s.api.batch.v1.JobSpec", "selector").wide(),
];
pub(super) const CRON_JOB_COLUMNS: &[Column] = &[
    NAME,
    Column::string("Schedule").of("io.k8s.api.batch.v1.CronJobSpec", "schedule"),
    Column::string("Timezone").of("io.k8s.api.batch.v1.CronJobSpec", "timeZone"),
    Column::boolean("Suspend").of("io.k8s.api.batch.v1.CronJobSpec", "suspend"),
    Column::integer("Active").of("io.k8s.api.batch.v1.CronJobStatus", "active"),
    Column::string("Last Schedule").of("io.k8s.api.batch.v1.CronJobStatus", "lastScheduleTime"),
    AGE,
    Column::string("Containers").about("Names of each container in the template.").wide(),
    Column::string("Images").about("Images referenced by each container in the template.").wide(),
    Column::string("Selector").of("io.k8s.api.batch.v1.JobSpec", "selector").wide(),
];
pub(super) fn row(job: &Value, now: Timestamp) -> Vec<Value> {
    let (names, images) = cells::containers(list(job, &["spec", "template", "spec", "containers"]));
    vec![
        json!(cells::name(job)),
        json!(status(job)),
        json!(completions(job)),
        json!(time_taken(job, now)),
        cells::age(job, now),
        json!(names),
        json!(images),
        json!(cells::selector_cell(at(job, &["spec", "selector"]))),
    ]
}

pub(super) fn cron_job_row(cron_job: &Value, now: Timestamp) -> Vec<Value> {
    let last = match at(cron_job, &["status", "lastScheduleTime"]) {
        Some(_) => cells::since(cron_job, &["status", "lastScheduleTime"], now),
        None => "<none>".into(),
    };
    let suspend = match at(cron_job, &["spec", "suspend"]).and_then(Value::as_bool) {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    };
    let job = ["spec", "jobTemplate", "spec"];
    let template = at(cron_job, &job).unwrap_or(&Value::Null);
    let (names, images) = cells::containers(list(template, &["template", "spec", "containers"]));
    vec![
        json!(cells::name(cron_job)),
        json!(text(cron_job, &["spec", "schedule"])),
        json!(opt_text(cron_job, &["spec", "timeZone"]).unwrap_or("<none>")),
        json!(suspend),
        json!(cells::count(cron_job, &["status", "active"])),
        json!(last),
        cells::age(cron_job, now),
        json!(names),
        json!(images),
        json!(cells::selector_cell(at(template, &["selector"]))),
    ]
}

/// The first that holds, in upstream's order.
fn status(job: &Value) -> &'static str {
    let holds = |r#type| {
        cells::condition(job, &["status", "conditions"], r#type).is_some_and(|c| text(c, &["status"]) == "True")
    };
    if holds("Complete") {
        "Complete"
    } else if holds("Failed") {
        "Failed"
    } else if cells::deleting(job) {
        "Terminating"
    } else if holds("Suspended") {
        "Suspended"
    } else if holds("FailureTarget") {
        "FailureTarget"
    } else if holds("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn completions(job: &Value) -> String {
    let succeeded = int(job, &["status", "succeeded"]);
    if let Some(wanted) = opt_int(job, &["spec", "completions"]) {
        return format!("{succeeded}/{wanted}");
    }
    match int(job, &["spec", "parallelism"]) {
        parallelism if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        _ => format!("{succeeded}/1"),
    }
}

fn time_taken(job: &Value, now: Timestamp) -> String {
    let Some(start) = cells::timestamp(job, &["status", "startTime"]) else {
        return String::new();
    };
    let end = cells::timestamp(job, &["status", "completionTime"]).unwrap_or(now);
    duration::human(duration::between(start, end))
}
