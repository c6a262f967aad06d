//! Lock-out with back-off, per account and per source address. Bounded in memory; what a restart must not forget is
//! kept in the store, with the log's entry of the wrong try.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use thinlane_model::{Boot, Now, Span, Wall};

/// Accounts, and addresses, that are remembered at most.
const MOST: usize = 20_000;
/// Wrong tries that an account has before it must wait.
const ACCOUNT_FREE: u32 = 5;
/// Wrong tries that an address has: several people may share one.
const SOURCE_FREE: u32 = 30;
/// The first wait; each further wrong try doubles it.
const FIRST_WAIT: Span = Span::from_secs(15);
const LONGEST_WAIT: Span = Span::from_secs(900);
/// After this long without a wrong try everything is forgotten.
const FORGET: Span = Span::from_secs(3600);

/// Counts wrong tries.
#[derive(Default)]
pub struct Guard(Mutex<Tables>);

#[derive(Default)]
struct Tables {
    accounts: BTreeMap<String, Tries>,
    sources: BTreeMap<IpAddr, Tries>,
}

#[derive(Clone, Copy, Default)]
struct Tries {
    wrong: u32,
    last: Boot,
    until: Boot,
}

/// Whose wrong tries were counted, as they are kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    Account(String),
    Source(IpAddr),
}

/// Wrong tries as they are kept: by the wall clock, for the boot clock does not outlive a reboot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    wrong: u32,
    last: Wall,
    until: Wall,
}

impl Who {
    /// The kinds under which wrong tries are stored.
    pub const KINDS: [&str; 2] = ["tries-account", "tries-source"];

    /// Kind and id under which they are stored.
    pub fn key(&self) -> (&'static str, String) {
        match self {
            Who::Account(name) => (Self::KINDS[0], name.clone()),
            Who::Source(address) => (Self::KINDS[1], address.to_string()),
        }
    }

    /// Reads a key back; `None`: it is none.
    pub fn of(kind: &str, id: &str) -> Option<Self> {
        match Self::KINDS.iter().position(|known| *known == kind)? {
            0 => Some(Who::Account(id.to_owned())),
            _ => id.parse().ok().map(Who::Source),
        }
    }
}

impl Kept {
    /// When they may be forgotten.
    pub fn forgotten(&self) -> Wall {
        self.last + FORGET
    }
}

/// What a wrong try led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// The account may be tried again at once.
    Free,
    /// It must wait this long now.
    Wait(Span),
}

impl Guard {
    /// Goes on from what was kept. A wall clock that was set meanwhile makes nobody wait longer than the longest wait.
    pub fn resume(kept: impl IntoIterator<Item = (Who, Kept)>, now: Now) -> Self {
        let mut tables = Tables::default();
        for (who, kept) in kept {
            let since = span(kept.last, now.wall).min(FORGET);
            let wait = span(now.wall, kept.until).min(LONGEST_WAIT);
            let tries = Tries { wrong: kept.wrong, last: now.mono - since, until: now.mono + wait };
            match who {
                Who::Account(name) if tables.accounts.len() < MOST => {
                    tables.accounts.insert(name, tries);
                }
                Who::Source(address) if tables.sources.len() < MOST => {
                    tables.sources.insert(address, tries);
                }
                Who::Account(_) | Who::Source(_) => {}
            }
        }
        Self(Mutex::new(tables))
    }

    /// What must be kept of the account's and the address's wrong tries.
    pub fn keep(&self, account: Option<&str>, source: IpAddr, now: Now) -> Vec<(Who, Kept)> {
        let tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let source = network(source);
        let account = account.and_then(|name| Some((Who::Account(name.to_owned()), tables.accounts.get(name)?)));
        let source = tables.sources.get(&source).map(|tries| (Who::Source(source), tries));
        let kept = |tries: &Tries| Kept {
            wrong: tries.wrong,
            last: now.wall - tries.last.until(now.mono),
            until: now.wall + now.mono.until(tries.until),
        };
        account.into_iter().chain(source).map(|(who, tries)| (who, kept(tries))).collect()
    }

    /// Begins a try, or says how long to wait. The try counts as the account's wrong one until [`Guard::right`] takes
    /// it back, so that many at once gain nothing.
    pub fn begin(&self, account: &str, source: IpAddr, now: Boot) -> Result<(), Span> {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let account_wait = tables.accounts.get(account).map_or(Span::ZERO, |tries| now.until(tries.until));
        let wait = account_wait.max(tables.source_wait(source, now));
        if wait > Span::ZERO {
            return Err(wait);
        }
        count(&mut tables.accounts, account.to_owned(), ACCOUNT_FREE, now);
        Ok(())
    }

    /// The try was right: the account starts afresh.
    pub fn right(&self, account: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).accounts.remove(account);
    }

    /// Whether an address may try at all, where there is no account to count for.
    pub fn admit(&self, source: IpAddr, now: Boot) -> Result<(), Span> {
        let wait = self.0.lock().unwrap_or_else(PoisonError::into_inner).source_wait(source, now);
        if wait > Span::ZERO { Err(wait) } else { Ok(()) }
    }

    /// A try from this address was wrong.
    pub fn wrong_from(&self, source: IpAddr, now: Boot) {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        count(&mut tables.sources, network(source), SOURCE_FREE, now);
    }

    /// What the wrong tries of an account led to so far.
    pub fn state(&self, account: &str, now: Boot) -> Wrong {
        let tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match tables.accounts.get(account).map(|tries| now.until(tries.until)) {
            Some(wait) if wait > Span::ZERO => Wrong::Wait(wait),
            _ => Wrong::Free,
        }
    }
}

impl Tables {
    fn source_wait(&self, source: IpAddr, now: Boot) -> Span {
        self.sources.get(&network(source)).map_or(Span::ZERO, |tries| now.until(tries.until))
    }
}

fn count<K: Ord + Clone>(table: &mut BTreeMap<K, Tries>, key: K, free: u32, now: Boot) {
    if table.len() >= MOST && !table.contains_key(&key) {
        table.retain(|_, tries| tries.last + FORGET > now);
        // Still full: somebody tries very many names. The one that was quiet longest goes.
        if table.len() >= MOST
            && let Some(oldest) = table.iter().min_by_key(|(_, tries)| tries.last).map(|(key, _)| key.clone())
        {
            table.remove(&oldest);
        }
    }
    let tries = table.entry(key).or_default();
    if tries.last + FORGET <= now {
        *tries = Tries::default();
    }
    tries.wrong = tries.wrong.saturating_add(1);
    tries.last = now;
    if tries.wrong >= free {
        let doubled = FIRST_WAIT.as_millis().saturating_mul(1 << (tries.wrong - free).min(16));
        tries.until = now + Span::from_millis(doubled).min(LONGEST_WAIT);
    }
}

/// From one moment to a later one; zero where it is not later.
fn span(from: Wall, to: Wall) -> Span {
    Span::from_millis(u64::try_from(to.as_millis().saturating_sub(from.as_millis())).unwrap_or(0))
}

/// What one customer of a network has: an IPv4 address, or the first 64 bits of an IPv6 one.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => {
            let mut octets = six.octets();
            octets[8..].fill(0);
            IpAddr::from(octets)
        }
        four => four,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn away(number: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, number])
    }

    #[test]
    fn the_fifth_wrong_try_makes_the_account_wait_and_each_further_one_longer() {
        let guard = Guard::default();
        let mut now = Boot(1_000_000_000);
        for number in 0..5 {
            assert_eq!(guard.begin("alice", away(number), now), Ok(()));
        }
        let first = guard.begin("alice", away(9), now).expect_err("locked out");
        assert_eq!(first, FIRST_WAIT);
        now = now + first;
        assert_eq!(guard.begin("alice", away(9), now), Ok(()));
        assert_eq!(guard.begin("alice", away(9), now), Err(Span::from_secs(30)));
        assert_eq!(guard.begin("bob", away(9), now), Ok(()));
    }

    #[test]
    fn a_right_try_clears_the_account() {
        let guard = Guard::default();
        let now = Boot(1_000_000_000);
        for _ in 0..100 {
            assert_eq!(guard.begin("alice", HOME, now), Ok(()));
            guard.right("alice");
        }
        assert_eq!(guard.state("alice", now), Wrong::Free);
    }

    #[test]
    fn an_address_that_tries_many_names_has_to_wait_too() {
        let guard = Guard::default();
        let now = Boot(1_000_000_000);
        let guess = |name: String, source| {
            let may = guard.begin(&name, source, now).is_ok();
            if may {
                guard.wrong_from(source, now);
            }
            may
        };
        let tried = (0..100).filter(|name| guess(name.to_string(), HOME)).count();
        assert_eq!(tried, 30);
        assert!(guard.begin("someone", away(1), now).is_ok());
        let six = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
        let tried = (0..100).filter(|name| guess(format!("n{name}"), six(*name))).count();
        assert!(guard.admit(away(1), now).is_ok() && guard.admit(HOME, now).is_err());
        assert_eq!(tried, 30);
    }

    #[test]
    fn a_restart_makes_nobody_wait_less_and_a_set_clock_nobody_longer_than_the_longest_wait() {
        let at = |mono: u64, wall: i64| Now { mono: Boot(mono), wall: Wall::from_millis(wall) };
        let guard = Guard::default();
        let before = at(1_000_000, 50_000_000);
        for _ in 0..6 {
            // Each is let in, whatever it had to wait for.
            count(&mut guard.0.lock().expect("not poisoned").accounts, "alice".to_owned(), ACCOUNT_FREE, before.mono);
        }
        guard.wrong_from(HOME, before.mono);
        let kept = guard.keep(Some("alice"), HOME, before);
        assert_eq!(kept.len(), 2);
        // Ten seconds later, on a machine that was booted meanwhile.
        let after = at(4_000, 50_010_000);
        let resumed = Guard::resume(kept.clone(), after);
        assert_eq!(resumed.begin("alice", HOME, after.mono), Err(Span::from_secs(20)));
        assert_eq!(resumed.begin("bob", HOME, after.mono), Ok(()));
        for (who, _) in &kept {
            let (kind, id) = who.key();
            assert_eq!(Who::of(kind, &id).as_ref(), Some(who));
        }
        let set_back = Guard::resume(kept, at(4_000, 0));
        assert_eq!(set_back.begin("alice", HOME, Boot(4_000)), Err(LONGEST_WAIT));
    }

    #[test]
    fn memory_stays_bounded_however_many_names_are_tried() {
        let guard = Guard::default();
        for number in 0..(MOST as u32 + 50) {
            let source = IpAddr::from((number + 0x0a00_0000).to_be_bytes());
            let now = Boot(1_000_000_000 + u64::from(number));
            assert!(guard.begin(&number.to_string(), source, now).is_ok());
            guard.wrong_from(source, now);
        }
        let tables = guard.0.lock().expect("not poisoned");
        assert!(tables.accounts.len() <= MOST && tables.sources.len() <= MOST);
    }
}
