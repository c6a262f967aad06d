//! The controller's HTTPS API, as this program calls it.

pub mod paths;
pub mod sse;
pub mod tls;

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use thinlane_wire::api::{ErrorBody, ErrorCode, List};
use zeroize::Zeroizing;

use crate::failure::{Exit, Failure, Result};
pub use sse::EventStream;
pub use tls::{Fingerprint, Trust};
use tls::{Rejection, Verifier};

/// The largest answer that is read, in bytes.
const LARGEST_ANSWER: usize = 64 * 1024 * 1024;
/// How long an ordinary call may take.
const PATIENCE: Duration = Duration::from_secs(20);
const CONNECT: Duration = Duration::from_secs(5);

/// A controller, and perhaps a log-in.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<Arc<Zeroizing<String>>>,
    verifier: Arc<Verifier>,
}

impl Client {
    /// A client for one controller; nothing is sent yet.
    pub fn new(base: Url, trust: Trust) -> Result<Client> {
        let verifier = Arc::new(Verifier::new(trust));
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::client_config(verifier.clone())?)
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .pool_idle_timeout(Duration::from_secs(20))
            .user_agent(concat!("thinlane/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Failure::failed(format!("the HTTPS client: {}", innermost(&error))))?;
        Ok(Client { http, base, token: None, verifier })
    }

    /// The same client with a bearer token.
    pub fn with_token(mut self, token: Zeroizing<String>) -> Client {
        self.token = Some(Arc::new(token));
        self
    }

    /// The CA under which the last connection was accepted, or which was shown and refused.
    pub fn seen_ca(&self) -> Option<tls::SeenCa> {
        self.verifier.seen()
    }

    /// `GET`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.call(self.request(Method::GET, path)?, PATIENCE).await.map(|(_, answer)| answer)
    }

    /// `GET` of something that the server may hold back for `wait`.
    pub async fn get_waiting<T: DeserializeOwned>(&self, path: &str, wait: Duration) -> Result<T> {
        self.call(self.request(Method::GET, path)?, wait + PATIENCE).await.map(|(_, answer)| answer)
    }

    /// `GET` of a list, page by page, at most `most` items.
    pub async fn list<T: DeserializeOwned>(&self, path: &str, most: usize) -> Result<Vec<T>> {
        let mut items: Vec<T> = Vec::new();
        let mut page: List<T> = self.get(path).await?;
        loop {
            items.append(&mut page.items);
            match page.next {
                Some(after) if items.len() < most => {
                    let mark = if path.contains('?') { '&' } else { '?' };
                    page = self.get(&format!("{path}{mark}after={}", paths::encode(&after))).await?;
                }
                _ => return Ok(items),
            }
        }
    }

    /// `POST` with a JSON body.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.post_status(path, body, PATIENCE).await.map(|(_, answer)| answer)
    }

    /// `POST`, with the status that tells 200 from 202.
    pub async fn post_status<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        patience: Duration,
    ) -> Result<(StatusCode, T)> {
        self.call(self.request(Method::POST, path)?.json(body), patience).await
    }

    /// `DELETE`.
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.call(self.request(Method::DELETE, path)?, PATIENCE).await.map(|(_, answer)| answer)
    }

    /// Server-sent events, until either side closes the stream.
    pub async fn events(&self, path: &str) -> Result<EventStream> {
        let request = self.request(Method::GET, path)?.header("accept", "text/event-stream");
        let response = tokio::time::timeout(PATIENCE, request.send())
            .await
            .map_err(|_| self.unreachable("it did not answer in time"))?
            .map_err(|error| self.transport(&error))?;
        if response.status().is_success() {
            return Ok(EventStream::new(response));
        }
        let status = response.status();
        let body = self.body(response).await?;
        Err(refusal(status, &body))
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder> {
        let address = format!("{}/api/v1{path}", self.base.as_str().trim_end_matches('/'));
        let url = Url::parse(&address).map_err(|_| Failure::usage(format!("{address} is no address")))?;
        let request = self.http.request(method, url);
        Ok(match &self.token {
            Some(token) => request.bearer_auth(token.as_str()),
            None => request,
        })
    }

    async fn call<T: DeserializeOwned>(&self, request: RequestBuilder, patience: Duration) -> Result<(StatusCode, T)> {
        let response = request.timeout(patience).send().await.map_err(|error| self.transport(&error))?;
        let status = response.status();
        let body = self.body(response).await?;
        if !status.is_success() {
            return Err(refusal(status, &body));
        }
        let answer = serde_json::from_slice(&body).map_err(|error| {
            let mut failure = Failure::failed(format!("the controller's answer cannot be read: {error}"))
                .next("thinlane version; thinlane whoami   # compares the versions of program and controller");
            failure.maybe_done = true;
            failure
        })?;
        Ok((status, answer))
    }

    async fn body(&self, mut response: reqwest::Response) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.transport(&error))? {
            if body.len() + chunk.len() > LARGEST_ANSWER {
                return Err(Failure::failed(format!("the controller's answer is larger than {LARGEST_ANSWER} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn unreachable(&self, why: &str) -> Failure {
        let at = self.base.authority();
        Failure::new(Exit::Unreachable, format!("the controller at {at} cannot be reached: {why}"))
            .next("thinlane doctor   # says how far the connection gets")
    }

    /// What a failed exchange means: another certificate than the pinned one, or no way there.
    fn transport(&self, error: &reqwest::Error) -> Failure {
        match self.verifier.take_rejection() {
            Some(Rejection::Fingerprint { wanted, shown }) => Failure::new(
                Exit::Verification,
                format!("{} is not the controller you trust: its CA has {shown}, expected {wanted}", self.base.authority()),
            )
            .next(
                "ask whoever runs the controller for the fingerprint; only if it was set up anew: \
                 thinlane login URL --ca-fingerprint sha256:HEX",
            ),
            Some(Rejection::Unknown { shown }) => Failure::new(
                Exit::Verification,
                format!("{} is not known yet; its CA has the fingerprint {shown}", self.base.authority()),
            )
            .next(format!("compare it with what `thinlane-controller init` printed, then: thinlane login {} --ca-fingerprint {shown}", self.base)),
            Some(Rejection::Certificate(why)) => Failure::new(
                Exit::Verification,
                format!("the certificate of {} is not acceptable: {why}", self.base.authority()),
            )
            .next("thinlane doctor   # checks the clock; the host in the URL must be one that the controller was told with --public"),
            None => {
                let why =
                    if error.is_timeout() { "it did not answer in time".to_owned() } else { innermost(error) };
                let mut failure = self.unreachable(&why);
                // Whoever could not connect has sent nothing.
                failure.maybe_done = !error.is_connect();
                failure
            }
        }
    }
}

/// An answer that is an error, in the controller's words where they can be read.
fn refusal(status: StatusCode, body: &[u8]) -> Failure {
    if let Ok(body) = serde_json::from_slice::<ErrorBody>(body) {
        return body.into();
    }
    // A newer controller may know more codes than this program: the message still helps.
    let message = serde_json::from_slice::<Value>(body)
        .ok()
        .and_then(|value| value["error"]["message"].as_str().map(str::to_owned))
        .unwrap_or_else(|| format!("the controller answered {status}"));
    let code = match status.as_u16() {
        401 => Some(ErrorCode::Unauthenticated),
        403 => Some(ErrorCode::Forbidden),
        404 => Some(ErrorCode::NotFound),
        410 => Some(ErrorCode::Ended),
        504 => Some(ErrorCode::SiteUnreachable),
        _ => None,
    };
    match code {
        Some(code) => ErrorBody::new(code, message).into(),
        None => Failure::failed(message),
    }
}

/// The cause at the bottom, which is the one that says something.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    let cut = at.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::UnexpectedEof);
    // Libraries say this with a page of theirs to read.
    if cut { "the connection was cut".to_owned() } else { crate::failure::plain(&at) }
}

/// Reads a controller's address: `https://HOST[:PORT]`, or without the scheme; the port is 7443 unless said.
pub fn parse_url(text: &str) -> std::result::Result<Url, String> {
    let shape = || format!("a controller's address is written https://HOST:7443, not {text:?}");
    let full = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let explicit = explicit_port(&full);
    let mut url = Url::parse(&full).map_err(|_| shape())?;
    if url.scheme() != "https" {
        return Err(format!("the controller speaks https only: {}", full.replacen(url.scheme(), "https", 1)));
    }
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    if url.host_str().is_none_or(str::is_empty) || !url.username().is_empty() || url.password().is_some() || !bare {
        return Err(shape());
    }
    if !explicit {
        url.set_port(Some(7443)).map_err(|()| shape())?;
    }
    Ok(url)
}

/// Whether the address names a port; `Url` forgets one that is the scheme's own.
fn explicit_port(full: &str) -> bool {
    let authority = full.split("://").nth(1).unwrap_or("").split(['/', '?', '#']).next().unwrap_or("");
    let after_host = authority.rsplit(']').next().unwrap_or("");
    after_host.contains(':')
}

#[cfg(test)]
mod tests;
