//! Rulesets as kernels dumped them, and those that no kernel takes.

use std::path::Path;

use super::fuzz::Said;
use super::{Hook, Lanes, Passes, Side, fuzz_foreign};

fn recorded(name: &str) -> Said {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rulesets").join(format!("{name}.bin"));
    Said::read(&std::fs::read(path).expect("recorded"), usize::MAX)
}

fn lanes(lan: &str) -> Lanes {
    Lanes {
        device: "tl0".into(),
        lan: vec![Side { name: lan.into(), networks: vec![([192, 168, 1, 1].into(), 24)] }],
        lan_is_certain: true,
        engineers: vec![([198, 19, 0, 0].into(), 16)],
        uplink: Some("wan".into()),
        indices: Vec::new(),
    }
}

#[test]
fn the_dump_of_fw4_with_our_zone_is_well_for_its_own_lan_alone() {
    let said = recorded("fw4");
    assert_eq!(said.bases.len(), 4, "input and forward, each with a chain that mangles");
    for found in said.judge(&lanes("br-lan")) {
        assert_eq!((found.passes, found.lost), (Passes::Yes, false), "{found:?}");
    }
    let elsewhere = said.judge(&lanes("br-plant"));
    let bad: Vec<_> = elsewhere.iter().filter(|found| found.passes != Passes::Yes).collect();
    assert_eq!(bad.len(), 1, "{elsewhere:?}");
    assert_eq!((bad[0].hook, bad[0].passes), (Hook::Forward, Passes::No));
    let rule = bad[0].rule.as_ref().expect("a rule");
    assert_eq!(rule.text, "meta l4proto tcp reject comment \"!fw4: Reject TCP traffic\"");
    assert_eq!(rule.chain, "handle_reject");
}

#[test]
fn a_dump_that_was_cut_short_or_bent_ends_without_a_verdict_or_with_one_and_never_in_a_panic() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rulesets/fw4.bin");
    let bytes = std::fs::read(path).expect("recorded");
    for at in (0..bytes.len()).step_by(311) {
        fuzz_foreign(&bytes[..at], &mut |_| {});
        let mut bent = bytes.clone();
        bent[at] ^= 0x55;
        fuzz_foreign(&bent, &mut |_| {});
    }
}
