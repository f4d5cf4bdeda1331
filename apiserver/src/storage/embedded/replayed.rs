//! A sink that is given the past first.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::storage::{Change, Error, Revision, Sink};

/// A sink that still gets its replay: what happens meanwhile waits behind it.
pub(super) struct ReplayedSink {
    sink: Arc<dyn Sink>,
    state: Mutex<State>,
}

enum State {
    /// These came while the past was read.
    Replaying(Vec<Change>),
    /// The past ended here. What is in the log already may still be on its way from the writer.
    Live(Revision),
}

impl ReplayedSink {
    pub fn new(sink: Arc<dyn Sink>) -> Self {
        Self { sink, state: Mutex::new(State::Replaying(Vec::new())) }
    }

    /// Hands over the past, which begins after `after`, then what waited, and lets the rest through.
    pub fn replay(&self, after: Revision, past: &[Change]) {
        if !past.is_empty() {
            self.sink.apply(past);
        }
        let last = past.last().map_or(after, |change| change.revision);
        let mut state = self.state.lock();
        if let State::Replaying(waiting) = std::mem::replace(&mut *state, State::Live(last)) {
            self.forward(&waiting, last);
        }
    }

    /// Changes come in order, and those up to `last` are known.
    fn forward(&self, changes: &[Change], last: Revision) {
        let fresh = &changes[changes.partition_point(|change| change.revision <= last)..];
        if !fresh.is_empty() {
            self.sink.apply(fresh);
        }
    }
}

impl Sink for ReplayedSink {
    fn apply(&self, changes: &[Change]) {
        match &mut *self.state.lock() {
            State::Replaying(waiting) => waiting.extend_from_slice(changes),
            State::Live(last) => self.forward(changes, *last),
        }
    }

    fn broken(&self, error: Error) {
        self.sink.broken(error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Recorder(Mutex<Vec<Revision>>);

    impl Sink for Recorder {
        fn apply(&self, changes: &[Change]) {
            self.0.lock().extend(changes.iter().map(|change| change.revision));
        }

        fn broken(&self, _: Error) {}
    }

    fn changes(revisions: std::ops::RangeInclusive<Revision>) -> Vec<Change> {
        let change = |revision| Change {
            revision,
            key: "/registry/x/a".into(),
            create_revision: 1,
            value: None,
            attachment: None,
        };
        revisions.map(change).collect()
    }

    /// The writer puts a change into the log before it hands it to sinks: one that attaches in between reads it there.
    #[test]
    fn what_was_read_in_the_log_is_not_delivered_again() {
        for delivered_late in [false, true] {
            let recorder = Arc::new(Recorder::default());
            let sink = ReplayedSink::new(recorder.clone());
            sink.apply(&changes(4..=4));
            if !delivered_late {
                sink.apply(&changes(5..=6));
            }
            sink.replay(1, &changes(2..=5));
            if delivered_late {
                sink.apply(&changes(5..=6));
            }
            sink.apply(&changes(7..=7));
            assert_eq!(*recorder.0.lock(), [2, 3, 4, 5, 6, 7], "late: {delivered_late}");
        }
    }
}
