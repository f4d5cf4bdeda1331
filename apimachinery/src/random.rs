//! Random names, with upstream's alphabet: no vowels and no look-alikes, so no words appear.

use rand::Rng;

const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX: usize = 5;
/// The longest part of a `generateName` that is used: so much leaves room for the random part.
pub const MAX_GENERATED_NAME_LENGTH: usize = 63 - SUFFIX;

/// `length` characters that are safe in names.
pub fn suffix(length: usize) -> String {
    let mut rng = rand::rng();
    (0..length).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect()
}

/// The name made from a `generateName`, at most 63 bytes.
pub fn generate_name(base: &str) -> String {
    let mut end = base.len().min(MAX_GENERATED_NAME_LENGTH);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", &base[..end], suffix(SUFFIX))
}

/// Maps a hash's text to the alphabet (pod-template-hash): `SafeEncodeString`.
pub fn safe_encode(text: &str) -> String {
    text.bytes().map(|b| char::from(ALPHABET[usize::from(b) % ALPHABET.len()])).collect()
}

/// A new uid (UUID version 4). The thread's generator, which the system seeds, costs no call of the system each time.
pub fn uid() -> String {
    uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let name = generate_name("web-");
        assert_eq!(name.len(), 9);
        assert!(name.starts_with("web-") && name.bytes().skip(4).all(|b| ALPHABET.contains(&b)));
        assert_eq!(generate_name(&"x".repeat(100)).len(), 63);
        let uid = uid();
        assert_eq!((uid.len(), &uid[14..15]), (36, "4"));
        assert_ne!(uid, super::uid());
    }
}
