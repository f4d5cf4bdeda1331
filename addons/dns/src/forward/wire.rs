//! As much of a packet's bytes as a forwarder has to know: where its question ends, and where its records say how long
//! they live. Whatever the rest is, it is passed on as it is.

use hickory_proto::op::ResponseCode;

/// Bytes of a message's header.
const HEADER: usize = 12;
/// The types of records that matter here.
const SOA: u16 = 6;
const OPT: u16 = 41;

/// Where a packet's only question ends, if it has one that can be read. It is written out: there is nothing before it
/// that it could point to.
pub fn question_end(packet: &[u8]) -> Option<usize> {
    (word(packet, 4)? == 1).then_some(())?;
    let mut at = HEADER;
    loop {
        match usize::from(*packet.get(at)?) {
            0 => break,
            length @ 1..=63 => at += 1 + length,
            _ => return None,
        }
    }
    let end = at + 5;
    (end <= packet.len()).then_some(end)
}

/// The answer's code, without what an extension adds to it.
pub fn code(packet: &[u8]) -> ResponseCode {
    ResponseCode::from_low(packet.get(3).map_or(0, |flags| flags & 0xf))
}

/// Whether the answer was cut to fit.
pub fn is_truncated(packet: &[u8]) -> bool {
    packet.get(2).is_some_and(|flags| flags & 2 != 0)
}

/// Whether `answer` belongs to `question`.
pub fn belongs(answer: &[u8], question: &[u8]) -> bool {
    let (Some(header), Some(end)) = (answer.get(..HEADER), question_end(question)) else { return false };
    if header[..2] != question[..2] || header[2] & 0x80 == 0 {
        return false;
    }
    match question_end(answer) {
        // Its bytes are the same, but some servers write names their own way.
        Some(same) => same == end && answer[HEADER..same].eq_ignore_ascii_case(&question[HEADER..end]),
        // Who cannot read a question does not repeat it.
        None => word(answer, 4) == Some(0) && code(answer) != ResponseCode::NoError,
    }
}

/// How long an answer lives.
#[derive(Debug, PartialEq, Eq)]
pub struct Lives {
    /// Where each record's time stands.
    pub places: Vec<usize>,
    /// The shortest of them, in seconds; of an answer that says no, what the zone says about that (RFC 2308).
    pub shortest: u32,
}

/// Reads how long an answer's records live; `None` when it has none, or cannot be read.
pub fn lives(packet: &[u8]) -> Option<Lives> {
    let mut at = question_end(packet)?;
    let counts = [6, 8, 10].map(|at| word(packet, at));
    let mut lives = Lives { places: Vec::new(), shortest: u32::MAX };
    for count in counts {
        for _ in 0..count? {
            at = name_end(packet, at)?;
            let kind = word(packet, at)?;
            let length = usize::from(word(packet, at + 8)?);
            let end = at + 10 + length;
            let data = packet.get(at + 10..end)?;
            // An extension has flags where others have their time.
            if kind != OPT {
                lives.places.push(at + 4);
                lives.shortest = lives.shortest.min(long(packet, at + 4)?);
            }
            if kind == SOA && length >= 4 {
                lives.shortest = lives.shortest.min(long(data, length - 4)?);
            }
            at = end;
        }
    }
    (!lives.places.is_empty()).then_some(lives)
}

/// Where a name ends that begins here: written out, or with a pointer to the rest.
fn name_end(packet: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match usize::from(*packet.get(at)?) {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + length,
            0xc0.. => return Some(at + 2),
            _ => return None,
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
