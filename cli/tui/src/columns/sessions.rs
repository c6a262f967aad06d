//! The columns of the sessions.

use thinlane_model::Path;
use thinlane_wire::api::SessionState;

use super::{ago, col, or_dash, text_key, time_key};
use crate::model::Peer;
use crate::table::{Cell, Column, Ctx, Key, Listed, RowId};
use crate::text::{self, Tone};

/// The last so many milliseconds of a session are shown as such.
const NEAR_END: u64 = 120_000;

impl Listed for Peer {
    fn id(&self) -> RowId {
        RowId::Session(self.view.id)
    }

    fn columns() -> &'static [Column<Peer>] {
        COLUMNS
    }

    fn is_over(&self) -> bool {
        !self.is_live()
    }
}

static COLUMNS: &[Column<Peer>] = &[
    col!(
        "who",
        "who",
        8..20,
        0,
        LEFT,
        true,
        "the engineer",
        |peer, _, _| Cell::new(peer.view.user.to_string(), Tone::Strong),
        |peer, _| Key::text(&peer.view.user)
    ),
    col!(
        "org",
        "org",
        6..14,
        6,
        LEFT,
        true,
        "the engineer's organisation",
        |peer, _, _| or_dash(peer.view.org.as_ref()),
        |peer, _| text_key(peer.view.org.as_ref())
    ),
    col!(
        "asset",
        "asset",
        10..24,
        1,
        LEFT,
        true,
        "the device",
        |peer, _, _| Cell::plain(peer.view.asset.to_string()),
        |peer, _| Key::text(&peer.view.asset)
    ),
    col!(
        "site",
        "site",
        6..18,
        2,
        LEFT,
        true,
        "where it is",
        |peer, _, _| Cell::plain(peer.view.site.to_string()),
        |peer, _| Key::text(&peer.view.site)
    ),
    col!(
        "task",
        "task",
        7..16,
        5,
        LEFT,
        true,
        "what is to be done",
        |peer, _, _| Cell::plain(peer.view.task.to_string()),
        |peer, _| Key::text(&peer.view.task)
    ),
    col!(
        "left",
        "time left",
        11..20,
        3,
        LEFT,
        true,
        "time left, as a bar of the whole time; or the state it is in",
        left,
        |peer, ctx| match peer.view.state {
            // What is not confirmed stands first: on a long list it would be missed at the end.
            SessionState::Ending => Key::Number(-1),
            // By the moment of its end: what is left is told now sooner, now later, and rows would change places.
            _ => peer.left(ctx.now).map_or(Key::Nothing, |left| match peer.view.ends_at {
                Some(at) => Key::Number(at.as_millis()),
                None => Key::Number(ctx.model.controller_now(ctx.now).as_millis().saturating_add_unsigned(left)),
            }),
        }
    ),
    col!("age", "age", 5..6, 8, RIGHT, true, "since it was opened", age, |peer, ctx| Key::maybe(
        peer.age(ctx.now, ctx.model.skew)
    )),
    col!(
        "up",
        "up/s",
        6..7,
        4,
        RIGHT,
        true,
        "bytes a second from the engineer to the device",
        |peer, ctx, _| rate(peer, ctx, peer.up.rate(ctx.now.mono)),
        |peer, ctx| Key::number(peer.up.rate(ctx.now.mono))
    ),
    col!(
        "down",
        "down/s",
        6..7,
        4,
        RIGHT,
        true,
        "bytes a second from the device to the engineer",
        |peer, ctx, _| rate(peer, ctx, peer.down.rate(ctx.now.mono)),
        |peer, ctx| Key::number(peer.down.rate(ctx.now.mono))
    ),
    col!(
        "traffic",
        "last minute",
        8..20,
        9,
        LEFT,
        true,
        "both directions over the last minute, 3 s a letter",
        spark,
        |peer, ctx| Key::number(total(peer, ctx, 20).iter().sum::<u64>())
    ),
    col!(
        "denied",
        "denied",
        6..7,
        3,
        RIGHT,
        true,
        "packets of this session that were not its lane's",
        denied,
        |peer, _| Key::number(refused(peer))
    ),
    col!(
        "handshake",
        "shake",
        5..6,
        10,
        RIGHT,
        true,
        "since the last WireGuard handshake",
        |peer, ctx, _| ago(peer.view.last_handshake_at, ctx),
        |peer, ctx| Key::maybe(peer.view.last_handshake_at.map(|at| ctx.model.since(at, ctx.now)))
    ),
    col!(
        "endpoint",
        "endpoint",
        15..22,
        11,
        LEFT,
        true,
        "where the engineer's packets come from",
        |peer, _, _| or_dash(peer.view.endpoint.as_ref()),
        |peer, _| text_key(peer.view.endpoint.as_ref())
    ),
    col!(
        "path",
        "path",
        6..6,
        12,
        LEFT,
        true,
        "through the relay, or direct",
        |peer, _, _| Cell::plain(path(peer.view.path)),
        |peer, _| Key::text(path(peer.view.path))
    ),
    col!(
        "backend",
        "backend",
        7..10,
        13,
        LEFT,
        true,
        "which WireGuard the gateway uses",
        |peer, _, _| or_dash(peer.view.backend.as_ref()),
        |peer, _| text_key(peer.view.backend.as_ref())
    ),
    col!(
        "state",
        "state",
        6..8,
        7,
        LEFT,
        false,
        "arming, active, ending or ended",
        |peer, _, _| Cell::new(state(peer.view.state), state_tone(peer.view.state)),
        |peer, _| Key::number(peer.view.state as u64)
    ),
    col!(
        "id",
        "id",
        12..12,
        14,
        LEFT,
        true,
        "the session's id",
        |peer, _, _| Cell::dim(peer.view.id.to_string()),
        |peer, _| Key::text(peer.view.id.to_string())
    ),
    col!(
        "address",
        "address",
        11..15,
        15,
        LEFT,
        false,
        "the engineer's address inside the lane",
        |peer, _, _| Cell::plain(peer.view.address.to_string()),
        |peer, _| Key::number(u32::from(peer.view.address))
    ),
    col!(
        "port",
        "port",
        9..9,
        15,
        LEFT,
        false,
        "protocol and port",
        |peer, _, _| Cell::plain(format!("{} {}", peer.view.protocol, peer.view.port)),
        |peer, _| Key::number(peer.view.port)
    ),
    col!(
        "total",
        "total",
        6..8,
        15,
        RIGHT,
        false,
        "bytes in both directions since it was opened",
        |peer, _, _| Cell::plain(text::bytes(
            peer.view.counters.up_bytes.saturating_add(peer.view.counters.down_bytes)
        )),
        |peer, _| Key::number(peer.view.counters.up_bytes.saturating_add(peer.view.counters.down_bytes))
    ),
    col!(
        "packets",
        "packets",
        7..9,
        15,
        RIGHT,
        false,
        "packets in both directions; ~ where the gateway's kernel counts merged ones as one",
        |peer, _, _| {
            let mark = if peer.view.merged { "~" } else { "" };
            Cell::plain(format!("{mark}{}", short_count(packets(peer))))
        },
        |peer, _| Key::number(packets(peer))
    ),
    col!(
        "ticket",
        "ticket",
        8..16,
        16,
        LEFT,
        false,
        "the ticket that was named",
        |peer, _, _| or_dash(peer.view.ticket.as_ref()),
        |peer, _| text_key(peer.view.ticket.as_ref())
    ),
    col!(
        "opened",
        "opened",
        8..14,
        16,
        LEFT,
        false,
        "when it was opened",
        |peer, ctx, _| peer.view.opened_at.map_or_else(Cell::default, |at| super::moment(at, ctx)),
        |peer, _| time_key(peer.view.opened_at)
    ),
    col!(
        "reason",
        "reason",
        12..60,
        17,
        LEFT,
        true,
        "why it was asked for",
        |peer, _, _| Cell::plain(peer.view.reason.clone()),
        |peer, _| Key::text(&peer.view.reason)
    ),
];

fn left(peer: &Peer, ctx: &Ctx<'_>, width: usize) -> Cell {
    let Some(left) = peer.left(ctx.now).filter(|_| peer.view.state == SessionState::Active) else {
        let mut word = state(peer.view.state).to_owned();
        if let Some(reason) = peer.view.end_reason {
            word = match (width < 16, peer.view.state) {
                (false, _) => format!("{word}: {reason}"),
                (true, SessionState::Ended) => reason.to_string(),
                // "killed" would say that it is over, and nobody has confirmed that.
                (true, _) => word,
            };
        }
        return Cell::new(word, state_tone(peer.view.state));
    };
    let clock = text::countdown(left);
    // The clock keeps its place however long it is.
    let clock = format!("{clock:>5}");
    let room = width.saturating_sub(clock.len() + 1).min(12);
    let part = peer.length().map_or(0.0, |length| left as f64 / length.max(1) as f64);
    let tone = if left < NEAR_END { Tone::Warn } else { Tone::Plain };
    Cell::new(format!("{} {clock}", ctx.glyphs.bar(part, room)), tone)
}

fn age(peer: &Peer, ctx: &Ctx<'_>, _: usize) -> Cell {
    peer.age(ctx.now, ctx.model.skew).map_or_else(|| Cell::dim("-"), |age| Cell::plain(text::short(age)))
}

fn rate(peer: &Peer, ctx: &Ctx<'_>, bytes: u64) -> Cell {
    match bytes {
        // No word of it is no silence of the lane.
        _ if ctx.model.is_untold(peer, ctx.now) => Cell::dim("?"),
        0 => Cell::dim("-"),
        _ => Cell::plain(text::rate(bytes)),
    }
}

fn total(peer: &Peer, ctx: &Ctx<'_>, columns: usize) -> Vec<u64> {
    let up = peer.up.columns(ctx.now.mono, columns);
    up.iter().zip(peer.down.columns(ctx.now.mono, columns)).map(|(up, down)| up.saturating_add(down)).collect()
}

fn spark(peer: &Peer, ctx: &Ctx<'_>, width: usize) -> Cell {
    let columns = width.min(20);
    let bars = ctx.glyphs.spark(&total(peer, ctx, columns));
    let untold = ctx.model.untold_columns(peer, ctx.now, columns);
    Cell::plain(bars.chars().zip(untold).map(|(bar, untold)| if untold { '?' } else { bar }).collect::<String>())
}

fn packets(peer: &Peer) -> u64 {
    peer.view.counters.up_packets.saturating_add(peer.view.counters.down_packets)
}

fn refused(peer: &Peer) -> u64 {
    peer.view.counters.denied_packets.saturating_add(peer.view.counters.spoofed_packets)
}

fn denied(peer: &Peer, _: &Ctx<'_>, _: usize) -> Cell {
    match (refused(peer), peer.view.counters.spoofed_packets) {
        (0, _) => Cell::dim("0"),
        (count, 0) => Cell::new(short_count(count), Tone::Warn),
        // A foreign source inside the tunnel is no slip of a tool.
        (count, _) => Cell::new(format!("!{}", short_count(count)), Tone::Bad),
    }
}

fn short_count(count: u64) -> String {
    match count {
        0..100_000 => count.to_string(),
        100_000..100_000_000 => format!("{}k", count / 1000),
        _ => format!("{}M", count / 1_000_000),
    }
}

/// The word for a path.
pub(crate) fn path(path: Path) -> &'static str {
    match path {
        Path::Relay => "relay",
        Path::Direct => "direct",
    }
}

/// The word for a state.
pub(crate) fn state(state: SessionState) -> &'static str {
    match state {
        SessionState::Arming => "arming",
        SessionState::Active => "active",
        SessionState::Ending => "ending",
        SessionState::Ended => "ended",
    }
}

pub(crate) fn state_tone(state: SessionState) -> Tone {
    match state {
        SessionState::Active => Tone::Good,
        SessionState::Arming => Tone::Warn,
        SessionState::Ending => Tone::Bad,
        SessionState::Ended => Tone::Dim,
    }
}
