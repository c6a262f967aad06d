//! Each corpus is replayed, with mutations that are the same every time.

use thinlane_fuzz::{Mutator, TARGETS, seeds};

/// Mutated inputs for each target.
const MUTATIONS: usize = 20_000;

#[test]
fn every_target_survives_its_corpus_and_mutations_of_it() {
    for target in TARGETS {
        let seeds = seeds(target).expect("the corpus can be read");
        assert!(!seeds.is_empty(), "{} has nothing to begin with", target.name);
        seeds.iter().for_each(|seed| (target.run)(seed));
        let mut mutator = Mutator::new(0x7168_6c61);
        for _ in 0..MUTATIONS {
            (target.run)(&mutator.make(&seeds));
        }
    }
}

#[test]
fn every_corpus_belongs_to_a_target() {
    let corpora = thinlane_fuzz::corpus("x");
    for entry in std::fs::read_dir(corpora.parent().expect("a folder")).expect("the corpora") {
        let name = entry.expect("an entry").file_name();
        assert!(TARGETS.iter().any(|target| name == target.name), "{name:?} belongs to no target");
    }
}
