//! Crashes of the embedded engine.
