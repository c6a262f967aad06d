//! Ranges of IPv4 addresses from which assets and engineers get theirs.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// A CIDR block of at most a /8 and at least a /30.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    base: u32,
    prefix: u8,
}

/// Why a text is no pool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a pool is written like 198.18.0.0/16, between /8 and /30, its host bits zero, not {0:?}")]
pub struct PoolError(String);

/// Both pools; they must not overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pools {
    /// Stable overlay addresses of assets.
    pub assets: Pool,
    /// Engineers' addresses, one for each live session.
    pub engineers: Pool,
}

impl Default for Pools {
    fn default() -> Self {
        Self {
            assets: Pool { base: u32::from(Ipv4Addr::new(198, 18, 0, 0)), prefix: 16 },
            engineers: Pool { base: u32::from(Ipv4Addr::new(198, 19, 0, 0)), prefix: 16 },
        }
    }
}

impl Pool {
    /// The first address handed out; the block's own and last addresses never are.
    pub fn first(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 1)
    }

    pub fn last(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + (u32::MAX >> self.prefix) - 1)
    }

    pub fn contains(&self, address: Ipv4Addr) -> bool {
        u32::from(address) >> (32 - self.prefix) == self.base >> (32 - self.prefix)
    }

    pub fn overlaps(&self, other: &Pool) -> bool {
        self.contains(Ipv4Addr::from(other.base)) || other.contains(Ipv4Addr::from(self.base))
    }

    /// The free address that follows `after`, going round once; from the first one where `after` is none of the pool's.
    pub fn next_free(&self, after: Option<Ipv4Addr>, taken: impl Fn(Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
        let (first, last) = (u32::from(self.first()), u32::from(self.last()));
        let start = after.map(u32::from).filter(|at| (first..last).contains(at)).map_or(first, |at| at + 1);
        (start..=last).chain(first..start).map(Ipv4Addr::from).find(|address| !taken(*address))
    }
}

impl FromStr for Pool {
    type Err = PoolError;
    fn from_str(text: &str) -> Result<Self, PoolError> {
        let error = || PoolError(text.chars().take(40).collect());
        let (base, prefix) = text.split_once('/').ok_or_else(error)?;
        let base = u32::from(base.parse::<Ipv4Addr>().map_err(|_| error())?);
        let prefix: u8 = prefix.parse().map_err(|_| error())?;
        let fits = (8..=30).contains(&prefix) && base.trailing_zeros() >= u32::from(32 - prefix);
        if fits { Ok(Self { base, prefix }) } else { Err(error()) }
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_hands_out_every_address_once_and_then_none() {
        let pool: Pool = "10.0.0.0/29".parse().expect("a pool");
        let mut taken = Vec::new();
        while let Some(address) = pool.next_free(taken.last().copied(), |address| taken.contains(&address)) {
            taken.push(address);
        }
        assert_eq!(taken.first(), Some(&Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!(taken.last(), Some(&Ipv4Addr::new(10, 0, 0, 6)));
        assert_eq!(taken.len(), 6);
    }

    #[test]
    fn an_address_just_given_back_comes_last() {
        let pool: Pool = "10.0.0.0/29".parse().expect("a pool");
        assert_eq!(pool.next_free(Some(Ipv4Addr::new(10, 0, 0, 6)), |_| false), Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!(pool.next_free(Some(Ipv4Addr::new(10, 0, 0, 2)), |_| false), Some(Ipv4Addr::new(10, 0, 0, 3)));
        assert_eq!(pool.next_free(Some(Ipv4Addr::new(192, 0, 2, 1)), |_| false), Some(pool.first()));
    }

    #[test]
    fn blocks_that_are_none_are_refused() {
        for text in ["", "10.0.0.0", "10.0.0.0/31", "10.0.0.1/24", "10.0.0.0/7", "10.0.0.0/x", "::/8"] {
            assert!(text.parse::<Pool>().is_err(), "{text}");
        }
        let pools = Pools::default();
        assert!(!pools.assets.overlaps(&pools.engineers));
        assert!("198.0.0.0/8".parse::<Pool>().is_ok_and(|wide| wide.overlaps(&pools.assets)));
    }
}
