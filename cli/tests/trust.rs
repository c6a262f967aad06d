//! Whom the program believes, and what it says when it does not.

mod support;

use support::views;
use support::{Authority, Controller, Person, Reply, said};

fn controller() -> Controller {
    Controller::start(|asked| match asked.path.as_str() {
        "/status" => Reply::ok(views::status()),
        "/login" if asked.body["password"] == "secret" => Reply::ok(views::token()),
        "/login" => Reply::error(401, "authentication-failed", "wrong login, password or code"),
        "/whoami" if asked.token.as_deref() == Some("t0ken") => Reply::ok(views::whoami()),
        _ => Reply::error(401, "unauthenticated", "log in first"),
    })
}

fn log_in(person: &Person, url: &str, password: &str, more: &[&str]) -> (i32, String, String) {
    let mut arguments = vec!["login", url, "--user", "alice", "--totp", "123456", "--password-file", "env://PASSWORD"];
    arguments.extend(more);
    let output = person.command(&arguments).env("PASSWORD", password).output().expect("the program");
    (support::code(&output), support::text(&output.stdout), support::text(&output.stderr))
}

#[test]
fn the_right_fingerprint_logs_in_and_pins_the_ca() {
    let (controller, person) = (controller(), Person::new());
    let (code, _, stderr) =
        log_in(&person, &controller.url(), "secret", &["--ca-fingerprint", &controller.authority.fingerprint()]);
    assert_eq!(code, 0, "{stderr}");
    // From now on neither address nor fingerprint is needed.
    let (code, stdout, stderr) = person.says(&["whoami", "--json"]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(support::objects(&stdout)[0]["user"], "alice");
    let (_, token, _) = person.says(&["whoami", "--token"]);
    assert_eq!(token, "t0ken\n");
}

#[test]
fn a_wrong_fingerprint_is_exit_7_with_both_and_nothing_is_sent() {
    let (controller, person) = (controller(), Person::new());
    let wrong = format!("sha256:{}", "ab".repeat(32));
    let (code, _, stderr) = log_in(&person, &controller.url(), "secret", &["--ca-fingerprint", &wrong]);
    assert_eq!(code, 7, "{stderr}");
    assert!(stderr.contains(&wrong) && stderr.contains(&controller.authority.fingerprint()), "{stderr}");
    assert!(stderr.contains("next: "), "{stderr}");
    assert!(controller.asked().is_empty());
}

#[test]
fn an_unknown_controller_is_refused_with_its_fingerprint_when_nobody_can_be_asked() {
    let (controller, person) = (controller(), Person::new());
    let (code, _, stderr) = log_in(&person, &controller.url(), "secret", &[]);
    assert_eq!(code, 7, "{stderr}");
    assert!(stderr.contains(&format!("--ca-fingerprint {}", controller.authority.fingerprint())), "{stderr}");
    assert!(controller.asked().is_empty());
}

#[test]
fn another_controller_in_the_place_of_the_pinned_one_gets_no_token() {
    let (first, person) = (controller(), Person::new());
    person.log_in(&first);
    let impostor = controller();
    let (code, _, stderr) = person.says(&["--url", &impostor.url(), "whoami"]);
    // The log-in belongs to the other address.
    assert_eq!(code, 3, "{stderr}");
    let (code, _, stderr) = log_in(&person, &impostor.url(), "secret", &[]);
    assert_eq!(code, 7, "{stderr}");
    assert!(
        stderr.contains(&impostor.authority.fingerprint()) && stderr.contains(&first.authority.fingerprint()),
        "{stderr}"
    );
    assert!(impostor.asked().is_empty());
}

#[test]
fn a_certificate_for_another_host_is_exit_7_under_the_right_ca() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let controller =
        Controller::serve(listener, Authority::new(&["elsewhere.example"]), |_| Reply::ok(views::status()));
    let (code, _, stderr) =
        log_in(&Person::new(), &controller.url(), "secret", &["--ca-fingerprint", &controller.authority.fingerprint()]);
    assert_eq!(code, 7, "{stderr}");
    assert!(stderr.contains("names other hosts"), "{stderr}");
}

#[test]
fn a_wrong_password_is_exit_3_and_leaves_nothing_behind() {
    let (controller, person) = (controller(), Person::new());
    let (code, _, stderr) =
        log_in(&person, &controller.url(), "guess", &["--ca-fingerprint", &controller.authority.fingerprint()]);
    assert_eq!(code, 3, "{stderr}");
    assert_eq!(std::fs::read_dir(person.home()).expect("the home").count(), 0);
    assert!(!stderr.contains("guess"));
}

#[test]
fn no_secret_stands_in_a_file_that_others_can_read() {
    use std::os::unix::fs::PermissionsExt;
    let (controller, person) = (controller(), Person::new());
    person.log_in(&controller);
    for entry in std::fs::read_dir(person.home()).expect("the home").flatten() {
        let mode = entry.metadata().expect("a file").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.path());
        let content = std::fs::read_to_string(entry.path()).expect("text");
        assert!(!content.contains("secret"), "the password is in {:?}", entry.path());
    }
}

#[test]
fn a_log_out_forgets_the_token_also_when_the_controller_is_gone() {
    let (controller, person) = (controller(), Person::new());
    person.log_in(&controller);
    controller.vanish();
    let (code, _, stderr) = person.says(&["logout"]);
    assert_eq!(code, 6, "{stderr}");
    let output = person.run(&["whoami", "--token"]);
    assert_eq!(support::code(&output), 3, "{}", said(&output));
}
