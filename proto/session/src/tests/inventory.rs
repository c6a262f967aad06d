//! Sites, codes, certificates, assets and ids.

use std::net::Ipv4Addr;

use super::*;

#[test]
fn assets_get_the_lowest_free_overlay_address_and_keep_it() {
    let mut lab = Lab::new();
    let overlay = |lab: &Lab, asset: &str| lab.world.asset(&name(asset)).map(|it| it.overlay_address.to_string());
    assert_eq!(overlay(&lab, "plc-1").as_deref(), Some("198.18.0.1"));
    assert_eq!(overlay(&lab, "meter-1").as_deref(), Some("198.18.0.2"));
    lab.take(person("tina"), Command::RemoveAsset { asset: name("plc-1") });
    lab.add_asset("plc-2", "north", "192.168.1.12", "plc");
    assert_eq!(overlay(&lab, "plc-2").as_deref(), Some("198.18.0.1"));
    lab.add_site("south");
    lab.add_asset("plc-3", "south", "192.168.1.12", "plc");
    assert_eq!(overlay(&lab, "plc-3").as_deref(), Some("198.18.0.3"), "one LAN at many sites");
    lab.check_replay();
}

#[test]
fn an_import_is_taken_whole_or_not_at_all_and_names_each_line() {
    let mut lab = Lab::new();
    let list = vec![
        spec("a-1", "north", "192.168.1.20", "plc"),
        spec("a-1", "north", "192.168.1.21", "plc"),
        spec("a-2", "nowhere", "192.168.1.22", "plc"),
        spec("a-3", "north", "192.168.1.20", "plc"),
        spec("a-4", "north", "224.0.0.1", "plc"),
    ];
    let before = lab.world.assets().count();
    let refusal = lab.refuse(person("tina"), Command::ImportAssets(list.clone()), ErrorCode::Invalid).to_string();
    for line in ["a-1: there is an asset a-1", "a-2: no site nowhere", "a-3: address:", "a-4: address:"] {
        assert!(refusal.contains(line), "{refusal}");
    }
    assert_eq!(refusal.lines().count(), 4);
    let twice = lab.refuse(
        person("tina"),
        Command::ImportAssets(vec![spec("a-5", "nowhere", "224.0.0.2", "plc")]),
        ErrorCode::Invalid,
    );
    assert_eq!(twice.to_string().lines().count(), 2, "everything that is wrong with one: {twice}");
    assert_eq!(lab.world.assets().count(), before);
    let good: Vec<_> = (0..300u32)
        .map(|at| spec(&format!("b-{at}"), "north", &Ipv4Addr::from(0x0a00_0001 + at).to_string(), "plc"))
        .collect();
    let Answer::Assets(taken) = lab.take(person("tina"), Command::ImportAssets(good)) else { panic!("assets") };
    let overlay: BTreeSet<Ipv4Addr> = taken.iter().map(|(_, address)| *address).collect();
    assert_eq!(overlay.len(), 300);
    assert_eq!(lab.world.assets().count(), before + 300);
}

#[test]
fn a_gateways_own_address_is_no_assets_once_the_gateway_has_told_it() {
    let mut lab = Lab::new();
    let site = lab.site("north");
    let lan = vec![Ipv4Addr::new(192, 168, 1, 1)];
    let status = Command::Status { isolated: false, why_not_ready: None, backend: None, lan };
    lab.take(Actor::Agent(site), status.clone());
    let own = || spec("gw", "north", "192.168.1.1", "plc");
    for command in [Command::AddAsset(own()), Command::ImportAssets(vec![own()])] {
        let refusal = lab.refuse(person("tina"), command, ErrorCode::Invalid).to_string();
        assert!(refusal.contains("own address of the gateway of site north"), "{refusal}");
    }
    let before = lab.log.len();
    lab.take(Actor::Agent(site), status);
    assert_eq!(lab.log.len(), before, "told twice is logged once");
}

#[test]
fn an_import_fills_the_pool_to_its_end_and_no_further() {
    let mut lab = Lab::new();
    lab.pools.assets = name("198.18.0.0/29");
    let list = |count: u32| {
        let one = |at: u32| spec(&format!("c-{at}"), "north", &format!("10.0.0.{}", at + 1), "plc");
        Command::ImportAssets((0..count).map(one).collect())
    };
    lab.refuse(person("tina"), list(5), ErrorCode::Invalid);
    lab.take(person("tina"), list(4));
    lab.refuse(person("tina"), Command::AddAsset(spec("d", "north", "10.0.1.1", "plc")), ErrorCode::Limit);
}

#[test]
fn addresses_that_no_device_can_have_are_refused() {
    let mut lab = Lab::new();
    for address in [
        "0.0.0.0",
        "127.0.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "198.18.0.9",
        "198.19.1.1",
        "192.168.1.10",
    ] {
        lab.refuse(person("tina"), Command::AddAsset(spec("x", "north", address, "plc")), ErrorCode::Invalid);
    }
}

#[test]
fn labels_that_would_read_as_others_are_refused() {
    let mut lab = Lab::new();
    for (key, value) in [("a=b", "c"), ("a", "b=c"), ("", "x"), ("x", ""), ("a b", "c"), ("a", "b\nc")] {
        let labels = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let command = Command::AddAsset(AssetSpec { labels, ..spec("x", "north", "10.0.0.1", "plc") });
        lab.refuse(person("tina"), command, ErrorCode::Invalid);
    }
}

#[test]
fn an_asset_with_a_live_session_is_not_removed() {
    let mut lab = Lab::new();
    let id = lab.open(60);
    let remove = Command::RemoveAsset { asset: name("plc-1") };
    lab.refuse(person("tina"), remove.clone(), ErrorCode::Conflict);
    lab.take(person("alice"), Command::Release { session: id });
    lab.refuse(person("tina"), remove.clone(), ErrorCode::Conflict);
    lab.close(id, EndReason::Released);
    lab.take(person("tina"), remove);
    assert!(lab.world.session_view(&id, lab.now).is_some(), "what was done stays on record");
    lab.check_replay();
}

#[test]
fn a_code_enrols_once_within_a_day_and_a_newer_one_voids_it() {
    let mut lab = Lab::new();
    let enrol = |code: &str, serial: &str, lab: &Lab| Command::Enrol {
        code_hash: code.repeat(64),
        certificate: Certificate { serial: serial.to_owned(), not_after: lab.now.wall + days(90) },
        version: "0.1.0".to_owned(),
    };
    let issue = |code: &str| Command::IssueCode { site: name("north"), code_hash: code.repeat(64) };
    lab.take(person("otto"), issue("c"));
    lab.take(person("otto"), issue("d"));
    let command = enrol("c", "aa", &lab);
    lab.refuse(Actor::System, command, ErrorCode::AuthenticationFailed);
    assert_eq!(lab.world.site_of_code(&"d".repeat(64), lab.now.wall), Some(lab.site("north")));
    let command = enrol("d", "aa", &lab);
    lab.take(Actor::System, command);
    assert_eq!(lab.world.site_of_certificate("aa"), Some(lab.site("north")));
    let command = enrol("d", "ab", &lab);
    lab.refuse(Actor::System, command, ErrorCode::AuthenticationFailed);
    lab.take(person("otto"), issue("e"));
    lab.wait(days(1));
    let command = enrol("e", "ac", &lab);
    lab.refuse(Actor::System, command, ErrorCode::AuthenticationFailed);
    assert_eq!(lab.kinds().last().map(String::as_str), Some("attempt.refused"));
    for hash in ["short".to_owned(), "D".repeat(64), "e".repeat(64)] {
        lab.refuse(person("otto"), Command::IssueCode { site: name("north"), code_hash: hash }, ErrorCode::Invalid);
    }
    assert!(!serde_json::to_string(&lab.log).expect("JSON").contains("\"code\":\"d"), "only hashes are kept");
    lab.check_replay();
}

#[test]
fn a_new_gateway_takes_the_place_of_the_old_one() {
    let mut lab = Lab::new();
    let (site, id) = (lab.site("north"), lab.open(600));
    lab.effects.clear();
    lab.take(person("otto"), Command::IssueCode { site: name("north"), code_hash: "f".repeat(64) });
    let certificate = Certificate { serial: "beef".to_owned(), not_after: lab.now.wall + days(90) };
    lab.take(Actor::System, Command::Enrol { code_hash: "f".repeat(64), certificate, version: "0.1.0".to_owned() });
    assert_eq!(lab.end(id), (SessionState::Ended, Some(EndReason::Failed)));
    assert_eq!(lab.world.agent(&site).map(|agent| agent.certificates.len()), Some(1), "the old one logs in no more");
    assert!(lab.effects.contains(&Effect::DropAgent { site }));
}

#[test]
fn a_renewed_certificate_and_its_forerunner_are_good_and_no_older_one() {
    let mut lab = Lab::new();
    let site = lab.site("north");
    let first = lab.world.agent(&site).expect("an agent").certificates[0].serial.clone();
    for serial in ["a1", "a2"] {
        let certificate = Certificate { serial: serial.to_owned(), not_after: lab.now.wall + days(90) };
        lab.take(Actor::Agent(site), Command::Renew { certificate });
    }
    assert_eq!(lab.world.site_of_certificate(&first), None);
    assert_eq!(lab.world.site_of_certificate("a1"), Some(site));
    assert_eq!(lab.world.site_of_certificate("a2"), Some(site));
    lab.check_replay();
}

#[test]
fn a_site_takes_64_live_sessions() {
    let mut lab = Lab::new();
    let mut ids = Vec::new();
    for at in 0..64u8 {
        let request = lab.approved("alice", "meter-1", 60);
        ids.push(lab.activate("alice", request, at + 1));
    }
    let request = lab.approved("alice", "meter-1", 60);
    let command = Command::Activate { request, engineer_key: key(200), native: false, clock: lab.clock() };
    lab.refuse(person("alice"), command.clone(), ErrorCode::Limit);
    lab.take(person("alice"), Command::Release { session: ids[0] });
    lab.take(person("alice"), command);
}

#[test]
fn ids_are_found_by_enough_of_their_beginning() {
    let mut lab = Lab::new();
    let one = lab.request("alice", "plc-1", None);
    let text = one.to_string();
    assert_eq!(lab.world.find_request(&text), Ok(one));
    assert_eq!(lab.world.find_request(&text[..7]), Ok(one));
    assert_eq!(lab.world.find_request(one.short()), Ok(one));
    for _ in 0..40 {
        lab.request("alice", "plc-1", None);
    }
    let codes: Vec<ErrorCode> = ["", "req_", "req_!", "ses_00000000", "req_000000000"]
        .iter()
        .filter_map(|text| lab.world.find_request(text).err())
        .map(|refusal| refusal.code())
        .collect();
    assert_eq!(codes, [ErrorCode::NotFound; 5]);
    let ambiguous = (0..32u8)
        .filter_map(|at| lab.world.find_request(&RequestId::from_random([at << 3, 0, 0, 0, 0]).short()[..1]).err());
    assert!(ambiguous.into_iter().any(|refusal| matches!(refusal, Refusal::Ambiguous { .. })));
}

#[test]
fn rows_that_are_not_its_own_are_no_world() {
    let lab = Lab::new();
    let (key, value) = lab.world.rows().next().expect("a row");
    assert!(matches!(World::from_rows([(key.kind, "other", value.clone())]), Err(RowError::Key { .. })));
    assert!(matches!(World::from_rows([(RowKind::Site, key.id, value)]), Err(RowError::Content { .. })));
    assert!("people".parse::<RowKind>().is_err());
    for kind in RowKind::ALL {
        assert_eq!(kind.to_string().parse::<RowKind>().ok(), Some(kind));
    }
}
