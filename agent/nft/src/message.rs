//! Netlink messages with the netfilter header, and nf_tables batches
//! (`include/uapi/linux/netfilter/nfnetlink.h`).

use crate::attr::{AttrBuf, AttrError, Attrs};

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Bytes of `struct nfgenmsg`.
const GENERIC: usize = 4;

pub const SUBSYS_CONNTRACK: u8 = libc::NFNL_SUBSYS_CTNETLINK as u8;
pub const SUBSYS_LOG: u8 = libc::NFNL_SUBSYS_ULOG as u8;
pub const SUBSYS_TABLES: u8 = libc::NFNL_SUBSYS_NFTABLES as u8;

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

/// Builds one message: `kind` is subsystem << 8 | message type, `family` an NFPROTO number, `resource` what the
/// subsystem makes of it (a log group, a subsystem).
pub fn message(kind: u16, flags: u16, seq: u32, family: u8, resource: u16, attrs: &AttrBuf) -> Vec<u8> {
    let len = u32::try_from(HEADER + GENERIC + attrs.as_slice().len()).expect("our messages are small");
    let mut bytes = Vec::with_capacity(len as usize);
    bytes.extend_from_slice(&len.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&(flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
    bytes.extend_from_slice(&seq.to_ne_bytes());
    bytes.extend_from_slice(&0u32.to_ne_bytes());
    bytes.push(family);
    bytes.push(0);
    bytes.extend_from_slice(&resource.to_be_bytes());
    bytes.extend_from_slice(attrs.as_slice());
    bytes
}

/// The message type of an nf_tables message.
pub const fn tables(kind: u8) -> u16 {
    (SUBSYS_TABLES as u16) << 8 | kind as u16
}

/// One nf_tables command of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// `NFT_MSG_*`.
    pub kind: u8,
    /// `NLM_F_CREATE`, `NLM_F_EXCL`, `NLM_F_APPEND`.
    pub flags: u16,
    pub attrs: AttrBuf,
    /// What it is about, for error messages.
    pub about: About,
}

/// The object that a command is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    Table,
    Chain(String),
    Rule(String),
    Set(String),
    Element(String),
    Counter(String),
}

impl std::fmt::Display for About {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            About::Table => write!(to, "the table"),
            About::Chain(name) => write!(to, "chain {name}"),
            About::Rule(name) => write!(to, "a rule of chain {name}"),
            About::Set(name) => write!(to, "set {name}"),
            About::Element(name) => write!(to, "an element of {name}"),
            About::Counter(name) => write!(to, "counter {name}"),
        }
    }
}

/// A batch as bytes, with the sequence numbers by which answers are told apart.
#[derive(Debug)]
pub struct Batch {
    pub bytes: Vec<u8>,
    /// Of the begin message; errors of the whole batch carry it.
    pub begin: u32,
    /// Of the last command, which alone asks for an acknowledgement.
    pub last: u32,
}

/// Encodes `commands` as one transaction; the first message gets sequence number `seq`.
pub fn batch(commands: &[Command], family: u8, seq: u32) -> Batch {
    let mut bytes = message(BATCH_BEGIN, 0, seq, 0, u16::from(SUBSYS_TABLES), &AttrBuf::new());
    let mut at = seq;
    for (index, command) in commands.iter().enumerate() {
        at = at.wrapping_add(1);
        let ack = if index + 1 == commands.len() { libc::NLM_F_ACK as u16 } else { 0 };
        bytes.extend(message(tables(command.kind), command.flags | ack, at, family, 0, &command.attrs));
    }
    bytes.extend(message(BATCH_END, 0, at.wrapping_add(1), 0, u16::from(SUBSYS_TABLES), &AttrBuf::new()));
    Batch { bytes, begin: seq, last: at }
}

/// One message as received.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    pub kind: u16,
    pub flags: u16,
    pub seq: u32,
    /// The port of the socket whose request this answers or, in a notification, which made the change.
    pub port: u32,
    payload: &'a [u8],
}

/// What a message is.
#[derive(Debug, Clone)]
pub enum Content<'a> {
    /// `NLMSG_ERROR`: zero is an acknowledgement, else a positive errno, with the kernel's words if it has any.
    Answer { errno: i32, words: Option<&'a str> },
    /// `NLMSG_DONE`: the end of a dump, with its errno.
    Done { errno: i32 },
    /// A message of a netfilter subsystem.
    Netfilter { subsys: u8, kind: u8, family: u8, attrs: Attrs<'a> },
    /// Nothing of ours.
    Other,
}

/// Reads the messages of one datagram.
#[derive(Debug, Clone)]
pub struct Messages<'a>(&'a [u8]);

impl<'a> Messages<'a> {
    pub fn new(datagram: &'a [u8]) -> Self {
        Self(datagram)
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk::<4>().map(|word| u32::from_ne_bytes(*word))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk::<2>().map(|half| u16::from_ne_bytes(*half))
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Received<'a>, AttrError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let read = || {
            let len = usize::try_from(word(self.0, 0)?).ok()?;
            let received = Received {
                kind: half(self.0, 4)?,
                flags: half(self.0, 6)?,
                seq: word(self.0, 8)?,
                port: word(self.0, 12)?,
                payload: self.0.get(HEADER..len)?,
            };
            Some((received, len))
        };
        match read() {
            Some((received, len)) => {
                self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or(&[]);
                Some(Ok(received))
            }
            None => {
                self.0 = &[];
                Some(Err(AttrError::Header))
            }
        }
    }
}

impl<'a> Received<'a> {
    /// Whether the table changed while it was dumped, so that the dump is to be repeated.
    pub fn interrupted(&self) -> bool {
        self.flags & libc::NLM_F_DUMP_INTR as u16 != 0
    }

    pub fn content(&self) -> Result<Content<'a>, AttrError> {
        let errno = |value: u32| value.cast_signed().checked_neg().unwrap_or(libc::EPROTO);
        match i32::from(self.kind) {
            libc::NLMSG_ERROR => {
                let errno = errno(word(self.payload, 0).ok_or(AttrError::Header)?);
                Ok(Content::Answer { errno, words: self.words() })
            }
            libc::NLMSG_DONE => Ok(Content::Done { errno: word(self.payload, 0).map_or(0, errno) }),
            kind if kind < libc::NLMSG_MIN_TYPE => Ok(Content::Other),
            _ => {
                let (generic, attrs) = self.payload.split_first_chunk::<GENERIC>().ok_or(AttrError::Header)?;
                let [subsys, kind] = self.kind.to_be_bytes();
                Ok(Content::Netfilter { subsys, kind, family: generic[0], attrs: Attrs::new(attrs) })
            }
        }
    }

    /// The kernel's own explanation (`NLMSGERR_ATTR_MSG`), after the request's header and, unless capped, the request.
    fn words(&self) -> Option<&'a str> {
        const CAPPED: u16 = 0x100;
        const ACK_TLVS: u16 = 0x200;
        if self.flags & ACK_TLVS == 0 {
            return None;
        }
        let request = usize::try_from(word(self.payload, 4)?).ok()?;
        let skip = if self.flags & CAPPED != 0 { 4 + HEADER } else { request.checked_add(4)?.next_multiple_of(4) };
        Attrs::new(self.payload.get(skip..)?).find(1)?.text().ok()
    }
}
