//! A package gives the agent's files to a user of their own: whatever root does there is done by that user.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Output};

const SOMEBODY: u32 = 54_321;

fn agent(below: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_thinlane-agent"));
    command.args(words).arg("--dir").arg(below.join("state")).arg("--run-dir").arg(below.join("run"));
    command.output().expect("it runs")
}

/// A place that root owns, with a state directory that somebody else does.
fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().expect("a directory");
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).expect("set");
    fs::create_dir(place.path().join("state")).expect("made");
    chown(place.path().join("state"), Some(SOMEBODY), Some(SOMEBODY)).expect("these tests run as root");
    place
}

#[test]
fn what_root_does_in_a_users_directory_is_done_by_that_user() {
    let place = place();
    let done = agent(place.path(), &["isolate", "on"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    for made in ["state/isolated", "run"] {
        let found = fs::metadata(place.path().join(made)).expect("there");
        assert_eq!((found.uid(), found.gid()), (SOMEBODY, SOMEBODY), "{made}");
    }
}

#[test]
fn a_link_that_the_user_laid_leads_root_to_nothing_of_its_own() {
    let place = place();
    let roots = place.path().join("roots");
    fs::create_dir(&roots).expect("made");
    fs::set_permissions(&roots, fs::Permissions::from_mode(0o700)).expect("set");
    fs::write(roots.join("file"), "untouched").expect("written");
    std::os::unix::fs::symlink(roots.join("file"), place.path().join("state/identity.json")).expect("laid");
    let done = agent(place.path(), &["cleanup", "--forget"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(fs::read_to_string(roots.join("file")).expect("there"), "untouched");
    assert!(fs::symlink_metadata(place.path().join("state/identity.json")).is_err(), "the link itself is gone");
}

#[test]
fn a_code_file_that_only_root_can_read_is_read() {
    let place = place();
    let code = place.path().join("code");
    fs::write(&code, "").expect("written");
    fs::set_permissions(&code, fs::Permissions::from_mode(0o600)).expect("set");
    let words = ["enroll", "--controller", "127.0.0.1:9", "--ca-fingerprint"];
    let print = format!("sha256:{}", "0".repeat(64));
    let file = code.to_string_lossy().into_owned();
    let done = agent(place.path(), &[&words[..], &[&print, "--token-file", &file]].concat());
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(said.contains("the code file is empty"), "{said}");
}
