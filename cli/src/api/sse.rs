//! Server-sent events (WHATWG HTML, 9.2), as far as the controller uses them.

use std::collections::VecDeque;
use std::time::Duration;

use crate::failure::{Exit, Failure, Result};

/// The largest event that is read, in bytes.
const LARGEST_EVENT: usize = 4 * 1024 * 1024;

/// The controller sends a comment each 10 s; after this long without one the connection is dead.
const SILENCE: Duration = Duration::from_secs(30);

/// An open stream.
pub struct EventStream {
    response: reqwest::Response,
    decoder: Decoder,
    ready: VecDeque<String>,
}

/// What was heard on a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// The data of an event.
    Data(String),
    /// Something that is no event: the controller is there.
    Beat,
    /// The controller has closed the stream.
    End,
}

impl EventStream {
    pub(super) fn new(response: reqwest::Response) -> Self {
        Self { response, decoder: Decoder::default(), ready: VecDeque::new() }
    }

    /// The data of the next event; `None` when the controller has closed the stream.
    pub async fn next(&mut self) -> Result<Option<String>> {
        loop {
            match self.hear().await? {
                Heard::Data(data) => return Ok(Some(data)),
                Heard::Beat => {}
                Heard::End => return Ok(None),
            }
        }
    }

    /// The next event, or the next sign of life. Nothing is lost when this is dropped before it is ready.
    pub async fn hear(&mut self) -> Result<Heard> {
        if let Some(data) = self.ready.pop_front() {
            return Ok(Heard::Data(data));
        }
        let lost = |why: String| Failure::new(Exit::Unreachable, format!("the live view was interrupted: {why}"));
        let chunk = tokio::time::timeout(SILENCE, self.response.chunk())
            .await
            .map_err(|_| lost("nothing came for too long".to_owned()))?
            .map_err(|error| lost(super::innermost(&error)))?;
        match chunk {
            Some(bytes) => self.ready.extend(self.decoder.feed(&bytes)?),
            None => return Ok(Heard::End),
        }
        Ok(self.ready.pop_front().map_or(Heard::Beat, Heard::Data))
    }
}

/// Turns bytes, in whatever pieces they come, into the data of events.
#[derive(Debug, Default)]
pub struct Decoder {
    line: Vec<u8>,
    data: String,
    has_data: bool,
    after_cr: bool,
}

impl Decoder {
    /// The events that these bytes complete. Comments and fields other than `data` are passed over.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<String>> {
        let mut events = Vec::new();
        for byte in bytes {
            let second_half = self.after_cr && *byte == b'\n';
            self.after_cr = *byte == b'\r';
            match byte {
                _ if second_half => {}
                b'\n' | b'\r' => events.extend(self.end_of_line()),
                _ => self.line.push(*byte),
            }
            if self.line.len() + self.data.len() > LARGEST_EVENT {
                return Err(Failure::failed(format!("an event is larger than {LARGEST_EVENT} bytes")));
            }
        }
        Ok(events)
    }

    fn end_of_line(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            let data = std::mem::take(&mut self.data);
            return std::mem::take(&mut self.has_data).then_some(data);
        }
        let text = String::from_utf8_lossy(&line);
        if let Some(value) = text.strip_prefix("data:") {
            if self.has_data {
                self.data.push('\n');
            }
            self.data.push_str(value.strip_prefix(' ').unwrap_or(value));
            self.has_data = true;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b": keepalive\n\nevent: session\ndata: {\"a\":1}\n\ndata:x\r\ndata: y\r\n\r\nid: 7\n\n";

    #[test]
    fn events_are_the_same_however_the_bytes_are_cut() {
        let whole = Decoder::default().feed(STREAM).expect("events");
        assert_eq!(whole, ["{\"a\":1}", "x\ny"]);
        for cut in 0..STREAM.len() {
            let mut decoder = Decoder::default();
            let mut events = decoder.feed(&STREAM[..cut]).expect("events");
            events.extend(decoder.feed(&STREAM[cut..]).expect("events"));
            assert_eq!(events, whole, "cut at {cut}");
        }
    }

    #[test]
    fn an_endless_line_is_an_error_and_not_memory() {
        let mut decoder = Decoder::default();
        let piece = vec![b'x'; 1024 * 1024];
        assert!((0..8).any(|_| decoder.feed(&piece).is_err()));
    }

    #[test]
    fn bytes_that_are_no_text_do_not_stop_the_stream() {
        let events = Decoder::default().feed(b"data: \xff\xfe\n\ndata: ok\n\n").expect("events");
        assert_eq!(events.len(), 2);
        assert_eq!(events[1], "ok");
    }
}
