//! `/debug/api_priority_and_fairness/dump_priority_levels` and `dump_queues`: the state of the moment, as tables.

use std::sync::atomic::Ordering;

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
        let queues = self.0.levels.queues();
        let mut names: Vec<_> = self.0.known.lock().levels.keys().cloned().collect();
        names.sort();
        for name in names {
            let counts = self.0.metrics.counts(&name);
            let count = |of: &std::sync::atomic::AtomicU64| of.load(Ordering::Relaxed).to_string();
            let active = queues.iter().filter(|queue| queue.level == name && queue.pending > 0).count();
            let busy = counts.waiting.load(Ordering::Relaxed) + counts.executing.load(Ordering::Relaxed) > 0;
            rows.push(vec![
                name.to_string(),
                active.to_string(),
                (!busy).to_string(),
                "false".to_string(),
                count(&counts.waiting),
                count(&counts.executing),
                count(&counts.dispatched),
                count(&counts.rejected),
                count(&counts.timed_out),
                count(&counts.cancelled),
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
        for queue in self.0.levels.queues() {
            rows.push(vec![
                queue.level.to_string(),
                queue.index.to_string(),
                queue.pending.to_string(),
                queue.executing.0.to_string(),
                queue.executing.1.to_string(),
                format!("{:.8}ss", queue.start),
                queue.seats.to_string(),
                queue.seats.to_string(),
                format!("{:.8}ss", f64::from(queue.seats)),
            ]);
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
