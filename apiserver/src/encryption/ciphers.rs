//! The ciphers, each in the layout that upstream stores: AES in CBC and in Galois/Counter mode, and NaCl's
//! secretbox.
//!
//! ring has AES-GCM with keys of 16 and 32 bytes; the rest is RustCrypto's.

use aes::{Aes128, Aes192, Aes256};
use aes_gcm::AesGcm;
use aes_gcm::aead::consts::U12;
use bytes::Bytes;
use cbc::cipher::block_padding::{NoPadding, Pkcs7};
use cbc::cipher::{BlockDecryptMut as _, BlockEncryptMut as _, KeyIvInit as _};
use crypto_secretbox::XSalsa20Poly1305;
use crypto_secretbox::aead::{Aead as _, KeyInit as _, Payload};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};

use super::transformer::{Error, Place, Transformer};

const SHORT: &str = "the stored data was shorter than the required size";
const BLOCK: usize = 16;
const NONCE: usize = 12;
const TAG: usize = 16;
const SECRETBOX_NONCE: usize = 24;

/// Random bytes.
///
/// # Errors
/// When the system has none.
pub fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Error::new("unable to read sufficient random bytes"))?;
    Ok(bytes)
}

fn key_size(length: usize) -> Error {
    Error::new(format!("crypto/aes: invalid key size {length}"))
}

/// AES-CBC with PKCS#7 padding: initialization vector, then ciphertext. It authenticates nothing.
pub enum Cbc {
    Aes128([u8; 16]),
    Aes192([u8; 24]),
    Aes256([u8; 32]),
}

impl Cbc {
    /// # Errors
    /// When the key is not 16, 24 or 32 bytes long.
    pub fn new(key: &[u8]) -> Result<Self, Error> {
        match key.len() {
            16 => key.try_into().map(Self::Aes128).map_err(|_| key_size(16)),
            24 => key.try_into().map(Self::Aes192).map_err(|_| key_size(24)),
            32 => key.try_into().map(Self::Aes256).map_err(|_| key_size(32)),
            length => Err(key_size(length)),
        }
    }

    fn decrypt(&self, iv: &[u8], data: &[u8]) -> Option<Vec<u8>> {
        let bytes = match self {
            Self::Aes128(key) => {
                cbc::Decryptor::<Aes128>::new_from_slices(key, iv).ok()?.decrypt_padded_vec_mut::<NoPadding>(data)
            }
            Self::Aes192(key) => {
                cbc::Decryptor::<Aes192>::new_from_slices(key, iv).ok()?.decrypt_padded_vec_mut::<NoPadding>(data)
            }
            Self::Aes256(key) => {
                cbc::Decryptor::<Aes256>::new_from_slices(key, iv).ok()?.decrypt_padded_vec_mut::<NoPadding>(data)
            }
        };
        bytes.ok()
    }

    fn encrypt(&self, iv: &[u8], data: &[u8]) -> Option<Vec<u8>> {
        Some(match self {
            Self::Aes128(key) => {
                cbc::Encryptor::<Aes128>::new_from_slices(key, iv).ok()?.encrypt_padded_vec_mut::<Pkcs7>(data)
            }
            Self::Aes192(key) => {
                cbc::Encryptor::<Aes192>::new_from_slices(key, iv).ok()?.encrypt_padded_vec_mut::<Pkcs7>(data)
            }
            Self::Aes256(key) => {
                cbc::Encryptor::<Aes256>::new_from_slices(key, iv).ok()?.encrypt_padded_vec_mut::<Pkcs7>(data)
            }
        })
    }
}

impl Transformer for Cbc {
    fn from_storage(&self, data: Bytes, _: Place<'_>) -> Result<(Bytes, bool), Error> {
        if data.len() < BLOCK {
            return Err(Error::new(SHORT));
        }
        let (iv, data) = data.split_at(BLOCK);
        if data.len() % BLOCK != 0 {
            return Err(Error::new("the stored data is not a multiple of the block size"));
        }
        let mut plain = self.decrypt(iv, data).ok_or_else(|| Error::new(SHORT))?;
        let padding = plain.last().copied().unwrap_or_default();
        if padding == 0 || usize::from(padding) > plain.len() {
            return Err(Error::new("invalid PKCS7 data (empty or not padded)"));
        }
        let size = plain.len() - usize::from(padding);
        if plain[size..].iter().any(|byte| *byte != padding) {
            return Err(Error::new("invalid padding on input"));
        }
        plain.truncate(size);
        Ok((plain.into(), false))
    }

    fn to_storage(&self, data: &Bytes, _: Place<'_>) -> Result<Bytes, Error> {
        let iv = random::<BLOCK>()?;
        let sealed = self.encrypt(&iv, data).ok_or_else(|| Error::new("the key does not fit"))?;
        Ok([&iv[..], &sealed].concat().into())
    }
}

/// AES-GCM with random nonces: nonce, ciphertext, tag. The storage key is authenticated.
pub enum Gcm {
    Ring(Box<LessSafeKey>),
    /// ring has no keys of 24 bytes.
    Aes192(Box<AesGcm<Aes192, U12>>),
}

impl Gcm {
    /// # Errors
    /// When the key is not 16, 24 or 32 bytes long.
    pub fn new(key: &[u8]) -> Result<Self, Error> {
        let algorithm = match key.len() {
            16 => &AES_128_GCM,
            24 => {
                let cipher = AesGcm::<Aes192, U12>::new_from_slice(key).map_err(|_| key_size(24))?;
                return Ok(Self::Aes192(Box::new(cipher)));
            }
            32 => &AES_256_GCM,
            length => return Err(key_size(length)),
        };
        let key = UnboundKey::new(algorithm, key).map_err(|_| key_size(key.len()))?;
        Ok(Self::Ring(Box::new(LessSafeKey::new(key))))
    }
}

impl Transformer for Gcm {
    fn from_storage(&self, data: Bytes, place: Place<'_>) -> Result<(Bytes, bool), Error> {
        if data.len() < NONCE {
            return Err(Error::new(SHORT));
        }
        let (nonce, sealed) = data.split_at(NONCE);
        let opened = match self {
            Self::Ring(key) => {
                let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Error::new(SHORT))?;
                let mut buffer = sealed.to_vec();
                match key.open_in_place(nonce, Aad::from(place.key.as_bytes()), &mut buffer).map(|plain| plain.len()) {
                    Ok(length) => {
                        buffer.truncate(length);
                        Some(buffer)
                    }
                    Err(_) => None,
                }
            }
            Self::Aes192(cipher) => {
                cipher.decrypt(nonce.into(), Payload { msg: sealed, aad: place.key.as_bytes() }).ok()
            }
        };
        let plain = opened.ok_or_else(|| Error::new("cipher: message authentication failed"))?;
        Ok((plain.into(), false))
    }

    fn to_storage(&self, data: &Bytes, place: Place<'_>) -> Result<Bytes, Error> {
        let nonce = random::<NONCE>()?;
        let failed = || Error::new("the value cannot be sealed");
        let mut out = Vec::with_capacity(NONCE + data.len() + TAG);
        out.extend_from_slice(&nonce);
        match self {
            Self::Ring(key) => {
                let mut buffer = data.to_vec();
                key.seal_in_place_append_tag(
                    Nonce::assume_unique_for_key(nonce),
                    Aad::from(place.key.as_bytes()),
                    &mut buffer,
                )
                .map_err(|_| failed())?;
                out.extend_from_slice(&buffer);
            }
            Self::Aes192(cipher) => {
                let payload = Payload { msg: data, aad: place.key.as_bytes() };
                out.extend_from_slice(&cipher.encrypt((&nonce).into(), payload).map_err(|_| failed())?);
            }
        }
        Ok(out.into())
    }
}

/// NaCl's secretbox: nonce, tag, ciphertext.
pub struct Secretbox(XSalsa20Poly1305);

impl Secretbox {
    /// # Errors
    /// When the key is not 32 bytes long.
    pub fn new(key: &[u8]) -> Result<Self, Error> {
        let size = |_| Error::new(format!("expected key size 32 for secretbox provider, got {}", key.len()));
        Ok(Self(XSalsa20Poly1305::new_from_slice(key).map_err(size)?))
    }
}

impl Transformer for Secretbox {
    fn from_storage(&self, data: Bytes, _: Place<'_>) -> Result<(Bytes, bool), Error> {
        if data.len() < SECRETBOX_NONCE + TAG {
            return Err(Error::new(SHORT));
        }
        let (nonce, sealed) = data.split_at(SECRETBOX_NONCE);
        let opened = self.0.decrypt(nonce.into(), sealed);
        let plain = opened.map_err(|_| Error::new("output array was not large enough for encryption"))?;
        Ok((plain.into(), false))
    }

    fn to_storage(&self, data: &Bytes, _: Place<'_>) -> Result<Bytes, Error> {
        let nonce = random::<SECRETBOX_NONCE>()?;
        let sealed = self.0.encrypt((&nonce).into(), data.as_ref());
        let sealed = sealed.map_err(|_| Error::new("the value cannot be sealed"))?;
        Ok([&nonce[..], &sealed].concat().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'static> = Place { key: "/registry/secrets/default/a", resource: "secrets" };

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    fn all() -> Vec<(&'static str, Box<dyn Transformer>)> {
        let key = bytes(&"0123456789abcdef".repeat(4));
        let mut list: Vec<(&'static str, Box<dyn Transformer>)> = Vec::new();
        for size in [16, 24, 32] {
            list.push(("cbc", Box::new(Cbc::new(&key[..size]).unwrap())));
            list.push(("gcm", Box::new(Gcm::new(&key[..size]).unwrap())));
        }
        list.push(("secretbox", Box::new(Secretbox::new(&key).unwrap())));
        list
    }

    #[test]
    fn what_goes_in_comes_out() {
        for (name, cipher) in all() {
            for length in [0, 1, 15, 16, 17, 1000] {
                let plain = Bytes::from(vec![7; length]);
                let stored = cipher.to_storage(&plain, PLACE).unwrap();
                assert!(length < 15 || !stored.windows(15).any(|window| window == &plain[..15]), "{name}");
                assert_ne!(stored, cipher.to_storage(&plain, PLACE).unwrap(), "{name}: a nonce was used twice");
                assert_eq!(cipher.from_storage(stored, PLACE).unwrap(), (plain, false), "{name} {length}");
            }
        }
    }

    #[test]
    fn tampering_and_moving_are_noticed() {
        let elsewhere = Place { key: "/registry/secrets/default/b", ..PLACE };
        for (name, cipher) in all().into_iter().filter(|(name, _)| *name != "cbc") {
            let stored = cipher.to_storage(&Bytes::from_static(b"value"), PLACE).unwrap();
            let mut bent = stored.to_vec();
            *bent.last_mut().unwrap() ^= 1;
            assert!(cipher.from_storage(bent.into(), PLACE).is_err(), "{name}");
            assert!(cipher.from_storage(stored.slice(..stored.len() - 1), PLACE).is_err(), "{name}");
            let moved = cipher.from_storage(stored, elsewhere);
            assert_eq!(moved.is_err(), name == "gcm", "{name}: secretbox does not know where it is");
        }
        for (_, cipher) in all() {
            assert_eq!(cipher.from_storage(Bytes::from_static(b"short"), PLACE).unwrap_err().message, SHORT);
        }
    }

    /// NIST SP 800-38A, F.2.5: the first block of CBC-AES256.
    #[test]
    fn cbc_is_the_standards() {
        let key = bytes("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
        let iv = bytes("000102030405060708090a0b0c0d0e0f");
        let plain = bytes("6bc1bee22e409f96e93d7e117393172a");
        let sealed = Cbc::new(&key).unwrap().encrypt(&iv, &plain).unwrap();
        assert_eq!(sealed[..16], bytes("f58c4c04d6e5f1ba779eabfb5f7bfbd6"));
    }

    #[test]
    fn keys_have_lengths() {
        assert_eq!(Cbc::new(&[0; 5]).err().unwrap().message, "crypto/aes: invalid key size 5");
        assert_eq!(Gcm::new(&[0; 33]).err().unwrap().message, "crypto/aes: invalid key size 33");
        assert!(Secretbox::new(&[0; 16]).is_err());
    }
}
