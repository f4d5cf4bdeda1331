//! Others' answers, remembered for as long as they say, half a minute at most.

use std::collections::HashMap;
use std::time::Duration;

use ahash::RandomState;
use component_base::clock::SharedClock;
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use parking_lot::Mutex;

use super::wire;
use crate::metrics::Metrics;

/// kubeadm's `cache 30`.
const LONGEST: u32 = 30;
/// A node's pods ask for few names of others, again and again.
const CAPACITY: usize = 2048;

/// What an answer depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    name: Name,
    kind: RecordType,
    /// Whether the question came with the extension, and whether it asked for signatures.
    extended: Option<bool>,
    checking_disabled: bool,
}

impl Key {
    /// `None` for a question whose answer is nobody else's.
    pub fn of(question: &Message, query: &Query) -> Option<Self> {
        let plain = query.query_class == DNSClass::IN && question.recursion_desired;
        plain.then(|| Self {
            name: query.name.to_lowercase(),
            kind: query.query_type,
            extended: question.edns.as_ref().map(|edns| edns.flags().dnssec_ok),
            checking_disabled: question.checking_disabled,
        })
    }
}

struct Kept {
    bytes: Box<[u8]>,
    /// Where each record's time stands.
    places: Box<[usize]>,
    since: Duration,
    until: Duration,
    denial: bool,
}

/// Remembers answers.
pub struct Cache {
    kept: Mutex<HashMap<Key, Kept, RandomState>>,
    clock: SharedClock,
    metrics: Metrics,
}

impl Cache {
    pub fn new(clock: SharedClock, metrics: Metrics) -> Self {
        Self { kept: Mutex::default(), clock, metrics }
    }

    /// The answer, if it is known and fits: with the number and the spelling of whoever asks, and the time that is left.
    pub fn get(&self, key: &Key, packet: &[u8], limit: usize) -> Option<Vec<u8>> {
        let now = self.clock.monotonic();
        let kept = self.kept.lock();
        let found = kept.get(key).filter(|found| found.until > now && found.bytes.len() <= limit);
        let Some(found) = found else {
            self.metrics.cache_missed();
            return None;
        };
        self.metrics.cache_hit(found.denial);
        let mut answer = found.bytes.to_vec();
        let end = wire::question_end(packet).filter(|end| Some(*end) == wire::question_end(&answer))?;
        answer[..2].copy_from_slice(&packet[..2]);
        answer[12..end].copy_from_slice(&packet[12..end]);
        let passed = u32::try_from(now.saturating_sub(found.since).as_secs()).unwrap_or(u32::MAX);
        for place in &found.places {
            let time = answer.get_mut(*place..place + 4)?;
            let left = u32::from_be_bytes([time[0], time[1], time[2], time[3]]).min(LONGEST).saturating_sub(passed);
            time.copy_from_slice(&left.to_be_bytes());
        }
        Some(answer)
    }

    /// Keeps an answer, if it is one that may be.
    pub fn put(&self, key: Key, answer: &[u8]) {
        let code = wire::code(answer);
        let denial = code == ResponseCode::NXDomain;
        if wire::is_truncated(answer) || (code != ResponseCode::NoError && !denial) {
            return;
        }
        let Some(lives) = wire::lives(answer).filter(|lives| lives.shortest > 0) else { return };
        let now = self.clock.monotonic();
        let until = now + Duration::from_secs(lives.shortest.min(LONGEST).into());
        let mut kept = self.kept.lock();
        if kept.len() >= CAPACITY && !kept.contains_key(&key) {
            kept.retain(|_, found| found.until > now);
            // All of them still good: half of them go, whichever.
            let mut surplus = if kept.len() >= CAPACITY { CAPACITY / 2 } else { 0 };
            kept.retain(|_, _| {
                let goes = surplus > 0;
                surplus -= usize::from(goes);
                !goes
            });
        }
        let places = lives.places.into();
        kept.insert(key, Kept { bytes: answer.into(), places, since: now, until, denial });
        self.metrics.cache_holds(kept.len());
    }
}
