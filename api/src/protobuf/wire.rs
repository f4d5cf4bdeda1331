//! Protobuf's wire format: a reader that never trusts a length and a writer that goes backwards.
//!
//! The writer fills its buffer from the end of the message to its start, as Kubernetes' own encoder
//! does, so that a nested message's length is known when its header is written and nothing is moved.

use super::Error;

/// Wire types of the protobuf encoding.
pub const VARINT: u8 = 0;
pub const FIXED64: u8 = 1;
pub const BYTES: u8 = 2;
pub const START_GROUP: u8 = 3;
pub const END_GROUP: u8 = 4;
pub const FIXED32: u8 = 5;

/// A cursor over one message.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn varint(&mut self) -> Result<u64, Error> {
        let mut value = 0u64;
        for (index, byte) in self.rest.iter().enumerate() {
            if index == 10 {
                return Err(Error::Overflow);
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() >= 10 { Error::Overflow } else { Error::UnexpectedEnd })
    }

    /// Field number and wire type.
    pub fn tag(&mut self) -> Result<(u32, u8), Error> {
        let tag = self.varint()?;
        let wire = (tag & 7) as u8;
        let number = (tag >> 3) as i32;
        if number <= 0 {
            return Err(Error::IllegalTag { number, wire });
        }
        Ok((number as u32, wire))
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], Error> {
        let length = self.varint()?;
        if length > i64::MAX as u64 {
            return Err(Error::NegativeLength);
        }
        self.take(usize::try_from(length).map_err(|_| Error::UnexpectedEnd)?)
    }

    pub fn fixed64(&mut self) -> Result<u64, Error> {
        let bytes = self.take(8)?;
        Ok(u64::from_le_bytes(bytes.try_into().expect("eight bytes were taken")))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        if length > self.rest.len() {
            return Err(Error::UnexpectedEnd);
        }
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(taken)
    }

    /// Passes over a field that the table does not know. Groups may nest, without recursion here.
    pub fn skip(&mut self, wire: u8) -> Result<(), Error> {
        let mut depth = 0usize;
        let mut wire = wire;
        loop {
            match wire {
                VARINT => drop(self.varint()?),
                FIXED64 => drop(self.take(8)?),
                BYTES => drop(self.bytes()?),
                START_GROUP => depth += 1,
                END_GROUP => depth = depth.checked_sub(1).ok_or(Error::UnexpectedEndOfGroup)?,
                FIXED32 => drop(self.take(4)?),
                other => return Err(Error::IllegalWireType(other)),
            }
            if depth == 0 {
                return Ok(());
            }
            wire = self.tag()?.1;
        }
    }
}

/// A buffer filled from its end.
pub struct Writer {
    reversed: Vec<u8>,
}

impl Writer {
    pub fn with_capacity(capacity: usize) -> Self {
        Self { reversed: Vec::with_capacity(capacity) }
    }

    /// The message, the right way round.
    pub fn finish(mut self) -> Vec<u8> {
        self.reversed.reverse();
        self.reversed
    }

    /// How much was written so far; the difference of two marks is a nested length.
    pub fn mark(&self) -> usize {
        self.reversed.len()
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        let start = self.reversed.len();
        self.reversed.extend_from_slice(bytes);
        self.reversed[start..].reverse();
    }

    pub fn varint(&mut self, mut value: u64) {
        let mut buffer = [0u8; 10];
        let mut length = 0;
        while value >= 0x80 {
            buffer[length] = (value as u8) | 0x80;
            value >>= 7;
            length += 1;
        }
        buffer[length] = value as u8;
        self.raw(&buffer[..=length]);
    }

    pub fn tag(&mut self, number: u32, wire: u8) {
        self.varint(u64::from(number) << 3 | u64::from(wire));
    }

    /// A whole varint field.
    pub fn varint_field(&mut self, number: u32, value: u64) {
        self.varint(value);
        self.tag(number, VARINT);
    }

    /// A whole length-delimited field.
    pub fn bytes_field(&mut self, number: u32, bytes: &[u8]) {
        self.raw(bytes);
        self.close(number, self.mark() - bytes.len());
    }

    pub fn fixed64_field(&mut self, number: u32, value: u64) {
        self.raw(&value.to_le_bytes());
        self.tag(number, FIXED64);
    }

    /// Writes the header of a nested message whose content was written since `mark`.
    pub fn close(&mut self, number: u32, mark: usize) {
        let length = self.reversed.len() - mark;
        self.varint(length as u64);
        self.tag(number, BYTES);
    }
}
