//! The shell of the channel machine: one TLS connection at a time, bytes in and bytes out.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustls::ClientConfig;
use thinlane_model::Endpoint;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::tls;

/// Frames that may wait for the connection.
const MOST_WAITING: usize = 1024;
/// Chunks that may wait for the machine.
const MOST_ARRIVED: usize = 64;
/// The most that is read at once, in bytes.
const CHUNK: usize = 16 * 1024;
/// How long a write may make no progress.
const WRITE_WAIT: Duration = Duration::from_secs(15);
/// How long a farewell may take.
const FAREWELL_WAIT: Duration = Duration::from_millis(500);

/// What a connection tells.
#[derive(Debug)]
pub enum News {
    /// It stands, with the controller at this address.
    Connected(SocketAddr),
    Bytes(Bytes),
    /// It could not be made, or it has ended; why.
    Closed(String),
}

/// Dials, and holds the one connection that counts.
#[derive(Debug)]
pub struct Dialer {
    config: Arc<ClientConfig>,
    controller: Endpoint,
    /// News carry the number of their connection, so that what an old one still says is not heard.
    number: u64,
    to_loop: mpsc::Sender<(u64, News)>,
    from_connections: mpsc::Receiver<(u64, News)>,
    current: Option<Connection>,
}

#[derive(Debug)]
struct Connection {
    out: mpsc::Sender<Bytes>,
    task: AbortHandle,
    /// The outgoing queue overflowed; nothing more is sent.
    choked: bool,
}

impl Dialer {
    pub fn new(controller: Endpoint, config: Arc<ClientConfig>) -> Self {
        let (to_loop, from_connections) = mpsc::channel(MOST_ARRIVED);
        Self { config, controller, number: 0, to_loop, from_connections, current: None }
    }

    /// Uses another certificate from the next connection on.
    pub fn set_config(&mut self, config: Arc<ClientConfig>) {
        self.config = config;
    }

    /// Begins a new connection in place of whatever there was.
    pub fn connect(&mut self) {
        self.abort();
        self.number += 1;
        let (out, outgoing) = mpsc::channel(MOST_WAITING);
        let mouth = Mouth { number: self.number, to_loop: self.to_loop.clone() };
        let task = tokio::spawn(connection(self.controller.clone(), self.config.clone(), outgoing, mouth));
        self.current = Some(Connection { out, task: task.abort_handle(), choked: false });
    }

    /// Hands a frame to the connection; one that takes nothing any more is given up.
    pub fn send(&mut self, frame: Bytes) {
        if let Some(connection) = self.current.as_mut().filter(|connection| !connection.choked)
            && let Err(mpsc::error::TrySendError::Full(_)) = connection.out.try_send(frame)
        {
            connection.choked = true;
            connection.task.abort();
            let told = (self.number, News::Closed("the connection takes nothing any more".into()));
            let to_loop = self.to_loop.clone();
            tokio::spawn(async move { to_loop.send(told).await });
        }
    }

    /// Lets the connection go: what was handed over is still sent, if that is quickly done.
    pub fn disconnect(&mut self) {
        self.number += 1;
        self.current = None;
    }

    /// The next news of the connection that counts.
    pub async fn news(&mut self) -> News {
        loop {
            let (number, news) = self.from_connections.recv().await.expect("this end holds a sender itself");
            if number == self.number {
                return news;
            }
        }
    }

    fn abort(&mut self) {
        if let Some(connection) = self.current.take() {
            connection.task.abort();
        }
    }
}

/// Where a connection speaks.
struct Mouth {
    number: u64,
    to_loop: mpsc::Sender<(u64, News)>,
}

impl Mouth {
    async fn say(&self, news: News) {
        // The loop ends only with the process.
        let _ = self.to_loop.send((self.number, news)).await;
    }
}

/// One connection from its dial to its end.
async fn connection(to: Endpoint, config: Arc<ClientConfig>, mut outgoing: mpsc::Receiver<Bytes>, mouth: Mouth) {
    let end = match dial(&to, config).await {
        Ok((peer, stream)) => {
            mouth.say(News::Connected(peer)).await;
            carry(stream, &mut outgoing, &mouth).await
        }
        Err(error) => format!("{error:#}"),
    };
    mouth.say(News::Closed(end)).await;
}

async fn dial(to: &Endpoint, config: Arc<ClientConfig>) -> anyhow::Result<(SocketAddr, TlsStream<TcpStream>)> {
    let name = tls::server_name(to)?;
    let tcp = crate::dial::tcp(to).await?;
    tcp.set_nodelay(true)?;
    let peer = tcp.peer_addr()?;
    let stream = TlsConnector::from(config).connect(name, tcp).await?;
    anyhow::ensure!(
        stream.get_ref().1.alpn_protocol() == Some(tls::ALPN_CHANNEL),
        "what answers there does not speak the agent's protocol"
    );
    Ok((peer, stream))
}

/// Moves bytes until the connection ends or is let go; returns why.
async fn carry(mut stream: TlsStream<TcpStream>, outgoing: &mut mpsc::Receiver<Bytes>, mouth: &Mouth) -> String {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        tokio::select! {
            read = stream.read_buf(&mut buffer) => match read {
                Ok(0) => return "the controller closed the connection".into(),
                Ok(_) => mouth.say(News::Bytes(buffer.split().freeze())).await,
                Err(error) => return cut(&error),
            },
            frame = outgoing.recv() => {
                let Some(frame) = frame else {
                    let _ = timeout(FAREWELL_WAIT, stream.shutdown()).await;
                    return "let go".into();
                };
                match timeout(WRITE_WAIT, write(&mut stream, frame, outgoing)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return cut(&error),
                    Err(_) => return "the connection takes nothing any more".into(),
                }
            }
        }
    }
}

/// Why a connection ended, in our words where a library has its own: TLS calls it an error if nobody said goodbye.
fn cut(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::UnexpectedEof => "the controller's end of the connection is gone".into(),
        _ => error.to_string(),
    }
}

/// Writes a frame and whatever else waits, as few TLS records as that takes.
async fn write(
    stream: &mut TlsStream<TcpStream>,
    first: Bytes,
    outgoing: &mut mpsc::Receiver<Bytes>,
) -> std::io::Result<()> {
    let mut batch = BytesMut::from(first);
    while batch.len() < CHUNK {
        match outgoing.try_recv() {
            Ok(next) => batch.extend_from_slice(&next),
            Err(_) => break,
        }
    }
    stream.write_all(&batch).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests;
