//! Connections as the kernel tracks them (ctnetlink, `include/uapi/linux/netfilter/nfnetlink_conntrack.h`).

use std::net::Ipv4Addr;

use thinlane_model::Tuple;

use crate::attr::AttrBuf;
use crate::decode::{self, FoundFlow};
use crate::error::NftError;
use crate::link::Question;
use crate::message::SUBSYS_CONNTRACK;
use crate::object::kind;
use crate::{Flow, Flowtable, Nft};

const GET: u8 = 1;
const DELETE: u8 = 2;
const TUPLE_ORIGINAL: u16 = 1;
const ZONE: u16 = 18;
/// A flow that the lane still let in between reading and deleting needs another round.
const ROUNDS: usize = 5;

const fn conntrack(kind: u8) -> u16 {
    (SUBSYS_CONNTRACK as u16) << 8 | kind as u16
}

impl Nft {
    /// Deletes every connection of the tuple's engineer, whatever its protocol, and reads back that none is left.
    ///
    /// Close the lane first, or new ones appear. Returns how many were deleted.
    pub fn drop_flows(&mut self, tuple: &Tuple) -> Result<u32, NftError> {
        let mut dropped = 0;
        for _ in 0..ROUNDS {
            let found = self.found_flows(tuple.engineer)?;
            if found.is_empty() {
                return Ok(dropped);
            }
            for flow in found {
                dropped += u32::from(self.drop_flow(&flow)?);
            }
        }
        match self.found_flows(tuple.engineer)?.len() {
            0 => Ok(dropped),
            left => Err(NftError::FlowsLeft(u32::try_from(left).unwrap_or(u32::MAX))),
        }
    }

    /// Deletes those connections of the tuple's engineer that are not the lane's own, mapped as the lane maps them.
    ///
    /// For a lane that goes on after the table was gone for a while: what came to be meanwhile went unmapped, and
    /// would stay so for as long as the kernel remembers it. Returns how many were deleted.
    pub fn drop_stray_flows(&mut self, tuple: &Tuple) -> Result<u32, NftError> {
        let mut dropped = 0;
        for found in self.found_flows(tuple.engineer)? {
            let flow = &found.flow;
            let own = (flow.source, flow.destination, flow.destination_port)
                == (tuple.engineer, tuple.destination, tuple.port)
                && flow.protocol == tuple.protocol.number()
                && flow.reply_source == tuple.address;
            if !own {
                dropped += u32::from(self.drop_flow(&found)?);
            }
        }
        Ok(dropped)
    }

    /// Every connection from or to this engineer's address, in order.
    pub fn flows(&mut self, engineer: Ipv4Addr) -> Result<Vec<Flow>, NftError> {
        let mut flows: Vec<_> = self.found_flows(engineer)?.into_iter().map(|found| found.flow).collect();
        flows.sort();
        Ok(flows)
    }

    /// Every flowtable of every table and family.
    pub fn flowtables(&mut self) -> Result<Vec<Flowtable>, NftError> {
        let attrs = AttrBuf::new();
        let kind = crate::message::tables(kind::GET_FLOWTABLE);
        let question = Question { kind, flags: libc::NLM_F_DUMP as u16, family: 0, resource: 0, attrs: &attrs };
        let mut found = self.link.ask(&question, |family, attrs| decode::flowtable(family, &attrs).map(Some))?;
        found.sort();
        Ok(found)
    }

    fn found_flows(&mut self, engineer: Ipv4Addr) -> Result<Vec<FoundFlow>, NftError> {
        let attrs = AttrBuf::new();
        let family = libc::AF_INET as u8;
        let flags = libc::NLM_F_DUMP as u16;
        let question = Question { kind: conntrack(GET), flags, family, resource: 0, attrs: &attrs };
        self.link.ask(&question, |_, attrs| {
            let found = decode::flow(&attrs)?;
            Ok(found.filter(|FoundFlow { flow, .. }| {
                [flow.source, flow.destination, flow.reply_source, flow.reply_destination].contains(&engineer)
            }))
        })
    }

    /// `false`: it was gone.
    fn drop_flow(&mut self, found: &FoundFlow) -> Result<bool, NftError> {
        let mut attrs = AttrBuf::new().bytes(TUPLE_ORIGINAL | libc::NLA_F_NESTED as u16, &found.tuple);
        if let Some(zone) = &found.zone {
            attrs = attrs.bytes(ZONE, zone);
        }
        let family = libc::AF_INET as u8;
        let question = Question { kind: conntrack(DELETE), flags: 0, family, resource: 0, attrs: &attrs };
        match self.link.ask::<()>(&question, |_, _| Ok(None)) {
            Ok(_) => Ok(true),
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
