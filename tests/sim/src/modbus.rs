//! As much Modbus/TCP as a simple PLC speaks (Modbus Application Protocol 1.1b3): function codes 3, 6 and 16.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::log::Log;

const READ_HOLDING: u8 = 3;
const WRITE_ONE: u8 = 6;
const WRITE_MANY: u8 = 16;
const ILLEGAL_FUNCTION: u8 = 1;
const ILLEGAL_ADDRESS: u8 = 2;
const ILLEGAL_VALUE: u8 = 3;
/// The longest PDU that the standard allows.
const LONGEST_PDU: usize = 253;

/// The holding registers of the device; register n begins as 100 + n.
pub struct Registers(Mutex<Vec<u16>>);

impl Default for Registers {
    fn default() -> Self {
        Self(Mutex::new((0..256).map(|at| 100 + at).collect()))
    }
}

impl Registers {
    /// Answers one client until it goes or breaks the framing.
    pub fn serve(&self, mut stream: TcpStream, peer: SocketAddr, log: &Log) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        loop {
            let mut header = [0; 7];
            match stream.read_exact(&mut header) {
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
                other => other?,
            }
            let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
            if header[2..4] != [0, 0] || !(2..=LONGEST_PDU + 1).contains(&length) {
                return Err(std::io::ErrorKind::InvalidData.into());
            }
            let mut pdu = vec![0; length - 1];
            stream.read_exact(&mut pdu)?;
            log.write(&format!("payload fc{}", pdu[0]), "modbus", peer, pdu.len());
            let answer = self.answer(&pdu).unwrap_or_else(|code| vec![pdu[0] | 0x80, code]);
            let mut frame = header[..4].to_vec();
            frame.extend(((answer.len() + 1) as u16).to_be_bytes());
            frame.push(header[6]);
            frame.extend(answer);
            stream.write_all(&frame)?;
        }
    }

    fn answer(&self, pdu: &[u8]) -> Result<Vec<u8>, u8> {
        let word = |at: usize| pdu.get(at..at + 2).map(|two| u16::from_be_bytes([two[0], two[1]])).ok_or(ILLEGAL_VALUE);
        let mut registers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = usize::from(word(1)?);
        match pdu[0] {
            READ_HOLDING => {
                let count = usize::from(word(3)?);
                if !(1..=125).contains(&count) {
                    return Err(ILLEGAL_VALUE);
                }
                let values = registers.get(first..first + count).ok_or(ILLEGAL_ADDRESS)?;
                let mut answer = vec![READ_HOLDING, (2 * count) as u8];
                answer.extend(values.iter().flat_map(|value| value.to_be_bytes()));
                Ok(answer)
            }
            WRITE_ONE => {
                *registers.get_mut(first).ok_or(ILLEGAL_ADDRESS)? = word(3)?;
                Ok(pdu[..5].to_vec())
            }
            WRITE_MANY => {
                let count = usize::from(word(3)?);
                let values =
                    pdu.get(6..).filter(|values| values.len() == 2 * count && count > 0).ok_or(ILLEGAL_VALUE)?;
                let place = registers.get_mut(first..first + count).ok_or(ILLEGAL_ADDRESS)?;
                for (register, value) in place.iter_mut().zip(values.chunks_exact(2)) {
                    *register = u16::from_be_bytes([value[0], value[1]]);
                }
                Ok(pdu[..5].to_vec())
            }
            _ => Err(ILLEGAL_FUNCTION),
        }
    }
}

/// Reads (after an optional write) and prints the registers.
pub fn client(to: SocketAddr, register: u16, count: u16, write: Option<u16>) -> anyhow::Result<()> {
    let patience = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&to, patience).with_context(|| format!("cannot connect to {to}"))?;
    stream.set_read_timeout(Some(patience))?;
    if let Some(value) = write {
        let pdu = [&[WRITE_ONE][..], &register.to_be_bytes(), &value.to_be_bytes()].concat();
        exchange(&mut stream, &pdu)?;
    }
    let pdu = [&[READ_HOLDING][..], &register.to_be_bytes(), &count.to_be_bytes()].concat();
    let answer = exchange(&mut stream, &pdu)?;
    let values: Vec<u16> = answer[2..].chunks_exact(2).map(|two| u16::from_be_bytes([two[0], two[1]])).collect();
    println!("registers {register}..{}: {values:?}", u32::from(register) + u32::from(count) - 1);
    Ok(())
}

fn exchange(stream: &mut TcpStream, pdu: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut frame = vec![0, 1, 0, 0, 0, (pdu.len() + 1) as u8, 1];
    frame.extend(pdu);
    stream.write_all(&frame)?;
    let mut header = [0; 7];
    stream.read_exact(&mut header).context("the device did not answer")?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    ensure!((3..=LONGEST_PDU + 1).contains(&length), "the device's answer has no sensible length");
    let mut answer = vec![0; length - 1];
    stream.read_exact(&mut answer).context("the device's answer is cut short")?;
    ensure!(answer[0] == pdu[0], "the device refused: exception {}", answer[1]);
    Ok(answer)
}
