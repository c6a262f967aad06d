//! T20: whatever was acknowledged before a SIGKILL is there afterwards, with its entry, and the log verifies.
//!
//! Not a `#[test]` but a program of its own: it starts itself again as the writer that is killed.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use serde_json::json;
use thinlane_store::{Reader, RowChange, SecretChange, Store, Tx};
use thinlane_tlog::{Auditor, Signer};

const KILLS: u32 = 200;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    match (args.next().as_deref(), args.next()) {
        (Some("--be-the-writer"), Some(dir)) => write_for_ever(Path::new(&dir)),
        (Some("--list"), _) => {
            println!("nothing_acknowledged_is_lost_when_the_writer_is_killed: test");
            ExitCode::SUCCESS
        }
        _ => nothing_acknowledged_is_lost_when_the_writer_is_killed(),
    }
}

fn signer() -> Signer {
    Signer::new("crash.test/log", SigningKey::from_bytes(&[7; 32])).expect("a name")
}

fn tx(number: u64) -> Tx {
    Tx {
        entries: vec![
            format!(r#"{{"kind":"first","number":{number}}}"#).into_bytes(),
            format!(r#"{{"kind":"second","number":{number}}}"#).into_bytes(),
        ],
        rows: vec![RowChange {
            kind: "thing".to_owned(),
            id: number.to_string(),
            doc: Some(json!({"number": number})),
        }],
        secrets: vec![SecretChange {
            kind: "token".to_owned(),
            id: number.to_string(),
            doc: Some("hash".to_owned()),
            expires: None,
        }],
    }
}

/// Commits batches of one to five, and says each number only after its commit.
fn write_for_ever(dir: &Path) -> ExitCode {
    let mut store = match Store::open(dir, signer()) {
        Ok(store) => store,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let mut out = std::io::stdout().lock();
    let mut next = store.size() / 2;
    loop {
        let end = next + 1 + next % 5;
        let batch: Vec<Tx> = (next..end).map(tx).collect();
        if store.commit(&batch).is_err() {
            return ExitCode::FAILURE;
        }
        for number in next..end {
            if writeln!(out, "{number}").is_err() {
                return ExitCode::SUCCESS;
            }
        }
        next = end;
    }
}

fn nothing_acknowledged_is_lost_when_the_writer_is_killed() -> ExitCode {
    let place = tempfile::tempdir().expect("a temporary directory");
    let dir = place.path();
    drop(Store::create(dir, signer()).expect("a new store"));
    let began = Instant::now();
    let mut acknowledged = 0u64;
    for kill in 0..KILLS {
        acknowledged = acknowledged.max(run_and_kill(dir, kill));
        let reader = Reader::open(dir).expect("it opens after the crash");
        let size = reader.size().expect("it reads");
        assert!(size >= 2 * acknowledged, "kill {kill}: {acknowledged} were acknowledged, {size} entries are there");
        assert_eq!(size % 2, 0, "kill {kill}: half a transaction");
        let rows = reader.rows().expect("rows").len() as u64;
        assert_eq!(2 * rows, size, "kill {kill}: rows and entries are of different transactions");
    }
    assert!(acknowledged > u64::from(KILLS), "the writer wrote too little for this to prove anything: {acknowledged}");
    verify(dir, acknowledged);
    println!("{KILLS} kills, {acknowledged} acknowledged, none lost ({:.1?})", began.elapsed());
    ExitCode::SUCCESS
}

/// Answers how many are acknowledged: the last number said, plus one.
fn run_and_kill(dir: &Path, kill: u32) -> u64 {
    let me = std::env::current_exe().expect("this program");
    let mut writer =
        Command::new(me).arg("--be-the-writer").arg(dir).stdout(Stdio::piped()).spawn().expect("the writer starts");
    let mut lines = BufReader::new(writer.stdout.take().expect("a pipe"));
    let mut first = String::new();
    lines.read_line(&mut first).expect("the writer says something");
    // Somewhere inside a commit: 0 to 15 ms after the first acknowledgement, another moment each time.
    std::thread::sleep(Duration::from_micros(u64::from(kill) * 7919 % 15_000));
    writer.kill().expect("SIGKILL");
    let mut last: Option<u64> = first.trim().parse().ok();
    for line in lines.lines() {
        // The last line may be cut by the kill; what is whole was acknowledged.
        let Ok(line) = line else { break };
        last = line.parse().ok().max(last);
    }
    writer.wait().expect("it is gone");
    last.map_or(0, |number| number + 1)
}

fn verify(dir: &Path, acknowledged: u64) {
    let reader = Reader::open(dir).expect("it opens");
    let mut audit =
        Auditor::new(signer().verifier(), reader.checkpoints().expect("checkpoints"), Vec::<(String, String)>::new());
    let mut from = 0;
    loop {
        let some = reader.entries(from, 1000).expect("entries");
        let Some(last) = some.last() else { break };
        from = last.index + 1;
        for entry in &some {
            let number = entry.index / 2;
            assert_eq!(entry.json, tx(number).entries[(entry.index % 2) as usize], "entry {}", entry.index);
            audit.entry(entry.index, &entry.json, &entry.leaf);
        }
    }
    let report = audit.finish();
    assert!(report.is_sound(), "{:?}", report.findings);
    assert!(report.unsigned == 0 && report.entries >= 2 * acknowledged, "{report:?}");
}
