//! Tokens of WebSocket clients that cannot set headers, as browsers' pages: they come as a subprotocol.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, HeaderValue};

/// What stands before the token, which is in base64 for URLs without padding.
const PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// Why such a token cannot be used, in upstream's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("multiple base64.bearer.authorization tokens specified")]
    Several,
    #[error("invalid base64.bearer.authorization token encoding")]
    Encoding,
    #[error("invalid base64.bearer.authorization token")]
    Token,
    #[error("missing additional subprotocol")]
    Alone,
}

/// Makes the token among the subprotocols one of the `Authorization` header, if that says nothing yet. The other
/// subprotocols remain: one of them must, to be answered.
///
/// # Errors
/// Tokens that are none.
pub fn take_token(headers: &mut HeaderMap) -> Result<(), Error> {
    if headers.contains_key(AUTHORIZATION) {
        return Ok(());
    }
    let (mut token, mut others) = (None, Vec::new());
    for value in headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok()) {
        for protocol in value.split(',').map(str::trim) {
            match protocol.strip_prefix(PREFIX) {
                None => others.push(protocol),
                Some(_) if token.is_some() => return Err(Error::Several),
                Some(encoded) => {
                    let decoded = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| Error::Encoding)?;
                    token = Some(String::from_utf8(decoded).map_err(|_| Error::Token)?);
                }
            }
        }
    }
    let Some(token) = token.filter(|token| !token.is_empty()) else { return Ok(()) };
    if others.is_empty() {
        return Err(Error::Alone);
    }
    let bearer = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| Error::Token)?;
    let others = HeaderValue::from_str(&others.join(",")).map_err(|_| Error::Token)?;
    headers.insert(AUTHORIZATION, bearer);
    headers.insert(SEC_WEBSOCKET_PROTOCOL, others);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(protocols: &[&str]) -> Result<(Option<String>, Vec<String>), Error> {
        let mut headers = HeaderMap::new();
        for protocol in protocols {
            headers.append(SEC_WEBSOCKET_PROTOCOL, protocol.parse().expect("a value"));
        }
        take_token(&mut headers)?;
        let text = |value: &HeaderValue| value.to_str().expect("text").to_string();
        Ok((headers.get(AUTHORIZATION).map(text), headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().map(text).collect()))
    }

    #[test]
    fn a_token_leaves_the_subprotocols() {
        let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode("secret"));
        let bearer = Some("Bearer secret".to_string());
        assert_eq!(take(&[&format!("a, {token}"), "b"]), Ok((bearer, vec!["a,b".into()])));
        assert_eq!(take(&["a", "b"]), Ok((None, vec!["a".into(), "b".into()])));
        assert_eq!(take(&[]), Ok((None, vec![])));
        // No token at all is none.
        assert_eq!(take(&[PREFIX]), Ok((None, vec![PREFIX.into()])));
    }

    #[test]
    fn tokens_that_are_none() {
        let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode("secret"));
        assert_eq!(take(&[&token]), Err(Error::Alone));
        assert_eq!(take(&[&token, &token, "a"]), Err(Error::Several));
        assert_eq!(take(&[&format!("{PREFIX}!"), "a"]), Err(Error::Encoding));
        assert_eq!(take(&[&format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode([0xff])), "a"]), Err(Error::Token));
        let lines = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode("a\nb"));
        assert_eq!(take(&[&lines, "a"]), Err(Error::Token));
    }

    #[test]
    fn a_header_goes_first() {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer header"));
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("base64url.bearer.authorization.k8s.io.!"));
        assert_eq!(take_token(&mut headers), Ok(()));
        assert_eq!(headers[AUTHORIZATION], "Bearer header");
    }
}
