//! The device: a thread per connection, few connections at once, as on the real thing.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::Context;

use crate::log::Log;
use crate::modbus::Registers;

/// TCP connections that one service serves at once.
const MOST_CONNECTIONS: usize = 64;

/// Serves until it is ended.
pub fn run(listen: IpAddr, log: Log) -> anyhow::Result<()> {
    let registers = Arc::new(Registers::default());
    let bind = |port| {
        TcpListener::bind(SocketAddr::new(listen, port))
            .with_context(|| format!("cannot listen on {listen} port {port}"))
    };
    let echo = bind(7)?;
    let modbus = bind(502)?;
    let udp = UdpSocket::bind(SocketAddr::new(listen, 7)).context("cannot listen on UDP port 7")?;
    let udp_log = log.clone();
    let workers = [
        thread::spawn(move || echo_udp(&udp, &udp_log)),
        serve("echo-tcp", echo, log.clone(), echo_tcp),
        serve("modbus", modbus, log, move |stream, peer, log| registers.serve(stream, peer, log)),
    ];
    for worker in workers {
        worker.join().map_err(|_| anyhow::anyhow!("a service ended"))?;
    }
    Ok(())
}

fn serve<F>(service: &'static str, listener: TcpListener, log: Log, handle: F) -> thread::JoinHandle<()>
where
    F: Fn(TcpStream, SocketAddr, &Log) -> std::io::Result<()> + Send + Sync + 'static,
{
    let handle = Arc::new(handle);
    let open = Arc::new(AtomicUsize::new(0));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { continue };
            let Ok(peer) = stream.peer_addr() else {
                continue;
            };
            if open.load(Ordering::Relaxed) >= MOST_CONNECTIONS {
                log.write("refused", service, peer, 0);
                continue;
            }
            open.fetch_add(1, Ordering::Relaxed);
            let (handle, open, log) = (handle.clone(), open.clone(), log.clone());
            thread::spawn(move || {
                log.write("connected", service, peer, 0);
                let end = match handle(stream, peer, &log) {
                    Ok(()) => "closed",
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => "reset",
                    Err(_) => "failed",
                };
                log.write(end, service, peer, 0);
                open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    })
}

fn echo_tcp(mut stream: TcpStream, peer: SocketAddr, log: &Log) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; 65536];
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        log.write("payload", "echo-tcp", peer, read);
        stream.write_all(&buffer[..read])?;
    }
}

fn echo_udp(socket: &UdpSocket, log: &Log) {
    let mut buffer = [0; 65536];
    loop {
        // An ICMP error about an earlier answer is reported here; the next datagram matters more.
        let Ok((read, peer)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        log.write("payload", "echo-udp", peer, read);
        if socket.send_to(&buffer[..read], peer).is_err() {
            log.write("unsent", "echo-udp", peer, read);
        }
    }
}
