//! What is expected of `api`, as tests.

use super::*;

#[test]
fn an_address_is_read_with_and_without_scheme_and_port() {
    for (text, url) in [
        ("https://hq:7443", "https://hq:7443/"),
        ("hq:8443", "https://hq:8443/"),
        ("hq", "https://hq:7443/"),
        ("https://hq/", "https://hq:7443/"),
        ("https://hq:443", "https://hq/"),
        ("https://[::1]:7443/", "https://[::1]:7443/"),
        ("[2001:db8::1]", "https://[2001:db8::1]:7443/"),
        ("192.0.2.1:7443", "https://192.0.2.1:7443/"),
    ] {
        assert_eq!(parse_url(text).map(|url| url.to_string()), Ok(url.to_owned()), "{text}");
    }
}

#[test]
fn an_address_that_is_no_controllers_is_refused() {
    for text in [
        "",
        "http://hq:7443",
        "https://",
        "https://a:b@hq",
        "https://hq/api",
        "https://hq?x=1",
        "https://hq:99999",
        "ftp://hq",
    ] {
        assert!(parse_url(text).is_err(), "{text}");
    }
}

#[test]
fn an_error_body_keeps_code_message_and_next_step() {
    let body = serde_json::to_vec(&ErrorBody::new(ErrorCode::SiteUnreachable, "site north is away").next("wait"))
        .expect("JSON");
    let failure = refusal(StatusCode::GATEWAY_TIMEOUT, &body);
    assert_eq!(
        (failure.exit, failure.message.as_str(), failure.next.as_deref()),
        (Exit::Unreachable, "site north is away", Some("wait"))
    );
}

#[test]
fn an_error_of_a_newer_controller_still_says_its_message() {
    let failure =
        refusal(StatusCode::FORBIDDEN, br#"{"schema":1,"error":{"code":"brand-new","message":"no, because"}}"#);
    assert_eq!((failure.exit, failure.message.as_str()), (Exit::Denied, "no, because"));
}

#[test]
fn an_answer_that_is_no_json_becomes_one_sentence() {
    let failure = refusal(StatusCode::BAD_GATEWAY, b"<html>\x1b[2J");
    assert_eq!(failure.message, "the controller answered 502 Bad Gateway");
    assert_eq!(failure.exit, Exit::Failure);
}

#[tokio::test]
async fn a_controller_that_does_not_listen_is_unreachable_with_a_next_step() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let url = parse_url(&format!("https://{address}")).expect("an address");
    let client = Client::new(url, Trust::Fingerprint(Fingerprint([0; 32]))).expect("a client");
    let failure = client.get::<Value>("/status").await.expect_err("unreachable");
    assert_eq!(failure.exit, Exit::Unreachable);
    assert!(failure.message.contains(&address.to_string()), "{}", failure.message);
    assert!(!failure.message.contains("os error"), "{}", failure.message);
    assert!(failure.next.is_some());
    assert!(!failure.maybe_done, "nothing was sent");
}

#[tokio::test]
async fn a_connection_that_is_cut_before_anything_was_sent_is_told_without_a_librarys_page() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = parse_url(&format!("https://{}", listener.local_addr().expect("an address"))).expect("an address");
    let server = tokio::spawn(async move { listener.accept().await.map(drop) });
    let client = Client::new(url, Trust::Fingerprint(Fingerprint([0; 32]))).expect("a client");
    let failure = client.post::<Value>("/locks", &Value::Null).await.expect_err("cut");
    assert!(server.await.is_ok_and(|accepted| accepted.is_ok()));
    assert!(!failure.message.contains("https://docs") && !failure.maybe_done, "{failure:?}");
}
