//! What is expected of `home`, as tests.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("the file").permissions().mode() & 0o777
}

fn token() -> StoredToken {
    StoredToken {
        token: "secret".into(),
        user: "alice".parse().expect("a login"),
        expires_at: Wall::from_millis(1),
        url: "https://hq:7443".into(),
    }
}

#[test]
fn a_token_is_written_0600_into_directories_0700_and_reads_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let home = Home::locate(Some(&dir.path().join("a/b"))).expect("a home");
    home.write_token(&token()).expect("written");
    assert_eq!(mode(&home.token_file()), 0o600);
    assert_eq!(mode(home.state_dir()), 0o700);
    assert_eq!(home.read_token().expect("read").map(|token| token.token), Some("secret".to_owned()));
    home.remove_token().expect("removed");
    home.remove_token().expect("removing what is gone is no error");
    assert!(home.read_token().expect("read").is_none());
}

#[test]
fn a_token_that_others_can_read_is_refused_with_the_next_step() {
    let dir = tempfile::tempdir().expect("a directory");
    let home = Home::locate(Some(dir.path())).expect("a home");
    home.write_token(&token()).expect("written");
    std::fs::set_permissions(home.token_file(), std::fs::Permissions::from_mode(0o640)).expect("chmod");
    let failure = home.read_token().err().expect("refused");
    assert!(failure.next.is_some_and(|next| next.starts_with("chmod 600 ")));
}

#[test]
fn writing_again_replaces_the_file_and_leaves_no_draft() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("x");
    std::fs::write(&file, "old").expect("written");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("chmod");
    write_private(&file, b"new", None).expect("written");
    assert_eq!(std::fs::read(&file).expect("read"), b"new");
    assert_eq!(mode(&file), 0o600);
    assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 1);
}

#[test]
fn the_configuration_reads_back_as_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let home = Home::locate(Some(dir.path())).expect("a home");
    assert_eq!(home.read_config().expect("none yet"), Config::default());
    let config = Config {
        url: Some("https://hq \"x\":7443".into()),
        user: Some("alice@acme".parse().expect("a login")),
        json: Some(false),
    };
    home.write_config(&config).expect("written");
    assert_eq!(home.read_config().expect("read"), config);
}

#[test]
fn an_unknown_key_is_refused_with_file_and_line() {
    let failure = Config::parse("url = \"x\"\n\nurll = 1\n", Path::new("/c.toml")).expect_err("refused");
    assert!(failure.message.starts_with("/c.toml:3: "), "{}", failure.message);
    assert!(failure.message.contains("urll"), "{}", failure.message);
    assert_eq!(failure.exit, Exit::Usage);
}

#[test]
fn a_pinned_certificate_reads_back_and_garbage_is_a_failed_verification() {
    let dir = tempfile::tempdir().expect("a directory");
    let home = Home::locate(Some(dir.path())).expect("a home");
    assert!(home.read_ca().expect("none yet").is_none());
    let ca = CertificateDer::from(vec![0x30; 200]);
    home.write_ca(&ca).expect("written");
    assert_eq!(home.read_ca().expect("read"), Some(ca));
    std::fs::write(home.ca_file(), "no certificate").expect("written");
    assert_eq!(home.read_ca().err().map(|failure| failure.exit), Some(Exit::Verification));
}

#[test]
fn a_huge_file_is_not_read_into_memory() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("x");
    std::fs::write(&file, vec![b'x'; 2000]).expect("written");
    assert!(read_bounded(&file, 1000).is_err());
    assert!(read_bounded(&file, 2000).is_ok());
}
