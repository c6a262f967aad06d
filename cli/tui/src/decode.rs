//! What comes from the terminal: its bytes as keys, as pasted text, and as its own answers.

use crate::key::Key;

/// What may stand between two marks of a paste; the rest of a longer one is dropped.
const MOST_PASTED: usize = 4096;
/// No sequence of a terminal is longer.
const MOST_SEQUENCE: usize = 256;
/// How long a sequence that has begun may stay without its rest, in milliseconds: after that Esc was a key.
const REST: u64 = 100;
/// How long a paste may stay without its end, in milliseconds: after that keys are keys again.
const PASTE: u64 = 1_500;
const ESC: u8 = 0x1b;
const PASTE_ENDS: &[u8] = b"\x1b[201~";

/// One thing that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Typed {
    Key(Key),
    /// Text that was pasted: letters for a field, never keys.
    Paste(String),
    /// The answer to [`QUESTION`]: everything sent before it has arrived.
    Arrived,
}

/// Asks the terminal to answer when it has got here (ECMA-48 DSR 5); every terminal since the VT100 does.
pub const QUESTION: &[u8] = b"\x1b[5n";

/// Bytes that came, until they are something.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    pasted: Option<Vec<u8>>,
}

/// What the first bytes are.
enum Step {
    /// So many bytes are this, or nothing of ours.
    Is(usize, Option<Typed>),
    /// A paste begins after so many.
    Paste(usize),
    /// More must come before it can be known.
    More,
}

impl Decoder {
    /// Takes what came; what it is.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<Typed> {
        self.bytes.extend_from_slice(bytes);
        let mut typed = Vec::new();
        loop {
            if self.pasted.is_some() {
                match self.paste() {
                    Some(text) => typed.push(Typed::Paste(text)),
                    None => return typed,
                }
            }
            if self.bytes.is_empty() {
                return typed;
            }
            let length = match step(&self.bytes) {
                Step::Is(length, is) => {
                    typed.extend(is);
                    length
                }
                Step::Paste(length) => {
                    self.pasted = Some(Vec::new());
                    length
                }
                Step::More if self.bytes.len() > MOST_SEQUENCE => self.bytes.len(),
                Step::More => return typed,
            };
            self.bytes.drain(..length.min(self.bytes.len()));
        }
    }

    /// Milliseconds after which [`Decoder::settle`] is due if nothing comes; `None`: nothing is half here.
    pub fn patience(&self) -> Option<u64> {
        match (&self.pasted, self.bytes.is_empty()) {
            (Some(_), _) => Some(PASTE),
            (None, false) => Some(REST),
            (None, true) => None,
        }
    }

    /// Nothing came any more: a lone Esc was a key, and a broken sequence was nothing.
    pub fn settle(&mut self) -> Option<Typed> {
        let bytes = std::mem::take(&mut self.bytes);
        if let Some(mut pasted) = self.pasted.take() {
            // What was held back because it might have been the end.
            pasted.extend(bytes.into_iter().take_while(|byte| *byte != ESC));
            return Some(Typed::Paste(String::from_utf8_lossy(&pasted).into_owned()));
        }
        (bytes == [ESC]).then_some(Typed::Key(Key::Esc))
    }

    /// Moves what belongs to the paste there; the whole text when it has ended.
    fn paste(&mut self) -> Option<String> {
        let end = self.bytes.windows(PASTE_ENDS.len()).position(|window| window == PASTE_ENDS);
        // The end's own first bytes may be here already.
        let until = end.unwrap_or(self.bytes.len().saturating_sub(PASTE_ENDS.len() - 1));
        let pasted = self.pasted.get_or_insert_default();
        let room = MOST_PASTED.saturating_sub(pasted.len());
        pasted.extend(self.bytes.drain(..until).take(room));
        end?;
        self.bytes.drain(..PASTE_ENDS.len());
        let pasted = self.pasted.take().unwrap_or_default();
        Some(String::from_utf8_lossy(&pasted).into_owned())
    }
}

fn step(bytes: &[u8]) -> Step {
    let key = |key| Step::Is(1, Some(Typed::Key(key)));
    match bytes[0] {
        ESC => escape(bytes),
        b'\r' => key(Key::Enter),
        b'\t' => key(Key::Tab),
        0x08 | 0x7f => key(Key::Backspace),
        control @ 1..=0x1a => key(Key::Ctrl(char::from(control - 1 + b'a'))),
        0..=0x1f => Step::Is(1, None),
        first => match letter(first, bytes) {
            Some((length, letter)) => Step::Is(length, letter.map(|letter| Typed::Key(Key::Char(letter)))),
            None => Step::More,
        },
    }
}

/// A letter of UTF-8 and its length; `None`: its rest must come first. What is no UTF-8 is one byte of nothing.
fn letter(first: u8, bytes: &[u8]) -> Option<(usize, Option<char>)> {
    let length = match first {
        0..0x80 => 1,
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return Some((1, None)),
    };
    let have = &bytes[..length.min(bytes.len())];
    match std::str::from_utf8(have) {
        Ok(text) => Some((length, text.chars().next())),
        Err(error) if error.error_len().is_none() => None,
        Err(_) => Some((1, None)),
    }
}

/// A sequence of the terminal, Esc alone, or Esc before a letter. That is Alt, which is no key of ours and must not act,
/// or two keys that a slow line brought together: so it is the Esc, which only ever leaves, and the letter is nothing.
fn escape(bytes: &[u8]) -> Step {
    match bytes.get(1) {
        None => Step::More,
        Some(b'[') => control(bytes),
        Some(b'O') => match bytes.get(2) {
            None => Step::More,
            // The keypad's Enter.
            Some(b'M') => Step::Is(3, Some(Typed::Key(Key::Enter))),
            Some(last) => Step::Is(3, arrow(*last).map(Typed::Key)),
        },
        // An answer in words that nobody asked for: up to its end.
        Some(b']' | b'P' | b'_' | b'^' | b'X') => {
            let ends = |at: &usize| bytes[*at] == 7 || bytes[*at..].starts_with(b"\x1b\\");
            match (2..bytes.len()).find(ends) {
                Some(at) => Step::Is(if bytes[at] == 7 { at + 1 } else { at + 2 }, None),
                None => Step::More,
            }
        }
        Some(&ESC) => Step::Is(1, Some(Typed::Key(Key::Esc))),
        Some(&first) => match letter(first, &bytes[1..]) {
            Some((length, _)) => Step::Is(1 + length, Some(Typed::Key(Key::Esc))),
            None => Step::More,
        },
    }
}

/// `ESC [ parameters final`.
fn control(bytes: &[u8]) -> Step {
    // A console's function keys: `ESC [ [ A`.
    if bytes.get(2) == Some(&b'[') {
        return if bytes.len() < 4 { Step::More } else { Step::Is(4, None) };
    }
    let Some(at) = (2..bytes.len()).find(|at| !(0x20..0x40).contains(&bytes[*at])) else { return Step::More };
    let last = bytes[at];
    if !(0x40..0x7f).contains(&last) {
        // Cut off by something else, which is read for itself.
        return Step::Is(at, None);
    }
    let mut parts = bytes[2..at].split(|byte| *byte == b';');
    let mut number = || parts.next().and_then(|part| std::str::from_utf8(part).ok()).and_then(|part| part.parse().ok());
    let (first, second): (Option<u32>, Option<u32>) = (number(), number());
    // Shift 1, Alt 2, Control 4, Super 8, plus one.
    let alt = second.is_some_and(|held| held.saturating_sub(1) & 0b1010 != 0);
    let key = match (last, first) {
        (b'~', Some(200)) => return Step::Paste(at + 1),
        (b'n', Some(0 | 3)) => return Step::Is(at + 1, Some(Typed::Arrived)),
        (b'~', Some(1 | 7)) => Some(Key::Home),
        (b'~', Some(4 | 8)) => Some(Key::End),
        (b'~', Some(3)) => Some(Key::Delete),
        (b'~', Some(5)) => Some(Key::PageUp),
        (b'~', Some(6)) => Some(Key::PageDown),
        (b'Z', _) => Some(Key::BackTab),
        (b'~', _) => None,
        (last, _) => arrow(last),
    };
    Step::Is(at + 1, key.filter(|_| !alt).map(Typed::Key))
}

fn arrow(last: u8) -> Option<Key> {
    Some(match last {
        b'A' => Key::Up,
        b'B' => Key::Down,
        b'C' => Key::Right,
        b'D' => Key::Left,
        b'H' => Key::Home,
        b'F' => Key::End,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(bytes: &[u8]) -> Vec<Typed> {
        let mut decoder = Decoder::default();
        let mut typed = decoder.take(bytes);
        typed.extend(decoder.settle());
        typed
    }

    #[test]
    fn keys_of_terminals_are_what_they_are_however_they_are_cut() {
        let wanted: &[(&[u8], Key)] = &[
            (b"x", Key::Char('x')),
            ("é".as_bytes(), Key::Char('é')),
            ("日".as_bytes(), Key::Char('日')),
            (b"\r", Key::Enter),
            (b"\t", Key::Tab),
            (b"\x7f", Key::Backspace),
            (b"\x08", Key::Backspace),
            (b"\x03", Key::Ctrl('c')),
            (b"\x0c", Key::Ctrl('l')),
            (b"\x1b[A", Key::Up),
            (b"\x1bOB", Key::Down),
            (b"\x1b[1;5C", Key::Right),
            (b"\x1b[Z", Key::BackTab),
            (b"\x1b[H", Key::Home),
            (b"\x1b[4~", Key::End),
            (b"\x1b[8~", Key::End),
            (b"\x1b[5~", Key::PageUp),
            (b"\x1b[6~", Key::PageDown),
            (b"\x1b[3~", Key::Delete),
            (b"\x1b", Key::Esc),
        ];
        for (bytes, key) in wanted {
            assert_eq!(keys(bytes), [Typed::Key(*key)], "{bytes:?}");
            let mut decoder = Decoder::default();
            let mut typed: Vec<Typed> = bytes.iter().flat_map(|byte| decoder.take(&[*byte])).collect();
            typed.extend(decoder.settle());
            assert_eq!(typed, [Typed::Key(*key)], "{bytes:?}, byte by byte");
        }
    }

    #[test]
    fn escape_and_a_letter_in_one_read_leave_and_never_act() {
        for bytes in [&b"\x1b[1;3A"[..], b"\x1b[[A", b"\x1b[15~", b"\x1b]0;x\x07", b"\x1bP1\x1b\\"] {
            assert_eq!(keys(bytes), [], "{bytes:?}");
        }
        for bytes in [&b"\x1bx"[..], b"\x1b\xc3\xa9", b"\x1b\r"] {
            assert_eq!(keys(bytes), [Typed::Key(Key::Esc)], "{bytes:?}");
        }
        assert_eq!(keys(b"\x1b\x1b[A"), [Typed::Key(Key::Esc), Typed::Key(Key::Up)]);
    }

    #[test]
    fn a_paste_is_never_keys_and_ends_also_without_its_end() {
        assert_eq!(
            keys(b"\x1b[200~x\r\x1b[A\x1b[201~y"),
            [Typed::Paste("x\r\x1b[A".into()), Typed::Key(Key::Char('y'))]
        );
        let mut decoder = Decoder::default();
        for byte in b"\x1b[200~abc\x1b[20" {
            assert!(decoder.take(&[*byte]).is_empty());
        }
        assert!(decoder.patience().is_some_and(|patience| patience > REST));
        assert_eq!(decoder.settle(), Some(Typed::Paste("abc".into())));
        assert_eq!(decoder.take(b"q"), [Typed::Key(Key::Char('q'))]);
        // A longer one is cut, not kept.
        let mut decoder = Decoder::default();
        decoder.take(b"\x1b[200~");
        for _ in 0..1000 {
            decoder.take(&[b'x'; 100]);
        }
        let typed = decoder.take(b"\x1b[201~");
        assert!(matches!(&typed[..], [Typed::Paste(text)] if text.len() == MOST_PASTED), "{}", typed.len());
    }

    #[test]
    fn the_terminals_answer_is_told_from_keys() {
        assert_eq!(
            keys(b"j\x1b[0n\x1b[0nk"),
            [Typed::Key(Key::Char('j')), Typed::Arrived, Typed::Arrived, Typed::Key(Key::Char('k'))]
        );
    }

    #[test]
    fn whatever_comes_is_read_to_its_end_and_kept_nowhere() {
        let mut decoder = Decoder::default();
        let mut seed = 7u64;
        for _ in 0..50_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let byte = match seed >> 33 & 7 {
                0 => ESC,
                1 => b'[',
                2 => b'0',
                3 => b']',
                _ => (seed >> 40) as u8,
            };
            decoder.take(&[byte]);
            assert!(decoder.bytes.len() <= MOST_SEQUENCE + 1);
        }
        decoder.settle();
        assert_eq!(decoder.take(b"q"), [Typed::Key(Key::Char('q'))]);
    }
}
