//! Which way a lane takes where its gateway has an endpoint of its own, and what is said and remembered of it.

use thinlane_model::Path;

use super::*;

/// A site whose gateway has an endpoint of its own, with the asset `rtu-9`.
fn with_endpoint(endpoint: &Endpoint) -> (Lab, SiteId) {
    let mut lab = Lab::new();
    lab.take(person("tina"), Command::AddSite { name: name("apn"), endpoint: Some(endpoint.clone()) });
    lab.add_asset("rtu-9", "apn", "10.1.1.1", "meter");
    let code_hash = "a".repeat(64);
    lab.take(person("otto"), Command::IssueCode { site: name("apn"), code_hash: code_hash.clone() });
    let certificate = Certificate { serial: "ff".to_owned(), not_after: lab.now.wall + days(90) };
    lab.take(Actor::System, Command::Enrol { code_hash, certificate, version: "0.1.0".to_owned() });
    let site = lab.site("apn");
    lab.hello(&site, BOOT);
    (lab, site)
}

/// The gateway reports that a handshake came this way.
fn see(lab: &mut Lab, id: SessionId, path: Path) {
    let site = lab.session(id).site;
    assert!(lab.world.observe(&site, id, Observation { path: Some(path), ..Observation::default() }));
    lab.take(Actor::Agent(site), Command::Way { session: id, path });
}

fn shown(lab: &Lab, id: SessionId) -> (Path, String) {
    let view = lab.world.session_view(&id, lab.now).expect("a session");
    (view.path, view.path_reason.unwrap_or_default())
}

/// The controller starts again, or from a backup: it remembers what the log has, and no observation.
fn restart(lab: &mut Lab) {
    let rows: Vec<_> = lab.world.rows().map(|(key, value)| (key.kind, key.id, value)).collect();
    lab.world = World::from_rows(rows).expect("its own rows");
    lab.world.effects_after_restart(lab.now);
    while lab.world.poll_effect().is_some() {}
}

#[test]
fn an_asset_of_a_site_with_an_endpoint_is_reached_directly() {
    let endpoint: Endpoint = name("gw.example:51820");
    let (mut lab, _) = with_endpoint(&endpoint);
    let request = lab.approved("alice", "rtu-9", 60);
    lab.effects.clear();
    let id = lab.activate("alice", request, 1);
    assert_eq!(lab.session(id).endpoint(), Some(&endpoint));
    // The relay stands by.
    assert_eq!(lab.session(id).fallback(), lab.relay.as_ref());
    assert_eq!(lab.session(id).grant().relay, lab.relay);
    assert!(lab.effects.iter().any(|effect| matches!(effect, Effect::RelayOpen { .. })));
    assert_eq!(shown(&lab, id), (Path::Direct, "gw.example:51820 is tried first".to_owned()));
    lab.relay = None;
    let alone = lab.approved("alice", "rtu-9", 60);
    let id = lab.activate("alice", alone, 3);
    assert_eq!((lab.session(id).fallback(), lab.session(id).grant().relay), (None, None));
    see(&mut lab, id, Path::Relay);
    assert_eq!(shown(&lab, id).1, "gw.example:51820 was tried first and did not answer");
    let other = lab.approved("alice", "meter-1", 60);
    let command = Command::Activate { request: other, engineer_key: key(2), native: false, clock: lab.clock() };
    lab.refuse(person("alice"), command, ErrorCode::Internal);
}

#[test]
fn that_a_direct_way_was_left_is_remembered_over_restarts_and_after_the_end() {
    let (mut lab, site) = with_endpoint(&name("gw.example:51820"));
    let request = lab.approved("alice", "rtu-9", 60);
    let id = lab.activate("alice", request, 1);
    see(&mut lab, id, Path::Direct);
    assert_eq!(shown(&lab, id), (Path::Direct, "the gateway answered at gw.example:51820".to_owned()));
    restart(&mut lab);
    see(&mut lab, id, Path::Relay);
    let relayed = (Path::Relay, "the gateway's own address gw.example:51820 stopped answering".to_owned());
    assert_eq!(shown(&lab, id), relayed);
    restart(&mut lab);
    assert_eq!(shown(&lab, id), relayed, "it had answered");
    see(&mut lab, id, Path::Direct);
    let back = "the gateway answers again at gw.example:51820, which had stopped answering";
    assert_eq!(shown(&lab, id), (Path::Direct, back.to_owned()));
    for path in [Path::Relay, Path::Direct, Path::Relay] {
        see(&mut lab, id, path);
    }
    assert_eq!(shown(&lab, id), relayed);
    assert_eq!(lab.kinds().iter().filter(|kind| **kind == "session.way").count(), 2, "a lane that flaps fills no log");
    lab.take(person("otto"), Command::Kill { session: id, reason: "enough".to_owned() });
    lab.wait(secs(7200));
    assert_eq!(lab.session(id).state, SessionState::Ended);
    assert_eq!(shown(&lab, id), relayed, "what was seen is kept");
    lab.take(Actor::Agent(site), Command::Way { session: id, path: Path::Direct });
    assert_eq!(shown(&lab, id), relayed, "it is over");
    lab.check_replay();
}
