//! A device to try lanes on, and the tools that talk to it.
//!
//! The device serves Modbus/TCP on port 502 and echo (RFC 862) over TCP and UDP on port 7, and writes every
//! payload it receives to a log with its time, so that a test can say when the last one arrived.
#![forbid(unsafe_code)]

mod device;
mod echo;
mod log;
mod modbus;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use thinlane_model::{Protocol, Span};

#[derive(Parser)]
#[command(name = "thinlane-sim", about, version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Be a device: Modbus/TCP on 502, echo on 7 (TCP and UDP).
    Device {
        /// The address to listen on.
        #[arg(long)]
        listen: IpAddr,
        /// What the device calls itself in its log.
        #[arg(long, default_value = "device")]
        name: String,
        /// Where to write one JSON object per event; absent: standard output.
        #[arg(long)]
        log: Option<PathBuf>,
    },
    /// Send to an echo server at a steady pace and print one JSON object per answer.
    Echo {
        protocol: Protocol,
        to: SocketAddr,
        /// Time between two sends.
        #[arg(long, default_value = "20ms")]
        every: Span,
        /// Stop after this long.
        #[arg(long, default_value = "30s")]
        r#for: Span,
        /// Stop after this long without an answer.
        #[arg(long, default_value = "3s")]
        patience: Span,
        /// Bytes of each payload.
        #[arg(long, default_value_t = 32)]
        size: usize,
        /// The source port; 0: any.
        #[arg(long, default_value_t = 0)]
        source_port: u16,
    },
    /// Read holding registers over Modbus/TCP.
    Modbus {
        to: SocketAddr,
        #[arg(long, default_value_t = 0)]
        register: u16,
        #[arg(long, default_value_t = 4)]
        count: u16,
        /// Write this value to the register first.
        #[arg(long)]
        write: Option<u16>,
    },
}

fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Device { listen, name, log } => device::run(listen, log::Log::open(name, log.as_deref())?),
        Command::Echo { protocol, to, every, r#for, patience, size, source_port } => {
            echo::run(&echo::Plan { protocol, to, every, length: r#for, patience, size, source_port })
        }
        Command::Modbus { to, register, count, write } => modbus::client(to, register, count, write),
    }
}
