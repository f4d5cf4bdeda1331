//! Data keys: either a key of AES-GCM, or a seed from which every value gets a key of its own.

use bytes::Bytes;
use ring::hkdf::{HKDF_SHA256, KeyType, Prk};

use crate::encryption::ciphers::{Gcm, random};
use crate::encryption::transformer::{Error, Place, Transformer as _};

/// Bytes before a value from which, with the seed, its key is made.
const INFO: usize = 32;
/// Bytes of a seed at least, and of a key made from it.
pub const SIZE: usize = 32;

struct KeyLength;

impl KeyType for KeyLength {
    fn len(&self) -> usize {
        SIZE
    }
}

/// A data key in the clear.
pub enum DataKey {
    /// Only read: upstream wrote so before 1.29.
    Plain(Gcm),
    /// A seed for HKDF's expand step: no two values share a key, so random nonces never wear out.
    Seed(Prk),
}

impl DataKey {
    /// A key that was decrypted.
    ///
    /// # Errors
    /// When its length is wrong.
    pub fn new(bytes: &[u8], seed: bool) -> Result<Self, Error> {
        if !seed {
            return Gcm::new(bytes).map(Self::Plain);
        }
        if bytes.len() < SIZE {
            return Err(Error::new(format!("invalid seed length {} used for key generation", bytes.len())));
        }
        Ok(Self::Seed(Prk::new_less_safe(HKDF_SHA256, bytes)))
    }

    /// Decrypts a value.
    ///
    /// # Errors
    /// When it is too short or was tampered with.
    pub fn open(&self, data: Bytes, place: Place<'_>) -> Result<Bytes, Error> {
        match self {
            Self::Plain(gcm) => Ok(gcm.from_storage(data, place)?.0),
            Self::Seed(seed) => {
                if data.len() < INFO {
                    return Err(Error::new("the stored data was shorter than the required size"));
                }
                let gcm = derive(seed, &data[..INFO])?;
                Ok(gcm.from_storage(data.slice(INFO..), place)?.0)
            }
        }
    }

    /// Encrypts a value.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn seal(&self, data: &Bytes, place: Place<'_>) -> Result<Bytes, Error> {
        match self {
            Self::Plain(gcm) => gcm.to_storage(data, place),
            Self::Seed(seed) => {
                let info = random::<INFO>()?;
                let sealed = derive(seed, &info)?.to_storage(data, place)?;
                Ok([&info[..], &sealed].concat().into())
            }
        }
    }
}

fn derive(seed: &Prk, info: &[u8]) -> Result<Gcm, Error> {
    let failed = |_| Error::new("failed to KDF expand seed with info");
    let mut key = [0; SIZE];
    seed.expand(&[info], KeyLength).map_err(failed)?.fill(&mut key).map_err(failed)?;
    Gcm::new(&key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'static> = Place { key: "/registry/secrets/a/b", resource: "secrets" };

    #[test]
    fn every_value_has_its_own_key() {
        let key = DataKey::new(&[7; 32], true).unwrap();
        let plain = Bytes::from_static(b"value");
        let (one, two) = (key.seal(&plain, PLACE).unwrap(), key.seal(&plain, PLACE).unwrap());
        assert_ne!(one[..INFO], two[..INFO]);
        assert_eq!(key.open(one.clone(), PLACE).unwrap(), plain);
        assert!(key.open(one.clone(), Place { key: "/registry/secrets/a/c", ..PLACE }).is_err());
        assert!(DataKey::new(&[8; 32], true).unwrap().open(one, PLACE).is_err());
        assert!(key.open(Bytes::from_static(b"short"), PLACE).is_err());
        assert_eq!(DataKey::new(&[7; 5], true).err().unwrap().message, "invalid seed length 5 used for key generation");
    }
}
