//! The `k8s\0` envelope that Kubernetes puts around every protobuf object (`runtime.Unknown`).

/// Why an envelope cannot be opened. The texts are upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Prefix,
    #[error("empty data")]
    Nothing,
    #[error("empty body")]
    Empty,
    #[error("unexpected EOF")]
    Truncated,
    #[error("proto: illegal tag or wire type in runtime.Unknown")]
    Malformed,
}

fn varint(bytes: &mut &[u8]) -> Result<u64, Error> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let (first, rest) = bytes.split_first().ok_or(Error::Truncated)?;
        *bytes = rest;
        if shift < 64 {
            value |= u64::from(first & 0x7f) << shift;
        }
        if first & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Error::Malformed)
}

fn next<'a>(bytes: &mut &'a [u8]) -> Result<Option<(u64, &'a [u8])>, Error> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let tag = varint(bytes)?;
    let length = match tag & 7 {
        0 => {
            varint(bytes)?;
            return Ok(Some((tag >> 3, &[])));
        }
        1 => 8,
        2 => usize::try_from(varint(bytes)?).map_err(|_| Error::Malformed)?,
        5 => 4,
        _ => return Err(Error::Malformed),
    };
    if bytes.len() < length {
        return Err(Error::Truncated);
    }
    let (content, rest) = bytes.split_at(length);
    *bytes = rest;
    Ok(Some((tag >> 3, content)))
}

/// The bytes of the first field of a number in a message.
pub fn field(mut message: &[u8], wanted: u64) -> Option<&[u8]> {
    while let Ok(Some((number, content))) = next(&mut message) {
        if number == wanted {
            return Some(content);
        }
    }
    None
}

/// Opens an envelope: `apiVersion`, `kind` and the message inside.
///
/// # Errors
/// When the bytes are no envelope.
pub fn open(bytes: &[u8]) -> Result<(String, String, &[u8]), Error> {
    let missing = if bytes.is_empty() { Error::Nothing } else { Error::Prefix };
    let mut rest = bytes.strip_prefix(b"k8s\0").ok_or(missing)?;
    if rest.is_empty() {
        return Err(Error::Empty);
    }
    let (mut api_version, mut kind, mut raw): (String, String, &[u8]) = Default::default();
    while let Some((number, content)) = next(&mut rest)? {
        match number {
            1 => {
                let mut meta = content;
                while let Some((number, content)) = next(&mut meta)? {
                    let text = String::from_utf8_lossy(content).into_owned();
                    match number {
                        1 => api_version = text,
                        2 => kind = text,
                        _ => {}
                    }
                }
            }
            2 => raw = content,
            _ => {}
        }
    }
    Ok((api_version, kind, raw))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_what_it_closes() {
        let bytes = crate::response::encode::envelope("apps/v1", "Deployment", b"raw");
        assert_eq!(open(&bytes), Ok(("apps/v1".into(), "Deployment".into(), b"raw".as_slice())));
        assert_eq!(open(b"k8s garbage"), Err(Error::Prefix));
        assert_eq!((open(b""), open(b"k8s\0")), (Err(Error::Nothing), Err(Error::Empty)));
        assert!(open(b"k8s\0\x0a\xff").is_err());
        assert!(open(b"k8s\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff").is_err());
    }
}
