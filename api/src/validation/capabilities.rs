//! What the server's flags allow pods, for the whole process (upstream's `pkg/capabilities`).

use std::sync::atomic::{AtomicBool, Ordering};

static PRIVILEGED: AtomicBool = AtomicBool::new(true);

/// Says whether pods may have privileged containers (`--allow-privileged`). Until this is called they may.
pub fn allow_privileged(allowed: bool) {
    PRIVILEGED.store(allowed, Ordering::Relaxed);
}

pub(crate) fn is_privileged_allowed() -> bool {
    PRIVILEGED.load(Ordering::Relaxed)
}
