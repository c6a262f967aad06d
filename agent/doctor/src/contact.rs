//! How far a connection gets: TCP, TLS, the controller's own words.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
    StreamOwned,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};
use thinlane_model::Endpoint;
use thinlane_wire::api::StatusView;
use thinlane_wire::{FrameDecoder, FromController, GoodbyeReason};

use crate::facts::{Contact, Validity};
use crate::names::plain;

/// Addresses that are tried, all at once.
const MOST_ADDRESSES: usize = 4;
/// Bytes of an answer that are read.
const MOST_ANSWER: usize = 64 * 1024;
/// How long a controller that takes us says nothing before that counts as taken.
const SILENCE: Duration = Duration::from_millis(600);

/// Why no TCP connection came about.
enum NoTcp {
    Refused,
    Unreachable(String),
}

/// Asks the controller for its version and clock, trusting `ca` and nothing else, its clock apart.
pub fn contact(to: &Endpoint, addresses: &[SocketAddr], ca: &CertificateDer<'_>, until: Instant) -> Contact {
    if addresses.is_empty() {
        return Contact::NotTried;
    }
    let tcp = match connect(addresses, until) {
        Ok(tcp) => tcp,
        Err(NoTcp::Refused) => return Contact::Refused,
        Err(NoTcp::Unreachable(why)) => return Contact::Unreachable(why),
    };
    let found = Found::default();
    let judge = Judge { ca: ca.clone().into_owned(), provider: provider(), found: found.clone() };
    let (Some(config), Ok(name)) = (config(judge), ServerName::try_from(to.host().to_owned())) else {
        return Contact::Odd(format!("{:?} is no host name", to.host()));
    };
    let mut stream = match handshake(config, name, tcp, until) {
        Ok(stream) => stream,
        Err(error) => return found.why().unwrap_or_else(|| Contact::NotTls(words(&error))),
    };
    match ask(&mut stream, to) {
        Ok((status, asked)) => {
            let round_trip = asked.elapsed();
            let theirs = status.time.as_millis() + i64::try_from(round_trip.as_millis() / 2).unwrap_or(0);
            let ours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            Contact::Answers {
                version: status.version,
                offset_ms: i64::try_from(ours).unwrap_or(i64::MAX).saturating_sub(theirs),
                round_trip_ms: u64::try_from(round_trip.as_millis()).unwrap_or(u64::MAX),
                validity: found.validity(),
            }
        }
        Err(why) => Contact::Odd(why),
    }
}

/// What became of showing the gateway's own certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// The controller listens.
    Taken,
    /// The controller, or its TLS, turned us away; its word, and what it says.
    TurnedAway { reason: Option<GoodbyeReason>, detail: String },
    /// It could not be found out.
    Unknown(String),
}

/// Shows the gateway's certificate, as the channel does, and listens whether it is taken; says nothing, so that the
/// connection counts for none.
pub fn admission(to: &Endpoint, addresses: &[SocketAddr], config: Arc<ClientConfig>, until: Instant) -> Admission {
    let tcp = match connect(addresses, until) {
        Ok(tcp) => tcp,
        Err(NoTcp::Refused) => return Admission::Unknown("the port is closed".into()),
        Err(NoTcp::Unreachable(why)) => return Admission::Unknown(why),
    };
    let Ok(name) = ServerName::try_from(to.host().to_owned()) else {
        return Admission::Unknown("no host name".into());
    };
    let turned_away = |error: &std::io::Error| Admission::TurnedAway { reason: None, detail: words(error) };
    let mut stream = match handshake(config, name, tcp, until) {
        Ok(stream) => stream,
        Err(error) if error.kind() == ErrorKind::InvalidData => return turned_away(&error),
        Err(error) => return Admission::Unknown(words(&error)),
    };
    // In TLS 1.3 a client learns with the first record after its handshake whether its certificate was taken.
    let patience = SILENCE.min(until.saturating_duration_since(Instant::now())).max(Duration::from_millis(1));
    if stream.sock.set_read_timeout(Some(patience)).is_err() {
        return Admission::Unknown("the connection broke".into());
    }
    let mut decoder = FrameDecoder::new();
    let mut buffer = [0; 4096];
    let mut read = 0;
    while read < MOST_ANSWER {
        let mut chunk = match stream.read(&mut buffer) {
            Ok(0) => return Admission::TurnedAway { reason: None, detail: "it closed the connection".into() },
            Ok(length) => &buffer[..length],
            Err(error) if is_timeout(&error) => return Admission::Taken,
            Err(error) => return turned_away(&error),
        };
        read += chunk.len();
        while let Ok(Some(frame)) = decoder.read(&mut chunk) {
            if let Ok(Some(FromController::Goodbye(goodbye))) = FromController::decode(&frame) {
                return Admission::TurnedAway { reason: Some(goodbye.reason), detail: goodbye.detail };
            }
        }
    }
    Admission::Unknown("it talks without end".into())
}

/// The first address that answers; all are tried at once.
fn connect(addresses: &[SocketAddr], until: Instant) -> Result<TcpStream, NoTcp> {
    let (tell, told) = channel();
    let addresses = &addresses[..addresses.len().min(MOST_ADDRESSES)];
    for address in addresses {
        let (address, tell) = (*address, tell.clone());
        let patience = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        std::thread::spawn(move || {
            // Another one was faster: then nobody listens.
            let _ = tell.send(TcpStream::connect_timeout(&address, patience));
        });
    }
    drop(tell);
    let (mut refused, mut last) = (false, None);
    while let Ok(attempt) = told.recv_timeout(until.saturating_duration_since(Instant::now())) {
        match attempt {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => refused = true,
            Err(error) if is_timeout(&error) => {}
            Err(error) => last = Some(plain(&error).to_lowercase()),
        }
    }
    match (refused, last) {
        (true, _) => Err(NoTcp::Refused),
        (false, Some(why)) => Err(NoTcp::Unreachable(why)),
        (false, None) => Err(NoTcp::Unreachable("no answer".into())),
    }
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

fn handshake(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    tcp: TcpStream,
    until: Instant,
) -> std::io::Result<Tls> {
    let patience = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    tcp.set_read_timeout(Some(patience))?;
    tcp.set_write_timeout(Some(patience))?;
    tcp.set_nodelay(true)?;
    let connection = ClientConnection::new(config, name).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(connection, tcp);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// One request, one answer, read to its end.
fn ask(stream: &mut Tls, to: &Endpoint) -> Result<(StatusView, Instant), String> {
    let request = format!("GET /api/v1/status HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
    let asked = Instant::now();
    stream.write_all(request.as_bytes()).and_then(|()| stream.flush()).map_err(|error| words(&error))?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while answer.len() < MOST_ANSWER {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => answer.extend_from_slice(&buffer[..length]),
            // It closed TCP without closing TLS: what has arrived is judged.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(words(&error)),
        }
    }
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").ok_or("it answers, but no HTTP")?;
    let line: String = head.lines().next().unwrap_or_default().chars().take(60).collect();
    if !line.starts_with("HTTP/1.1 200") {
        return Err(format!("it answers {line:?}"));
    }
    let object = body.find('{').zip(body.rfind('}')).and_then(|(from, to)| body.get(from..=to)).unwrap_or_default();
    let status = serde_json::from_str(object).map_err(|_| "its answer is not the controller's".to_owned())?;
    Ok((status, asked))
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn words(error: &std::io::Error) -> String {
    if is_timeout(error) { "no answer in time".into() } else { plain(error).to_lowercase() }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn config(judge: Judge) -> Option<Arc<ClientConfig>> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .ok()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(judge))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Some(Arc::new(config))
}

/// What the verifier saw.
#[derive(Debug, Clone, Default)]
struct Found(Arc<Mutex<Seen>>);

#[derive(Debug, Clone, Default)]
struct Seen {
    validity: Option<Validity>,
    why: Option<Contact>,
}

impl Found {
    fn change(&self, act: impl FnOnce(&mut Seen)) {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn why(&self) -> Option<Contact> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).why.clone()
    }

    fn validity(&self) -> Validity {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).validity.unwrap_or(Validity::Good)
    }
}

/// Believes what the trusted authority has signed for this name, whenever: that this machine's clock is wrong is one
/// of the things to find out.
#[derive(Debug)]
struct Judge {
    ca: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
    found: Found,
}

impl Judge {
    fn refuse(&self, why: Contact) -> rustls::Error {
        self.found.change(|seen| seen.why = Some(why));
        CertificateError::ApplicationVerificationFailure.into()
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = || std::iter::once(end_entity).chain(intermediates);
        let trusted = Sha256::digest(&self.ca);
        let other_root = intermediates.len() > 1 && !shown().any(|one| Sha256::digest(one) == trusted);
        let mut roots = RootCertStore::empty();
        if other_root || roots.add(self.ca.clone()).is_err() {
            return Err(self.refuse(Contact::Stranger));
        }
        let web = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| self.refuse(Contact::Odd(error.to_string())))?;
        let verify = |at| web.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, at);
        let verified = match verify(now) {
            Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
                self.found.change(|seen| seen.validity = Some(Validity::Expired));
                verify(not_after)
            }
            Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => {
                self.found.change(|seen| seen.validity = Some(Validity::NotYet));
                verify(not_before)
            }
            other => other,
        };
        verified.map_err(|error| match error {
            rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => self.refuse(Contact::OtherName(server_name.to_str().into_owned())),
            _ => self.refuse(Contact::Stranger),
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
