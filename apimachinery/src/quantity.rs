//! Quantities: `100m`, `1.5Gi`, `2e3`; fixed-point numbers with a suffix.
//!
//! Canonical form, rounding (up, to nano) and the cases in which the original text is kept follow
//! upstream's `api/resource`, including that a text such as `1500m` stays as it is while `1000m`
//! becomes `1`. A quantity holds `mantissa × 10^scale` in 128 bits; decimal numbers of more than
//! 38 significant digits are refused (upstream has no such bound, and no use for it).

use std::cmp::Ordering;
use std::fmt;

/// Which family of suffixes a quantity prints with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Format {
    /// `12e6`
    DecimalExponent,
    /// `12Mi`
    BinarySI,
    /// `12M`
    #[default]
    DecimalSI,
}

/// A number with its preferred notation.
#[derive(Clone, Debug, Default)]
pub struct Quantity {
    mantissa: i128,
    scale: i32,
    format: Format,
    /// The text as given, where upstream gives it back unchanged.
    text: Option<Box<str>>,
    /// The number in 64 bits and a power of ten, where upstream keeps it like that: it takes no others for integers.
    amount: Option<(i64, i32)>,
}

/// Text that is not a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error(r"quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

const NANO: i32 = -9;

struct Parts<'a> {
    negative: bool,
    integer: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

/// Cuts a text into sign, digits and suffix the way upstream's scanner does.
fn split(text: &str) -> Result<Parts<'_>, ParseError> {
    let (negative, rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let digits = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
    let rest = rest.trim_start_matches('0');
    let (integer, rest) = rest.split_at(digits(rest));
    let integer = if integer.is_empty() { "0" } else { integer };
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits(rest)),
        None => ("", rest),
    };
    let letters = rest.bytes().take_while(|b| b"eEinumkKMGTP".contains(b)).count();
    let signed = letters + usize::from(matches!(rest.as_bytes().get(letters), Some(b'-' | b'+')));
    let end = signed + digits(&rest[signed..]);
    if end != rest.len() {
        return Err(ParseError::Format);
    }
    Ok(Parts { negative, integer, fraction, suffix: rest })
}

impl Parts<'_> {
    /// All digits as one number, if it fits 64 bits.
    fn digits(&self) -> Option<i64> {
        let digits = self.integer.bytes().chain(self.fraction.bytes());
        digits.map(|digit| i64::from(digit - b'0')).try_fold(0i64, |all, digit| all.checked_mul(10)?.checked_add(digit))
    }
}

fn interpret(suffix: &str) -> Option<(u32, i32, Format)> {
    Some(match suffix {
        "" => (10, 0, Format::DecimalSI),
        "n" => (10, -9, Format::DecimalSI),
        "u" => (10, -6, Format::DecimalSI),
        "m" => (10, -3, Format::DecimalSI),
        "k" => (10, 3, Format::DecimalSI),
        "M" => (10, 6, Format::DecimalSI),
        "G" => (10, 9, Format::DecimalSI),
        "T" => (10, 12, Format::DecimalSI),
        "P" => (10, 15, Format::DecimalSI),
        "E" => (10, 18, Format::DecimalSI),
        "Ki" => (2, 10, Format::BinarySI),
        "Mi" => (2, 20, Format::BinarySI),
        "Gi" => (2, 30, Format::BinarySI),
        "Ti" => (2, 40, Format::BinarySI),
        "Pi" => (2, 50, Format::BinarySI),
        "Ei" => (2, 60, Format::BinarySI),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?.parse::<i64>().ok()?;
            // Beyond 32 bits upstream wraps; no such number is representable here anyway.
            (10, i32::try_from(exponent).ok()?, Format::DecimalExponent)
        }
    })
}

/// The powers of ten that fit.
const POWERS: [i128; 39] = {
    let mut powers = [1; 39];
    let mut at = 1;
    while at < powers.len() {
        powers[at] = powers[at - 1] * 10;
        at += 1;
    }
    powers
};

fn pow10(exponent: u32) -> Option<i128> {
    POWERS.get(exponent as usize).copied()
}

/// Digits as a mantissa with its trailing zeros moved to the exponent.
fn parse_digits(integer: &str, fraction: &str) -> Result<(i128, i32), ParseError> {
    let mut mantissa: i128 = 0;
    let mut scale: i64 = 0;
    let mut zeros: u32 = 0;
    for (i, digit) in integer.bytes().chain(fraction.bytes()).enumerate() {
        let in_fraction = i >= integer.len();
        if in_fraction {
            scale -= 1;
        }
        zeros += 1;
        if digit != b'0' {
            // Zeros are multiplied in only once a digit follows them, so long runs cost nothing.
            mantissa = pow10(zeros)
                .and_then(|p| mantissa.checked_mul(p))
                .and_then(|m| m.checked_add(i128::from(digit - b'0')))
                .ok_or(ParseError::Numeric)?;
            zeros = 0;
        }
    }
    if mantissa == 0 {
        return Ok((0, 0));
    }
    i32::try_from(scale + i64::from(zeros)).map(|s| (mantissa, s)).map_err(|_| ParseError::Numeric)
}

impl Quantity {
    /// Reads a quantity.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        if text.is_empty() {
            return Err(ParseError::Format);
        }
        if text == "0" {
            return Ok(Self { text: Some("0".into()), amount: Some((0, 0)), ..Self::default() });
        }
        let parts = split(text)?;
        let (base, exponent, format) = interpret(parts.suffix).ok_or(ParseError::Suffix)?;
        let text = keeps_text(&parts, exponent, format).then(|| text.into());
        let amount = amount(&parts, exponent, format);
        let sign = if parts.negative { -1 } else { 1 };

        if base == 2 {
            return Ok(Self { text, amount, ..binary(&parts, exponent, sign)? });
        }
        let (mantissa, scale) = parse_digits(parts.integer, parts.fraction)?;
        let scale = scale.checked_add(exponent).ok_or(ParseError::Numeric)?;
        let (mantissa, scale) = round_up(mantissa, scale, NANO);
        let (mantissa, scale) = if mantissa == 0 { (0, 0) } else { (mantissa, scale) };
        Ok(Self { mantissa: sign * mantissa, scale, format, text, amount })
    }

    pub fn new(value: i64, format: Format) -> Self {
        Self { mantissa: value.into(), scale: 0, format, text: None, amount: Some((value, 0)) }
    }

    pub fn from_milli(value: i64, format: Format) -> Self {
        Self { mantissa: value.into(), scale: -3, format, text: None, amount: Some((value, -3)) }
    }

    /// The form the server gives back, or why the text is not a quantity.
    pub fn canonical(text: &str) -> Result<String, ParseError> {
        Ok(Self::parse(text.trim())?.to_string())
    }

    pub fn format(&self) -> Format {
        self.format
    }

    pub fn is_zero(&self) -> bool {
        self.mantissa == 0
    }

    /// -1, 0 or 1.
    pub fn sign(&self) -> i32 {
        self.mantissa.signum() as i32
    }

    /// Whole units, rounded up (away from zero), bounded by 64 bits.
    pub fn value(&self) -> i64 {
        self.scaled_value(0)
    }

    /// Thousandths, rounded up.
    pub fn milli_value(&self) -> i64 {
        self.scaled_value(-3)
    }

    /// Multiples of `10^scale`, rounded up.
    pub fn scaled_value(&self, scale: i32) -> i64 {
        let (mantissa, at) = round_up(self.mantissa, self.scale, scale);
        let widened = u32::try_from(at - scale).ok().and_then(pow10).and_then(|p| mantissa.checked_mul(p));
        if self.amount.is_none() {
            // Upstream takes the lowest bits of what does not fit.
            let power = u32::try_from(at - scale).map_or(1, |power| 10i128.wrapping_pow(power));
            return mantissa.wrapping_mul(power) as i64;
        }
        match widened {
            Some(value) => i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX }),
            None if mantissa == 0 => 0,
            None => {
                if mantissa < 0 {
                    i64::MIN
                } else {
                    i64::MAX
                }
            }
        }
    }

    /// Whether it is a whole number of `10^scale`.
    pub fn is_multiple_of(&self, scale: i32) -> bool {
        let (m, s) = round_up(self.mantissa, self.scale, scale);
        compare(m, s, self.mantissa, self.scale) == Ordering::Equal
    }

    /// A whole number of units that fits 64 bits, if it is one and upstream takes it for one: `1Pi` it does not, nor
    /// `1.0`, which it keeps in other forms.
    pub fn as_i64(&self) -> Option<i64> {
        let (value, scale) = self.amount?;
        10i64.checked_pow(u32::try_from(scale).ok()?)?.checked_mul(value)
    }

    /// The nearest floating point number, not for money.
    pub fn as_f64(&self) -> f64 {
        self.mantissa as f64 * 10f64.powi(self.scale)
    }

    /// The sum; the notation is this one's unless this is zero.
    pub fn add(&mut self, other: &Self) {
        self.text = None;
        self.amount = match (self.amount, other.amount) {
            (Some(own), Some(other)) => sum(own, other),
            (_, other) if self.is_zero() => other,
            _ => None,
        };
        if self.is_zero() {
            self.format = other.format;
        }
        let scale = self.scale.min(other.scale);
        let (a, b) = (rescale(self.mantissa, self.scale, scale), rescale(other.mantissa, other.scale, scale));
        self.mantissa = a.saturating_add(b);
        self.scale = scale;
    }

    /// The difference; the notation is this one's unless this is zero.
    pub fn sub(&mut self, other: &Self) {
        let amount = other.amount.and_then(|(value, scale)| Some((value.checked_neg()?, scale)));
        self.add(&Self { mantissa: -other.mantissa, text: None, amount, ..other.clone() });
    }

    pub fn mul(&mut self, factor: i64) {
        self.text = None;
        self.amount = self.amount.and_then(|(value, scale)| Some((value.checked_mul(factor)?, scale)));
        self.mantissa = self.mantissa.saturating_mul(factor.into());
    }

    pub fn neg(&mut self) {
        self.text = None;
        self.amount = self.amount.and_then(|(value, scale)| Some((value.checked_neg()?, scale)));
        self.mantissa = -self.mantissa;
    }

    /// Rounds up to a multiple of `10^scale`.
    pub fn round_up(&mut self, scale: i32) {
        if self.scale < scale {
            self.text = None;
            self.amount = None;
            (self.mantissa, self.scale) = round_up(self.mantissa, self.scale, scale);
        }
    }

    fn write_canonical(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("0");
        }
        let small = compare(self.mantissa.abs(), self.scale, 1024, 0) == Ordering::Less;
        let format = match self.format {
            Format::BinarySI if small || !self.is_multiple_of(0) => Format::DecimalSI,
            format => format,
        };
        if format == Format::BinarySI {
            let mut amount = rescale(self.mantissa, self.scale, 0);
            let mut power = 0;
            while amount % 1024 == 0 {
                amount /= 1024;
                power += 1;
            }
            let suffix = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].get(power).copied().unwrap_or("");
            return write!(f, "{amount}{suffix}");
        }
        let (mut amount, mut exponent) = (self.mantissa, self.scale);
        while amount % 10 == 0 {
            amount /= 10;
            exponent += 1;
        }
        let shift = exponent.rem_euclid(3);
        exponent -= shift;
        let zeros = &"00"[..shift as usize];
        write!(f, "{amount}{zeros}")?;
        if exponent == 0 {
            return Ok(());
        }
        if format == Format::DecimalExponent {
            return write!(f, "e{exponent}");
        }
        // Upstream prints no suffix where it has none (10^21 and more).
        f.write_str(match exponent {
            -9 => "n",
            -6 => "u",
            -3 => "m",
            3 => "k",
            6 => "M",
            9 => "G",
            12 => "T",
            15 => "P",
            18 => "E",
            _ => "",
        })
    }
}

/// Upstream gives a text back unchanged when it was read on its fast path and looked canonical.
/// What upstream keeps in 64 bits: few enough digits, of no binary fraction.
fn amount(parts: &Parts<'_>, exponent: i32, format: Format) -> Option<(i64, i32)> {
    let digits = i32::try_from(parts.integer.len() + parts.fraction.len()).ok()?;
    let binary = format == Format::BinarySI;
    let precision = match binary {
        true if parts.fraction.is_empty() => 15 - digits - (exponent as f32 * 3.0 / 10.0) as i32 - 1,
        true => -1,
        false => 18 - digits,
    };
    let scale = if binary { 0 } else { exponent.saturating_sub(i32::try_from(parts.fraction.len()).ok()?) };
    if precision < 0 || scale < NANO {
        return None;
    }
    let value = parts.digits()?;
    let value = if binary { value.checked_mul(1i64.checked_shl(exponent.unsigned_abs())?)? } else { value };
    Some((if parts.negative { -value } else { value }, scale))
}

/// The sum of two of those, in the smaller of their powers of ten.
fn sum(a: (i64, i32), b: (i64, i32)) -> Option<(i64, i32)> {
    match (a, b) {
        ((0, _), other) | (other, (0, _)) => Some(other),
        ((a, at_a), (b, at_b)) => {
            let at = at_a.min(at_b);
            let widened = |value: i64, from: i32| 10i64.checked_pow(u32::try_from(from - at).ok()?)?.checked_mul(value);
            Some((widened(a, at_a)?.checked_add(widened(b, at_b)?)?, at))
        }
    }
}

fn keeps_text(parts: &Parts<'_>, exponent: i32, format: Format) -> bool {
    let digits = (parts.integer.len() + parts.fraction.len()) as i32;
    if digits > 18 {
        return false;
    }
    let Some(value) = parts.digits() else {
        return false;
    };
    match format {
        Format::BinarySI => {
            let precision = 15 - digits - (exponent as f32 * 3.0 / 10.0) as i32 - 1;
            parts.fraction.is_empty() && precision >= 0 && value.checked_mul(1 << exponent).is_some() && value & 7 != 0
        }
        _ => {
            let scale = exponent.saturating_sub(parts.fraction.len() as i32);
            let thousands = digits >= 3 && value % 1000 == 0;
            scale >= NANO && scale % 3 == 0 && !thousands && !parts.integer.starts_with('0')
        }
    }
}

/// A number with a binary suffix; more than 2^63-1 is capped to it, as upstream does.
fn binary(parts: &Parts<'_>, exponent: i32, sign: i128) -> Result<Quantity, ParseError> {
    let capped = Quantity {
        mantissa: sign * i128::from(i64::MAX),
        scale: 0,
        format: Format::BinarySI,
        text: None,
        amount: None,
    };
    let significant = parts.integer.len() > 19 && parts.integer != "0";
    if significant {
        return Ok(capped);
    }
    // Fraction digits beyond these cannot change the number rounded up to nano, except by being there.
    let (kept, dropped) = parts.fraction.split_at(parts.fraction.len().min(18));
    let (mut mantissa, mut scale) = parse_digits(parts.integer, kept)?;
    if dropped.bytes().any(|d| d != b'0') {
        let fine = -(kept.len() as i32);
        (mantissa, scale) = (rescale(mantissa, scale, fine) + 1, fine);
    }
    let Some(product) = mantissa.checked_mul(1 << exponent) else {
        return Ok(capped);
    };
    let (mantissa, scale) = round_up(product, scale, NANO);
    if compare(mantissa, scale, i64::MAX.into(), 0) == Ordering::Greater {
        return Ok(capped);
    }
    let fraction = mantissa > 0 && compare(mantissa, scale, 1, 0) == Ordering::Less;
    let format = if fraction { Format::DecimalSI } else { Format::BinarySI };
    let (mantissa, scale) = if mantissa == 0 { (0, 0) } else { (mantissa, scale) };
    Ok(Quantity { mantissa: sign * mantissa, scale, format, text: None, amount: None })
}

/// The smallest multiple of `10^to` that is no nearer to zero; `scale >= to` is left alone.
fn round_up(mantissa: i128, scale: i32, to: i32) -> (i128, i32) {
    if scale >= to {
        return (mantissa, scale);
    }
    let Some(divisor) = to.checked_sub(scale).and_then(|d| u32::try_from(d).ok()).and_then(pow10) else {
        return (mantissa.signum(), to);
    };
    let (quotient, remainder) = (mantissa / divisor, mantissa % divisor);
    (quotient + remainder.signum(), to)
}

fn rescale(mantissa: i128, from: i32, to: i32) -> i128 {
    if from < to {
        return round_up(mantissa, from, to).0;
    }
    let factor = from.checked_sub(to).and_then(|d| u32::try_from(d).ok()).and_then(pow10);
    match factor {
        Some(factor) => mantissa.saturating_mul(factor),
        None if mantissa == 0 => 0,
        None => {
            if mantissa < 0 {
                i128::MIN
            } else {
                i128::MAX
            }
        }
    }
}

fn compare(a: i128, a_scale: i32, b: i128, b_scale: i32) -> Ordering {
    if a.signum() != b.signum() || a == 0 || b == 0 {
        return a.signum().cmp(&b.signum());
    }
    // Bring both to the finer scale; saturation keeps the order because the other fits.
    let scale = a_scale.min(b_scale);
    rescale(a, a_scale, scale).cmp(&rescale(b, b_scale, scale))
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Some(text) => f.write_str(text),
            None => self.write_canonical(f),
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(self.mantissa, self.scale, other.mantissa, other.scale)
    }
}

impl std::str::FromStr for Quantity {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn canonical_forms() {
        for (input, expected) in [
            ("0", "0"),
            ("0n", "0"),
            ("-0", "0"),
            ("100m", "100m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("1.5", "1500m"),
            ("1024", "1024"),
            ("1Ki", "1Ki"),
            ("1024Ki", "1Mi"),
            ("1025Mi", "1025Mi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("0.1Ki", "102400m"),
            ("0.001Ki", "1024m"),
            ("12e6", "12e6"),
            ("1000e3", "1e6"),
            ("1E", "1E"),
            ("1e3", "1e3"),
            ("1000000", "1M"),
            ("1234567", "1234567"),
            ("100k", "100k"),
            ("0.1n", "1n"),
            ("1.1n", "2n"),
            ("-1.1n", "-2n"),
            ("+5", "+5"),
            ("10Ei", "9223372036854775807"),
            ("9223372036854775808", "9223372036854775808"),
            ("1.000000000001", "1000000001n"),
            ("5000000000000000000000", "5"),
            ("008", "008"),
        ] {
            assert_eq!(Quantity::canonical(input).unwrap(), expected, "{input}");
        }
    }

    #[test]
    fn rejects() {
        for (input, error) in [
            ("", ParseError::Format),
            ("a", ParseError::Format),
            ("1.1.1", ParseError::Format),
            ("1 ", ParseError::Format),
            ("1Zi", ParseError::Format),
            ("1ki", ParseError::Suffix),
            ("1mm", ParseError::Suffix),
            ("1e", ParseError::Suffix),
            ("--1", ParseError::Suffix),
        ] {
            assert_eq!(Quantity::parse(input).unwrap_err(), error, "{input}");
        }
    }

    #[test]
    fn values() {
        let q = |s: &str| Quantity::parse(s).unwrap();
        assert_eq!((q("100m").value(), q("100m").milli_value()), (1, 100));
        assert_eq!(q("1Gi").value(), 1 << 30);
        assert_eq!(q("2.5").as_i64(), None);
        assert_eq!(q("1e3").as_i64(), Some(1000));
        assert!(q("1Gi") > q("1G") && q("1000m") == q("1") && q("-1") < q("1n"));
        let mut sum = q("1500m");
        sum.add(&q("500m"));
        assert_eq!(sum.to_string(), "2");
        sum.sub(&q("3"));
        assert_eq!(sum.to_string(), "-1");
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,40}") {
            let _ = Quantity::parse(&text);
        }

        #[test]
        fn canonical_is_stable(number in "[+-]?[0-9]{0,12}\\.?[0-9]{0,6}", suffix in "|n|u|m|k|M|G|T|Ki|Mi|Gi|e3|e-3") {
            if let Ok(quantity) = Quantity::parse(&format!("{number}{suffix}")) {
                let again = Quantity::parse(&quantity.to_string()).unwrap();
                prop_assert_eq!(&again, &quantity);
            }
        }
    }
}
