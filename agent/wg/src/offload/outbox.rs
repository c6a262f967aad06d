//! Datagrams on their way out: those of one length to one place, one after the other, leave as one (`UDP_SEGMENT`).
//!
//! No I/O. Messages are written straight into the buffer that the kernel then reads; what it does not take yet stays
//! there, up to a limit, so that a full socket is waited for and not answered with loss.

use std::collections::VecDeque;
use std::net::SocketAddr;

/// Messages that leave as one (UDP_MAX_SEGMENTS).
const MOST: usize = 64;
/// Bytes that leave as one: what an IPv4 packet holds behind its headers, and IPv6 no less.
const LONGEST_RUN: usize = 65_535 - 20 - 8;
/// Bytes after which nothing is gained by waiting for more.
const ENOUGH: usize = 64 * 1024;
/// Bytes that wait at most: what stands here when the socket turns out to be full, and all that is made of the large packet
/// that was just being cut. Its last segments would be lost else.
const WAITING: usize = 2 * ENOUGH + 64 * 1024;
/// The longest message: the longest packet, and what encryption adds.
const LONGEST: usize = 65_535 + 32;

/// Messages of one length, but for the last, to one place.
#[derive(Debug)]
struct Run {
    to: SocketAddr,
    from: usize,
    length: usize,
    size: usize,
}

impl Run {
    fn takes(&self, to: SocketAddr, length: usize) -> bool {
        let equal = self.length.is_multiple_of(self.size) && length <= self.size && length > 0;
        equal && to == self.to && self.length < self.size * MOST && self.length + length <= LONGEST_RUN
    }

    /// Nothing more of this length fits.
    fn is_full(&self) -> bool {
        !self.takes(self.to, self.size)
    }
}

/// What stands first in an outbox.
#[derive(Debug, PartialEq, Eq)]
pub struct Outgoing<'a> {
    pub to: SocketAddr,
    pub bytes: &'a [u8],
    /// The length of all messages but the last; `None`: it is one message.
    pub size: Option<u16>,
}

/// Datagrams that wait to be sent.
pub struct Outbox {
    buffer: Box<[u8]>,
    tail: usize,
    runs: VecDeque<Run>,
    /// The longest message of which several may leave as one; zero: each leaves alone.
    together: usize,
    /// Messages that were dropped because too many waited.
    dropped: u64,
}

impl Outbox {
    /// With `together`, messages of one length leave as one.
    pub fn new(together: bool) -> Self {
        Self {
            buffer: vec![0; WAITING + LONGEST].into_boxed_slice(),
            tail: 0,
            runs: VecDeque::with_capacity(MOST),
            together: if together { LONGEST_RUN } else { 0 },
            dropped: 0,
        }
    }

    /// Room for the next message, always enough for the longest.
    pub fn space(&mut self) -> &mut [u8] {
        &mut self.buffer[self.tail..]
    }

    /// Sends what stands in the first `length` bytes of `space`.
    pub fn push(&mut self, to: SocketAddr, length: usize) {
        if self.tail + length > WAITING {
            self.dropped += 1;
            return;
        }
        match self.runs.back_mut() {
            Some(run) if run.takes(to, length) => run.length += length,
            _ => self.runs.push_back(Run { to, from: self.tail, length, size: length.max(1) }),
        }
        self.tail += length;
    }

    /// Whether nothing would be gained by waiting for more.
    pub fn is_ready(&self) -> bool {
        self.runs.back().is_some_and(Run::is_full) || self.tail >= ENOUGH
    }

    /// Whether messages may leave as one.
    pub fn is_together(&self) -> bool {
        self.together > 0
    }

    /// Messages that were dropped because too many waited.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// What is to be sent next.
    pub fn front(&self) -> Option<Outgoing<'_>> {
        let run = self.runs.front()?;
        let (length, size) = match run.length <= run.size || run.size > self.together {
            true => (run.length.min(run.size), None),
            false => (run.length, u16::try_from(run.size).ok()),
        };
        Some(Outgoing { to: run.to, bytes: &self.buffer[run.from..run.from + length], size })
    }

    /// The first `length` bytes of what stands first were sent, or given up.
    pub fn pop(&mut self, length: usize) {
        let Some(run) = self.runs.front_mut() else { return };
        run.from += length;
        run.length -= length.min(run.length);
        if run.length == 0 {
            self.runs.pop_front();
        }
        if self.runs.is_empty() {
            self.tail = 0;
        }
    }

    /// The kernel does not send what stands first as one: from now on messages of its length leave alone. With `all`,
    /// or if they are so short that they fit any path, those of every length.
    pub fn split(&mut self, all: bool) {
        /// What every IPv6 path carries, without its headers (RFC 8200, 5).
        const ANY_PATH: usize = 1280 - 48;
        let size = self.runs.front().map_or(0, |run| run.size);
        self.together = if all || size <= ANY_PATH { 0 } else { self.together.min(size - 1) };
    }
}
