//! Handshake messages that came before.

/// How many are remembered.
const MOST: usize = 32;
/// Where a handshake message ends in two MACs of this length each (WireGuard whitepaper, 5.4.4).
const MAC: usize = 16;

/// The last handshake messages that one end took, known again by their MAC1: nobody who does not know the end's public
/// key can write another one, so a stranger has nothing but copies, and a copy shall cost and move nothing.
#[derive(Debug, Clone)]
pub struct Recent {
    macs: [[u8; MAC]; MOST],
    next: usize,
}

impl Default for Recent {
    fn default() -> Self {
        Self { macs: [[0; MAC]; MOST], next: 0 }
    }
}

impl Recent {
    /// Whether a message, its MACs included, was noted before; one too short to have them counts as noted.
    pub fn knows(&self, message: &[u8]) -> bool {
        mac1(message).is_none_or(|mac| self.macs.contains(&mac))
    }

    /// Remembers a message in place of the oldest one.
    pub fn note(&mut self, message: &[u8]) {
        if let (Some(mac), Some(slot)) = (mac1(message), self.macs.get_mut(self.next)) {
            *slot = mac;
            self.next = (self.next + 1) % MOST;
        }
    }
}

fn mac1(message: &[u8]) -> Option<[u8; MAC]> {
    let at = message.len().checked_sub(2 * MAC)?;
    message.get(at..at + MAC)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_known_whatever_its_second_mac_until_many_others_came() {
        let message = |number: u8| [vec![1; 116], vec![number; 32]].concat();
        let mut recent = Recent::default();
        assert!(!recent.knows(&message(1)) && recent.knows(&[1; 31]));
        recent.note(&message(1));
        let mut copy = message(1);
        copy[132..].fill(0);
        assert!(recent.knows(&copy));
        (2..=33).for_each(|number| recent.note(&message(number)));
        assert!(!recent.knows(&message(1)) && recent.knows(&message(2)));
    }
}
