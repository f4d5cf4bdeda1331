//! gzip for large answers, for clients that take it: never for watches, whose events must not wait.

use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, HttpBody as _};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, VARY};
use http::{HeaderMap, HeaderValue};
use http_body::Frame;

use super::Response;

/// Answers up to this size are not worth it; upstream's figure, in bytes.
pub const THRESHOLD: usize = 128 * 1024;

/// Upstream's level: the cheapest, and not much larger.
const LEVEL: u32 = 1;

/// Marks an answer whose length is not known to its body, but known to be above [`THRESHOLD`].
#[derive(Clone, Copy, Debug)]
pub struct Large;

/// Compresses an answer if it is large and the client takes gzip.
pub fn compress(headers: &HeaderMap, mut answer: Response) -> Response {
    let exact = answer.body().size_hint().exact().and_then(|length| usize::try_from(length).ok());
    let large = exact.map_or_else(|| answer.extensions().get::<Large>().is_some(), |length| length > THRESHOLD);
    if !large || !accepts(headers) || answer.headers().contains_key(CONTENT_ENCODING) {
        return answer;
    }
    let headers = answer.headers_mut();
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    headers.remove(CONTENT_LENGTH);
    answer.map(|inner| Body::new(Gzip { inner, encoder: Some(GzEncoder::new(Vec::new(), Compression::new(LEVEL))) }))
}

/// Whether the client names gzip, without a weight, as upstream reads it.
fn accepts(headers: &HeaderMap) -> bool {
    let header = headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    header.split(',').any(|token| token.trim() == "gzip")
}

/// A body that compresses another one as it comes.
struct Gzip {
    inner: Body,
    /// `None` once everything was handed out.
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl http_body::Body for Gzip {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        loop {
            let Some(encoder) = &mut this.encoder else { return Poll::Ready(None) };
            let written = match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    encoder.write_all(&data).map_err(axum::Error::new)
                }
                Some(Err(error)) => Err(error),
                None => {
                    let rest = this.encoder.take().map(GzEncoder::finish).transpose().map_err(axum::Error::new);
                    return Poll::Ready(Some(rest.map(|rest| Frame::data(Bytes::from(rest.unwrap_or_default())))));
                }
            };
            if let Err(error) = written {
                this.encoder = None;
                return Poll::Ready(Some(Err(error)));
            }
            let out = std::mem::take(encoder.get_mut());
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(Bytes::from(out)))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use std::io::Read as _;

    fn headers(accept: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(accept))])
    }

    #[tokio::test]
    async fn large_answers_are_compressed() {
        let text = "0123456789".repeat(20_000);
        let answer = compress(&headers("br, gzip"), Response::new(Body::from(text.clone())));
        assert_eq!(answer.headers()[CONTENT_ENCODING], "gzip");
        assert_eq!(answer.headers()[VARY], "Accept-Encoding");
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        let mut back = String::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut back).unwrap();
        assert!(bytes.len() < text.len() / 10 && back == text);
    }

    #[test]
    fn others_are_not() {
        for (accept, length) in [("gzip", THRESHOLD), ("deflate", THRESHOLD + 1), ("gzip;q=1", THRESHOLD + 1)] {
            let answer = compress(&headers(accept), Response::new(Body::from(vec![0; length])));
            assert!(!answer.headers().contains_key(CONTENT_ENCODING), "{accept} {length}");
        }
    }
}
