//! Sound logs, and every way to tamper with one.

use super::*;
use crate::note::{Signer, SigningKey};
use crate::tree::root_of;
use proptest::prelude::*;

const ORIGIN: &str = "thinlane.example/log";

/// A log of `count` entries with a checkpoint after every third and after the last.
#[derive(Clone)]
struct Log {
    entries: Vec<(u64, Vec<u8>, Hash)>,
    checkpoints: Vec<String>,
    remembered: Vec<(String, String)>,
}

fn key() -> Signer {
    Signer::new(ORIGIN, SigningKey::from_bytes(&[7; 32])).expect("a good name")
}

fn entry(seq: u64, what: &str) -> (u64, Vec<u8>, Hash) {
    let bytes = canonical::to_vec(&serde_json::json!({"seq": seq, "what": what})).expect("canonical");
    let leaf = leaf_hash(&bytes);
    (seq, bytes, leaf)
}

fn sign(entries: &[(u64, Vec<u8>, Hash)]) -> String {
    let leaves: Vec<Hash> = entries.iter().map(|(_, _, leaf)| *leaf).collect();
    let checkpoint = Checkpoint::new(ORIGIN, leaves.len() as u64, root_of(&leaves)).expect("a good origin");
    checkpoint.sign(&key()).expect("its own key").note().to_string()
}

impl Log {
    fn new(count: u64) -> Self {
        let entries: Vec<_> = (0..count).map(|seq| entry(seq, "opened")).collect();
        let signed = (1..=entries.len()).filter(|size| size % 3 == 0 || *size == entries.len());
        let checkpoints = signed.map(|size| sign(&entries[..size])).collect();
        Self { entries, checkpoints, remembered: Vec::new() }
    }

    fn audit(&self) -> AuditReport {
        let mut audit = Auditor::new(key().verifier(), &self.checkpoints, self.remembered.clone()).with_sequence("seq");
        self.entries.iter().for_each(|(index, bytes, leaf)| audit.entry(*index, bytes, leaf));
        audit.finish()
    }

    fn findings(&self) -> Vec<Finding> {
        self.audit().findings
    }
}

#[test]
fn a_sound_log_has_nothing_to_find() {
    for count in 0..12 {
        let mut log = Log::new(count);
        log.remembered = log.checkpoints.iter().map(|text| ("site_1".to_owned(), text.clone())).collect();
        let report = log.audit();
        assert!(report.is_sound(), "{:?}", report.findings);
        assert_eq!((report.entries, report.unsigned), (count, 0));
        assert_eq!(
            (report.checkpoints, report.remembered),
            (log.checkpoints.len() as u64, log.remembered.len() as u64)
        );
        assert_eq!(report.signed.map(|last| last.size()), (count > 0).then_some(count));
        let leaves: Vec<Hash> = log.entries.iter().map(|(_, _, leaf)| *leaf).collect();
        assert_eq!(report.root, root_of(&leaves));
    }
}

#[test]
fn entries_after_the_last_checkpoint_are_counted_as_unsigned() {
    let mut log = Log::new(6);
    log.entries.push(entry(6, "late"));
    let report = log.audit();
    assert!(report.is_sound());
    assert_eq!((report.unsigned, report.checkpoints), (1, 2));
}

#[test]
fn an_edit_that_leaves_the_hash_is_found_at_its_entry_alone() {
    let mut log = Log::new(10);
    log.entries[4].1 = entry(4, "nothing").1;
    assert_eq!(log.findings(), [Finding::Edited { index: 4 }]);
    let mut log = Log::new(10);
    log.entries[4].2 = leaf_hash(b"other");
    assert_eq!(log.findings(), [Finding::Edited { index: 4 }]);
}

#[test]
fn an_edit_with_its_hash_is_found_between_two_checkpoints() {
    let mut log = Log::new(10);
    log.entries[4] = entry(4, "nothing");
    assert_eq!(log.findings(), [Finding::Rewritten { index: 3, size: 6 }]);
}

#[test]
fn an_edit_after_an_edit_that_left_its_hash_is_found_too() {
    let mut log = Log::new(10);
    log.entries[1].1 = entry(1, "nothing").1;
    log.entries[7] = entry(7, "nothing");
    assert_eq!(log.findings(), [Finding::Edited { index: 1 }, Finding::Rewritten { index: 6, size: 9 }]);
}

#[test]
fn a_log_rewritten_and_signed_anew_is_found_by_whoever_remembers_it() {
    let honest = Log::new(10);
    let mut log = Log::new(10);
    log.entries[4] = entry(4, "nothing");
    log.checkpoints = vec![sign(&log.entries)];
    assert!(log.audit().is_sound(), "nobody remembers");
    log.remembered =
        vec![("site_1".into(), honest.checkpoints[0].clone()), ("site_2".into(), honest.checkpoints[1].clone())];
    assert_eq!(log.findings(), [Finding::Forked { who: "site_2".into(), index: 6 }]);
    assert_eq!(log.audit().remembered, 1);
}

#[test]
fn two_signed_roots_for_one_size_are_found() {
    let honest = Log::new(9);
    let mut log = Log::new(9);
    log.entries[8] = entry(8, "nothing");
    log.checkpoints.push(sign(&log.entries));
    let findings = log.findings();
    assert_eq!(findings[0], Finding::TwoRoots { index: 9 });
    log.checkpoints.remove(2);
    log.remembered = vec![("site_1".into(), honest.checkpoints[2].clone())];
    assert_eq!(log.findings(), [Finding::TwoRoots { index: 9 }, Finding::Forked { who: "site_1".into(), index: 9 }]);
}

#[test]
fn a_log_cut_off_is_found_by_its_own_checkpoint_and_by_memory() {
    let mut log = Log::new(10);
    log.entries.truncate(8);
    assert_eq!(log.findings(), [Finding::Truncated { index: 10, size: 8 }]);
    let whole = Log::new(10);
    let mut log = Log::new(6);
    log.remembered = vec![("site_1".into(), whole.checkpoints[3].clone())];
    assert_eq!(log.findings(), [Finding::RolledBack { who: "site_1".into(), index: 10, size: 6 }]);
    let mut log = Log::new(10);
    log.entries.clear();
    assert_eq!(log.findings(), [Finding::Truncated { index: 10, size: 0 }]);
}

#[test]
fn missing_repeated_and_moved_entries_are_found() {
    let mut log = Log::new(10);
    log.entries.drain(4..6);
    assert_eq!(log.findings(), [Finding::Gap { index: 4, last: 5 }, Finding::Rewritten { index: 3, size: 9 }]);
    let mut log = Log::new(10);
    let again = log.entries[4].clone();
    log.entries.insert(6, again);
    assert_eq!(log.findings(), [Finding::Reordered { index: 4, after: 5 }]);
    let mut log = Log::new(10);
    log.entries.swap(4, 5);
    let swapped = [
        Finding::Gap { index: 4, last: 4 },
        Finding::Rewritten { index: 3, size: 6 },
        Finding::Reordered { index: 4, after: 5 },
    ];
    assert_eq!(log.findings(), swapped);
    // The same, but with the numbers put right again.
    (log.entries[4].0, log.entries[5].0) = (4, 5);
    let moved = [Finding::Moved { index: 4, says: 5 }, Finding::Moved { index: 5, says: 4 }];
    assert_eq!(log.findings()[..2], moved);
    assert_eq!(log.findings()[2], Finding::Rewritten { index: 3, size: 6 });
    let mut log = Log::new(10);
    log.entries.remove(0);
    assert_eq!(log.findings()[0], Finding::Gap { index: 0, last: 0 });
}

#[test]
fn checkpoints_that_are_forged_spoilt_or_out_of_order_are_found() {
    let mut log = Log::new(9);
    log.checkpoints[1] = log.checkpoints[1].replace("\n6\n", "\n5\n");
    assert!(matches!(log.findings()[..], [Finding::BadCheckpoint { index: 1, .. }]));
    log.checkpoints[1] = "garbage".into();
    assert!(matches!(log.findings()[..], [Finding::BadCheckpoint { index: 1, .. }]));
    let mut log = Log::new(9);
    log.checkpoints.swap(0, 2);
    assert!(matches!(log.findings()[0], Finding::Backwards { index: 1, size: 6, before: 9 }));
    let mut log = Log::new(9);
    log.checkpoints.clear();
    assert_eq!(log.findings(), [Finding::NoCheckpoint { index: 9 }]);
    log.remembered = vec![("site_1".into(), "garbage".into())];
    assert!(matches!(log.findings()[..], [Finding::BadMemory { .. }, Finding::NoCheckpoint { index: 9 }]));
}

#[test]
fn bytes_that_are_not_canonical_are_found() {
    let mut log = Log::new(0);
    let bytes = b"{\"seq\": 0}".to_vec();
    let leaf = leaf_hash(&bytes);
    log.entries.push((0, bytes, leaf));
    log.checkpoints.push(sign(&log.entries));
    assert!(matches!(log.findings()[..], [Finding::NotCanonical { index: 0, .. }]));
}

#[test]
fn findings_are_bounded_and_say_one_sentence_each() {
    let mut log = Log::new(MAX_FINDINGS as u64 + 20);
    log.entries.iter_mut().for_each(|entry| entry.1 = b"1".to_vec());
    let report = log.audit();
    assert_eq!((report.findings.len(), report.more), (MAX_FINDINGS, 20));
    assert!(!report.is_sound());
    let shown = Finding::Truncated { index: 10, size: 8 };
    assert_eq!(shown.to_string(), "the log ends at 8 entries, but its own checkpoint signs 10: the end was cut off");
    let json = serde_json::to_value(&shown).expect("serializable");
    assert_eq!(json, serde_json::json!({"finding": "truncated", "index": 10, "size": 8}));
}

proptest! {
    #[test]
    fn no_change_to_a_signed_log_goes_unnoticed(count in 2u64..30, at in any::<usize>(), other in any::<usize>(), what in 0..6) {
        let mut log = Log::new(count);
        let at = at % log.entries.len();
        let other = (at + 1 + other % (log.entries.len() - 1)) % log.entries.len();
        match what {
            0 => { log.entries.remove(at); }
            1 => log.entries.swap(at, other),
            2 => log.entries[at] = entry(at as u64, "changed"),
            3 => log.entries[at].1[0] ^= 1,
            4 => { let twice = log.entries[at].clone(); log.entries.insert(other, twice); }
            _ => { let (a, b) = (log.entries[at].0, log.entries[other].0); log.entries.swap(at, other); log.entries[at].0 = a; log.entries[other].0 = b; }
        }
        prop_assert!(!log.audit().is_sound());
    }
}
