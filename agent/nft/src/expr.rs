//! Expressions of nf_tables rules as the kernel reads them (`include/uapi/linux/netfilter/nf_tables.h`).
//!
//! Only what our rules need. Registers: 1 to 4 are the 16-byte ones, 8 and up the 4-byte ones, as nft numbers them,
//! so that a dump says what was sent.

use std::net::Ipv4Addr;

use crate::attr::AttrBuf;

/// One expression: its name and its attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expr {
    pub name: &'static str,
    pub attrs: AttrBuf,
}

/// The expressions of one rule, in order.
pub type Rule = Vec<Expr>;

/// The register that all simple matches use.
const REG: u32 = 1;
/// The verdict register.
const REG_VERDICT: u32 = 0;

const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;

const META_MARK: u32 = 3;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;

const CT_STATE: u32 = 0;
const CT_DIRECTION: u32 = 1;
const CT_PROTO_DST: u32 = 12;
const CT_DST_IP: u32 = 20;

/// Kernel's connection states as bits (`NF_CT_STATE_BIT`).
#[derive(Debug, Clone, Copy)]
pub enum State {
    Invalid = 1,
    Related = 4,
    New = 8,
}

/// Which way a packet goes in its connection (`enum ip_conntrack_dir`).
#[derive(Debug, Clone, Copy)]
pub enum Direction {
    Original = 0,
    Reply = 1,
}

/// The end of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Drop,
    Goto(String),
}

impl Verdict {
    /// `NFTA_DATA_VERDICT` of a verdict, as immediate and element data carry it.
    pub fn data(&self) -> AttrBuf {
        let verdict = match self {
            Verdict::Accept => AttrBuf::new().u32(1, libc::NF_ACCEPT as u32),
            Verdict::Drop => AttrBuf::new().u32(1, libc::NF_DROP as u32),
            Verdict::Goto(chain) => AttrBuf::new().u32(1, libc::NFT_GOTO.cast_unsigned()).text(2, chain),
        };
        AttrBuf::new().nest(2, verdict)
    }
}

fn expr(name: &'static str, attrs: AttrBuf) -> Expr {
    Expr { name, attrs }
}

fn value(bytes: &[u8]) -> AttrBuf {
    AttrBuf::new().bytes(1, bytes)
}

/// An interface name as the kernel compares it: sixteen bytes, zeros behind the name.
pub fn ifname(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(name.bytes().take(15)) {
        *to = from;
    }
    bytes
}

fn meta(key: u32, register: u32) -> Expr {
    expr("meta", AttrBuf::new().u32(2, key).u32(1, register))
}

fn payload(base: u32, offset: u32, len: u32, register: u32) -> Expr {
    expr("payload", AttrBuf::new().u32(1, register).u32(2, base).u32(3, offset).u32(4, len))
}

fn compare(op: u32, bytes: &[u8]) -> Expr {
    expr("cmp", AttrBuf::new().u32(1, REG).u32(2, op).nest(3, value(bytes)))
}

fn equal(bytes: &[u8]) -> Expr {
    compare(0, bytes)
}

fn differs(bytes: &[u8]) -> Expr {
    compare(1, bytes)
}

fn masked(mask: &[u8]) -> Expr {
    let len = u32::try_from(mask.len()).expect("a register is small");
    let zero = vec![0; mask.len()];
    let attrs = AttrBuf::new().u32(1, REG).u32(2, REG).u32(3, len).u32(6, 0);
    expr("bitwise", attrs.nest(4, value(mask)).nest(5, value(&zero)))
}

fn lookup(set: &str, to: Option<u32>, inverted: bool) -> Expr {
    let attrs = AttrBuf::new().text(1, set).u32(2, REG);
    let attrs = match to {
        Some(register) => attrs.u32(3, register),
        None => attrs,
    };
    expr("lookup", attrs.u32(5, u32::from(inverted)))
}

fn immediate(register: u32, data: AttrBuf) -> Expr {
    expr("immediate", AttrBuf::new().u32(1, register).nest(2, data))
}

/// `meta nfproto ipv4`
pub fn ipv4() -> Rule {
    vec![meta(META_NFPROTO, REG), equal(&[libc::NFPROTO_IPV4 as u8])]
}

/// `meta l4proto N`
pub fn l4proto(number: u8) -> Rule {
    vec![meta(META_L4PROTO, REG), equal(&[number])]
}

/// `iifname NAME`
pub fn iif(name: &str) -> Rule {
    vec![meta(META_IIFNAME, REG), equal(&ifname(name))]
}

/// `iifname "PREFIX*"`
pub fn iif_prefix(prefix: &str) -> Rule {
    vec![meta(META_IIFNAME, REG), equal(prefix.as_bytes())]
}

/// `oifname NAME`
pub fn oif(name: &str) -> Rule {
    vec![meta(META_OIFNAME, REG), equal(&ifname(name))]
}

/// `oifname "PREFIX*"`
pub fn oif_prefix(prefix: &str) -> Rule {
    vec![meta(META_OIFNAME, REG), equal(prefix.as_bytes())]
}

/// `iifname @SET`, or `!= @SET`
pub fn iif_in(set: &str, inverted: bool) -> Rule {
    vec![meta(META_IIFNAME, REG), lookup(set, None, inverted)]
}

/// `oifname @SET`, or `!= @SET`
pub fn oif_in(set: &str, inverted: bool) -> Rule {
    vec![meta(META_OIFNAME, REG), lookup(set, None, inverted)]
}

/// `ip saddr ADDRESS`; needs [`ipv4`] before it.
pub fn source(address: Ipv4Addr) -> Rule {
    vec![payload(NETWORK, 12, 4, REG), equal(&address.octets())]
}

/// `ip daddr ADDRESS`; needs [`ipv4`] before it.
pub fn destination(address: Ipv4Addr) -> Rule {
    vec![payload(NETWORK, 16, 4, REG), equal(&address.octets())]
}

/// `ip saddr @SET`; needs [`ipv4`] before it.
pub fn source_in(set: &str) -> Rule {
    vec![payload(NETWORK, 12, 4, REG), lookup(set, None, false)]
}

/// `ip daddr @SET`; needs [`ipv4`] before it.
pub fn destination_in(set: &str) -> Rule {
    vec![payload(NETWORK, 16, 4, REG), lookup(set, None, false)]
}

/// `th sport PORT`; needs [`l4proto`] before it.
pub fn source_port(port: u16) -> Rule {
    vec![payload(TRANSPORT, 0, 2, REG), equal(&port.to_be_bytes())]
}

/// `th dport PORT`; needs [`l4proto`] before it.
pub fn destination_port(port: u16) -> Rule {
    vec![payload(TRANSPORT, 2, 2, REG), equal(&port.to_be_bytes())]
}

/// `icmp type @SET`; needs [`ipv4`] and [`l4proto`] before it.
pub fn icmp_type_in(set: &str) -> Rule {
    vec![payload(TRANSPORT, 0, 1, REG), lookup(set, None, false)]
}

/// `tcp flags & MASK == FLAGS`; needs [`l4proto`] before it.
pub fn tcp_flags(mask: u8, flags: u8) -> Rule {
    vec![payload(TRANSPORT, 13, 1, REG), masked(&[mask]), equal(&[flags])]
}

/// `ct state STATE`; a packet that is not tracked matches none.
pub fn state(state: State) -> Rule {
    let mask = (state as u32).to_ne_bytes();
    vec![expr("ct", AttrBuf::new().u32(2, CT_STATE).u32(1, REG)), masked(&mask), differs(&[0; 4])]
}

/// `ct direction DIRECTION`; a packet that is not tracked matches none.
pub fn direction(direction: Direction) -> Rule {
    vec![expr("ct", AttrBuf::new().u32(2, CT_DIRECTION).u32(1, REG)), equal(&[direction as u8])]
}

/// `ct original ip daddr ADDRESS ct original proto-dst PORT`: the connection was opened to there.
pub fn opened_to(address: Ipv4Addr, port: u16) -> Rule {
    let original = |key| expr("ct", AttrBuf::new().u32(2, key).u32(1, REG).u8(3, Direction::Original as u8));
    vec![original(CT_DST_IP), equal(&address.octets()), original(CT_PROTO_DST), equal(&port.to_be_bytes())]
}

/// `meta mark & MASK == MARK`, or `!=`
pub fn mark(mask: u32, mark: u32, inverted: bool) -> Rule {
    let bytes = mark.to_ne_bytes();
    let compared = if inverted { differs(&bytes) } else { equal(&bytes) };
    vec![meta(META_MARK, REG), masked(&mask.to_ne_bytes()), compared]
}

/// `meta mark set MARK`
pub fn set_mark(mark: u32) -> Rule {
    vec![immediate(REG, value(&mark.to_ne_bytes())), expr("meta", AttrBuf::new().u32(2, META_MARK).u32(3, REG))]
}

/// `iifname . ip saddr vmap @MAP`; needs [`ipv4`] before it.
pub fn iif_source_verdict(map: &str) -> Rule {
    vec![meta(META_IIFNAME, REG), payload(NETWORK, 12, 4, 2), lookup(map, Some(REG_VERDICT), false)]
}

/// `oifname . ip daddr vmap @MAP`; needs [`ipv4`] before it.
pub fn oif_destination_verdict(map: &str) -> Rule {
    vec![meta(META_OIFNAME, REG), payload(NETWORK, 16, 4, 2), lookup(map, Some(REG_VERDICT), false)]
}

/// `ip saddr . ip daddr . meta l4proto . th dport` in the registers from 1 on.
fn flow() -> Rule {
    vec![payload(NETWORK, 12, 4, REG), payload(NETWORK, 16, 4, 9), meta(META_L4PROTO, 10), payload(TRANSPORT, 2, 2, 11)]
}

/// `ip saddr . ip daddr . meta l4proto . th dport @SET`; needs [`ipv4`] before it.
pub fn flow_in(set: &str) -> Rule {
    let mut rule = flow();
    rule.push(lookup(set, None, false));
    rule
}

/// `dnat ip to ip saddr . ip daddr . meta l4proto . th dport map @MAP`; needs [`ipv4`] before it.
pub fn dnat_by_flow(map: &str) -> Rule {
    let mut rule = flow();
    rule.push(lookup(map, Some(REG), false));
    rule.push(expr(
        "nat",
        AttrBuf::new().u32(1, 1).u32(2, libc::NFPROTO_IPV4 as u32).u32(3, REG).u32(4, REG).u32(7, 1),
    ));
    rule
}

/// `masquerade`
pub fn masquerade() -> Rule {
    vec![expr("masq", AttrBuf::new())]
}

/// `counter name NAME`
pub fn counter(name: &str) -> Rule {
    vec![expr("objref", AttrBuf::new().u32(1, OBJECT_COUNTER).text(2, name))]
}

/// `counter name ip saddr map @MAP`; needs [`ipv4`] before it.
pub fn counter_by_source(map: &str) -> Rule {
    vec![payload(NETWORK, 12, 4, REG), expr("objref", AttrBuf::new().u32(3, REG).text(4, map))]
}

/// `counter name ip daddr map @MAP`; needs [`ipv4`] before it.
pub fn counter_by_destination(map: &str) -> Rule {
    vec![payload(NETWORK, 16, 4, REG), expr("objref", AttrBuf::new().u32(3, REG).text(4, map))]
}

/// The object type of named counters (`NFT_OBJECT_COUNTER`).
pub const OBJECT_COUNTER: u32 = 1;

/// `limit rate N/second burst M packets`, matching what is within it; or `rate over`, matching what is beyond.
pub fn limit(per_second: u32, burst: u32, over: bool) -> Rule {
    let attrs = AttrBuf::new().u64(1, u64::from(per_second)).u64(2, 1).u32(3, burst);
    vec![expr("limit", attrs.u32(4, 0).u32(5, u32::from(over)))]
}

/// `ct count over N`
pub fn connections_over(count: u32) -> Rule {
    vec![expr("connlimit", AttrBuf::new().u32(1, count).u32(2, 1))]
}

/// `log prefix TEXT group GROUP snaplen N`
pub fn log(prefix: &str, group: u16, snaplen: u32) -> Rule {
    vec![expr("log", AttrBuf::new().text(2, prefix).u16(1, group).u32(3, snaplen).u16(4, 1))]
}

/// `reject with tcp reset`; needs `meta l4proto tcp` before it.
pub fn reset() -> Rule {
    vec![expr("reject", AttrBuf::new().u32(1, 1).u8(2, 0))]
}

/// `tcp option maxseg size set MSS`, which the kernel only ever lowers.
pub fn clamp_mss(mss: u16) -> Rule {
    let attrs = AttrBuf::new().u32(7, REG).u8(2, 2).u32(3, 2).u32(4, 2).u32(6, 1);
    vec![immediate(REG, value(&mss.to_be_bytes())), expr("exthdr", attrs)]
}

/// The end of a rule.
pub fn verdict(verdict: Verdict) -> Rule {
    vec![immediate(REG_VERDICT, verdict.data())]
}
