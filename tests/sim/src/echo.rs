//! A steady stream to an echo server: says when each answer came and how it ended.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::Context;
use thinlane_model::{Protocol, Span};

use crate::log::now_ms;

/// What to send, where to and how long.
pub struct Plan {
    pub protocol: Protocol,
    pub to: SocketAddr,
    pub every: Span,
    pub length: Span,
    pub patience: Span,
    pub size: usize,
    pub source_port: u16,
}

enum Pipe {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

impl Pipe {
    fn open(plan: &Plan) -> anyhow::Result<Self> {
        let wait = plan.every.to_std().max(Duration::from_millis(1));
        match plan.protocol {
            Protocol::Tcp => {
                let stream = TcpStream::connect_timeout(&plan.to, plan.patience.to_std())
                    .with_context(|| format!("cannot connect to {}", plan.to))?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(wait))?;
                stream.set_write_timeout(Some(plan.patience.to_std()))?;
                Ok(Self::Tcp(stream))
            }
            Protocol::Udp => {
                let any = if plan.to.is_ipv4() { "0.0.0.0" } else { "::" };
                let socket = UdpSocket::bind((any, plan.source_port)).context("cannot bind the source port")?;
                socket.connect(plan.to)?;
                socket.set_read_timeout(Some(wait))?;
                Ok(Self::Udp(socket))
            }
        }
    }

    fn send(&mut self, payload: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(payload),
            Self::Udp(socket) => socket.send(payload).map(|_| ()),
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Udp(socket) => socket.recv(buffer),
        }
    }
}

/// Runs the plan; the last line says how it ended, `done` being the only good end.
pub fn run(plan: &Plan) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut pipe = Pipe::open(plan)?;
    let payload: Vec<u8> = (0..plan.size).map(|at| at as u8).collect();
    let mut buffer = vec![0; 65536];
    let (mut sent, mut received, mut answered) = (0u64, 0u64, Instant::now());
    let (mut last_ms, mut asked) = (0.0, Instant::now());
    let mut next = Instant::now();
    let end = loop {
        if started.elapsed() > plan.length.to_std() {
            break "done";
        }
        if answered.elapsed() > plan.patience.to_std() {
            break "silent";
        }
        if Instant::now() >= next {
            next += plan.every.to_std();
            asked = Instant::now();
            match pipe.send(&payload) {
                Ok(()) => sent += 1,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break "reset",
                Err(error) if error.kind() == ErrorKind::BrokenPipe => break "reset",
                // UDP: unreachable for now; patience decides.
                Err(_) if matches!(pipe, Pipe::Udp(_)) => {}
                Err(_) => break "failed",
            }
        }
        match pipe.receive(&mut buffer) {
            Ok(0) => break "closed",
            Ok(read) => {
                received += read as u64;
                answered = Instant::now();
                last_ms = now_ms();
                println!(
                    "{}",
                    serde_json::json!({"at_ms": last_ms, "bytes": read, "rtt_ms": asked.elapsed().as_secs_f64() * 1000.0})
                );
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break "reset",
            Err(_) if matches!(pipe, Pipe::Udp(_)) => std::thread::sleep(Duration::from_millis(1)),
            Err(_) => break "failed",
        }
    };
    println!(
        "{}",
        serde_json::json!({"end": end, "sent": sent, "received_bytes": received, "last_ms": last_ms, "ended_ms": now_ms()})
    );
    anyhow::ensure!(end == "done", "the stream ended early: {end}");
    Ok(())
}
