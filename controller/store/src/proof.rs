//! The log's tree with the hashes of all whole subtrees, so that a proof costs its own length.

use thinlane_tlog::Hash;
use thinlane_tlog::tree::{EMPTY_ROOT, node_hash};

/// All whole subtrees of an RFC 6962 tree: 64 bytes of memory per entry, proofs in O(log² n).
#[derive(Debug, Clone, Default)]
pub struct Proofs {
    /// `levels[h][i]` is the root over the entries `i * 2^h .. (i + 1) * 2^h`.
    levels: Vec<Vec<Hash>>,
}

impl Proofs {
    pub fn new() -> Self {
        Self::default()
    }

    /// Entries in the tree.
    pub fn size(&self) -> u64 {
        self.levels.first().map_or(0, |leaves| leaves.len() as u64)
    }

    /// Adds the next entry's leaf hash.
    pub fn append(&mut self, leaf: Hash) {
        let mut hash = leaf;
        for height in 0.. {
            if self.levels.len() == height {
                self.levels.push(Vec::new());
            }
            let level = &mut self.levels[height];
            level.push(hash);
            if level.len() % 2 == 1 {
                break;
            }
            hash = node_hash(&level[level.len() - 2], &level[level.len() - 1]);
        }
    }

    /// Forgets the entries from `size` on: for a batch that could not be committed.
    pub fn truncate(&mut self, size: u64) {
        for (height, level) in self.levels.iter_mut().enumerate() {
            level.truncate(usize::try_from(size >> height).unwrap_or(usize::MAX));
        }
    }

    /// The root over the whole tree.
    pub fn root(&self) -> Hash {
        self.root_at(self.size()).unwrap_or(EMPTY_ROOT)
    }

    /// The root as it was over the first `size` entries; `None` beyond the end.
    pub fn root_at(&self, size: u64) -> Option<Hash> {
        match size {
            0 => Some(EMPTY_ROOT),
            size if size > self.size() => None,
            size => Some(self.range(0, size)),
        }
    }

    /// RFC 9162 2.1.4.1: that the tree of `old` entries is the beginning of the one of `new`. `None` when there
    /// are no such trees; empty when they are the same, or the old one is empty.
    pub fn consistency(&self, old: u64, new: u64) -> Option<Vec<Hash>> {
        if old > new || new > self.size() {
            return None;
        }
        let mut proof = Vec::new();
        if old > 0 && old < new {
            self.subproof(old, 0, new, true, &mut proof);
        }
        Some(proof)
    }

    fn subproof(&self, old: u64, from: u64, to: u64, whole: bool, proof: &mut Vec<Hash>) {
        if from + old == to {
            if !whole {
                proof.push(self.range(from, to));
            }
            return;
        }
        let half = split(to - from);
        if old <= half {
            self.subproof(old, from, from + half, whole, proof);
            proof.push(self.range(from + half, to));
        } else {
            self.subproof(old - half, from + half, to, false, proof);
            proof.push(self.range(from, from + half));
        }
    }

    /// The root over `from .. to`, not empty, where `from` is where a subtree of that size begins.
    fn range(&self, from: u64, to: u64) -> Hash {
        let len = to - from;
        if len.is_power_of_two() {
            let height = len.trailing_zeros() as usize;
            return self.levels[height][(from >> height) as usize];
        }
        let half = split(len);
        node_hash(&self.range(from, from + half), &self.range(from + half, to))
    }
}

/// The largest power of two below `len`, which is at least 2.
fn split(len: u64) -> u64 {
    1 << (63 - (len - 1).leading_zeros())
}

#[cfg(test)]
mod tests {
    use super::*;
    use thinlane_tlog::tree::{consistency, leaf_hash, root_of};

    #[test]
    fn proofs_and_roots_are_those_of_the_plain_tree() {
        let leaves: Vec<Hash> = (0u8..70).map(|n| leaf_hash(&[n])).collect();
        let mut proofs = Proofs::new();
        assert_eq!(proofs.root(), EMPTY_ROOT);
        for leaf in &leaves {
            proofs.append(*leaf);
        }
        for new in 0..=leaves.len() {
            assert_eq!(proofs.root_at(new as u64), Some(root_of(&leaves[..new])), "{new}");
            for old in 1..=new {
                let plain = consistency(&leaves[..new], old as u64);
                assert_eq!(proofs.consistency(old as u64, new as u64), plain, "{old} {new}");
            }
        }
        assert_eq!(proofs.consistency(1, 71), None);
    }

    #[test]
    fn what_was_taken_back_leaves_no_trace() {
        let mut proofs = Proofs::new();
        for n in 0u8..37 {
            proofs.append(leaf_hash(&[n]));
        }
        let before = proofs.root();
        for n in 0u8..41 {
            proofs.append(leaf_hash(&[n, n]));
        }
        proofs.truncate(37);
        assert_eq!((proofs.size(), proofs.root()), (37, before));
        proofs.append(leaf_hash(b"next"));
        assert_eq!(proofs.consistency(37, 38).map(|proof| proof.is_empty()), Some(false));
    }
}
