//! The second lock of a lane that the kernel encrypts: without the mark of our table, nothing is routed.
//!
//! ```text
//! from the lane's interface  marked as passed    the main table
//!                            marked as refused   the lane's own table, so that `forward` can answer with a reset
//!                            to the asset        the main table, for the LAN's reverse path check
//!                            else                unreachable
//! to the engineer's /32      marked as passed    the lane's own table
//!                            a reset of ours, an ICMP error    the same
//!                            else                unreachable
//! ```
//! The rule for local addresses comes before all of them, so a packet to the gateway itself, as one to the asset, is held
//! back by the reverse path (RFC 3704, `rp_filter`): without its mark the way back to its source is unreachable, strict
//! or loose (`__fib_validate_source` in net/ipv4/fib_frontend.c, with `src_valid_mark`).

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use thinlane_model::Tuple;

use crate::link::rules::Rule;
use crate::link::{Link, LinkError};

/// Marks that the table sets, and by which rules know what it has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// The bits that are ours.
    pub mask: u32,
    /// A live lane's element has matched.
    pub passed: u32,
    /// No lane passes it; it goes on to be answered with a reset, and nowhere else.
    pub refused: u32,
}

/// Before whatever else routes by policy, after the kernel's rule for local addresses.
const LEAD: u32 = 540;
const STOP: u32 = 541;
const MAIN: u32 = 254;
/// Tables of lanes: this and the interface's index.
const TABLES: u32 = 0x544c_0000;

/// The table that leads into one lane.
fn table(index: u32) -> u32 {
    TABLES | (index & 0xffff)
}

fn rules(name: &str, index: u32, tuple: &Tuple, marks: Marks) -> Vec<Rule> {
    let rule = |priority, table| Rule { priority, table, ..Rule::default() };
    let from = |mark: u32, table| Rule {
        from_interface: Some(name.to_owned()),
        mark: Some((mark, marks.mask)),
        ..rule(LEAD, Some(table))
    };
    let to = |priority, table| Rule { destination: Some(tuple.engineer), ..rule(priority, table) };
    let own = table(index);
    let here =
        |source: Ipv4Addr| Rule { source: Some(source), from_interface: Some("lo".to_owned()), ..to(LEAD, Some(own)) };
    let mut rules = vec![
        // What stops comes first, so that there is no moment without it.
        Rule { from_interface: Some(name.to_owned()), ..rule(STOP, None) },
        to(STOP, None),
        from(marks.passed, MAIN),
        from(marks.refused, own),
        // A LAN that checks reverse paths asks as if this were an answer, and without a mark. What comes in unmarked is
        // stopped by this interface's own check.
        Rule {
            from_interface: Some(name.to_owned()),
            source: Some(tuple.engineer),
            destination: Some(tuple.address),
            ..rule(LEAD, Some(MAIN))
        },
        Rule { mark: Some((marks.passed, marks.mask)), ..to(LEAD, Some(own)) },
        here(tuple.destination),
        // An error about a packet has no source while its way is looked up (`icmp_route_lookup` in net/ipv4/icmp.c).
        Rule { icmp: true, ..here(Ipv4Addr::UNSPECIFIED) },
    ];
    if tuple.address != tuple.destination {
        rules.push(here(tuple.address));
    }
    rules
}

/// Locks an interface that is still down.
pub(super) fn lock(link: &mut Link, name: &str, index: u32, tuple: &Tuple, marks: Marks) -> Result<(), LinkError> {
    let set = |switch: &str, value: &str| {
        write("ipv4", name, switch, value).map_err(|source| LinkError::Kernel { doing: "lock the interface", source })
    };
    set("rp_filter", "1")?;
    set("src_valid_mark", "1")?;
    match write("ipv6", name, "disable_ipv6", "1") {
        // A machine without IPv6 needs no switch.
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(LinkError::Kernel { doing: "close the interface to IPv6", source: error });
        }
        _ => {}
    }
    rules(name, index, tuple, marks).iter().try_for_each(|rule| link.add_rule(rule))?;
    set("forwarding", "1")
}

/// Leads the engineer's address, and what is refused on its way to the asset, into an interface that is up.
pub(super) fn lead(link: &mut Link, index: u32, tuple: &Tuple) -> Result<(), LinkError> {
    for destination in ends(tuple) {
        link.add_route_in(table(index), index, destination)?;
    }
    Ok(())
}

/// Takes the rules of one lane away; its routes went with its interface.
pub(super) fn unlock(link: &mut Link, name: &str, index: u32, tuple: &Tuple, marks: Marks) -> Result<(), LinkError> {
    rules(name, index, tuple, marks).iter().rev().try_for_each(|rule| link.remove_rule(rule).map(|_| ()))
}

/// What of the lock is missing, in a word; `None`: it stands.
pub(super) fn missing(
    link: &mut Link,
    name: &str,
    index: u32,
    tuple: &Tuple,
    marks: Marks,
) -> Result<Option<&'static str>, LinkError> {
    let stand = link.our_rules()?;
    if rules(name, index, tuple, marks).iter().any(|rule| !stand.contains(rule)) {
        return Ok(Some("a routing rule of the second lock"));
    }
    let routes = link.routes_in(table(index), index)?;
    Ok(ends(tuple).iter().any(|end| !routes.contains(end)).then_some("the engineer's route"))
}

/// Takes away the rules of lanes whose process is gone.
pub(super) fn clear(link: &mut Link) -> Result<(), LinkError> {
    let all = link.our_rules()?;
    // What stops goes last.
    let (stop, lead): (Vec<_>, Vec<_>) = all.iter().partition(|rule| rule.table.is_none());
    lead.into_iter().chain(stop).try_for_each(|rule| link.remove_rule(rule).map(|_| ()))
}

fn ends(tuple: &Tuple) -> [Ipv4Addr; 3] {
    [tuple.engineer, tuple.destination, tuple.address]
}

/// Sets a switch of one interface, unless it is set already.
fn write(family: &str, name: &str, switch: &str, value: &str) -> io::Result<()> {
    let path = Path::new("/proc/sys/net").join(family).join("conf").join(name).join(switch);
    match std::fs::read_to_string(&path) {
        Ok(text) if text.trim() == value => Ok(()),
        _ => std::fs::write(&path, value),
    }
}
