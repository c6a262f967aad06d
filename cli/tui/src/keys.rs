//! The one table of keys: what each does, where, and what the help screen says about it.

use crate::key::Key;

/// A list, or the page of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum View {
    Sessions,
    Requests,
    Sites,
    Alarms,
    Log,
    Detail,
}

/// What a key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    Go(View),
    NextView,
    PrevView,
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
    Open,
    Back,
    Kill,
    Lock,
    Unlock,
    Extend,
    Approve,
    Deny,
    Code,
    LogIn,
    Acknowledge,
    Filter,
    SortNext,
    SortPrev,
    Reverse,
    Columns,
    Freeze,
    Follow,
    Resync,
    Redraw,
    Help,
    Quit,
    // While something is asked.
    Confirm,
    Cancel,
    NextField,
    PrevField,
    NextChoice,
    PrevChoice,
    Erase,
    Clear,
    // In the list of columns.
    Toggle,
    MoveEarlier,
    MoveLater,
    SortHere,
    Standard,
}

/// Where a key means what: lists, a page, or what lies over them.
pub type Places = u16;
pub const SESSIONS: Places = 1;
pub const REQUESTS: Places = 2;
pub const SITES: Places = 4;
pub const ALARMS: Places = 8;
pub const LOG: Places = 16;
pub const DETAIL: Places = 32;
/// A question before something is done.
pub const ASK: Places = 64;
/// The filter's line.
pub const FILTER: Places = 128;
/// The choice of columns.
pub const COLUMNS: Places = 256;
/// The help screen.
pub const HELP: Places = 512;
/// An enrolment code.
pub const CODE: Places = 1024;

const LISTS: Places = SESSIONS | REQUESTS | SITES | ALARMS | LOG;
const MAIN: Places = LISTS | DETAIL;
const OVER: Places = ASK | FILTER | COLUMNS | HELP | CODE;

/// One line of the table.
pub struct Binding {
    pub keys: &'static [Key],
    pub places: Places,
    pub action: Action,
    /// In the bottom line, where there is room; empty: only in the help.
    pub label: &'static str,
    pub help: &'static str,
}

const fn bind(
    keys: &'static [Key],
    places: Places,
    action: Action,
    label: &'static str,
    help: &'static str,
) -> Binding {
    Binding { keys, places, action, label, help }
}

/// Every key. The order is that of the help screen and of the bottom line.
pub static TABLE: &[Binding] = &[
    bind(&[Key::Char('?')], MAIN, Action::Help, "help", "this help"),
    bind(&[Key::Char('x')], SESSIONS | DETAIL, Action::Kill, "kill", "stop the selected session now; asks first"),
    bind(
        &[Key::Char('l')],
        SESSIONS | REQUESTS | SITES | DETAIL,
        Action::Lock,
        "lock",
        "lock a person, organisation, site or asset of the selected row; asks first",
    ),
    bind(
        &[Key::Char('e')],
        SESSIONS | DETAIL,
        Action::Extend,
        "extend",
        "more time for the selected session, as far as the policy permits; asks first",
    ),
    bind(&[Key::Char('a')], REQUESTS, Action::Approve, "approve", "approve the selected request; asks first"),
    bind(&[Key::Char('d')], REQUESTS, Action::Deny, "deny", "deny the selected request; asks first"),
    bind(
        &[Key::Char('t')],
        SITES,
        Action::Code,
        "code",
        "a new enrolment code for the selected site, as a QR code too; asks first",
    ),
    bind(
        &[Key::Char('u')],
        SITES,
        Action::Unlock,
        "unlock",
        "take the lock or the freeze of the selected site away; asks first",
    ),
    bind(
        &[Key::Char('m')],
        MAIN,
        Action::Acknowledge,
        "mark seen",
        "mark the alarms that the banner shows as seen, in the list of alarms all that it holds; on this screen only",
    ),
    bind(
        &[Key::Enter],
        SESSIONS | REQUESTS | SITES | ALARMS,
        Action::Open,
        "open",
        "the page of the selected session; on a request, all of it; on a site or an alarm, the sessions there",
    ),
    bind(&[Key::Esc, Key::Backspace], MAIN, Action::Back, "", "back; on a list: drop the filter"),
    bind(
        &[Key::Char('/')],
        LISTS,
        Action::Filter,
        "filter",
        "filter: words that must all be there; !word must not; site:north looks in one column",
    ),
    bind(
        &[Key::Char('>'), Key::Char('s')],
        LISTS,
        Action::SortNext,
        "sort",
        "sort by the next column; kept with c and Enter",
    ),
    bind(&[Key::Char('<'), Key::Char('S')], LISTS, Action::SortPrev, "", "sort by the column before"),
    bind(&[Key::Char('r')], LISTS, Action::Reverse, "", "reverse the order"),
    bind(&[Key::Char('c')], LISTS, Action::Columns, "columns", "choose columns and their order; kept in tui.toml"),
    bind(&[Key::Char(' ')], MAIN, Action::Freeze, "freeze", "freeze the picture while the world goes on; again: go on"),
    bind(
        &[Key::Char('f')],
        LISTS,
        Action::Follow,
        "follow",
        "follow: keep the selected row in sight; in alarms and log, stay at the newest",
    ),
    bind(&[Key::Down, Key::Char('j')], MAIN, Action::Down, "", "one row down"),
    bind(&[Key::Up, Key::Char('k')], MAIN, Action::Up, "", "one row up"),
    bind(&[Key::PageDown, Key::Ctrl('f')], MAIN, Action::PageDown, "", "one page down"),
    bind(&[Key::PageUp, Key::Ctrl('b')], MAIN, Action::PageUp, "", "one page up"),
    bind(&[Key::Home, Key::Char('g')], MAIN, Action::First, "", "the first row"),
    bind(&[Key::End, Key::Char('G')], MAIN, Action::Last, "", "the last row"),
    bind(&[Key::Char('1')], MAIN, Action::Go(View::Sessions), "", "sessions: who is on what, now"),
    bind(&[Key::Char('2')], MAIN, Action::Go(View::Requests), "", "requests: what waits for a decision"),
    bind(&[Key::Char('3')], MAIN, Action::Go(View::Sites), "", "sites and their gateways"),
    bind(&[Key::Char('4')], MAIN, Action::Go(View::Alarms), "", "denials and alarms"),
    bind(&[Key::Char('5')], MAIN, Action::Go(View::Log), "", "the log"),
    bind(&[Key::Tab, Key::Right], MAIN, Action::NextView, "", "the next view"),
    bind(&[Key::BackTab, Key::Left], MAIN, Action::PrevView, "", "the view before"),
    bind(
        &[Key::Char('L')],
        MAIN,
        Action::LogIn,
        "",
        "log in again, when the log-in is about to end or has ended; the screen stays",
    ),
    bind(&[Key::Ctrl('r')], MAIN, Action::Resync, "", "fetch everything from the controller again"),
    bind(&[Key::Ctrl('l')], MAIN | OVER, Action::Redraw, "", "draw the whole screen again"),
    bind(&[Key::Char('q')], MAIN, Action::Quit, "quit", "leave; sessions go on"),
    bind(&[Key::Ctrl('c')], MAIN | OVER, Action::Quit, "", "leave at once, from anywhere"),
    bind(&[Key::Enter], ASK, Action::Confirm, "do it", "do exactly what the question says"),
    bind(&[Key::Esc], ASK | FILTER | COLUMNS | HELP | CODE, Action::Cancel, "leave", "leave; nothing is done"),
    bind(&[Key::Tab, Key::Down], ASK, Action::NextField, "", "the next field"),
    bind(&[Key::BackTab, Key::Up], ASK, Action::PrevField, "", "the field before"),
    bind(&[Key::Right], ASK, Action::NextChoice, "", "another target: person, organisation, site, asset"),
    bind(&[Key::Left], ASK, Action::PrevChoice, "", "the target before"),
    bind(&[Key::Backspace], ASK | FILTER, Action::Erase, "", "erase one letter"),
    bind(&[Key::Ctrl('u')], ASK | FILTER, Action::Clear, "clear", "erase the whole field"),
    bind(
        &[Key::Enter],
        FILTER | HELP | CODE,
        Action::Confirm,
        "done",
        "keep the filter; close what lies over the list",
    ),
    bind(&[Key::Char('q'), Key::Char('?')], HELP, Action::Cancel, "", "close the help"),
    bind(&[Key::Down, Key::Char('j')], COLUMNS | HELP, Action::Down, "", "one row down"),
    bind(&[Key::Up, Key::Char('k')], COLUMNS | HELP, Action::Up, "", "one row up"),
    bind(&[Key::PageDown, Key::Char('f')], HELP, Action::PageDown, "", "one page down"),
    bind(&[Key::PageUp, Key::Char('b')], HELP, Action::PageUp, "", "one page up"),
    bind(&[Key::Char(' ')], COLUMNS, Action::Toggle, "on/off", "show or hide the column"),
    bind(&[Key::Char('+'), Key::Right], COLUMNS, Action::MoveLater, "later", "move the column to the right"),
    bind(&[Key::Char('-'), Key::Left], COLUMNS, Action::MoveEarlier, "earlier", "move the column to the left"),
    bind(&[Key::Char('s')], COLUMNS, Action::SortHere, "sort", "sort by this column, shown or not; again: reversed"),
    bind(&[Key::Char('0')], COLUMNS, Action::Standard, "standard", "the standard columns again"),
    bind(
        &[Key::Enter, Key::Char('c')],
        COLUMNS,
        Action::Confirm,
        "keep",
        "keep these columns, for the next time as well",
    ),
];

impl View {
    pub const LISTS: [View; 5] = [View::Sessions, View::Requests, View::Sites, View::Alarms, View::Log];

    /// Where keys are pressed while this view is on top.
    pub fn place(self) -> Places {
        match self {
            View::Sessions => SESSIONS,
            View::Requests => REQUESTS,
            View::Sites => SITES,
            View::Alarms => ALARMS,
            View::Log => LOG,
            View::Detail => DETAIL,
        }
    }

    /// The word in the head line, in tui.toml and after `--view`.
    pub fn word(self) -> &'static str {
        match self {
            View::Sessions => "sessions",
            View::Requests => "requests",
            View::Sites => "sites",
            View::Alarms => "alarms",
            View::Log => "log",
            View::Detail => "session",
        }
    }

    /// The list with this word.
    pub fn from_word(word: &str) -> Option<View> {
        View::LISTS.into_iter().find(|view| view.word() == word)
    }
}

/// What a key does in a place.
pub fn action(key: Key, place: Places) -> Option<Action> {
    TABLE.iter().find(|line| line.places & place != 0 && line.keys.contains(&key)).map(|line| line.action)
}

/// Places with their headings, as the help screen shows them.
pub static CHAPTERS: &[(&str, Places)] = &[
    ("Everywhere", MAIN),
    ("Sessions, and the page of one", SESSIONS | DETAIL),
    ("Requests", REQUESTS),
    ("Sites", SITES),
    ("While something is asked", ASK),
    ("In the filter's line", FILTER),
    ("In the choice of columns", COLUMNS),
    ("In this help, in a request, and over an enrolment code", HELP | CODE),
];

/// What a filter understands, as the help says it: what to write, and what it means.
pub static FILTERS: &[(&str, &str)] = &[
    ("erik north", "rows with both words, wherever they stand; capitals do not matter"),
    ("!acme", "rows without that word"),
    ("site:north", "rows with that in one column; columns are called as the key c names them, shown or not"),
    ("site:=north", "rows with exactly that: not those of north2"),
    ("!path:relay", "rows without that in that column"),
    ("denied:7", "numbers are looked for in a named column only, because they change all the time"),
];

/// The lines of one chapter: each stands in the first that it fits.
pub fn chapter(at: usize) -> impl Iterator<Item = &'static Binding> {
    let home = |line: &Binding| match line.places & (ALARMS | LOG) {
        0 => CHAPTERS.iter().skip(1).position(|(_, places)| line.places & places != 0).map(|found| found + 1),
        _ => Some(0),
    };
    TABLE.iter().filter(move |line| home(line) == Some(at))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_key_means_two_things_in_one_place() {
        for bit in 0..11 {
            let place = 1 << bit;
            let mut seen = BTreeSet::new();
            for line in TABLE.iter().filter(|line| line.places & place != 0) {
                for key in line.keys {
                    assert!(seen.insert(*key), "{key} twice in place {place}: {}", line.help);
                }
            }
        }
    }

    #[test]
    fn every_key_stands_in_the_help_exactly_once() {
        for (at, line) in TABLE.iter().enumerate() {
            let homes = (0..CHAPTERS.len()).filter(|index| chapter(*index).any(|one| std::ptr::eq(one, line))).count();
            assert_eq!(homes, 1, "line {at}: {}", line.help);
            assert!(!line.help.is_empty() && !line.keys.is_empty());
        }
    }

    #[test]
    fn the_keys_that_move_never_act() {
        for key in [Key::Char('j'), Key::Char('k'), Key::Up, Key::Down, Key::PageUp, Key::PageDown, Key::Char('h')] {
            let acts = action(key, SESSIONS);
            assert!(
                matches!(acts, None | Some(Action::Up | Action::Down | Action::PageUp | Action::PageDown)),
                "{key}"
            );
        }
    }

    #[test]
    fn leaving_works_from_every_place() {
        for bit in 0..11 {
            assert_eq!(action(Key::Ctrl('c'), 1 << bit), Some(Action::Quit), "place {bit}");
            assert!(action(Key::Esc, 1 << bit).is_some(), "place {bit}");
        }
    }
}
