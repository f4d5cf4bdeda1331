//! Heads of data items: a type, and a number that is a value, a length or a tag.

use super::Error;

/// The eight types that the first three bits of an item name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Major {
    Positive,
    Negative,
    Bytes,
    Text,
    Array,
    Map,
    Tag,
    Primitive,
}

impl Major {
    pub fn of(byte: u8) -> Self {
        match byte >> 5 {
            0 => Major::Positive,
            1 => Major::Negative,
            2 => Major::Bytes,
            3 => Major::Text,
            4 => Major::Array,
            5 => Major::Map,
            6 => Major::Tag,
            _ => Major::Primitive,
        }
    }

    /// As errors call it.
    pub fn name(self) -> &'static str {
        match self {
            Major::Positive => "positive integer",
            Major::Negative => "negative integer",
            Major::Bytes => "byte string",
            Major::Text => "UTF-8 text string",
            Major::Array => "array",
            Major::Map => "map",
            Major::Tag => "tag",
            Major::Primitive => "primitives",
        }
    }
}

/// What "additional information" says that the length comes with the end.
const INDEFINITE: u8 = 31;
/// The byte that ends what has no length.
pub(super) const BREAK: u8 = 0xff;

#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub major: Major,
    pub info: u8,
    pub argument: u64,
}

impl Head {
    pub fn is_indefinite(self) -> bool {
        self.info == INDEFINITE
    }

    /// The number, if this is a float.
    pub fn float(self) -> Option<f64> {
        match (self.major, self.info) {
            (Major::Primitive, 25) => Some(half_to_double(self.argument as u16)),
            (Major::Primitive, 26) => Some(f64::from(f32::from_bits(self.argument as u32))),
            (Major::Primitive, 27) => Some(f64::from_bits(self.argument)),
            _ => None,
        }
    }
}

/// Bytes and how far they have been read.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// The next item's type. Only asked of what is known to be well-formed.
    pub fn next(&self) -> Major {
        Major::of(self.peek().unwrap_or(0xf6))
    }

    /// Reads the break that ends an indefinite item, if it is next.
    pub fn at_break(&mut self) -> bool {
        let found = self.peek() == Some(BREAK);
        if found {
            self.at += 1;
        }
        found
    }

    /// The next so many bytes.
    pub fn take(&mut self, length: u64) -> Result<&'a [u8], Error> {
        let length = usize::try_from(length).map_err(|_| Error::Truncated)?;
        let taken = self.bytes[self.at..].get(..length).ok_or(Error::Truncated)?;
        self.at += length;
        Ok(taken)
    }

    /// The next head.
    ///
    /// # Errors
    /// When there is none, or none that upstream accepts.
    pub fn head(&mut self) -> Result<Head, Error> {
        let first = self.peek().ok_or(Error::Truncated)?;
        self.at += 1;
        let (major, info) = (Major::of(first), first & 0x1f);
        let size = match info {
            0..=23 => return Ok(Head { major, info, argument: u64::from(info) }),
            24 => 1,
            25 => 2,
            26 => 4,
            27 => 8,
            INDEFINITE => {
                return match major {
                    Major::Positive | Major::Negative | Major::Tag => {
                        Err(Error::Information { info, of: major.name() })
                    }
                    Major::Primitive => Err(Error::Break),
                    _ => Ok(Head { major, info, argument: u64::from(info) }),
                };
            }
            _ => return Err(Error::Information { info, of: major.name() }),
        };
        let argument = self.take(size)?.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        let head = Head { major, info, argument };
        if major == Major::Primitive && info == 24 && argument < 32 {
            return Err(Error::Simple(argument));
        }
        let unacceptable = |what: &str| Error::Unacceptable { of: major.name(), what: what.to_string() };
        match head.float() {
            Some(float) if float.is_nan() => Err(unacceptable("floating-point NaN")),
            Some(float) if float.is_infinite() => Err(unacceptable("floating-point infinity")),
            _ => Ok(head),
        }
    }
}

/// IEEE 754 binary16.
fn half_to_double(bits: u16) -> f64 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    let size = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
    };
    sign * size
}
