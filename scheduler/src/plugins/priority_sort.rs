//! Orders the queue by priority, then by who came first.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::Handle;
use crate::framework::pod_info::PodInfo;
use crate::framework::{Plugin, QueueSort};

/// The plugin's name.
pub const NAME: &str = "PrioritySort";

struct PrioritySort;

impl QueueSort for PrioritySort {
    fn compare(&self, a: (&PodInfo, Duration), b: (&PodInfo, Duration)) -> Ordering {
        b.0.priority().cmp(&a.0.priority()).then(a.1.cmp(&b.1))
    }
}

/// Builds it.
pub fn new(_: &Value, _: &Handle) -> Result<Plugin, String> {
    Ok(Plugin { name: NAME, queue_sort: Some(Arc::new(PrioritySort)), ..Plugin::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[test]
    fn priority_then_age() {
        let (low, high) = (pod("l").priority(1).info(), pod("h").priority(10).info());
        let second = Duration::from_secs(1);
        for (a, b, expected) in [
            ((&*high, second), (&*low, Duration::ZERO), Ordering::Less),
            ((&*low, Duration::ZERO), (&*high, second), Ordering::Greater),
            ((&*low, Duration::ZERO), (&*low, second), Ordering::Less),
        ] {
            assert_eq!(PrioritySort.compare(a, b), expected);
        }
    }
}
