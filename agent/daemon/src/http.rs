//! As much of HTTP/1.1 (RFC 9112) as one enrolment needs: one request, one bounded answer.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest head of an answer, in bytes.
const MOST_HEAD: usize = 16 * 1024;
/// The longest body, in bytes.
const MOST_BODY: usize = 256 * 1024;

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

/// Why nothing usable came back.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
    #[error("the answer is longer than {0} bytes")]
    Long(usize),
    #[error("the answer is not HTTP/1.1: {0}")]
    Malformed(&'static str),
}

/// Posts JSON and reads the whole answer; the connection is not used again.
pub async fn post_json<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    authority: &str,
    path: &str,
    body: &[u8],
) -> Result<Answer, HttpError> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/json\r\nAccept: application/json\r\n\
         User-Agent: thinlane-agent/{}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION"),
        body.len(),
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    stream.flush().await?;
    let mut bytes = Vec::new();
    loop {
        if let Some(answer) = parse(&bytes, false)? {
            return Ok(answer);
        }
        if bytes.len() > MOST_HEAD + 2 * MOST_BODY {
            return Err(HttpError::Long(MOST_BODY));
        }
        let read = match stream.read_buf(&mut bytes).await {
            Ok(read) => read,
            // A peer that closes TCP without closing TLS: what has arrived is judged by its own length.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => 0,
            Err(error) => return Err(error.into()),
        };
        if read == 0 {
            return parse(&bytes, true)?.ok_or(HttpError::Malformed("it ends early"));
        }
    }
}

/// Reads an answer from what has arrived; `None` where more is to come. `ended`: nothing more will.
pub fn parse(bytes: &[u8], ended: bool) -> Result<Option<Answer>, HttpError> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if bytes.len() > MOST_HEAD { Err(HttpError::Long(MOST_HEAD)) } else { Ok(None) };
    };
    if end > MOST_HEAD {
        return Err(HttpError::Long(MOST_HEAD));
    }
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| HttpError::Malformed("its head is not text"))?;
    let rest = &bytes[end + 4..];
    let mut lines = head.split("\r\n");
    let status = status(lines.next().unwrap_or_default())?;
    if (100..200).contains(&status) {
        // An interim answer; the real one follows it.
        return parse(rest, ended);
    }
    let framing = framing(lines)?;
    let body = match framing {
        Framing::Length(length) if rest.len() >= length => Some(rest[..length].to_vec()),
        Framing::Chunked => chunks(rest)?,
        Framing::UntilEnd if ended => Some(rest.to_vec()),
        Framing::Length(_) | Framing::UntilEnd => None,
    };
    match body {
        Some(body) if body.len() > MOST_BODY => Err(HttpError::Long(MOST_BODY)),
        Some(body) => Ok(Some(Answer { status, body })),
        None => Ok(None),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
    UntilEnd,
}

fn status(line: &str) -> Result<u16, HttpError> {
    let rest = line.strip_prefix("HTTP/1.1 ").or_else(|| line.strip_prefix("HTTP/1.0 "));
    let digits = rest.and_then(|rest| rest.get(..3)).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).ok_or(HttpError::Malformed("no status line"))
}

fn framing<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Framing, HttpError> {
    let mut found = Framing::UntilEnd;
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(HttpError::Malformed("a header without a colon"))?;
        let value = value.trim();
        let framing = if name.eq_ignore_ascii_case("content-length") {
            let length: usize =
                value.parse().map_err(|_| HttpError::Malformed("a content length that is no number"))?;
            if length > MOST_BODY {
                return Err(HttpError::Long(MOST_BODY));
            }
            Framing::Length(length)
        } else if name.eq_ignore_ascii_case("transfer-encoding") && value.eq_ignore_ascii_case("chunked") {
            Framing::Chunked
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(HttpError::Malformed("an unknown transfer encoding"));
        } else {
            continue;
        };
        // Two framings that differ are how answers are smuggled (RFC 9112 section 6.3).
        if found != Framing::UntilEnd && found != framing {
            return Err(HttpError::Malformed("two lengths"));
        }
        found = framing;
    }
    Ok(found)
}

/// The content of a chunked body, once its last chunk is there.
fn chunks(mut rest: &[u8]) -> Result<Option<Vec<u8>>, HttpError> {
    let mut body = Vec::new();
    loop {
        let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else {
            return if rest.len() > 256 { Err(HttpError::Malformed("a chunk without a size")) } else { Ok(None) };
        };
        let line = std::str::from_utf8(&rest[..end]).map_err(|_| HttpError::Malformed("a chunk without a size"))?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(HttpError::Malformed("a chunk without a size"));
        }
        let size = usize::from_str_radix(digits, 16).map_err(|_| HttpError::Malformed("a chunk without a size"))?;
        if size == 0 {
            return Ok(Some(body));
        }
        if body.len() + size > MOST_BODY {
            return Err(HttpError::Long(MOST_BODY));
        }
        rest = &rest[end + 2..];
        if rest.len() < size + 2 {
            return Ok(None);
        }
        body.extend_from_slice(&rest[..size]);
        if &rest[size..size + 2] != b"\r\n" {
            return Err(HttpError::Malformed("a chunk of another size than it says"));
        }
        rest = &rest[size + 2..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str, ended: bool) -> Option<Option<String>> {
        let parsed = parse(text.as_bytes(), ended).ok()?;
        Some(parsed.map(|answer| String::from_utf8(answer.body).expect("text")))
    }

    #[test]
    fn an_answer_is_complete_when_its_length_chunks_or_end_say_so() {
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", false), Some(Some("hi".into())));
        assert_eq!(body("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nhi", false), Some(None));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n1;x=y\r\n!\r\n0\r\n\r\n";
        assert_eq!(body(chunked, false), Some(Some("hi!".into())));
        assert_eq!(body(&chunked[..chunked.len() - 6], false), Some(None));
        assert_eq!(body("HTTP/1.0 403 No\r\n\r\nend", false), Some(None));
        assert_eq!(body("HTTP/1.0 403 No\r\n\r\nend", true), Some(Some("end".into())));
        let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(parse(interim.as_bytes(), false).ok().flatten().map(|answer| answer.status), Some(201));
    }

    #[test]
    fn what_is_not_http_is_refused() {
        for text in [
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 2x0 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\na",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
        ] {
            assert!(parse(text.as_bytes(), true).is_err(), "{text}");
        }
    }

    #[test]
    fn no_cut_or_flipped_answer_makes_it_panic() {
        let whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
        for at in 0..whole.len() {
            let _ = parse(&whole[..at], true);
            for bit in 0..8 {
                let mut flipped = whole.to_vec();
                flipped[at] ^= 1 << bit;
                let _ = parse(&flipped, true);
            }
        }
    }

    #[tokio::test]
    async fn an_endless_answer_is_cut_off() {
        let (mut near, mut far) = tokio::io::duplex(65536);
        let flood = tokio::spawn(async move {
            let _ = far.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            while far.write_all(&[b'x'; 4096]).await.is_ok() {}
        });
        let answer = post_json(&mut near, "c", "/", b"{}").await;
        assert!(matches!(answer, Err(HttpError::Long(_))), "{answer:?}");
        drop(near);
        flood.await.expect("ends");
    }
}
