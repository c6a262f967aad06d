//! Each corpus is replayed, with mutations that are the same every time.

use thinlane_fuzz::{Run, TARGETS, seeds};

#[test]
fn every_target_survives_its_corpus_and_mutations_of_it_which_get_deep() {
    for target in TARGETS {
        let seeds = seeds(target).expect("the corpus can be read");
        assert!(!seeds.is_empty(), "{} has nothing to begin with", target.name);
        seeds.iter().for_each(|seed| (target.run)(seed, &mut |_| {}));
        let mut run = Run::new(target, 0x7168_6c61).expect("the corpus can be read");
        for _ in 0..target.replayed {
            run.one().unwrap_or_else(|failure| panic!("{failure}"));
        }
        assert!(run.missing().is_empty(), "no input of {} got to {:?}", target.name, run.missing());
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
