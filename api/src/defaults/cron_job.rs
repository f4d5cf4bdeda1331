//! CronJob.

use serde_json::Value;

use super::job;
use super::set::{at, if_nil, if_zero};

pub(super) fn set(cron_job: &mut Value) {
    let Some(spec) = at(cron_job, &["spec"]) else { return };
    if_zero(spec, "concurrencyPolicy", "Allow");
    if_nil(spec, "suspend", false);
    if_nil(spec, "successfulJobsHistoryLimit", 3);
    if_nil(spec, "failedJobsHistoryLimit", 1);
    if let Some(job) = at(cron_job, &["spec", "jobTemplate", "spec"]) {
        job::within_template(job);
    }
}
