//! The interface's descriptors, opened with as much offload as the kernel has.

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use crate::offload::TunOffload;
use crate::offload::header::HEADER;
use crate::sys;

/// A TUN interface.
pub(super) struct Tun {
    light: File,
    /// The queue of flows that fill it, so that others do not wait behind them; `None`: all share one.
    heavy: Option<File>,
    /// Every packet has a header before it.
    framed: bool,
    level: TunOffload,
}

/// Through which queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queue {
    Light,
    Heavy,
}

impl Tun {
    /// Makes the interface and asks for offload, at most `wish` and then less and less, until the kernel agrees.
    pub(super) fn open(name: &str, wish: TunOffload) -> io::Result<Self> {
        if wish == TunOffload::None {
            return Self::plain(name);
        }
        let (light, heavy) = match sys::open_tun_queues(name) {
            Ok([light, heavy]) => (light, Some(heavy)),
            // Without a second queue, and without the header, an interface may still be had.
            Err(_) => match sys::open_tun(name, true) {
                Ok(light) => (light, None),
                Err(_) => return Self::plain(name),
            },
        };
        let levels = [TunOffload::TsoUso, TunOffload::Tso, TunOffload::None];
        let agreed = |level: &TunOffload| *level <= wish && sys::set_offload(&light, *level).is_ok();
        let level = levels.into_iter().find(agreed).unwrap_or(TunOffload::None);
        Ok(Self { light, heavy, framed: true, level })
    }

    fn plain(name: &str) -> io::Result<Self> {
        Ok(Self { light: sys::open_tun(name, false)?, heavy: None, framed: false, level: TunOffload::None })
    }

    pub(super) fn level(&self) -> TunOffload {
        self.level
    }

    /// Whether what is read begins with a header.
    pub(super) fn is_framed(&self) -> bool {
        self.framed
    }

    /// The descriptor of a queue, if there is such a one.
    pub(super) fn queue(&self, queue: Queue) -> Option<BorrowedFd<'_>> {
        match queue {
            Queue::Light => Some(self.light.as_fd()),
            Queue::Heavy => self.heavy.as_ref().map(File::as_fd),
        }
    }

    fn file(&mut self, queue: Queue) -> &mut File {
        match (queue, &mut self.heavy) {
            (Queue::Heavy, Some(heavy)) => heavy,
            _ => &mut self.light,
        }
    }

    pub(super) fn read(&mut self, queue: Queue, buffer: &mut [u8]) -> io::Result<usize> {
        self.file(queue).read(buffer)
    }

    /// Hands a packet to the kernel, which takes it whole or not at all.
    pub(super) fn write(&mut self, queue: Queue, header: &[u8; HEADER], packet: &[u8]) -> io::Result<()> {
        let framed = self.framed;
        let file = self.file(queue);
        loop {
            let written = match framed {
                true => file.write_vectored(&[IoSlice::new(header), IoSlice::new(packet)]),
                false => file.write(packet),
            };
            match written {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
