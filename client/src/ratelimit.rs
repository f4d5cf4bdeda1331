//! A token bucket, as client-go's `flowcontrol`: `qps` tokens a second, at most `burst` held.

use std::time::Duration;

use component_base::clock::SharedClock;
use parking_lot::Mutex;

/// A token bucket over a clock. A `qps` of zero or less never waits.
pub struct TokenBucket {
    qps: f64,
    burst: f64,
    clock: SharedClock,
    state: Mutex<(f64, Duration)>,
}

impl TokenBucket {
    pub fn new(qps: f64, burst: u32, clock: SharedClock) -> Self {
        let now = clock.monotonic();
        Self { qps, burst: f64::from(burst.max(1)), clock, state: Mutex::new((f64::from(burst.max(1)), now)) }
    }

    /// Takes a token, now or from the future, and says how long to wait before using it.
    pub fn reserve(&self) -> Duration {
        if self.qps <= 0.0 {
            return Duration::ZERO;
        }
        let now = self.clock.monotonic();
        let mut state = self.state.lock();
        let elapsed = now.saturating_sub(state.1).as_secs_f64();
        let tokens = (state.0 + elapsed * self.qps).min(self.burst) - 1.0;
        *state = (tokens, now);
        if tokens >= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(-tokens / self.qps) }
    }

    /// Takes a token only when one is there.
    pub fn try_take(&self) -> bool {
        if self.qps <= 0.0 {
            return true;
        }
        let now = self.clock.monotonic();
        let mut state = self.state.lock();
        let elapsed = now.saturating_sub(state.1).as_secs_f64();
        let tokens = (state.0 + elapsed * self.qps).min(self.burst);
        let taken = tokens >= 1.0;
        *state = (if taken { tokens - 1.0 } else { tokens }, now);
        taken
    }

    /// Waits for a token.
    pub async fn wait(&self) {
        let wait = self.reserve();
        if !wait.is_zero() {
            self.clock.sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use component_base::clock::FakeClock;
    use std::sync::Arc;

    #[test]
    fn bursts_then_paces() {
        let clock = FakeClock::new(jiff::Timestamp::UNIX_EPOCH);
        let bucket = TokenBucket::new(10.0, 2, Arc::new(clock.clone()));
        let waits: Vec<u128> = (0..4).map(|_| bucket.reserve().as_millis()).collect();
        assert_eq!(waits, [0, 0, 100, 200]);
        clock.step(Duration::from_millis(400));
        assert_eq!(bucket.reserve(), Duration::ZERO);
        let fresh = TokenBucket::new(1.0, 1, Arc::new(clock.clone()));
        assert!(fresh.try_take());
        assert!(!fresh.try_take());
        clock.step(Duration::from_secs(1));
        assert!(fresh.try_take());
    }
}
