//! The interface's descriptor, opened with as much offload as the kernel has.

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use crate::offload::TunOffload;
use crate::offload::header::HEADER;
use crate::sys;

/// A TUN interface.
pub(super) struct Tun {
    file: File,
    /// Every packet has a header before it.
    framed: bool,
    level: TunOffload,
}

impl Tun {
    /// Makes the interface and asks for offload, at most `wish` and then less and less, until the kernel agrees.
    pub(super) fn open(name: &str, wish: TunOffload) -> io::Result<Self> {
        let framed = (wish > TunOffload::None).then(|| sys::open_tun(name, true));
        // Without the header an interface may still be had.
        let Some(Ok(file)) = framed else {
            return Ok(Self { file: sys::open_tun(name, false)?, framed: false, level: TunOffload::None });
        };
        let levels = [TunOffload::TsoUso, TunOffload::Tso, TunOffload::None];
        let agreed = |level: &TunOffload| *level <= wish && sys::set_offload(&file, *level).is_ok();
        let level = levels.into_iter().find(agreed).unwrap_or(TunOffload::None);
        Ok(Self { file, framed: true, level })
    }

    pub(super) fn level(&self) -> TunOffload {
        self.level
    }

    /// Whether what is read begins with a header.
    pub(super) fn is_framed(&self) -> bool {
        self.framed
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }

    /// Hands a packet to the kernel, which takes it whole or not at all.
    pub(super) fn write(&mut self, header: &[u8; HEADER], packet: &[u8]) -> io::Result<()> {
        loop {
            let written = match self.framed {
                true => self.file.write_vectored(&[IoSlice::new(header), IoSlice::new(packet)]),
                false => self.file.write(packet),
            };
            match written {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
