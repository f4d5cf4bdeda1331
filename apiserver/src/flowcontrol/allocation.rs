//! How the server's seats are divided among levels: each gets the same fraction of what it would use, as far
//! as the bounds of its configuration allow. Upstream: `util/flowcontrol/conc_alloc.go`.

use std::time::Duration;

/// What one level would have, and its bounds. `lower <= target`, `lower <= upper`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Item {
    pub target: f64,
    pub lower: f64,
    pub upper: f64,
}

/// Targets below this count as this much: nobody's share is undefined.
const SMALLEST: f64 = 0.001;
const EPSILON: f64 = 0.000_000_1;

impl Item {
    fn share(&self, fraction: f64) -> f64 {
        self.lower.max(self.upper.min(fraction * self.target.max(SMALLEST)))
    }
}

/// The allocations, which sum to `sum`, and the fair fraction. `None` when the bounds do not allow it.
pub fn allocate(sum: f64, items: &[Item]) -> Option<(Vec<f64>, f64)> {
    let low: f64 = items.iter().map(|item| item.lower).sum();
    let high: f64 = items.iter().map(|item| item.upper).sum();
    if sum < 0.0 || low - sum > EPSILON || sum - high > EPSILON {
        return None;
    }
    if sum == 0.0 {
        return Some((vec![0.0; items.len()], 0.0));
    }
    // The fractions at which a level's bound begins or ceases to matter, in order. Between two of them the
    // sum grows in a straight line.
    let relative = |bound: f64, item: &Item| bound / item.target.max(SMALLEST);
    let mut bounds: Vec<f64> =
        items.iter().flat_map(|item| [relative(item.lower, item), relative(item.upper, item)]).collect();
    bounds.sort_by(f64::total_cmp);
    let of = |fraction: f64| items.iter().map(|item| item.share(fraction)).sum::<f64>();
    let mut fraction = bounds.first().copied()?;
    for next in bounds {
        let (here, there) = (of(fraction), of(next));
        if there < sum {
            fraction = next;
            continue;
        }
        if there - here > EPSILON {
            fraction += (next - fraction) * ((sum - here) / (there - here)).max(0.0);
        }
        break;
    }
    Some((items.iter().map(|item| item.share(fraction)).collect(), fraction))
}

/// The moments of a number over time.
#[derive(Clone, Debug, Default)]
pub struct Integrator {
    since: Duration,
    value: f64,
    elapsed: f64,
    sum: f64,
    squares: f64,
    most: f64,
}

/// What a period looked like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observed {
    pub duration: f64,
    pub average: f64,
    pub deviation: f64,
    pub most: f64,
}

impl Integrator {
    fn advance(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.since).as_secs_f64();
        self.since = now;
        self.elapsed += passed;
        self.sum += self.value * passed;
        self.squares += self.value * self.value * passed;
    }

    /// The number is another from now on.
    pub fn set(&mut self, now: Duration, value: f64) {
        self.advance(now);
        self.value = value;
        self.most = self.most.max(value);
    }

    /// The period until now; another begins.
    pub fn reset(&mut self, now: Duration) -> Observed {
        self.advance(now);
        let average = if self.elapsed > 0.0 { self.sum / self.elapsed } else { 0.0 };
        let variance = if self.elapsed > 0.0 { self.squares / self.elapsed - average * average } else { 0.0 };
        let observed =
            Observed { duration: self.elapsed, average, deviation: variance.max(0.0).sqrt(), most: self.most };
        *self = Self { since: now, value: self.value, most: self.value, ..Self::default() };
        observed
    }
}

/// What a level would use, smoothed: it rises at once and falls slowly.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Demand {
    pub average: f64,
    pub deviation: f64,
    pub high_watermark: f64,
    pub smoothed: f64,
}

/// Half of it is left after five minutes.
const SMOOTHING: f64 = 0.977;

impl Demand {
    /// Another period is over.
    pub fn update(&mut self, observed: Observed) {
        self.high_watermark = observed.most.round();
        if observed.duration <= 0.0 {
            return;
        }
        self.average = observed.average;
        self.deviation = observed.deviation;
        let envelope = observed.average + observed.deviation;
        self.smoothed = envelope.max(SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * envelope);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(lower: f64, target: f64, upper: f64) -> Item {
        Item { target, lower, upper }
    }

    #[test]
    fn everybody_gets_the_same_fraction_within_bounds() {
        for (sum, items, want) in [
            (50.0, vec![item(0.0, 15.0, 100.0), item(0.0, 10.0, 100.0)], Some((vec![30.0, 20.0], 2.0))),
            // One is at its upper bound, the other gets the rest.
            (50.0, vec![item(0.0, 15.0, 20.0), item(0.0, 10.0, 100.0)], Some((vec![20.0, 30.0], 3.0))),
            // One is at its lower bound.
            (20.0, vec![item(15.0, 15.0, 100.0), item(0.0, 10.0, 100.0)], Some((vec![15.0, 5.0], 0.5))),
            // Nobody wants anything: as if all wanted the same.
            (10.0, vec![item(0.0, 0.0, 100.0), item(0.0, 0.0, 100.0)], Some((vec![5.0, 5.0], 5000.0))),
            (0.0, vec![item(0.0, 1.0, 1.0)], Some((vec![0.0], 0.0))),
            (10.0, vec![item(10.0, 10.0, 10.0)], Some((vec![10.0], 1.0))),
            (5.0, vec![item(6.0, 6.0, 10.0)], None),
            (11.0, vec![item(0.0, 6.0, 10.0)], None),
        ] {
            let got = allocate(sum, &items);
            let round = |value: f64| (value * 1e6).round() / 1e6;
            let got =
                got.map(|(shares, fraction)| (shares.into_iter().map(round).collect::<Vec<_>>(), round(fraction)));
            assert_eq!(got, want, "{sum} {items:?}");
        }
    }

    /// Whatever the numbers, the properties hold.
    #[test]
    fn allocations_sum_up_and_are_fair() {
        let mut seed = 7_u64;
        let mut next = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ((seed >> 33) % below) as f64
        };
        for _ in 0..2000 {
            let items: Vec<Item> = (0..1 + next(6) as usize)
                .map(|_| {
                    let lower = next(20);
                    item(lower, lower + next(30), lower + next(50))
                })
                .collect();
            let low: f64 = items.iter().map(|item| item.lower).sum();
            let high: f64 = items.iter().map(|item| item.upper).sum();
            let sum = low + next(1 + (high - low) as u64);
            let (shares, fraction) = allocate(sum, &items).unwrap();
            if sum == 0.0 {
                continue;
            }
            assert!((shares.iter().sum::<f64>() - sum).abs() < 1e-6, "{items:?} {sum} {shares:?}");
            for (share, item) in shares.iter().zip(&items) {
                assert!((share - item.share(fraction)).abs() < 1e-6, "{item:?} {share} {fraction}");
            }
        }
    }

    #[test]
    fn moments_are_weighed_by_time() {
        let second = Duration::from_secs;
        let mut integrator = Integrator::default();
        integrator.set(second(0), 4.0);
        integrator.set(second(1), 0.0);
        let observed = integrator.reset(second(4));
        assert_eq!((observed.duration, observed.average, observed.most), (4.0, 1.0, 4.0));
        assert!((observed.deviation - 3.0_f64.sqrt()).abs() < 1e-9);
        integrator.set(second(5), 2.0);
        assert_eq!(integrator.reset(second(6)).most, 2.0, "the peak of the new period");
        let mut demand = Demand::default();
        demand.update(observed);
        let peak = demand.smoothed;
        assert!((peak - (1.0 + 3.0_f64.sqrt())).abs() < 1e-9);
        for _ in 0..30 {
            demand.update(Observed { duration: 10.0, average: 0.0, deviation: 0.0, most: 0.0 });
        }
        assert!((demand.smoothed / peak - 0.5).abs() < 0.01, "half after five minutes: {}", demand.smoothed / peak);
    }
}
