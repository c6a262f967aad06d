//! What people are told of the way to the gateway: each change once, and what happened.
//!
//! Pure. Ways are numbers here; whoever asks knows which they are.

/// What is worth saying of the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// The gateway stopped answering; it is looked for at another way.
    Left { from: usize, to: usize },
    /// The gateway answers at the way where it was said to be looked for.
    Reached(usize),
    /// The gateway, of which it was said that it does not answer there, does so again.
    Again(usize),
    /// Nobody had missed the gateway: it is heard at another way than before.
    Found { from: usize, at: usize },
}

/// The way that people know of.
#[derive(Debug)]
pub struct Told {
    at: usize,
    /// It was said that the gateway does not answer, and it has not since.
    silent: bool,
}

impl Told {
    /// The gateway was first heard there, or is expected there.
    pub fn new(at: usize) -> Self {
        Self { at, silent: false }
    }

    /// The gateway does not answer at one way, and another is tried: said once of a silence.
    pub fn tries(&mut self, from: usize, to: usize) -> Option<News> {
        if from == to || std::mem::replace(&mut self.silent, true) {
            return None;
        }
        self.at = to;
        Some(News::Left { from, to })
    }

    /// The gateway hears us, and is heard, at a way.
    pub fn heard(&mut self, at: usize) -> Option<News> {
        let silent = std::mem::take(&mut self.silent);
        let from = std::mem::replace(&mut self.at, at);
        match (from == at, silent) {
            (true, false) => None,
            (true, true) => Some(News::Reached(at)),
            (false, true) => Some(News::Again(at)),
            (false, false) => Some(News::Found { from, at }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_is_told_once_and_so_is_where_it_ends() {
        let mut told = Told::new(0);
        assert_eq!(told.heard(0), None);
        assert_eq!(told.tries(0, 1), Some(News::Left { from: 0, to: 1 }));
        assert_eq!((told.tries(1, 0), told.tries(0, 1)), (None, None), "of the same silence");
        assert_eq!(told.heard(1), Some(News::Reached(1)), "where it was said that it is looked for");
        assert_eq!((told.heard(1), told.heard(1)), (None, None), "that was told");
        assert_eq!(told.tries(1, 0), Some(News::Left { from: 1, to: 0 }));
        assert_eq!(told.heard(1), Some(News::Again(1)));
        assert_eq!(told.heard(1), None);
    }

    #[test]
    fn a_lane_that_flaps_says_two_things_of_each_silence() {
        let mut told = Told::new(0);
        for silence in 0..10 {
            let (from, to) = (silence % 2, (silence + 1) % 2);
            let tried = (0..50).filter_map(|turn| told.tries((from + turn) % 2, (to + turn) % 2));
            assert_eq!(tried.collect::<Vec<_>>(), [News::Left { from, to }]);
            let heard: Vec<News> = (0..50).filter_map(|_| told.heard(to)).collect();
            assert_eq!(heard, [News::Reached(to)]);
        }
    }

    #[test]
    fn a_gateway_that_nobody_missed_does_not_answer_again_but_elsewhere() {
        let mut told = Told::new(0);
        assert_eq!(told.heard(1), Some(News::Found { from: 0, at: 1 }));
        assert_eq!(told.heard(1), None);
        assert_eq!(told.tries(1, 1), None, "another address of the same way");
        assert_eq!(told.heard(0), Some(News::Found { from: 1, at: 0 }));
    }
}
