//! Flags, feature gates, logging, metrics, health, TLS and certificates, clock. Knows no kind.
