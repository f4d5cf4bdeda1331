//! `pause`: the process that holds a pod sandbox's namespaces open.
//!
//! It does nothing until it is told to stop. In a pod with `shareProcessNamespace` it is PID 1 of
//! every container, so it also reaps the orphans that they leave behind.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

fn main() {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGCHLD] {
        signals.add(signal);
    }
    // Blocked signals stay pending until `wait` takes them, so none is lost before the loop runs.
    signals.thread_block().expect("a process may always block its own signals");
    loop {
        match signals.wait() {
            Ok(Signal::SIGCHLD) => reap(),
            Ok(_) => return,
            Err(_) => {}
        }
    }
}

/// Collects every child that has ended; signals coalesce, so one SIGCHLD may stand for many.
fn reap() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            return;
        }
    }
}
