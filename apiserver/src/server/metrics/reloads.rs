//! How often configurations were read again, and which is in use.

use component_base::clock::{Clock as _, RealClock};
use component_base::metrics::{CounterVec, GaugeVec, Registry, Stability};
use parking_lot::Mutex;

use crate::encryption::digest;

/// The counters of one configuration file.
pub struct Reloads {
    total: CounterVec,
    last: GaugeVec,
    info: GaugeVec,
    shown: Mutex<Option<String>>,
    clock: RealClock,
}

impl Reloads {
    /// `subsystem` is upstream's: `apiserver_authorization_config_controller`, of the configuration of `what`.
    pub(super) fn new(registry: &Registry, subsystem: &str, what: &str) -> Self {
        Self {
            total: registry.counter_vec(
                &format!("{subsystem}_automatic_reloads_total"),
                &format!(
                    "Total number of automatic reloads of {what} configuration split by status and apiserver identity."
                ),
                Stability::Beta,
                &["apiserver_id_hash", "status"],
            ),
            last: registry.gauge_vec(
                &format!("{subsystem}_automatic_reload_last_timestamp_seconds"),
                &format!(
                    "Timestamp of the last automatic reload of {what} configuration split by status and apiserver identity."
                ),
                Stability::Beta,
                &["apiserver_id_hash", "status"],
            ),
            info: registry.gauge_vec(
                &format!("{subsystem}_last_config_info"),
                &format!(
                    "Information about the last applied {what} configuration with hash as label, split by apiserver identity."
                ),
                Stability::Alpha,
                &["apiserver_id_hash", "hash"],
            ),
            shown: Mutex::default(),
            clock: RealClock::new(),
        }
    }

    /// This text is in use.
    pub fn in_use(&self, text: &str) {
        let hash = digest(text);
        let mut shown = self.shown.lock();
        if let Some(old) = shown.replace(hash.clone()) {
            self.info.remove(&["", &old]);
        }
        self.info.set(&["", &hash], 1.0);
    }

    /// The file was read again: this text is in use now, or was refused.
    ///
    /// # Errors
    /// The refusal, as it came.
    pub fn observe(&self, outcome: Result<String, String>) -> Result<(), String> {
        let status = if outcome.is_ok() { "success" } else { "failure" };
        self.total.inc(&["", status]);
        self.last.set(&["", status], self.clock.now().as_millisecond() as f64 / 1000.0);
        outcome.map(|text| self.in_use(&text))
    }
}

/// The counters of manifests of admission, by plugin.
pub struct ManifestReloads {
    total: CounterVec,
    last: GaugeVec,
    info: GaugeVec,
    shown: Mutex<std::collections::BTreeMap<String, String>>,
    clock: RealClock,
}

impl ManifestReloads {
    pub(super) fn new(registry: &Registry) -> Self {
        let name = |end: &str| format!("apiserver_manifest_admission_config_controller_{end}");
        const LABELS: &[&str] = &["apiserver_id_hash", "plugin", "status"];
        Self {
            total: registry.counter_vec(
                &name("automatic_reloads_total"),
                "Total number of automatic reloads of admission manifest configuration split by status, plugin, and apiserver identity.",
                Stability::Alpha,
                LABELS,
            ),
            last: registry.gauge_vec(
                &name("automatic_reload_last_timestamp_seconds"),
                "Timestamp of the last automatic reload of admission manifest configuration split by status, plugin, and apiserver identity.",
                Stability::Alpha,
                LABELS,
            ),
            info: registry.gauge_vec(
                &name("last_config_info"),
                "Information about the last applied admission manifest configuration with hash as label, split by plugin and apiserver identity.",
                Stability::Alpha,
                &["apiserver_id_hash", "hash", "plugin"],
            ),
            shown: Mutex::default(),
            clock: RealClock::new(),
        }
    }

    /// A plugin's manifests were read: this text is in use now, or was refused.
    ///
    /// # Errors
    /// The refusal, as it came.
    pub fn observe(&self, plugin: &str, outcome: Result<String, String>) -> Result<(), String> {
        let status = if outcome.is_ok() { "success" } else { "failure" };
        self.total.inc(&["", plugin, status]);
        self.last.set(&["", plugin, status], self.clock.now().as_millisecond() as f64 / 1000.0);
        let text = outcome?;
        let hash = if text.is_empty() { String::new() } else { digest(&text) };
        if let Some(old) = self.shown.lock().insert(plugin.to_string(), hash.clone()) {
            self.info.remove(&["", &old, plugin]);
        }
        self.info.set(&["", &hash, plugin], 1.0);
        Ok(())
    }
}
