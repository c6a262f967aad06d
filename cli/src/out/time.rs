//! Moments in the person's own time zone, and lengths of time that count down.

use jiff::tz::TimeZone;
use thinlane_model::{Span, Wall};

/// The wall clock of this machine.
pub fn now() -> Wall {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Wall::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// `2026-11-22 04:13:43` in local time.
pub fn local(at: Wall) -> String {
    in_zone(at, &TimeZone::system())
}

/// `2026-11-22 04:13:43 +01:00`: local time that is unambiguous on paper.
pub fn with_zone(at: Wall) -> String {
    match jiff::Timestamp::from_millisecond(at.as_millis()) {
        Ok(stamp) => stamp.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %:z").to_string(),
        Err(_) => at.to_string(),
    }
}

/// Local time, or a dash.
pub fn local_or_dash(at: Option<Wall>) -> String {
    at.map_or_else(|| "-".to_owned(), local)
}

/// Only the time of day, for what ends today.
pub fn local_clock(at: Wall) -> String {
    let text = local(at);
    text.split_once(' ').map_or(text.clone(), |(_, clock)| clock.to_owned())
}

/// A sentence with the moments in it, which the controller writes in UTC, in local time.
pub fn localised(sentence: &str) -> String {
    localised_in(sentence, &TimeZone::system())
}

fn localised_in(sentence: &str, zone: &TimeZone) -> String {
    let word = |word: &str| {
        let bare = word.trim_end_matches(['.', ',', ';', ':', ')']);
        let moment = bare.ends_with('Z').then(|| bare.parse::<Wall>().ok()).flatten();
        moment.map_or_else(|| word.to_owned(), |at| in_zone(at, zone) + &word[bare.len()..])
    };
    sentence.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

fn in_zone(at: Wall, zone: &TimeZone) -> String {
    match jiff::Timestamp::from_millisecond(at.as_millis()) {
        Ok(stamp) => stamp.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => at.to_string(),
    }
}

/// `29:59` or `1:29:59`; rounds up, so that 0:00 means the end.
pub fn countdown(left: Span) -> String {
    let secs = left.as_millis().div_ceil(1000);
    let (hours, minutes, seconds) = (secs / 3600, secs / 60 % 60, secs % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

/// Whole seconds as a duration in words, `30m`.
pub fn duration(secs: u64) -> String {
    Span::from_secs(secs).to_string()
}

/// Reads a moment: RFC 3339, or a date, which means its beginning in local time.
pub fn parse_moment(text: &str) -> Result<Wall, String> {
    if let Ok(at) = text.parse::<Wall>() {
        return Ok(at);
    }
    text.parse::<jiff::civil::Date>()
        .ok()
        .and_then(|date| date.to_zoned(TimeZone::system()).ok())
        .map(|zoned| Wall::from_millis(zoned.timestamp().as_millisecond()))
        .ok_or_else(|| "write a date as 2027-01-31, or a moment as 2027-01-31T17:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_shown_in_the_zone_asked_for() {
        let at: Wall = "2026-11-22T03:13:43.045Z".parse().expect("a moment");
        let berlin = TimeZone::fixed(jiff::tz::offset(1));
        assert_eq!(in_zone(at, &berlin), "2026-11-22 04:13:43");
        assert_eq!(in_zone(at, &TimeZone::UTC), "2026-11-22 03:13:43");
        assert!(!in_zone(Wall::from_millis(i64::MAX), &TimeZone::UTC).is_empty());
    }

    #[test]
    fn moments_in_a_sentence_are_shown_in_local_time_and_nothing_else_is_touched() {
        let berlin = TimeZone::fixed(jiff::tz::offset(1));
        let told =
            localised_in("locked since 2026-11-22T03:13:43.045Z until 2026-11-22T04:00:00Z: the  Z, 2026Z", &berlin);
        assert_eq!(told, "locked since 2026-11-22 04:13:43 until 2026-11-22 05:00:00: the  Z, 2026Z");
    }

    #[test]
    fn a_countdown_reaches_zero_only_at_the_end() {
        for (millis, text) in
            [(0, "0:00"), (1, "0:01"), (1000, "0:01"), (1001, "0:02"), (1_800_000, "30:00"), (5_399_001, "1:30:00")]
        {
            assert_eq!(countdown(Span::from_millis(millis)), text);
        }
    }

    #[test]
    fn a_date_or_a_moment_is_read_and_nonsense_is_not() {
        assert!(parse_moment("2027-01-31").is_ok());
        assert_eq!(
            parse_moment("2027-01-31T00:00:00Z").map(|at| at.to_string()),
            Ok("2027-01-31T00:00:00.000Z".to_owned())
        );
        for text in ["", "tomorrow", "2027-13-01", "31.1.2027"] {
            assert!(parse_moment(text).is_err(), "{text}");
        }
    }
}
