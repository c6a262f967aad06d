//! What kernels say of refused packets, of the tables of others, and of interfaces.

use std::net::IpAddr;

use thinlane_model::SessionId;
use thinlane_nft::decode;
use thinlane_wg::packet::sample::{Reach, tcp};

use super::packets::{attr, message};
use super::{Target, USUAL};

pub(super) const LOGGED: Target = Target {
    name: "kernel-log",
    run: logged,
    seeds: logs,
    replayed: USUAL,
    deepest: &["IPv4 with ports", "IPv4 without ports", "IPv6 with ports", "a lane's", "nobody's", "some are missing"],
};
pub(super) const FOREIGN: Target = Target {
    name: "kernel-foreign",
    run: thinlane_nft::fuzz_foreign,
    seeds: foreign,
    replayed: USUAL / 2,
    deepest: &[
        "a chain on the forward hook",
        "a chain on the input hook",
        "accepted",
        "perhaps dropped",
        "dropped",
        "unclear",
        "a rule that is quoted",
        "a set that is not known",
    ],
};
pub(super) const ROUTES: Target = Target {
    name: "kernel-routes",
    run: thinlane_wg::link::fuzz_rtnetlink,
    seeds: thinlane_wg::link::fuzz_rtnetlink_seeds,
    replayed: USUAL,
    deepest: &[
        "an interface",
        "an interface's counters",
        "something beneath",
        "an address",
        "a route",
        "a rule of ours",
        "an end",
        "a refusal",
    ],
};
pub(super) const DEVICES: Target = Target {
    name: "kernel-devices",
    run: thinlane_wg::kernel::fuzz_genetlink,
    seeds: thinlane_wg::kernel::fuzz_genetlink_seeds,
    replayed: USUAL,
    deepest: &[
        "a port",
        "an IPv4 endpoint",
        "an IPv6 endpoint",
        "a peer that was there",
        "a family",
        "an end",
        "a refusal",
    ],
};

/// Each refused packet that is read stands in the datagram as it was read, with the ports where they are.
fn logged(bytes: &[u8], reach: Reach<'_>) {
    let (all, last, lost) = decode::packets(bytes, Some(1));
    assert!(all.len() <= bytes.len() / 20);
    assert!(last.is_some());
    if lost > 0 {
        reach("some are missing");
    }
    for one in all {
        // Some attribute of the datagram holds a packet like that: read the slow way.
        let is_it = |at: usize| value(bytes, at).and_then(slowly).as_ref() == Some(&fields(&one));
        assert!((0..bytes.len()).any(is_it), "nowhere in what came: {one:?}");
        reach(if one.session.is_some() { "a lane's" } else { "nobody's" });
        match (one.source.is_ipv4(), one.source_port.is_some()) {
            (true, true) => reach("IPv4 with ports"),
            (true, false) => reach("IPv4 without ports"),
            (false, true) => reach("IPv6 with ports"),
            (false, false) => {}
        }
    }
    // The same bytes, taken for news of the tables.
    let _ = decode::events(bytes, &std::collections::BTreeSet::new());
}

type Fields = (IpAddr, IpAddr, u8, u32, Option<u16>);

/// What an attribute at this place would hold.
fn value(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let length = u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?);
    bytes.get(at + 4..at + usize::from(length))
}

fn fields(one: &thinlane_nft::Denied) -> Fields {
    assert_eq!(one.source_port.is_some(), one.destination_port.is_some());
    (one.source, one.destination, one.protocol, one.length, one.destination_port)
}

fn slowly(packet: &[u8]) -> Option<Fields> {
    let half = |at: usize| Some(u16::from(*packet.get(at)?) << 8 | u16::from(*packet.get(at + 1)?));
    let four = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
    let sixteen = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
    let ports = |protocol: u8, at: usize| half(at + 2).filter(|_| [6, 17, 132].contains(&protocol));
    match packet.first()? / 16 {
        4 => {
            let (header, later) = (usize::from(packet[0] % 16) * 4, half(6)? % 0x2000 > 0);
            let protocol = *packet.get(9)?;
            let port = ports(protocol, header).filter(|_| !later);
            Some((four(12)?, four(16)?, protocol, half(2)?.into(), port))
        }
        6 => {
            let protocol = *packet.get(6)?;
            Some((sixteen(8)?, sixteen(24)?, protocol, u32::from(half(4)?) + 40, ports(protocol, 40)))
        }
        _ => None,
    }
}

fn logs() -> Vec<Vec<u8>> {
    let log = |number: u32, prefix: &[u8], packet: &[u8]| {
        message(0x0400, &[attr(12, &number.to_be_bytes()), attr(10, prefix), attr(9, packet)].concat())
    };
    let syn = tcp(([198, 19, 0, 1].into(), 50_000), ([198, 18, 0, 1].into(), 22), 1, 0, 2, b"");
    let mut later = syn.clone();
    later[6..8].copy_from_slice(&[0, 9]);
    let mut ping = syn.clone();
    ping[9] = 1;
    let six = [&[0x60, 0, 0, 0, 0, 20, 6, 64][..], &[0xfd; 16], &[0xfc; 16], &syn[20..40]].concat();
    let lanes = format!("thinlane {} up\0", SessionId::from_random([1; 5]));
    let nobodys = &b"thinlane - down\0"[..];
    vec![
        [log(2, b"thinlane - up\0", &syn), log(3, nobodys, &later), log(4, nobodys, &ping)].concat(),
        [log(9, nobodys, &six), log(10, b"another\0", &syn)].concat(),
        [log(2, lanes.as_bytes(), &syn), log(3, b"thinlane 00000000 up\0", &syn)].concat(),
    ]
}

/// A table of somebody's with a base chain, a chain that it jumps to, and a set.
fn foreign() -> Vec<Vec<u8>> {
    let all = |kind: u16, attrs: &[Vec<u8>]| attr(0x8000 | kind, &attrs.concat());
    let (table, word) = (attr(1, b"filter\0"), |number: u32| number.to_be_bytes());
    let of = |kind: u16, attrs: &[Vec<u8>]| message(0x0a00 | kind, &[&table[..], &attrs.concat()].concat());
    let hook = |number: u32| all(4, &[attr(1, &word(number)), attr(2, &word(0))]);
    let on =
        |at: u32, policy: u32| of(3, &[attr(3, b"forward\0"), hook(at), attr(5, &word(policy)), attr(7, b"filter\0")]);
    let base = |policy: u32| on(2, policy);
    let expression = |name: &[u8], attrs: &[Vec<u8>]| all(1, &[attr(1, name), all(2, attrs)]);
    let rule = |chain: &[u8], all_of: &[Vec<u8>]| of(6, &[attr(2, chain), all(4, all_of)]);
    let meta = |key: u32| expression(b"meta\0", &[attr(1, &word(1)), attr(2, &word(key))]);
    let cmp = |name: &[u8]| expression(b"cmp\0", &[attr(1, &word(1)), attr(2, &word(0)), all(3, &[attr(1, name)])]);
    let verdict = |code: i32, chain: &[u8]| {
        let mut verdict = vec![attr(1, &code.to_be_bytes())];
        if !chain.is_empty() {
            verdict.push(attr(2, chain));
        }
        expression(b"immediate\0", &[attr(1, &word(0)), all(2, &[all(2, &verdict)])])
    };
    let (drop, accept) = (verdict(0, b""), verdict(1, b""));
    let jump = verdict(-3, b"zone\0");
    // A set's name, its flags, and keys with flags of their own; a map says what to do with them.
    let set = |flags: u32, keys: &[(&[u8], u32)], says: Option<i32>| {
        let one = |(key, flags): &(&[u8], u32)| {
            let data = says.map(|code| all(2, &[all(2, &[attr(1, &code.to_be_bytes())])]));
            all(1, &[all(1, &[attr(1, key)]), attr(3, &word(*flags)), data.unwrap_or_default()])
        };
        let elements: Vec<_> = keys.iter().map(one).collect();
        [of(9, &[attr(2, b"s\0"), attr(3, &word(flags))]), of(12, &[attr(2, b"s\0"), all(3, &elements)])].concat()
    };
    let lookup =
        |more: &[Vec<u8>]| expression(b"lookup\0", &[&[attr(1, b"s\0"), attr(2, &word(1))][..], more].concat());
    let address = |at: u32| {
        expression(b"payload\0", &[attr(1, &word(1)), attr(2, &word(1)), attr(3, &word(at)), attr(4, &word(4))])
    };
    let value = |kind: u16, bytes: &[u8]| all(kind, &[attr(1, bytes)]);
    let masked = expression(
        b"bitwise\0",
        &[attr(1, &word(1)), attr(2, &word(1)), attr(3, &word(4)), value(4, &[255, 254, 0, 0]), value(5, &[0; 4])],
    );
    let range = expression(
        b"range\0",
        &[attr(1, &word(1)), attr(2, &word(1)), value(3, &[198, 18, 0, 0]), value(4, &[198, 19, 255, 255])],
    );
    let state = expression(b"ct\0", &[attr(1, &word(1)), attr(2, &word(0))]);
    vec![
        [base(1), rule(b"forward\0", &[meta(7), cmp(b"lan\0"), drop.clone()])].concat(),
        [base(0), rule(b"forward\0", &[meta(6), cmp(b"tl0\0"), accept.clone()])].concat(),
        [on(1, 0), rule(b"forward\0", &[state.clone(), cmp(&2u32.to_ne_bytes()), accept.clone()])].concat(),
        [base(1), rule(b"forward\0", &[meta(7), lookup(&[]), drop.clone()])].concat(),
        [
            base(1),
            rule(b"forward\0", &[address(16), lookup(&[attr(5, &word(1))]), drop.clone()]),
            set(4, &[(&[192, 168, 1, 0], 0), (&[192, 168, 1, 9], 1)], None),
        ]
        .concat(),
        [
            base(1),
            rule(b"forward\0", &[meta(16), lookup(&[attr(3, &word(0))])]),
            set(8, &[(&[6], 0), (&[17], 0), (&[1], 0)], Some(0)),
        ]
        .concat(),
        [
            base(0),
            rule(b"forward\0", &[address(12), masked, cmp(&[198, 18, 0, 0]), accept.clone()]),
            rule(b"forward\0", &[address(12), range, drop.clone()]),
        ]
        .concat(),
        [
            base(0),
            rule(b"forward\0", std::slice::from_ref(&jump)),
            rule(b"zone\0", &[meta(6), cmp(b"eth0\0"), drop.clone()]),
        ]
        .concat(),
        [base(1), rule(b"forward\0", &[expression(b"ct\0", &[]), accept]), rule(b"forward\0", &[drop])].concat(),
        // A chain that jumps to itself, twice.
        [base(1), rule(b"forward\0", std::slice::from_ref(&jump)), rule(b"zone\0", &[jump]).repeat(2)].concat(),
        [base(1), rule(b"forward\0", &[expression(b"queue\0", &[attr(1, &[0, 0])])])].concat(),
    ]
}
