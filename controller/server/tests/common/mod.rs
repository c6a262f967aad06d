//! A real controller as a process, a client that trusts its CA, people who can log in, and a played gateway.
#![allow(dead_code)]

pub mod gateway;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::Method;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};

pub const PASSWORD: &str = "a password for tests";

/// A running controller; killed and removed when dropped.
pub struct Controller {
    place: tempfile::TempDir,
    child: Option<Child>,
    pub address: SocketAddr,
    http: reqwest::Client,
}

/// Somebody who has set up their account.
#[derive(Clone)]
pub struct Person {
    pub login: String,
    pub secret: String,
    pub token: String,
}

pub fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_thinlane-controller"))
}

/// A port that is free for TCP and UDP.
pub fn free_port() -> u16 {
    for _ in 0..50 {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = tcp.local_addr().expect("its address").port();
        if UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free for TCP and UDP");
}

impl Controller {
    /// A fresh controller with an admin `ada`, who has set up.
    pub async fn start() -> (Controller, Person) {
        Self::start_with(|_| {}).await
    }

    /// The same; `prepare` changes the directory between `init` and `run`.
    pub async fn start_with(prepare: impl FnOnce(&Path)) -> (Controller, Person) {
        let place = tempfile::tempdir().expect("a temporary directory");
        let dir = place.path().join("controller");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let done = program()
            .args(["init", "--admin", "ada", "--dir"])
            .arg(&dir)
            .args(["--listen", &address.to_string(), "--public", &address.to_string()])
            .output()
            .expect("init runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        prepare(&dir);
        let http = client(&dir);
        let mut controller = Controller { place, child: None, address, http };
        controller.run().await;
        let code = std::fs::read_to_string(dir.join("admin-setup")).expect("the set-up code");
        let ada = controller.set_up("ada", code.trim()).await;
        (controller, ada)
    }

    /// A controller that somebody else has started; `shared` holds its CA and set-up code.
    pub async fn attach(shared: &Path, port: u16) -> (Controller, Person) {
        let place = tempfile::tempdir().expect("a temporary directory");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let controller = Controller { place, child: None, address, http: client(shared) };
        let code = std::fs::read_to_string(shared.join("admin-setup")).expect("the set-up code");
        let ada = controller.set_up("ada", code.trim()).await;
        (controller, ada)
    }

    pub fn dir(&self) -> PathBuf {
        self.place.path().join("controller")
    }

    /// Starts the process and waits until it serves.
    pub async fn run(&mut self) {
        self.run_as(program()).await;
    }

    /// The same, started by another program, which gets ours and its arguments.
    pub async fn run_under(&mut self, launcher: &[&str]) {
        let mut command = Command::new(launcher[0]);
        command.args(&launcher[1..]).arg(env!("CARGO_BIN_EXE_thinlane-controller"));
        self.run_as(command).await;
    }

    async fn run_as(&mut self, mut command: Command) {
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(self.place.path().join("log")).expect("a log");
        command.args(["run", "--dir"]).arg(self.dir()).stdout(Stdio::null()).stderr(log);
        // A group of its own: a launcher may start it as its child.
        let child = command.process_group(0).spawn().expect("it starts");
        self.child = Some(child);
        let began = Instant::now();
        loop {
            if self.http.get(self.url("/api/v1/status")).send().await.is_ok() {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "it does not come up:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.place.path().join("log")).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.pid()).expect("a pid"));
        nix::sys::signal::kill(pid, signal).expect("it is ours");
    }

    /// SIGKILL, as a crash.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let group = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
            let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
            let _ = child.wait();
            // What faketime leaves when it is killed: whoever has its process id next does not start.
            for what in ["faketime_shm", "sem.faketime_sem"] {
                let _ = std::fs::remove_file(format!("/dev/shm/{what}_{group}"));
            }
        }
    }

    /// SIGTERM; answers whether it ended well within ten seconds.
    pub async fn stop(&mut self) -> bool {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        let mut child = self.child.take().expect("it runs");
        for _ in 0..500 {
            if let Some(status) = child.try_wait().expect("a child") {
                return status.success();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let _ = child.kill();
        false
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Calls the API; answers the status and the JSON, which every answer must be.
    pub async fn call(&self, method: Method, path: &str, token: Option<&str>, body: Option<Value>) -> (u16, Value) {
        let mut request = self.http.request(method.clone(), self.url(&format!("/api/v1{path}")));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap_or_else(|error| panic!("{method} {path}: {error}\n{}", self.log()));
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("a body");
        let json = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{method} {path}: {status} no JSON: {text}"));
        (status, json)
    }

    pub async fn get(&self, who: &Person, path: &str) -> (u16, Value) {
        self.call(Method::GET, path, Some(&who.token), None).await
    }

    pub async fn post(&self, who: &Person, path: &str, body: Value) -> (u16, Value) {
        self.call(Method::POST, path, Some(&who.token), Some(body)).await
    }

    pub async fn delete(&self, who: &Person, path: &str) -> (u16, Value) {
        self.call(Method::DELETE, path, Some(&who.token), None).await
    }

    /// The two calls of a first log-in.
    pub async fn set_up(&self, login: &str, code: &str) -> Person {
        let mut body = json!({"user": login, "code": code, "password": PASSWORD});
        let (status, started) = self.call(Method::POST, "/setup", None, Some(body.clone())).await;
        assert_eq!(status, 200, "{started}");
        let secret = started["totp_secret"].as_str().expect("a secret").to_owned();
        body["totp"] = json!(totp(&secret, 0));
        let (status, token) = self.call(Method::POST, "/setup", None, Some(body)).await;
        assert_eq!(status, 200, "{token}");
        let token = token["token"].as_str().expect("a token").to_owned();
        Person { login: login.to_owned(), secret, token }
    }

    /// Adds a person and sets them up.
    pub async fn person(&self, admin: &Person, login: &str, roles: &[&str]) -> Person {
        self.person_from(admin, json!({"user": login, "name": login, "roles": roles})).await
    }

    pub async fn person_from(&self, admin: &Person, body: Value) -> Person {
        let login = body["user"].as_str().expect("a login").to_owned();
        let (status, code) = self.post(admin, "/users", body).await;
        assert_eq!(status, 201, "{code}");
        self.set_up(&login, code["code"].as_str().expect("a code")).await
    }

    /// A site `north` with an asset `plc-1`.
    pub async fn inventory(&self, admin: &Person) {
        let (status, body) = self.post(admin, "/sites", json!({"site": "north"})).await;
        assert_eq!(status, 201, "{body}");
        let asset = json!({"asset": "plc-1", "site": "north", "address": "192.168.1.10", "type": "plc"});
        let (status, body) = self.post(admin, "/assets", asset).await;
        assert_eq!(status, 201, "{body}");
    }

    /// An approved request for `plc-1`; its id.
    pub async fn approved(&self, engineer: &Person, approver: &Person) -> String {
        let body = json!({"asset": "plc-1", "task": "modbus", "reason": "test", "seconds": 600});
        let (status, request) = self.post(engineer, "/requests", body).await;
        assert_eq!(status, 201, "{request}");
        let id = request["id"].as_str().expect("an id").to_owned();
        let (status, request) = self.post(approver, &format!("/requests/{id}/approve"), json!({})).await;
        assert_eq!((status, &request["state"]), (200, &json!("approved")), "{request}");
        id
    }

    /// Kinds of all entries of the log.
    pub async fn kinds(&self, auditor: &Person) -> Vec<String> {
        let (status, entries) = self.get(auditor, "/audit/entries").await;
        assert_eq!(status, 200, "{entries}");
        let items = entries["items"].as_array().expect("entries");
        items.iter().map(|entry| entry["kind"].as_str().expect("a kind").to_owned()).collect()
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the controller's log:\n{}", self.log());
        }
        self.kill();
    }
}

/// The code of a second factor, so many steps from now.
pub fn totp(secret: &str, steps: i64) -> String {
    let secret = totp_rs::Secret::try_from_base32(secret).expect("base 32");
    let totp = totp_rs::Builder::new().with_secret(secret).build().expect("a generator");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    totp.generate(now.saturating_add_signed(steps * 30)).to_string()
}

fn client(dir: &Path) -> reqwest::Client {
    reqwest::Client::builder()
        .tls_backend_preconfigured(trusting(dir).with_no_client_auth())
        .no_proxy()
        .timeout(Duration::from_secs(60))
        .build()
        .expect("a client")
}

/// TLS that trusts this controller's CA and nobody else.
pub fn trusting(dir: &Path) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(dir.join("ca.pem")).expect("the CA");
    roots.add(ca).expect("a certificate");
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
}
