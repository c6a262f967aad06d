//! Our messages byte by byte, read by somebody else's decoder; and hostile bytes in our own.

mod common;

use std::collections::BTreeSet;
use std::path::PathBuf;

use common::*;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, DataAttribute, ExpressionAttribute, ListAttribute, NfTablesMessage, RuleAttribute, SetAttribute,
    SetElementAttribute, Verdict, VerdictAttribute,
};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use thinlane_model::{Limits, Protocol};
use thinlane_nft::{Lane, decode, encode};

fn sample() -> Lane {
    Lane { limits: Limits { packets_per_second: Some(100), connections: Some(2) }, ..lane(Protocol::Tcp) }
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

fn hex(bytes: &[u8]) -> String {
    let words: Vec<_> =
        bytes.chunks(4).map(|word| word.iter().map(|byte| format!("{byte:02x}")).collect::<String>()).collect();
    words.chunks(8).map(|line| line.join(" ") + "\n").collect()
}

/// Golden files are made anew with `THINLANE_RECORD=1`; look at what changed.
fn recording() -> bool {
    std::env::var_os("THINLANE_RECORD").is_some()
}

#[test]
#[cfg(target_endian = "little")]
fn the_bytes_of_base_and_lane_are_those_that_were_proven() {
    for (name, bytes) in
        [("golden/base.hex", encode::base(&config())), ("golden/lane.hex", encode::lane(&config(), &sample()))]
    {
        if recording() {
            std::fs::write(path(name), hex(&bytes)).expect("write");
        }
        let golden = std::fs::read_to_string(path(name)).expect("the golden file");
        assert!(hex(&bytes) == golden, "{name} differs; record it anew if that is meant");
    }
}

fn foreign(bytes: &[u8]) -> Vec<NfTablesMessage> {
    let mut rest = bytes;
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let message = NetlinkMessage::<NetfilterMessage>::deserialize(rest).expect("a message");
        rest = &rest[message.header.length as usize..];
        let NetlinkPayload::InnerMessage(inner) = message.payload else { panic!("not netfilter") };
        if let NetfilterMessageInner::NfTables(message) = inner.inner {
            messages.push(message);
        }
    }
    messages
}

#[test]
fn another_decoder_reads_the_same_lane() {
    let lane = sample();
    let up = format!("lane-{}-up", lane.session.short());
    let messages = foreign(&encode::lane(&config(), &lane));
    let chains: Vec<_> = messages
        .iter()
        .filter_map(|message| match message {
            NfTablesMessage::NewChain(chain) => chain.attributes.iter().find_map(|attribute| match attribute {
                ChainAttribute::Name(name) => Some(name.clone()),
                _ => None,
            }),
            _ => None,
        })
        .collect();
    assert_eq!(chains, [up.clone(), format!("lane-{}-down", lane.session.short())]);

    let rules: Vec<Vec<String>> = messages
        .iter()
        .filter_map(|message| match message {
            NfTablesMessage::NewRule(rule) if rule.attributes.contains(&RuleAttribute::Chain(up.clone())) => {
                let expressions = rule.attributes.iter().find_map(|attribute| match attribute {
                    RuleAttribute::Expressions(expressions) => Some(expressions),
                    _ => None,
                });
                Some(expressions.expect("expressions").iter().map(expression_name).collect())
            }
            _ => None,
        })
        .collect();
    assert_eq!(rules.len(), 9);
    let pass = "meta cmp payload cmp meta cmp payload cmp ct cmp objref immediate meta immediate";
    assert_eq!(rules[3].join(" "), pass);

    let elements: Vec<_> =
        messages.iter().filter(|message| matches!(message, NfTablesMessage::NewSetElement(_))).collect();
    assert_eq!(elements.len(), 7);
    let text = format!("{:?}", elements[6]);
    let verdict = DataAttribute::Verdict(vec![VerdictAttribute::Code(Verdict::Goto), VerdictAttribute::Chain(up)]);
    let timeout = SetElementAttribute::Timeout(60_000);
    for part in [format!("{verdict:?}"), format!("{timeout:?}")] {
        assert!(text.contains(&part), "{part} is not in {text}");
    }
}

fn expression_name(item: &ListAttribute<ExpressionAttribute>) -> String {
    let ListAttribute::Element(parts) = item else { panic!("{item:?}") };
    let name = parts.iter().find_map(|part| match part {
        ExpressionAttribute::Name(name) => Some(name.clone()),
        _ => None,
    });
    name.expect("a name")
}

#[test]
fn another_decoder_reads_maps_that_expire() {
    let sets = foreign(&encode::base(&config())).into_iter().filter_map(|message| match message {
        NfTablesMessage::NewSet(set) => Some(set.attributes),
        _ => None,
    });
    let maps: Vec<_> = sets
        .filter(|set| {
            set.contains(&SetAttribute::Name("up".into())) || set.contains(&SetAttribute::Name("down".into()))
        })
        .collect();
    assert_eq!(maps.len(), 2);
    for map in maps {
        let flags = map.iter().find_map(|attribute| match attribute {
            SetAttribute::Flags(flags) => Some(flags.bits()),
            _ => None,
        });
        assert_eq!(flags, Some(0x18), "a map whose elements expire");
    }
}

/// Everything that ever reads an answer of the kernel.
fn read_everything(datagram: &[u8]) -> usize {
    let mut read = 0;
    for received in decode::Messages::new(datagram).map_while(Result::ok) {
        let Ok(decode::Content::Netfilter { family, attrs, .. }) = received.content() else { continue };
        read += usize::from(matches!(decode::table(&attrs), Ok(Some(_))));
        read += usize::from(matches!(decode::chain(&attrs), Ok(Some(_))));
        read += usize::from(matches!(decode::set(&attrs), Ok(Some(_))));
        read += usize::from(matches!(decode::counter(&attrs), Ok(Some(_))));
        read += usize::from(matches!(decode::rule(&attrs), Ok(Some(_))));
        read += usize::from(matches!(decode::flow(&attrs), Ok(Some(_))));
        read += decode::elements(&attrs).map_or(0, |elements| elements.len());
        read += usize::from(decode::flowtable(family, &attrs).is_ok());
    }
    read += decode::events(datagram, &BTreeSet::new()).len();
    read += decode::packets(datagram, None).0.len();
    read
}

#[test]
fn a_flowtable_is_read_with_its_devices() {
    let attribute = |kind: u8, value: &[u8]| {
        let mut bytes = vec![u8::try_from(value.len() + 4).expect("short"), 0, kind, 0];
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let devices = [attribute(1, b"lan0\0"), attribute(1, b"tl0\0")].concat();
    let hook = [attribute(1, &[0; 4]), attribute(2, &[0; 4]), attribute(3, &devices)].concat();
    let body = [attribute(1, b"fw4\0"), attribute(2, b"ft\0"), attribute(3, &hook)].concat();
    let mut bytes = u32::try_from(20 + body.len()).expect("short").to_ne_bytes().to_vec();
    bytes.extend(0xa16u16.to_ne_bytes());
    bytes.extend([0; 10]);
    bytes.extend([1, 0, 0, 0]);
    bytes.extend(body);
    let received = decode::Messages::new(&bytes).next().expect("one").expect("well formed");
    let Ok(decode::Content::Netfilter { family, attrs, .. }) = received.content() else { panic!("{received:?}") };
    let found = decode::flowtable(family, &attrs).expect("a flowtable");
    assert_eq!((found.table.as_str(), found.family, found.name.as_str()), ("fw4", 1, "ft"));
    assert_eq!(found.devices, ["lan0", "tl0"]);
    assert_eq!(
        decode::events(&bytes, &BTreeSet::new()).into_iter().collect::<Vec<_>>(),
        [thinlane_nft::Event::FlowtablesChanged]
    );
    assert!(decode::events(&bytes, &BTreeSet::from([0])).is_empty(), "the port is ours");
}

fn recorded() -> Vec<(String, Vec<u8>)> {
    let files = std::fs::read_dir(path("recorded")).expect("recorded answers");
    let mut all: Vec<_> = files
        .map(|file| file.expect("a file").path())
        .map(|file| (file.display().to_string(), std::fs::read(&file).expect("read")))
        .collect();
    all.sort();
    all
}

#[test]
fn hostile_answers_are_errors_and_never_a_panic() {
    let all = recorded();
    assert!(all.len() >= 9, "{} recorded answers", all.len());
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).expect("31 bits") % below.max(1)
    };
    for (name, bytes) in all {
        assert!(read_everything(&bytes) > 0, "{name} says nothing");
        for cut in 0..bytes.len().min(400) {
            read_everything(&bytes[..cut]);
        }
        for _ in 0..10_000 {
            let mut hostile = bytes.clone();
            for _ in 0..=random(6) {
                let at = random(hostile.len());
                match random(5) {
                    0 => hostile[at] ^= 1 << random(8),
                    1 => hostile[at] = [0, 1, 3, 4, 0x7f, 0x80, 0xff][random(7)],
                    // A length or type somewhere.
                    2 => hostile[at & !3] = u8::try_from(random(256)).expect("a byte"),
                    3 => hostile.truncate(at.max(1)),
                    _ => {
                        let piece = hostile[at..].to_vec();
                        hostile.extend(piece);
                        hostile.truncate(64 * 1024);
                    }
                }
            }
            read_everything(&hostile);
        }
    }
}

/// Asks the kernel and keeps the first datagram of its answer.
fn record(name: &str, kind: u16, flags: u16, family: u8, attributes: &[u8]) {
    let mut socket = Socket::new(NETLINK_NETFILTER).expect("socket");
    socket.bind_auto().expect("bind");
    let mut message = u32::try_from(20 + attributes.len()).expect("short").to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((flags | 1).to_ne_bytes());
    message.extend([1, 0, 0, 0, 0, 0, 0, 0, family, 0, 0, 0]);
    message.extend(attributes);
    socket.send_to(&message, &SocketAddr::new(0, 0), 0).expect("send");
    let (answer, _) = socket.recv_from_full().expect("an answer");
    std::fs::write(path(&format!("recorded/{name}.bin")), answer).expect("write");
}

#[test]
#[ignore = "writes tests/recorded anew; the tests above read it"]
fn answers_are_recorded() {
    const DUMP: u16 = 0x300;
    std::fs::create_dir_all(path("recorded")).expect("a directory");
    let lab = Lab::new();
    let mut nft = lab.nft();
    serve(&lab.device, PORT);
    nft.open_lane(&sample()).expect("the lane");
    let (notices, group) = lab.router.within(|| {
        let mut notices = Socket::new(NETLINK_NETFILTER).expect("socket");
        notices.bind(&SocketAddr::new(0, 1 << 6)).expect("bind");
        let mut group = Socket::new(NETLINK_NETFILTER).expect("socket");
        group.bind_auto().expect("bind");
        let bind = [28, 0, 0, 0, 1, 4, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 27, 158, 5, 0, 1, 0, 1, 0, 0, 0];
        group.send_to(&bind, &SocketAddr::new(0, 0), 0).expect("send");
        (notices, group)
    });
    assert_eq!(tcp(&lab.engineer, ENGINEER, OVERLAY, PORT), Outcome::Answered);
    assert_eq!(tcp(&lab.engineer, ENGINEER, OVERLAY, 80), Outcome::Reset);
    std::fs::write(path("recorded/nflog.bin"), group.recv_from_full().expect("a packet").0).expect("write");
    lab.router.within(|| {
        let name = |text: &str, kind: u8| {
            let mut bytes = vec![u8::try_from(text.len() + 5).expect("short"), 0, kind, 0];
            bytes.extend(text.bytes());
            bytes.push(0);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let table = name("thinlane", 1);
        record("table", 0xa01, DUMP, 0, &[]);
        record("chains", 0xa04, DUMP, 1, &[]);
        record("rules", 0xa07, DUMP, 1, &table);
        record("sets", 0xa0a, DUMP, 1, &table);
        for map in ["up", "late", "to-asset"] {
            record(map, 0xa0d, DUMP, 1, &[table.clone(), name(map, 2)].concat());
        }
        record("counters", 0xa13, DUMP, 1, &table);
        record("flows", 0x101, DUMP, 2, &[]);
    });
    lab.router.nft("add table inet other\ndelete table inet thinlane\n");
    std::fs::write(path("recorded/notices.bin"), notices.recv_from_full().expect("a notice").0).expect("write");
}
