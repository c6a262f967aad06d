//! Notes and checkpoints against published ones, and everything that is none.

use super::*;
use crate::tree::leaf_hash;
use proptest::prelude::*;

// Published with Go's golang.org/x/mod/sumdb/note; Ed25519 is deterministic, so equal bytes mean equal rules.
const VKEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const SEED: &str = "gQoUAtUUbI2E8kQzMPVAgOv5juF9nHT2JS/F1ccoMXM=";
const TEXT: &str =
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
const LINE: &str = "\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

fn signer(name: &str, seed: u8) -> Signer {
    Signer::new(name, SigningKey::from_bytes(&[seed; 32])).expect("a good name")
}

fn checkpoint(size: u64) -> Checkpoint {
    Checkpoint::new("thinlane.example/log", size, leaf_hash(b"root")).expect("a good origin")
}

#[test]
fn gos_published_note_is_made_and_believed_to_the_byte() {
    let seed: [u8; 32] = BASE64.decode(SEED.as_bytes()).expect("base 64").try_into().expect("32 bytes");
    let peter = Signer::new("PeterNeumann", SigningKey::from_bytes(&seed)).expect("a good name");
    assert_eq!(peter.verifier().to_string(), VKEY);
    let note = Note::sign(TEXT, &peter).expect("a good text");
    assert_eq!(note.to_string(), format!("{TEXT}\n{LINE}"));
    let known = [VKEY.parse::<Verifier>().expect("a vkey")];
    let read = Note::parse(note.to_string().as_bytes()).expect("a note");
    assert_eq!(read, note);
    assert_eq!(read.verify(&known), Ok(vec![&known[0]]));
}

#[test]
fn a_mangled_verifier_key_is_refused() {
    for start in 0..VKEY.len() {
        for end in start..=VKEY.len() {
            assert!(end - start == VKEY.len() || VKEY[start..end].parse::<Verifier>().is_err());
        }
    }
    for at in 0..VKEY.len() {
        let mut bytes = VKEY.as_bytes().to_vec();
        bytes[at] += 1;
        assert!(String::from_utf8(bytes).expect("ASCII").parse::<Verifier>().is_err(), "{at}");
    }
    // Fitting hashes, but a key too long, and an algorithm nobody knows (both from Go's tests).
    for bad in [
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    ] {
        assert_eq!(bad.parse::<Verifier>(), Err(NoteError::Key));
    }
}

#[test]
fn malformed_notes_are_refused() {
    let good = format!("{TEXT}\n{LINE}");
    assert!(Note::parse(good.as_bytes()).is_ok());
    for bad in [
        String::new(),
        TEXT.to_owned(),
        format!("{TEXT}\n"),
        format!("{TEXT}{LINE}"),
        format!("{TEXT}\n{}", &LINE[..LINE.len() - 1]),
        format!("{TEXT}\n{LINE}\n"),
        format!("{TEXT}\n{}", LINE.replace('\u{2014}', "-")),
        format!("{TEXT}\n{}", LINE.replace("Peter", "Pe+ter")),
        format!("{TEXT}\n{}", LINE.replace("Peter", "Pe\u{a0}ter")),
        format!("{TEXT}\n\u{2014}  AAAAAAAA\n"),
        format!("{TEXT}\n\u{2014} x AAAAAA==\n"),
        format!("{TEXT}\n\u{2014} x AAAAAAB=\n"),
        format!("{TEXT}\n{LINE}trailing\n"),
        good.replace("cryptography", "crypto\tgraphy"),
        good.replace('\n', "\r\n"),
        format!("{TEXT}\n{}", LINE.repeat(MAX_SIGNATURES + 1)),
        "x".repeat(MAX_NOTE) + "\n\n" + LINE,
    ] {
        assert!(Note::parse(bad.as_bytes()).is_err(), "{bad:.200}");
    }
    assert_eq!(Note::parse(b"\xff\n\n"), Err(NoteError::Text));
    assert_eq!(Note::sign("no newline", &signer("x", 1)), Err(NoteError::Text));
    assert_eq!(Signer::new("a b", SigningKey::from_bytes(&[1; 32])).map(|_| ()), Err(NoteError::Name));
}

#[test]
fn unknown_signatures_are_kept_and_ignored_and_wrong_ones_of_known_keys_refuse_the_note() {
    let (log, witness, stranger) = (signer("log", 1), signer("witness", 2), signer("stranger", 3));
    let mut note = Note::sign(TEXT, &stranger).expect("a good text");
    let known = [log.verifier(), witness.verifier()];
    assert_eq!(note.verify(&known), Err(VerifyError::Unsigned));
    note.add(&witness).expect("room");
    note.add(&log).expect("room");
    let read = Note::parse(note.to_string().as_bytes()).expect("a note");
    assert_eq!(read.signatures().len(), 3);
    assert_eq!(read.verify(&known).map(|by| by.len()), Ok(2));
    // Same name, another key: unknown, not wrong.
    let other = Note::sign(TEXT, &signer("log", 9)).expect("a good text");
    assert_eq!(other.verify(&known), Err(VerifyError::Unsigned));
    let mut forged = note.clone();
    let mut signature = forged.signatures()[1].clone();
    signature.bytes[10] ^= 1;
    forged.add_signature(signature).expect("room");
    assert_eq!(forged.signatures().len(), 3);
    assert_eq!(forged.verify(&known), Err(VerifyError::Signature { name: "witness".into() }));
    assert_eq!(forged.verify(&known[..1]).map(|by| by.len()), Ok(1));
}

#[test]
fn a_checkpoint_is_the_documented_text_and_reads_back_as_itself() {
    // The example of the C2SP document.
    let text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
    let read = Checkpoint::parse(text).expect("the documented example");
    assert_eq!((read.origin(), read.size(), read.text().as_str()), ("example.com/behind-the-sofa", 20_852_163, text));
    let longer = format!("{text}one more\n");
    let read = Checkpoint::parse(&longer).expect("with an extension");
    assert_eq!((read.extensions(), read.text()), (&["one more".to_owned()][..], longer));
    let root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
    for bad in [
        format!("a\n1\n{root}"),
        format!("\n1\n{root}\n"),
        format!("a\n01\n{root}\n"),
        format!("a\n+1\n{root}\n"),
        format!("a\n-1\n{root}\n"),
        format!("a\n18446744073709551616\n{root}\n"),
        format!("a\n\n{root}\n"),
        format!("a\n1\n{root}\n\n"),
        format!("a\n1\n{root}\n\nx\n"),
        "a\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxqw==\n".to_owned(),
        "a\n1\n".to_owned(),
    ] {
        assert_eq!(Checkpoint::parse(&bad).map_err(|_| ()), Err(()), "{bad:?}");
    }
    assert_eq!(Checkpoint::new("a\n9", 1, leaf_hash(b"")), Err(NoteError::Checkpoint));
}

#[test]
fn a_signed_checkpoint_is_believed_only_from_its_own_log() {
    let log = signer("thinlane.example/log", 1);
    let signed = checkpoint(7).sign(&log).expect("its own key");
    let bytes = signed.note().to_string();
    assert_eq!(SignedCheckpoint::open(bytes.as_bytes(), &log.verifier()), Ok(signed));
    assert_eq!(checkpoint(7).sign(&signer("other", 1)), Err(NoteError::Name));
    let stranger = signer("thinlane.example/log", 2).verifier();
    assert_eq!(SignedCheckpoint::open(bytes.as_bytes(), &stranger), Err(VerifyError::Unsigned));
    // The log's key signed it, but as a note about something else.
    let strange = Note::sign(&checkpoint(7).text().replace("thinlane", "thicklane"), &log).expect("a good text");
    let origin = "thicklane.example/log".to_owned();
    let opened = SignedCheckpoint::open(strange.to_string().as_bytes(), &log.verifier());
    assert_eq!(opened, Err(VerifyError::Origin { origin }));
}

#[test]
fn witnesses_signatures_travel_with_a_checkpoint() {
    let (log, witness) = (signer("thinlane.example/log", 1), signer("site_1", 2));
    let plain = checkpoint(7).sign(&log).expect("its own key");
    let mut seen = plain.clone();
    seen.witness(&witness).expect("room");
    let mut merged = plain.clone();
    assert_eq!(merged.merge(seen.note()), Ok(1));
    assert_eq!(merged.merge(seen.note()), Ok(0));
    let read = SignedCheckpoint::open(merged.note().to_string().as_bytes(), &log.verifier()).expect("signed");
    assert_eq!(read.note().verify(&[witness.verifier()]).map(|by| by.len()), Ok(1));
    let other = checkpoint(8).sign(&log).expect("its own key");
    assert_eq!(merged.merge(other.note()), Err(NoteError::Checkpoint));
    // A copy with the log's signature spoilt cannot spoil ours.
    let mut spoilt = plain.note().clone();
    let mut signature = spoilt.signatures()[0].clone();
    signature.bytes[0] ^= 1;
    spoilt.add_signature(signature).expect("room");
    assert_eq!(merged.merge(&spoilt), Ok(0));
}

#[test]
fn a_signer_is_never_printed_with_its_key() {
    let secret = signer("log", 0x41);
    let shown = format!("{secret:?}");
    assert_eq!(shown, "Signer(log)");
}

proptest! {
    #[test]
    fn any_flipped_bit_of_a_checkpoint_is_noticed(bit in any::<usize>(), size in any::<u64>()) {
        let log = signer("thinlane.example/log", 1);
        let signed = checkpoint(size).sign(&log).expect("its own key");
        let mut bytes = signed.note().to_string().into_bytes();
        let bit = bit % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(SignedCheckpoint::open(&bytes, &log.verifier()).is_err());
    }

    #[test]
    fn hostile_notes_never_panic(head in "\\PC*", tail in "(\u{2014} [a-z+ ]{0,4} [A-Za-z0-9+/=]{0,12}\n){0,3}", raw in proptest::collection::vec(any::<u8>(), 0..100)) {
        if let Ok(note) = Note::parse(format!("{head}\n\n{tail}").as_bytes()) {
            prop_assert_eq!(Note::parse(note.to_string().as_bytes()), Ok(note.clone()));
            let _ = Checkpoint::parse(note.text());
        }
        let _ = Note::parse(&raw);
        let _ = head.parse::<Verifier>();
        let _ = Checkpoint::parse(&head);
    }
}
