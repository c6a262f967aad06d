//! Our messages as bytes, for golden tests.

use crate::message::batch;
use crate::object::FAMILY;
use crate::{BaseConfig, Lane, nft, ruleset};

/// The batch that installs the base, without replacing one.
pub fn base(config: &BaseConfig) -> Vec<u8> {
    let rules = ruleset::base(config);
    batch(&nft::creation(&rules).collect::<Vec<_>>(), FAMILY, 1).bytes
}

/// The batch that opens a lane.
pub fn lane(config: &BaseConfig, lane: &Lane) -> Vec<u8> {
    let rules = ruleset::lane(config, lane);
    batch(&nft::creation(&rules).collect::<Vec<_>>(), FAMILY, 1).bytes
}
