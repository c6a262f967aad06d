//! A netlink socket to netfilter: send a batch or a question, read the answers. Blocking, with a time limit.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use thinlane_model::Span;

use crate::attr::{AttrBuf, AttrError, Attrs};
use crate::error::NftError;
use crate::message::{self, About, Command, Content, Messages};

/// The kernel fills at most 32 KiB per datagram of a dump.
const BUFFER: usize = 64 * 1024;
/// Answers wait here while a large batch is acknowledged.
const RECEIVE_SPACE: usize = 1 << 20;
/// The longest wait for one answer; the kernel answers within the call unless memory is short.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How often a dump is repeated that others changed meanwhile.
const TRIES: usize = 20;
/// Results of one dump; more is not a gateway's.
const MOST: usize = 65_536;

/// A socket of ours.
#[derive(Debug)]
pub struct Link {
    socket: Socket,
    port: u32,
    seq: u32,
    buffer: Vec<u8>,
}

/// What one read gave.
#[derive(Debug)]
pub enum Datagram {
    /// So many bytes of the buffer.
    Bytes(usize),
    /// Nothing within the time.
    Nothing,
    /// Notifications were lost.
    Overrun,
}

/// One question of a dump or request.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    pub kind: u16,
    /// `NLM_F_DUMP` for all that match, 0 for one.
    pub flags: u16,
    pub family: u8,
    pub resource: u16,
    pub attrs: &'a AttrBuf,
}

impl Link {
    /// Opens a socket, a member of the multicast groups in `groups` (bit n - 1 is group n).
    pub fn open(groups: u32) -> Result<Self, NftError> {
        Self::bound(groups).map_err(NftError::Socket)
    }

    fn bound(groups: u32) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind(&SocketAddr::new(0, groups))?;
        let mut address = SocketAddr::new(0, 0);
        socket.get_address(&mut address)?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_SPACE)?;
        let link = Self { socket, port: address.port_number(), seq: 1, buffer: vec![0; BUFFER] };
        link.wait_at_most(PATIENCE)?;
        Ok(link)
    }

    /// The port by which the kernel names this socket in notifications.
    pub fn port(&self) -> u32 {
        self.port
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn wait_at_most(&self, time: Duration) -> io::Result<()> {
        // Zero would mean for ever.
        let micros = i64::try_from(time.as_micros()).unwrap_or(i64::MAX).max(1);
        Ok(setsockopt(&self.socket, sockopt::ReceiveTimeout, &TimeVal::microseconds(micros))?)
    }

    /// Waits for one datagram of the kernel, at most for `time`.
    pub fn receive(&mut self, time: Duration) -> Result<Datagram, NftError> {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let flags = if left.is_zero() { libc::MSG_DONTWAIT } else { 0 };
            if !left.is_zero() {
                self.wait_at_most(left).map_err(NftError::Socket)?;
            }
            let mut space = self.buffer.as_mut_slice();
            match self.socket.recv_from(&mut space, flags | libc::MSG_TRUNC) {
                // Only the kernel's words count.
                Ok((_, from)) if from.port_number() != 0 => {}
                Ok((len, _)) if len > BUFFER => return Ok(Datagram::Overrun),
                Ok((len, _)) => return Ok(Datagram::Bytes(len)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Datagram::Nothing),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(Datagram::Overrun),
                Err(error) => return Err(NftError::Socket(error)),
            }
        }
    }

    /// The bytes that [`receive`](Self::receive) announced.
    pub fn datagram(&self, len: usize) -> &[u8] {
        &self.buffer[..len]
    }

    fn answer(&mut self) -> Result<usize, NftError> {
        match self.receive(PATIENCE)? {
            Datagram::Bytes(len) => Ok(len),
            Datagram::Nothing => Err(NftError::Silent(Span::from(PATIENCE))),
            Datagram::Overrun => Err(NftError::Socket(io::Error::from_raw_os_error(libc::ENOBUFS))),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), NftError> {
        // The kernel takes a batch as one datagram, whatever its length, if it may be sent at all.
        let space = bytes.len().saturating_mul(2).max(RECEIVE_SPACE);
        setsockopt(&self.socket, sockopt::SndBufForce, &space).map_err(|errno| NftError::Socket(errno.into()))?;
        let kernel = SocketAddr::new(0, 0);
        loop {
            match self.socket.send_to(bytes, &kernel, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(NftError::Socket(error)),
            }
        }
    }

    fn take_seq(&mut self, count: usize) -> u32 {
        let seq = self.seq;
        let step = u32::try_from(count).expect("batches are bounded");
        // Zero is what notifications carry.
        self.seq = self.seq.checked_add(step).unwrap_or(1);
        if self.seq >= u32::MAX / 2 {
            self.seq = 1;
        }
        seq
    }

    /// Commits `commands` as one transaction: all of them are in force, or none.
    pub fn commit(&mut self, commands: &[Command], family: u8) -> Result<(), NftError> {
        if commands.is_empty() {
            return Ok(());
        }
        let seq = self.take_seq(commands.len() + 2);
        let batch = message::batch(commands, family, seq);
        self.send(&batch.bytes)?;
        let mut refused = None;
        loop {
            let len = self.answer()?;
            for received in Messages::new(&self.buffer[..len]) {
                let received = received?;
                let Content::Answer { errno, words } = received.content()? else { continue };
                let ours = received.seq >= batch.begin && received.seq <= batch.last.wrapping_add(1);
                if !ours {
                    continue;
                }
                if errno != 0 && refused.is_none() {
                    let index = received.seq.checked_sub(batch.begin + 1);
                    let about = index.and_then(|index| commands.get(index as usize)).map(|it| it.about.clone());
                    refused = Some(refusal(errno, words, about));
                }
                // Errors of single commands come before the last command's answer; one of the whole batch comes alone.
                let whole = errno != 0 && received.seq == batch.begin;
                if whole || received.seq == batch.last {
                    return refused.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// Asks, and collects what `read` takes of the answers.
    pub fn ask<T>(
        &mut self,
        question: &Question<'_>,
        mut read: impl FnMut(u8, Attrs<'_>) -> Result<Option<T>, AttrError>,
    ) -> Result<Vec<T>, NftError> {
        for _ in 0..TRIES {
            if let Some(answers) = self.ask_once(question, &mut read)? {
                return Ok(answers);
            }
        }
        Err(NftError::Unsteady)
    }

    /// `None`: what was dumped changed meanwhile.
    fn ask_once<T>(
        &mut self,
        question: &Question<'_>,
        read: &mut impl FnMut(u8, Attrs<'_>) -> Result<Option<T>, AttrError>,
    ) -> Result<Option<Vec<T>>, NftError> {
        let seq = self.take_seq(1);
        let dump = question.flags & libc::NLM_F_DUMP as u16 == libc::NLM_F_DUMP as u16;
        let flags = if dump { question.flags } else { question.flags | libc::NLM_F_ACK as u16 };
        let Question { kind, family, resource, attrs, .. } = *question;
        self.send(&message::message(kind, flags, seq, family, resource, attrs))?;
        let mut answers = Vec::new();
        let mut steady = true;
        // Everything is read to its end even after a failure, or the kernel would find the next dump busy.
        let mut failed = None;
        loop {
            let len = self.answer()?;
            for received in Messages::new(&self.buffer[..len]) {
                let received = match received {
                    Ok(received) if received.seq == seq => received,
                    Ok(_) => continue,
                    Err(error) => {
                        failed.get_or_insert(NftError::from(error));
                        break;
                    }
                };
                steady &= !received.interrupted();
                match received.content() {
                    Ok(Content::Answer { errno: 0, .. } | Content::Done { errno: 0 }) => {
                        return failed.map_or(Ok(steady.then_some(answers)), Err);
                    }
                    Ok(Content::Done { errno: libc::EINTR | libc::EAGAIN }) => return Ok(None),
                    Ok(Content::Answer { errno, words }) => return Err(refusal(errno, words, None)),
                    Ok(Content::Done { errno }) => return Err(refusal(errno, None, None)),
                    Ok(Content::Netfilter { family, attrs, .. }) => match read(family, attrs) {
                        Ok(Some(answer)) if answers.len() < MOST => answers.push(answer),
                        Ok(Some(_)) => _ = failed.get_or_insert(NftError::Long(MOST)),
                        Ok(None) => {}
                        Err(error) => _ = failed.get_or_insert(error.into()),
                    },
                    Ok(Content::Other) => {}
                    Err(error) => _ = failed.get_or_insert(error.into()),
                }
            }
        }
    }
}

fn refusal(errno: i32, words: Option<&str>, about: Option<About>) -> NftError {
    let words = words.map(|words| words.chars().take(200).collect());
    NftError::Refused { about, words, source: io::Error::from_raw_os_error(errno) }
}
