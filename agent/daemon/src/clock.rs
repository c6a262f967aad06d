//! Three clocks: the boot clock that lanes end by, the wall clock that nobody trusts, and the time that the
//! controller vouched for, which certificates are judged by.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use thinlane_model::{Boot, BootId, Now, Span, Wall};

use crate::files;

/// Flash is not written more often than this for the sake of the floor.
const WRITE_AFTER: Span = Span::from_secs(3600);
/// A jump of the wall clock against the boot clock that is worth an alarm.
const JUMP_MS: i64 = 2_000;

/// Milliseconds of CLOCK_BOOTTIME.
pub fn boot() -> Boot {
    thinlane_wg::boot().expect("the kernel always tells its boot clock")
}

/// The wall clock as the system tells it.
pub fn wall() -> Wall {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Wall::from_millis(since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX)))
}

/// What every machine is handed.
pub fn now() -> Now {
    Now { mono: boot(), wall: wall() }
}

/// This boot's id, as the kernel tells it.
pub fn boot_id() -> anyhow::Result<BootId> {
    let text =
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").context("cannot read the kernel's boot id")?;
    text.parse().context("the kernel's boot id")
}

/// The newest time that the controller vouched for, going on with the boot clock from there.
#[derive(Debug, Clone)]
pub struct Floor {
    path: PathBuf,
    boot: BootId,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    vouched: Wall,
    /// When `vouched` was told; of use in the same boot only.
    at: Boot,
    boot: BootId,
    #[serde(skip)]
    written: Wall,
}

impl Floor {
    /// Reads the floor, or begins at `enrolled` (a moment that the controller signed when this gateway was enrolled).
    pub fn load(path: PathBuf, boot: BootId, enrolled: Wall) -> anyhow::Result<Self> {
        let begin = Kept { vouched: enrolled, at: Boot(0), boot: BootId([0; 16]), written: enrolled };
        let read = files::read_bounded(&path, 4096).with_context(|| format!("cannot read {}", path.display()))?;
        // A file that cannot be understood must not keep the site away: the floor only loses ground.
        let kept = read.and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
        let kept = kept.map(|kept| Kept { written: kept.vouched, ..kept }).filter(|kept| kept.vouched > enrolled);
        Ok(Self { path, boot, kept: Arc::new(Mutex::new(kept.unwrap_or(begin))) })
    }

    /// The time to judge certificates by: never ahead of what the controller could have vouched for.
    pub fn time(&self, mono: Boot) -> Wall {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.boot == self.boot { kept.vouched + kept.at.until(mono) } else { kept.vouched }
    }

    /// The controller, whose certificate was verified, says it is `wall`. Never goes back.
    pub fn vouch(&self, wall: Wall, mono: Boot) -> anyhow::Result<()> {
        if wall <= self.time(mono) {
            return Ok(());
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let written = kept.written;
        *kept = Kept { vouched: wall, at: mono, boot: self.boot, written };
        if written.until(wall) < WRITE_AFTER {
            return Ok(());
        }
        kept.written = wall;
        let bytes = serde_json::to_vec(&*kept).context("the clock floor")?;
        files::write_atomic(&self.path, &bytes).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// What the controller's clock was when it was heard; it goes on with the boot clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControllerClock {
    pub wall: Wall,
    pub heard: Boot,
}

impl ControllerClock {
    /// This machine's wall clock minus the controller's, in milliseconds; what the network took is counted as ours.
    pub fn offset_ms(&self, now: Now) -> i64 {
        now.wall.as_millis().saturating_sub((self.wall + self.heard.until(now.mono)).as_millis())
    }
}

/// Notices that somebody moved the wall clock. Nothing but an alarm follows: no lane ends by this clock.
#[derive(Debug, Default)]
pub struct JumpWatch {
    offset: Option<i64>,
}

impl JumpWatch {
    /// Milliseconds that the wall clock has moved against the boot clock since it was last looked at, if many.
    pub fn look(&mut self, now: Now) -> Option<i64> {
        let offset = now.wall.as_millis().saturating_sub_unsigned(now.mono.0);
        let before = self.offset.replace(offset)?;
        let moved = offset.saturating_sub(before);
        (moved.abs() >= JUMP_MS).then_some(moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: BootId = BootId([7; 16]);
    const DAY: u64 = 86_400_000;

    fn floor(dir: &tempfile::TempDir, boot: BootId, enrolled: i64) -> Floor {
        Floor::load(dir.path().join("clock.json"), boot, Wall::from_millis(enrolled)).expect("a floor")
    }

    #[test]
    fn the_floor_goes_on_with_the_boot_clock_and_never_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let floor = floor(&dir, BOOT, 1000);
        assert_eq!(floor.time(Boot(5)), Wall::from_millis(1000), "nothing was vouched for in this boot");
        floor.vouch(Wall::from_millis(10_000_000), Boot(100)).expect("kept");
        assert_eq!(floor.time(Boot(600)), Wall::from_millis(10_000_500));
        floor.vouch(Wall::from_millis(5), Boot(700)).expect("kept");
        assert_eq!(floor.time(Boot(700)), Wall::from_millis(10_000_600));
    }

    #[test]
    fn the_floor_outlives_a_reboot_but_does_not_count_the_time_between() {
        let dir = tempfile::tempdir().expect("a directory");
        floor(&dir, BOOT, 1000).vouch(Wall::from_millis(9_000_000), Boot(50)).expect("kept");
        let after = floor(&dir, BootId([8; 16]), 1000);
        assert_eq!(after.time(Boot(DAY)), Wall::from_millis(9_000_000));
        let newer_identity = floor(&dir, BootId([8; 16]), 9_500_000);
        assert_eq!(newer_identity.time(Boot(0)), Wall::from_millis(9_500_000));
    }

    #[test]
    fn a_torn_clock_file_does_not_keep_the_gateway_away() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("clock.json"), "{\"vouched\":").expect("written");
        assert_eq!(floor(&dir, BOOT, 1000).time(Boot(0)), Wall::from_millis(1000));
    }

    #[test]
    fn the_controllers_clock_goes_on_after_it_was_heard() {
        let heard = ControllerClock { wall: Wall::from_millis(1_000_000), heard: Boot(50_000) };
        let at = |mono: u64, wall: i64| Now { mono: Boot(mono), wall: Wall::from_millis(wall) };
        assert_eq!(heard.offset_ms(at(60_000, 1_010_000)), 0);
        assert_eq!(heard.offset_ms(at(60_000, 1_000_000)), -10_000, "set back since then");
    }

    #[test]
    fn a_moved_wall_clock_is_noticed_once_and_a_slow_one_is_not() {
        let mut watch = JumpWatch::default();
        let at = |mono: u64, wall: i64| Now { mono: Boot(mono), wall: Wall::from_millis(wall) };
        assert_eq!(watch.look(at(0, 50_000)), None);
        assert_eq!(watch.look(at(60_000, 110_400)), None);
        assert_eq!(watch.look(at(61_000, 0)), Some(-111_400));
        assert_eq!(watch.look(at(62_000, 1_000)), None);
    }
}
