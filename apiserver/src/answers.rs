//! What others answered, kept for a while; and one question at a time for all who ask the same.
//!
//! Whoever asks may leave: the question goes on for those who stay, and its answer is kept.

use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use component_base::clock::SharedClock;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;

/// Names a question: a digest, so that no secret is kept.
pub type Key = [u8; 32];

type Asking<T> = Shared<BoxFuture<'static, T>>;

/// Answers by question; never more than a number of them.
pub struct Answers<T> {
    clock: SharedClock,
    limit: usize,
    inner: Arc<Mutex<Inner<T>>>,
}

struct Inner<T> {
    known: AHashMap<Key, (T, Duration)>,
    asking: AHashMap<Key, Asking<T>>,
}

impl<T: Clone + Send + Sync + 'static> Answers<T> {
    /// Keeps `limit` answers at most.
    pub fn new(clock: SharedClock, limit: usize) -> Self {
        let inner = Inner { known: AHashMap::default(), asking: AHashMap::default() };
        Self { clock, limit, inner: Arc::new(Mutex::new(inner)) }
    }

    /// What is known already.
    pub fn known(&self, key: &Key) -> Option<T> {
        let now = self.clock.monotonic();
        let inner = self.inner.lock();
        let (answer, until) = inner.known.get(key)?;
        (now < *until).then(|| answer.clone())
    }

    /// What is known, or what `ask` answers, with the time it may be kept. Must be called inside a runtime.
    pub async fn get<F>(&self, key: Key, ask: impl FnOnce() -> F) -> T
    where
        F: Future<Output = (T, Option<Duration>)> + Send + 'static,
    {
        let asking = {
            let mut inner = self.inner.lock();
            if let Some((answer, until)) = inner.known.get(&key)
                && self.clock.monotonic() < *until
            {
                return answer.clone();
            }
            match inner.asking.get(&key) {
                Some(asking) => asking.clone(),
                None => {
                    let (shared, clock, limit) = (self.inner.clone(), self.clock.clone(), self.limit);
                    let question = ask();
                    let whole = async move {
                        let (answer, keep) = question.await;
                        let mut inner = shared.lock();
                        inner.asking.remove(&key);
                        if let Some(keep) = keep.filter(|keep| !keep.is_zero()) {
                            inner.keep(key, answer.clone(), clock.monotonic(), keep, limit);
                        }
                        answer
                    };
                    let asking = whole.boxed().shared();
                    inner.asking.insert(key, asking.clone());
                    // Goes on whether or not anybody waits.
                    tokio::spawn(asking.clone().map(|_| ()));
                    asking
                }
            }
        };
        asking.await
    }

    /// How many answers are kept.
    pub fn len(&self) -> usize {
        self.inner.lock().known.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Inner<T> {
    fn keep(&mut self, key: Key, answer: T, now: Duration, keep: Duration, limit: usize) {
        if self.known.len() >= limit {
            self.known.retain(|_, (_, until)| now < *until);
        }
        if self.known.len() >= limit {
            // Somebody has to go; the map's order is nobody's choice.
            if let Some(some) = self.known.keys().next().copied() {
                self.known.remove(&some);
            }
        }
        self.known.insert(key, (answer, now + keep));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use component_base::clock::FakeClock;

    use super::*;

    fn answers(limit: usize) -> (Answers<usize>, FakeClock) {
        let clock = FakeClock::new(jiff::Timestamp::from_second(1_800_000_000).unwrap());
        (Answers::new(Arc::new(clock.clone()), limit), clock)
    }

    const KEEP: Option<Duration> = Some(Duration::from_secs(10));

    #[tokio::test]
    async fn many_ask_once() {
        let (answers, clock) = answers(10);
        let asked = Arc::new(AtomicUsize::new(0));
        let gate = Arc::new(tokio::sync::Notify::new());
        let ask = || {
            let (asked, gate) = (asked.clone(), gate.clone());
            async move {
                gate.notified().await;
                (asked.fetch_add(1, Ordering::SeqCst) + 1, KEEP)
            }
        };
        let waiting = futures::future::join_all((0..50).map(|_| answers.get([1; 32], ask)));
        let (all, ()) = tokio::join!(waiting, async {
            tokio::task::yield_now().await;
            gate.notify_one();
        });
        assert!(all.iter().all(|answer| *answer == 1));
        assert_eq!(answers.known(&[1; 32]), Some(1));
        clock.step(Duration::from_secs(11));
        assert_eq!(answers.known(&[1; 32]), None);
        gate.notify_one();
        assert_eq!(answers.get([1; 32], ask).await, 2);
    }

    #[tokio::test]
    async fn one_who_leaves_does_not_end_the_question() {
        let (answers, _) = answers(10);
        let gate = Arc::new(tokio::sync::Notify::new());
        let ask = || {
            let gate = gate.clone();
            async move {
                gate.notified().await;
                (7, KEEP)
            }
        };
        let left = tokio::time::timeout(Duration::from_millis(10), answers.get([1; 32], ask)).await;
        assert!(left.is_err());
        gate.notify_one();
        for _ in 0..100 {
            if answers.known(&[1; 32]).is_some() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the answer was lost");
    }

    #[tokio::test]
    async fn there_is_a_bound() {
        let (answers, _) = answers(8);
        for index in 0..100_u8 {
            answers.get([index; 32], || async move { (usize::from(index), KEEP) }).await;
            assert_eq!(answers.known(&[index; 32]), Some(usize::from(index)), "the newest is kept");
        }
        assert_eq!(answers.len(), 8);
        answers.get([200; 32], || async { (0, None) }).await;
        assert_eq!(answers.known(&[200; 32]), None);
    }
}
