//! The clock every component takes as a field, so that tests decide what time it is.
//!
//! [`RealClock`] reads the system; [`FakeClock`] stands still until a test steps it, waking sleepers.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// A source of wall time, monotonic time and sleep.
pub trait Clock: Send + Sync + 'static {
    /// Wall time, for stamps that go into objects.
    fn now(&self) -> Timestamp;
    /// Time since an arbitrary fixed moment; never goes back.
    fn monotonic(&self) -> Duration;
    /// Completes after `duration` on this clock.
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// How components hold a clock.
pub type SharedClock = Arc<dyn Clock>;

/// The system's clock.
#[derive(Debug, Clone)]
pub struct RealClock {
    start: std::time::Instant,
}

impl RealClock {
    pub fn new() -> Self {
        Self { start: std::time::Instant::now() }
    }

    /// A shared handle.
    pub fn shared() -> SharedClock {
        Arc::new(Self::new())
    }
}

impl Default for RealClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for RealClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// A clock that moves only when told to.
#[derive(Clone)]
pub struct FakeClock {
    state: Arc<Mutex<FakeState>>,
}

struct FakeState {
    start: Timestamp,
    elapsed: Duration,
    next_waiter: u64,
    waiters: BTreeMap<(Duration, u64), oneshot::Sender<()>>,
}

impl FakeClock {
    /// A clock standing at `start`.
    pub fn new(start: Timestamp) -> Self {
        Self {
            state: Arc::new(Mutex::new(FakeState {
                start,
                elapsed: Duration::ZERO,
                next_waiter: 0,
                waiters: BTreeMap::new(),
            })),
        }
    }

    /// Moves time on and wakes every sleeper whose moment has come.
    pub fn step(&self, by: Duration) {
        let mut state = self.state.lock();
        state.elapsed += by;
        let after = state.elapsed.saturating_add(Duration::from_nanos(1));
        let later = state.waiters.split_off(&(after, 0));
        let due = std::mem::replace(&mut state.waiters, later);
        drop(state);
        for (_, wake) in due {
            // A sleeper that gave up has dropped its end; nobody is left to tell.
            let _ = wake.send(());
        }
    }

    /// How many sleepers wait; tests use it to know that the code under test reached its sleep.
    pub fn sleepers(&self) -> usize {
        let mut state = self.state.lock();
        state.waiters.retain(|_, wake| !wake.is_closed());
        state.waiters.len()
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        let state = self.state.lock();
        state.start + state.elapsed
    }

    fn monotonic(&self) -> Duration {
        self.state.lock().elapsed
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        if duration.is_zero() {
            return Box::pin(std::future::ready(()));
        }
        let (wake, woken) = oneshot::channel();
        let mut state = self.state.lock();
        let key = (state.elapsed + duration, state.next_waiter);
        state.next_waiter += 1;
        state.waiters.insert(key, wake);
        Box::pin(async move {
            // An error means that the clock itself is gone: nothing will ever be due.
            if woken.await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn fake_clock_wakes_sleepers_in_time() {
        let clock = FakeClock::new(Timestamp::UNIX_EPOCH);
        let early = tokio::spawn(clock.sleep(Duration::from_secs(1)));
        let late = tokio::spawn(clock.sleep(Duration::from_secs(5)));
        assert_eq!(clock.sleepers(), 2);
        clock.step(Duration::from_secs(1));
        early.await.unwrap();
        assert_eq!(clock.sleepers(), 1);
        assert!(!late.is_finished());
        clock.step(Duration::from_secs(4));
        late.await.unwrap();
        assert_eq!(clock.now(), Timestamp::from_second(5).unwrap());
    }
}
