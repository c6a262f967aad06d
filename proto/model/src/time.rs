//! Three kinds of time that must not be mixed: a gateway's boot clock, the wall clock, and a length of time.

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::text::serde_as_text;

/// Milliseconds of CLOCK_BOOTTIME on one machine in one boot; it also counts while the machine sleeps
/// and nobody can set it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Boot(pub u64);

/// A length of time in milliseconds; in text as people write it (`30m`, `1h30m`), in JSON as seconds
/// where a contract says so.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(u64);

/// Milliseconds since 1970-01-01T00:00:00Z on a wall clock; in text as RFC 3339 in UTC with milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Wall(i64);

/// The time that every pure machine is handed with each input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// This machine's boot clock; never goes back within one boot.
    pub mono: Boot,
    /// This machine's wall clock; may jump either way.
    pub wall: Wall,
}

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    #[error("a duration is written like 45s, 30m, 1h30m or 2d, not {0:?}")]
    Shape(String),
    #[error("a duration of at least one second is needed")]
    Zero,
    #[error("a duration of at most {MOST_DAYS} days is taken")]
    Long,
}

/// Why a text is not a moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WallError {
    #[error("a moment is written like 2026-11-22T03:15:00Z (RFC 3339), not {0:?}")]
    Shape(String),
}

const MOST_DAYS: u64 = 3660;

impl Boot {
    /// How long until `later`; zero when it has passed.
    pub fn until(self, later: Boot) -> Span {
        Span(later.0.saturating_sub(self.0))
    }
}

impl Add<Span> for Boot {
    type Output = Boot;
    fn add(self, span: Span) -> Boot {
        Boot(self.0.saturating_add(span.0))
    }
}

impl Sub<Span> for Boot {
    type Output = Boot;
    fn sub(self, span: Span) -> Boot {
        Boot(self.0.saturating_sub(span.0))
    }
}

impl Span {
    pub const ZERO: Span = Span(0);

    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds, rounded down.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    pub const fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }

    pub fn saturating_sub(self, other: Span) -> Span {
        Span(self.0.saturating_sub(other.0))
    }
}

impl Add for Span {
    type Output = Span;
    fn add(self, other: Span) -> Span {
        Span(self.0.saturating_add(other.0))
    }
}

impl From<std::time::Duration> for Span {
    fn from(duration: std::time::Duration) -> Self {
        Self(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }
}

impl FromStr for Span {
    type Err = DurationError;
    fn from_str(text: &str) -> Result<Self, DurationError> {
        let shape = || DurationError::Shape(text.chars().take(40).collect());
        let mut rest = text.trim();
        let mut total: u64 = 0;
        let mut before = u64::MAX;
        if rest.is_empty() {
            return Err(shape());
        }
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let number: u64 = rest[..digits].parse().map_err(|_| shape())?;
            rest = &rest[digits..];
            let letters = rest.bytes().take_while(u8::is_ascii_lowercase).count();
            let unit = match &rest[..letters] {
                "ms" => 1,
                "s" => 1000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return Err(shape()),
            };
            if unit >= before {
                return Err(shape());
            }
            before = unit;
            rest = &rest[letters..];
            let part = number.checked_mul(unit).ok_or(DurationError::Long)?;
            total = total.checked_add(part).ok_or(DurationError::Long)?;
        }
        match total {
            0 => Err(DurationError::Zero),
            more if more > MOST_DAYS * 86_400_000 => Err(DurationError::Long),
            _ => Ok(Self(total)),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        let mut rest = self.0;
        for (unit, letters) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")] {
            if rest >= unit {
                text.push_str(&format!("{}{letters}", rest / unit));
                rest %= unit;
            }
        }
        to.pad(if text.is_empty() { "0s" } else { &text })
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, to)
    }
}

serde_as_text!(Span);

impl Wall {
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Seconds since 1970, rounded down.
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// How long until `later`; zero when it has passed.
    pub fn until(self, later: Wall) -> Span {
        Span(u64::try_from(later.0.saturating_sub(self.0)).unwrap_or(0))
    }

    fn timestamp(self) -> jiff::Timestamp {
        let edge = if self.0 < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
        jiff::Timestamp::from_millisecond(self.0).unwrap_or(edge)
    }
}

impl Add<Span> for Wall {
    type Output = Wall;
    fn add(self, span: Span) -> Wall {
        Wall(self.0.saturating_add_unsigned(span.0))
    }
}

impl Sub<Span> for Wall {
    type Output = Wall;
    fn sub(self, span: Span) -> Wall {
        Wall(self.0.saturating_sub_unsigned(span.0))
    }
}

impl fmt::Display for Wall {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.pad(&format!("{:.3}", self.timestamp()))
    }
}

impl fmt::Debug for Wall {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, to)
    }
}

impl FromStr for Wall {
    type Err = WallError;
    fn from_str(text: &str) -> Result<Self, WallError> {
        let stamp: jiff::Timestamp =
            text.trim().parse().map_err(|_| WallError::Shape(text.chars().take(40).collect()))?;
        Ok(Self(stamp.as_millisecond()))
    }
}

serde_as_text!(Wall);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print_as_people_write_them() {
        for (text, secs) in [("30m", 1800), ("1h30m", 5400), ("1s", 1), ("2d", 172_800), ("1d1h1m1s", 90_061)] {
            let span: Span = text.parse().expect(text);
            assert_eq!(span.as_secs(), secs, "{text}");
            assert_eq!(span.to_string(), text);
        }
    }

    #[test]
    fn durations_that_say_nothing_or_too_much_are_refused() {
        for text in
            ["", "0s", "30", "m", "30m1h", "30m30m", "-5m", "1.5h", "99999999999999999999s", "9999999d", "5 m", "5é"]
        {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_moment_carries_milliseconds_in_utc() {
        let wall = Wall::from_millis(1_795_317_223_045);
        assert_eq!(wall.to_string(), "2026-11-22T03:13:43.045Z");
        assert_eq!(wall.to_string().parse(), Ok(wall));
        assert_eq!("2026-11-22T04:13:43.045+01:00".parse(), Ok(wall));
        assert_eq!(Wall::from_millis(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert!("yesterday".parse::<Wall>().is_err());
    }

    #[test]
    fn far_moments_neither_panic_nor_wrap() {
        assert!(!Wall::from_millis(i64::MIN).to_string().is_empty());
        assert_eq!(Wall::from_millis(i64::MAX) + Span::from_secs(u64::MAX), Wall::from_millis(i64::MAX));
        assert_eq!(Boot(u64::MAX) + Span::from_secs(1), Boot(u64::MAX));
    }
}
