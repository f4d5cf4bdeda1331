//! The cache above each engine.
