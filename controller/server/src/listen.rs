//! The one TCP port: accepts, bounds, shakes hands, and gives each connection to HTTPS or to the agent channel.
//!
//! A half-open connection costs a slot; when the slots are used up the *oldest* half-open one goes, first of the
//! same address: whoever means it finishes in milliseconds, whoever floods only pushes out the own flood.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::server::Acceptor;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use tokio_rustls::LazyConfigAcceptor;
use tower::ServiceExt;

use crate::api::extract::Source;
use crate::app::App;
use crate::ca::AgentIdentity;
use crate::tls::{ALPN_AGENT, Kind, Tls};

/// From the TCP connection to the end of the TLS handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// From one request to the end of the next one's head.
const HEADER_TIME: Duration = Duration::from_secs(30);
/// Half-open connections, in all and of one address.
const MOST_HALF_OPEN: usize = 4096;
const MOST_HALF_OPEN_OF_ONE: usize = 256;
/// HTTPS connections, in all and of one address.
const MOST_HTTPS: usize = 4096;
const MOST_HTTPS_OF_ONE: usize = 1024;
/// Agent channels.
const MOST_AGENTS: usize = 20_000;
/// Bytes of a request's head, and headers in it.
const MOST_HEAD: usize = 64 * 1024;
const MOST_HEADERS: usize = 64;

/// Serves until `stop` becomes true; open HTTPS requests get a moment to finish.
pub async fn serve(listener: TcpListener, app: App, router: Router, tls: Tls, mut stop: watch::Receiver<bool>) {
    let shared = Arc::new(Shared {
        app,
        router,
        tls,
        half_open: HalfOpen::default(),
        https: Arc::new(Semaphore::new(MOST_HTTPS)),
        https_of: OfOne::default(),
        agents: Arc::new(Semaphore::new(MOST_AGENTS)),
    });
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.changed() => return,
        };
        match accepted {
            Ok((stream, from)) => shared.clone().take(stream, from, stop.clone()),
            // Out of file descriptors, or the peer was gone already: neither is a reason to stop, or to spin.
            Err(error) => {
                tracing::warn!(%error, "accepting a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

struct Shared {
    app: App,
    router: Router,
    tls: Tls,
    half_open: HalfOpen,
    https: Arc<Semaphore>,
    https_of: OfOne,
    agents: Arc<Semaphore>,
}

impl Shared {
    fn take(self: Arc<Self>, stream: TcpStream, from: SocketAddr, stop: watch::Receiver<bool>) {
        let _ = stream.set_nodelay(true);
        let number = self.half_open.number();
        let shared = self.clone();
        let (begin, begun) = tokio::sync::oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            // Not before the slot is taken, or it would be given back first.
            let _ = begun.await;
            shared.shake_hands(stream, from, number, stop).await;
        });
        self.half_open.add(number, from.ip().to_canonical(), task.abort_handle());
        let _ = begin.send(());
    }

    async fn shake_hands(
        self: Arc<Self>,
        stream: TcpStream,
        from: SocketAddr,
        number: u64,
        stop: watch::Receiver<bool>,
    ) {
        let ip = from.ip().to_canonical();
        let shaken = tokio::time::timeout(HANDSHAKE_TIME, async {
            let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
            let (kind, config) = self.tls.choose(&start.client_hello());
            start.into_stream(config).await.map(|stream| (kind, stream))
        })
        .await;
        self.half_open.remove(number, ip);
        let (kind, stream) = match shaken {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => return tracing::debug!(%from, %error, "TLS handshake"),
            Err(_) => return tracing::debug!(%from, "TLS handshake takes too long"),
        };
        match kind {
            Kind::Agent => {
                let session = stream.get_ref().1;
                let spoken = session.alpn_protocol() == Some(ALPN_AGENT);
                let identity = session.peer_certificates().and_then(|chain| AgentIdentity::read(chain.first()?));
                let (Some(identity), true) = (identity, spoken) else {
                    return tracing::debug!(%from, "no gateway's certificate");
                };
                let Ok(_slot) = self.agents.clone().try_acquire_owned() else {
                    return tracing::warn!("more gateways than {MOST_AGENTS}");
                };
                crate::channel::serve(self.app.clone(), stream, identity).await;
            }
            Kind::Https => {
                let Ok(_slot) = self.https.clone().try_acquire_owned() else {
                    return tracing::warn!("more HTTPS connections than {MOST_HTTPS}");
                };
                let Some(_of_one) = self.https_of.enter(ip, MOST_HTTPS_OF_ONE) else {
                    return tracing::debug!(%from, "too many HTTPS connections of one address");
                };
                serve_https(self.router.clone(), stream, ip, stop).await;
            }
        }
    }
}

async fn serve_https(
    router: Router,
    stream: tokio_rustls::server::TlsStream<TcpStream>,
    ip: IpAddr,
    mut stop: watch::Receiver<bool>,
) {
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let (router, mut request) = (router.clone(), request.map(axum::body::Body::new));
        request.extensions_mut().insert(Source(ip));
        async move {
            let mut response = router.oneshot(request).await?;
            // Tokens and codes go over these answers: nobody in between keeps any.
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            Ok::<_, Infallible>(response)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(MOST_HEAD)
        .max_headers(MOST_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = stop.changed() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(Duration::from_secs(3), connection.as_mut()).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "HTTPS connection");
    }
}

/// Connections whose handshake is not done, oldest first.
#[derive(Default)]
struct HalfOpen(Mutex<Slots>);

#[derive(Default)]
struct Slots {
    next: u64,
    all: BTreeMap<u64, (IpAddr, AbortHandle)>,
    of_one: BTreeMap<IpAddr, std::collections::BTreeSet<u64>>,
}

impl HalfOpen {
    fn number(&self) -> u64 {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slots.next += 1;
        slots.next
    }

    fn add(&self, number: u64, ip: IpAddr, task: AbortHandle) {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slots.all.insert(number, (ip, task));
        let of_one = slots.of_one.entry(ip).or_default();
        of_one.insert(number);
        let oldest_of_one = of_one.first().copied().filter(|_| of_one.len() > MOST_HALF_OPEN_OF_ONE);
        let oldest = slots.all.keys().next().copied().filter(|_| slots.all.len() > MOST_HALF_OPEN);
        if let Some(victim) = oldest_of_one.or(oldest) {
            slots.drop_slot(victim, true);
        }
    }

    fn remove(&self, number: u64, _ip: IpAddr) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).drop_slot(number, false);
    }
}

impl Slots {
    fn drop_slot(&mut self, number: u64, abort: bool) {
        let Some((ip, task)) = self.all.remove(&number) else { return };
        if let Some(of_one) = self.of_one.get_mut(&ip) {
            of_one.remove(&number);
            if of_one.is_empty() {
                self.of_one.remove(&ip);
            }
        }
        if abort {
            task.abort();
        }
    }
}

/// How many connections each address has.
#[derive(Default, Clone)]
struct OfOne(Arc<Mutex<BTreeMap<IpAddr, usize>>>);

struct Entered {
    table: OfOne,
    ip: IpAddr,
}

impl OfOne {
    fn enter(&self, ip: IpAddr, most: usize) -> Option<Entered> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = table.entry(ip).or_insert(0);
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Entered { table: self.clone(), ip })
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut table = self.table.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = table.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                table.remove(&self.ip);
            }
        }
    }
}
