//! Nobody reads what the program says: a pager that was left, a log collector that died.

use std::process::Command;

#[test]
fn whoever_stops_reading_gets_no_panic() {
    let place = tempfile::tempdir().expect("a directory");
    for words in [&["completions", "bash"][..], &["version"], &["status"], &["run"], &["run", "--json"]] {
        let [(unread, out), (unread_too, errors)] = [(); 2].map(|()| std::io::pipe().expect("a pipe"));
        drop((unread, unread_too));
        let mut command = Command::new(env!("CARGO_BIN_EXE_thinlane-agent"));
        command.args(words).arg("--dir").arg(place.path()).arg("--run-dir").arg(place.path().join("run"));
        let end = command.stdout(out).stderr(errors).status().expect("it runs");
        assert_eq!(end.code(), Some(141), "{words:?}");
    }
}
