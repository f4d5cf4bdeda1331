//! `/debug/api_priority_and_fairness/dump_{priority_levels,queues,requests}`: the state of the moment, as tables.

use component_base::duration;

use super::FlowControl;

/// Columns as Go's tab writer aligns them: at least eight wide, a space between, the last as it is.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let longest = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count() + 1).max();
        (longest.unwrap_or(0) + 1).max(8)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            if at + 1 == columns {
                out.push_str(cell);
            } else {
                let cell = format!("{cell},");
                out.push_str(&format!("{cell:<width$}", width = widths[at]));
            }
        }
        out.push('\n');
    }
    out
}

fn header(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_string()).collect()
}

impl FlowControl {
    /// A row for each level.
    pub fn dump_priority_levels(&self) -> String {
        let mut rows = vec![header(&[
            "PriorityLevelName",
            "ActiveQueues",
            "IsIdle",
            "IsQuiescing",
            "WaitingRequests",
            "ExecutingRequests",
            "DispatchedRequests",
            "RejectedRequests",
            "TimedoutRequests",
            "CancelledRequests",
        ])];
        for (name, queues, quiescing) in self.0.levels.all() {
            let counts = queues.counts();
            let active = queues.queues().iter().filter(|queue| queue.pending > 0).count();
            rows.push(vec![
                name.to_string(),
                active.to_string(),
                queues.is_idle().to_string(),
                quiescing.to_string(),
                counts.waiting.to_string(),
                counts.executing.to_string(),
                counts.dispatched.to_string(),
                counts.rejected.to_string(),
                counts.timed_out.to_string(),
                counts.cancelled.to_string(),
            ]);
        }
        table(&rows)
    }

    /// A row for each queue.
    pub fn dump_queues(&self) -> String {
        let mut rows = vec![header(&[
            "PriorityLevelName",
            "Index",
            "PendingRequests",
            "ExecutingRequests",
            "SeatsInUse",
            "NextDispatchR",
            "InitialSeatsSum",
            "MaxSeatsSum",
            "TotalWorkSum",
        ])];
        for (name, queues, _) in self.0.levels.all() {
            for (index, queue) in queues.queues().iter().enumerate() {
                let (initial, most, work) = queue.sums;
                rows.push(vec![
                    name.to_string(),
                    index.to_string(),
                    queue.pending.to_string(),
                    queue.executing.to_string(),
                    queue.seats_in_use.to_string(),
                    format!("{:.8}ss", queue.next_r),
                    initial.to_string(),
                    most.to_string(),
                    format!("{work:.8}ss"),
                ]);
            }
        }
        table(&rows)
    }

    /// A row for each request that waits or is served; `details` adds what it is about.
    pub fn dump_requests(&self, details: bool) -> String {
        let mut names = header(&[
            "PriorityLevelName",
            "FlowSchemaName",
            "QueueIndex",
            "RequestIndexInQueue",
            "FlowDistingsher",
            "ArriveTime",
            "InitialSeats",
            "FinalSeats",
            "AdditionalLatency",
            "StartTime",
        ]);
        if details {
            names.extend(header(&[
                "UserName",
                "Verb",
                "APIPath",
                "Namespace",
                "Name",
                "APIVersion",
                "Resource",
                "SubResource",
            ]));
        }
        let mut rows = vec![names];
        for (name, queues, _) in self.0.levels.all() {
            for request in queues.requests() {
                let started = request.started.map_or("0001-01-01T00:00:00Z".to_string(), |time| time.to_string());
                let mut row = vec![
                    name.to_string(),
                    request.schema.to_string(),
                    request.queue.to_string(),
                    request.index.to_string(),
                    request.distinguisher,
                    request.arrived.to_string(),
                    request.work.initial.to_string(),
                    request.work.last.to_string(),
                    duration::format(request.work.linger),
                    started,
                ];
                if details {
                    let info = &request.details.info;
                    let version = apimachinery::gvk::GroupVersion::new(info.group.clone(), info.version.clone());
                    row.extend([
                        request.details.user.name.clone(),
                        info.verb.clone(),
                        info.path.clone(),
                        info.namespace.clone(),
                        info.name.clone(),
                        version.to_string(),
                        info.resource.clone(),
                        info.subresource.clone(),
                    ]);
                }
                rows.push(row);
            }
        }
        table(&rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let row = |cells: &[&str]| header(cells);
        assert_eq!(
            table(&[row(&["PriorityLevelName", "IsIdle", "Last"]), row(&["exempt", "true", "0"])]),
            "PriorityLevelName, IsIdle, Last\nexempt,            true,   0\n"
        );
    }
}
