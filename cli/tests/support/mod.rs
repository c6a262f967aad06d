//! A controller that says what a test wants, over real TLS, and the program under test.
#![allow(dead_code, reason = "each test file uses its own part")]

pub mod lab;
pub mod views;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What the program asked.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    /// Below `/api/v1`, with its query.
    pub path: String,
    pub body: Value,
    pub token: Option<String>,
}

/// What it is answered.
pub enum Reply {
    Json(u16, Value),
    /// Server-sent events, until `None`.
    Events(Box<dyn FnMut() -> Option<Value> + Send>),
}

impl Reply {
    pub fn ok(value: Value) -> Reply {
        Reply::Json(200, value)
    }

    /// An error as the API writes it.
    pub fn error(status: u16, code: &str, message: &str) -> Reply {
        Reply::Json(status, json!({"schema": 1, "error": {"code": code, "message": message}}))
    }
}

type Handler = dyn Fn(&Asked) -> Reply + Send + Sync;

/// A certificate authority with one server certificate.
pub struct Authority {
    pub ca: CertificateDer<'static>,
    config: Arc<ServerConfig>,
}

impl Authority {
    /// For servers on these hosts.
    pub fn new(hosts: &[&str]) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA");
        let names: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(names).expect("parameters");
        let certificate = params.signed_by(&key, &issuer).expect("a certificate");
        let ca = issuer.der().clone();
        let chain = vec![certificate.der().clone(), ca.clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a server");
        Authority { ca, config: Arc::new(config) }
    }

    /// As `--ca-fingerprint` takes it.
    pub fn fingerprint(&self) -> String {
        format!("sha256:{}", data_encoding::HEXLOWER.encode(&Sha256::digest(&self.ca)))
    }
}

/// A running controller.
pub struct Controller {
    pub address: SocketAddr,
    pub authority: Authority,
    asked: Arc<Mutex<Vec<Asked>>>,
    deaf: Arc<AtomicBool>,
    streams: Arc<Mutex<BTreeMap<SocketAddr, TcpStream>>>,
}

impl Controller {
    /// On a free port of loopback.
    pub fn start(handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Controller {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        Controller::serve(listener, Authority::new(&["127.0.0.1"]), handler)
    }

    pub fn serve(
        listener: TcpListener,
        authority: Authority,
        handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Controller {
        let address = listener.local_addr().expect("an address");
        let controller =
            Controller { address, authority, asked: Arc::default(), deaf: Arc::default(), streams: Arc::default() };
        let handler: Arc<Handler> = Arc::new(handler);
        let (config, asked, deaf, streams) = (
            controller.authority.config.clone(),
            controller.asked.clone(),
            controller.deaf.clone(),
            controller.streams.clone(),
        );
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if deaf.load(Ordering::Relaxed) {
                    continue;
                }
                if let (Ok(peer), Ok(copy)) = (stream.peer_addr(), stream.try_clone()) {
                    streams.lock().expect("no panic holds it").insert(peer, copy);
                }
                let (config, handler, asked) = (config.clone(), handler.clone(), asked.clone());
                // A connection that ends early is the test's business.
                thread::spawn(move || converse(stream, config, &*handler, &asked));
            }
        });
        controller
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Everything asked until now, `METHOD path` each.
    pub fn asked(&self) -> Vec<String> {
        self.asked
            .lock()
            .expect("no panic holds it")
            .iter()
            .map(|asked| format!("{} {}", asked.method, asked.path))
            .collect()
    }

    /// The bodies of what was asked under this path.
    pub fn bodies(&self, method: &str, path: &str) -> Vec<Value> {
        let asked = self.asked.lock().expect("no panic holds it");
        asked
            .iter()
            .filter(|asked| asked.method == method && asked.path == path)
            .map(|asked| asked.body.clone())
            .collect()
    }

    /// From now on there is no controller: open connections break, new ones are dropped.
    pub fn vanish(&self) {
        self.deaf.store(true, Ordering::Relaxed);
        for stream in self.streams.lock().expect("no panic holds it").values() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// From now on there is one again.
    pub fn come_back(&self) {
        self.deaf.store(false, Ordering::Relaxed);
    }
}

fn converse(stream: TcpStream, config: Arc<ServerConfig>, handler: &Handler, asked: &Mutex<Vec<Asked>>) -> Option<()> {
    let connection = ServerConnection::new(config).ok()?;
    let mut tls = BufReader::new(StreamOwned::new(connection, stream));
    loop {
        let request = read(&mut tls)?;
        asked.lock().ok()?.push(request.clone());
        let to = tls.get_mut();
        match handler(&request) {
            Reply::Json(status, body) => {
                let body = body.to_string();
                let head = format!(
                    "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                to.write_all((head + &body).as_bytes()).ok()?;
                to.flush().ok()?;
            }
            Reply::Events(mut next) => {
                to.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
                    .ok()?;
                while let Some(event) = next() {
                    to.write_all(format!("event: x\ndata: {event}\n\n").as_bytes()).ok()?;
                    to.flush().ok()?;
                }
                to.conn.send_close_notify();
                to.flush().ok()?;
                return None;
            }
        }
    }
}

fn read(from: &mut impl BufRead) -> Option<Asked> {
    let mut line = String::new();
    from.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.strip_prefix("/api/v1")?.to_owned());
    let (mut length, mut token) = (0, None);
    loop {
        let mut line = String::new();
        from.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "authorization" => token = value.strip_prefix("Bearer ").map(str::to_owned),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).ok()?;
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Some(Asked { method, path, body, token })
}

/// A person's home, and the program run in it.
pub struct Person {
    dir: tempfile::TempDir,
    netns: Option<String>,
}

impl Person {
    pub fn new() -> Person {
        Person { dir: tempfile::tempdir().expect("a directory"), netns: None }
    }

    /// A person who sits in a network namespace.
    pub fn within(netns: &str) -> Person {
        Person { netns: Some(netns.to_owned()), ..Person::new() }
    }

    pub fn home(&self) -> &Path {
        self.dir.path()
    }

    pub fn lane_files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.home().join("lanes"));
        entries.map(|entries| entries.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
    }

    /// Logged in at `controller`, as `thinlane login` leaves it.
    pub fn log_in(&self, controller: &Controller) {
        let login = self
            .command(&["login", &controller.url(), "--ca-fingerprint", &controller.authority.fingerprint()])
            .args(["--user", "alice", "--totp", "123456", "--password-file", "env://PASSWORD"])
            .env("PASSWORD", "secret")
            .output()
            .expect("the program");
        assert!(login.status.success(), "{}", said(&login));
    }

    /// The program, ready to be started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_thinlane");
        let mut command = match &self.netns {
            Some(netns) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", netns, program]);
                command
            }
            None => Command::new(program),
        };
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("THINLANE_") {
                command.env_remove(name);
            }
        }
        command.arg("--home").arg(self.home()).args(arguments).stdin(std::process::Stdio::null());
        command
    }

    /// Runs it to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program")
    }

    /// Runs it and says its exit code, stdout and stderr.
    pub fn says(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.run(arguments);
        (code(&output), text(&output.stdout), text(&output.stderr))
    }
}

pub fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn said(output: &Output) -> String {
    format!("exit {}\nstdout: {}\nstderr: {}", code(output), text(&output.stdout), text(&output.stderr))
}

/// The JSON objects of an output, one a line.
pub fn objects(stdout: &str) -> Vec<Value> {
    stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Waits for something to become true, at most ten seconds.
pub fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    for _ in 0..500 {
        if is() {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("after ten seconds still not: {what}");
}
