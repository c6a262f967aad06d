//! Length-delimited frames: four bytes, big endian, then that many bytes of message.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

/// The longest message in bytes that either side sends or takes.
pub const LONGEST_FRAME: usize = 256 * 1024;

/// Bytes of the length before each message.
const HEADER: usize = 4;

/// Why bytes are no frame. After one of these the stream has lost its place and the connection must end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {0} bytes, and at most {LONGEST_FRAME} are taken")]
    TooLong(usize),
    #[error("an empty frame")]
    Empty,
}

/// Takes a stream apart into messages, whatever the sizes of the chunks it arrives in.
///
/// Holds at most one frame; a length beyond [`LONGEST_FRAME`] is refused before a byte is set aside for it,
/// and room grows with what arrived, not with what was announced.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    header: [u8; HEADER],
    header_len: usize,
    body: BytesMut,
}

impl FrameDecoder {
    /// A decoder at the beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes off the front of `chunk` until a message is complete; `None` when the chunk is used up.
    ///
    /// Call it again with the rest of the chunk until it returns `None`.
    pub fn read(&mut self, chunk: &mut &[u8]) -> Result<Option<Bytes>, FrameError> {
        if self.header_len < HEADER {
            let take = chunk.len().min(HEADER - self.header_len);
            let (now, rest) = chunk.split_at(take);
            self.header[self.header_len..self.header_len + take].copy_from_slice(now);
            self.header_len += take;
            *chunk = rest;
            if self.header_len < HEADER {
                return Ok(None);
            }
        }
        let len = usize::try_from(u32::from_be_bytes(self.header)).unwrap_or(usize::MAX);
        match len {
            0 => return Err(FrameError::Empty),
            long if long > LONGEST_FRAME => return Err(FrameError::TooLong(long)),
            _ => {}
        }
        let take = chunk.len().min(len - self.body.len());
        let (now, rest) = chunk.split_at(take);
        self.body.extend_from_slice(now);
        *chunk = rest;
        if self.body.len() < len {
            return Ok(None);
        }
        self.header_len = 0;
        Ok(Some(std::mem::take(&mut self.body).freeze()))
    }

    /// Whether the stream stands between two frames; one that ends elsewhere was cut off.
    pub fn is_between_frames(&self) -> bool {
        self.header_len == 0
    }
}

/// One message with its length in front, ready for the stream.
pub(crate) fn encode(message: &impl Message) -> Result<Bytes, FrameError> {
    let len = message.encoded_len();
    if len > LONGEST_FRAME {
        return Err(FrameError::TooLong(len));
    }
    if len == 0 {
        return Err(FrameError::Empty);
    }
    let mut to = BytesMut::with_capacity(HEADER + len);
    to.put_u32(u32::try_from(len).expect("a frame's length fits in 32 bits: it was just compared"));
    message.encode(&mut to).expect("a BytesMut grows as needed");
    Ok(to.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb;

    fn ping(nonce: u64) -> Bytes {
        let body = Some(pb::agent_frame::Body::Ping(pb::Ping { nonce }));
        encode(&pb::AgentFrame { boot_ms: 7, body }).expect("short")
    }

    fn all(chunks: &[&[u8]]) -> Vec<Bytes> {
        let mut decoder = FrameDecoder::new();
        let mut found = Vec::new();
        for chunk in chunks {
            let mut rest = *chunk;
            while let Some(frame) = decoder.read(&mut rest).expect("well formed") {
                found.push(frame);
            }
        }
        assert!(decoder.is_between_frames());
        found
    }

    #[test]
    fn frames_come_out_whole_however_the_stream_is_cut() {
        let mut stream = Vec::new();
        for nonce in 1..20 {
            stream.extend_from_slice(&ping(nonce));
        }
        let whole = all(&[&stream]);
        assert_eq!(whole.len(), 19);
        for cut in 1..stream.len() {
            let chunks: Vec<&[u8]> = stream.chunks(cut).collect();
            assert_eq!(all(&chunks), whole);
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_room_is_made() {
        let mut decoder = FrameDecoder::new();
        assert_eq!(decoder.read(&mut &u32::MAX.to_be_bytes()[..]), Err(FrameError::TooLong(u32::MAX as usize)));
        assert_eq!(decoder.body.capacity(), 0);
        let mut decoder = FrameDecoder::new();
        let longest = u32::try_from(LONGEST_FRAME).expect("fits");
        assert_eq!(decoder.read(&mut &longest.to_be_bytes()[..]), Ok(None));
        assert!(decoder.body.capacity() < 1024);
        assert_eq!(FrameDecoder::new().read(&mut &[0u8; 4][..]), Err(FrameError::Empty));
    }
}
