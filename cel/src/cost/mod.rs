//! What expressions cost, in cel-go's units with Kubernetes' factors: an estimate of the worst case from the types and
//! sizes that are declared, and the actual cost while evaluating. One table ([`Cost`]) serves both.

mod call;
mod estimate;

pub use call::Cost;
pub use estimate::estimate;

/// The cost of a name, a field or an index.
pub(crate) const SELECT: u64 = 1;
/// The cost of making a list.
pub(crate) const LIST: u64 = 10;
/// The cost of making a map.
pub(crate) const MAP: u64 = 30;
/// The cost of making an object.
pub(crate) const OBJECT: u64 = 40;
/// The cost of looking at one character.
pub(crate) const CHARACTER: f64 = 0.1;
/// The cost of one character of a regular expression, for each that it is applied to.
pub(crate) const REGEX: f64 = 0.25;

/// The most that one expression may cost while it is evaluated.
pub const PER_CALL_LIMIT: u64 = 1_000_000;

/// From the least to the most that something may cost, or how large it may be. Sums and products stop at the top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The least.
    pub min: u64,
    /// The most.
    pub max: u64,
}

impl Range {
    /// Nothing is known.
    pub const UNKNOWN: Range = Range { min: 0, max: u64::MAX };
    /// Nothing.
    pub const ZERO: Range = Range { min: 0, max: 0 };

    /// Exactly this.
    pub const fn fixed(n: u64) -> Range {
        Range { min: n, max: n }
    }

    pub(crate) fn add(self, other: Range) -> Range {
        Range { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    pub(crate) fn multiply(self, other: Range) -> Range {
        Range { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    /// Times a factor, rounded up.
    pub(crate) fn times(self, factor: f64) -> Range {
        Range { min: times(self.min, factor), max: times(self.max, factor) }
    }

    pub(crate) fn union(self, other: Range) -> Range {
        Range { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

/// A size times a factor, rounded up and stopped at the top.
pub(crate) fn times(n: u64, factor: f64) -> u64 {
    let product = (n as f64 * factor).ceil();
    if product >= 18_446_744_073_709_551_616.0 { u64::MAX } else { product as u64 }
}
