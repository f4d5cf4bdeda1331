//! Scenario suites and benchmarks, over the wire only.
