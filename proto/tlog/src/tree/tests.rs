//! Roots and proofs against published vectors, the definition, and flipped bits.

use super::*;
use proptest::prelude::*;

/// The eight entries of the reference test data of RFC 6962 implementations.
const ENTRIES: [&str; 8] =
    ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];

/// The roots over the first 0 to 8 of them.
const ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

const LEAF_1: &str = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7";
const NODE_2_3: &str = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e";
const LEAF_4: &str = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b";
const NODE_4_5: &str = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a";
const NODE_6_7: &str = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0";
const NODE_4_7: &str = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4";

fn hash(text: &str) -> Hash {
    text.parse().expect("64 digits")
}

fn reference() -> Vec<Hash> {
    ENTRIES.iter().map(|entry| leaf_hash(&HEXLOWER.decode(entry.as_bytes()).expect("hexadecimal"))).collect()
}

/// The definition in RFC 6962 section 2.1, word for word and slow.
fn defined_root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Hash(Sha256::digest([]).into()),
        [one] => *one,
        many => {
            let mut k = 1;
            while k * 2 < many.len() {
                k *= 2;
            }
            node_hash(&defined_root(&many[..k]), &defined_root(&many[k..]))
        }
    }
}

fn numbered(count: usize) -> Vec<Hash> {
    (0..count).map(|at| leaf_hash(&at.to_be_bytes())).collect()
}

#[test]
fn the_roots_of_the_reference_entries_are_the_published_ones() {
    let leaves = reference();
    let mut tree = Tree::new();
    for (size, root) in ROOTS.iter().enumerate() {
        assert_eq!(root_of(&leaves[..size]).to_string(), *root);
        assert_eq!((tree.size(), tree.root().to_string()), (size as u64, (*root).to_owned()));
        tree.extend(leaves.get(size).copied());
    }
}

#[test]
fn the_proofs_of_the_reference_entries_are_the_published_ones() {
    let leaves = reference();
    for (index, size, expected) in [
        (0, 1, vec![]),
        (0, 8, vec![LEAF_1, NODE_2_3, NODE_4_7]),
        (5, 8, vec![LEAF_4, NODE_6_7, ROOTS[4]]),
        (2, 3, vec![ROOTS[2]]),
        (1, 5, vec![ROOTS[1], NODE_2_3, LEAF_4]),
    ] {
        let proof = inclusion(&leaves[..size], index).expect("in range");
        assert_eq!(proof, expected.iter().map(|text| hash(text)).collect::<Vec<_>>(), "{index} of {size}");
        let leaf = &leaves[index as usize];
        assert_eq!(verify_inclusion(leaf, index, size as u64, &proof, &hash(ROOTS[size])), Ok(()));
    }
    for (old, new, expected) in [
        (1, 1, vec![]),
        (1, 8, vec![LEAF_1, NODE_2_3, NODE_4_7]),
        (6, 8, vec![NODE_4_5, NODE_6_7, ROOTS[4]]),
        (2, 5, vec![NODE_2_3, LEAF_4]),
    ] {
        let proof = consistency(&leaves[..new], old).expect("in range");
        assert_eq!(proof, expected.iter().map(|text| hash(text)).collect::<Vec<_>>(), "{old} of {new}");
        let (a, b) = (hash(ROOTS[old as usize]), hash(ROOTS[new]));
        assert_eq!(verify_consistency(old, &a, new as u64, &b, &proof), Ok(()));
    }
}

#[test]
fn every_proof_of_every_small_tree_verifies_and_only_for_its_own_place() {
    let leaves = numbered(40);
    for size in 0..=leaves.len() {
        let part = &leaves[..size];
        let root = defined_root(part);
        assert_eq!(root_of(part), root);
        for index in 0..size {
            let proof = inclusion(part, index as u64).expect("in range");
            for other in 0..=size {
                let result = verify_inclusion(&part[index], other as u64, size as u64, &proof, &root);
                assert_eq!(result.is_ok(), other == index, "{index} as {other} of {size}");
            }
        }
        for old in 0..=size {
            let proof = consistency(part, old as u64).expect("in range");
            let old_root = root_of(&part[..old]);
            assert_eq!(
                verify_consistency(old as u64, &old_root, size as u64, &root, &proof),
                Ok(()),
                "{old} of {size}"
            );
            let foreign = leaf_hash(b"foreign");
            assert!(verify_consistency(old as u64, &foreign, size as u64, &root, &proof).is_err());
            assert!(verify_consistency(old as u64, &old_root, size as u64, &foreign, &proof).is_err() || old == 0);
        }
        assert_eq!(inclusion(part, size as u64), None);
        assert_eq!(consistency(part, size as u64 + 1), None);
    }
}

#[test]
fn a_tree_resumed_from_its_peaks_goes_on_as_if_never_stopped() {
    let leaves = numbered(70);
    let mut tree = Tree::new();
    for (at, leaf) in leaves.iter().enumerate() {
        tree = Tree::resume(tree.size(), tree.peaks().to_vec()).expect("its own peaks");
        tree.append(*leaf);
        assert_eq!(tree.root(), root_of(&leaves[..=at]));
    }
    assert_eq!(Tree::resume(3, vec![leaves[0]]), None);
}

#[test]
fn impossible_sizes_are_refused_without_a_panic() {
    let (a, b) = (leaf_hash(b"a"), leaf_hash(b"b"));
    let long = vec![a; 200];
    assert_eq!(verify_inclusion(&a, 0, 0, &[], &a), Err(ProofError::Range));
    assert_eq!(verify_inclusion(&a, u64::MAX, u64::MAX, &long, &a), Err(ProofError::Range));
    assert!(verify_inclusion(&a, u64::MAX - 1, u64::MAX, &long, &a).is_err());
    assert_eq!(verify_consistency(2, &a, 1, &b, &[]), Err(ProofError::Range));
    assert_eq!(verify_consistency(1, &a, 2, &b, &[]), Err(ProofError::Length));
    assert_eq!(verify_consistency(0, &a, 2, &b, &[]), Err(ProofError::Mismatch));
    assert_eq!(verify_consistency(0, &EMPTY_ROOT, 2, &b, &[]), Ok(()));
    assert_eq!(verify_consistency(0, &EMPTY_ROOT, 0, &b, &[]), Err(ProofError::Mismatch));
    assert_eq!(verify_consistency(2, &a, 2, &a, &[b]), Err(ProofError::Length));
    for old in [1, 2, 3, u64::MAX - 1, 1 << 63] {
        assert!(verify_consistency(old, &a, u64::MAX, &b, &long).is_err());
    }
}

#[test]
fn a_hash_reads_back_as_itself_and_nothing_else_does() {
    let one = leaf_hash(b"x");
    assert_eq!(one.to_string().parse(), Ok(one));
    assert_eq!(Hash::from_base64(&one.to_base64()), Ok(one));
    let upper = one.to_string().to_uppercase();
    for bad in ["", "00", upper.as_str(), &one.to_string()[..63], &format!("{one}0")] {
        assert_eq!(bad.parse::<Hash>(), Err(HashError), "{bad}");
    }
}

proptest! {
    #[test]
    fn any_flipped_bit_breaks_an_inclusion_proof(size in 2usize..200, index in any::<usize>(), bit in any::<usize>()) {
        let leaves = numbered(size);
        let index = index % size;
        let root = root_of(&leaves);
        let mut proof = inclusion(&leaves, index as u64).expect("in range");
        prop_assert_eq!(verify_inclusion(&leaves[index], index as u64, size as u64, &proof, &root), Ok(()));
        let bit = bit % (proof.len() * 256);
        proof[bit / 256].0[bit % 256 / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(verify_inclusion(&leaves[index], index as u64, size as u64, &proof, &root), Err(ProofError::Mismatch));
    }

    #[test]
    fn any_flipped_bit_or_lost_hash_breaks_a_consistency_proof(size in 3usize..200, old in any::<usize>(), bit in any::<usize>()) {
        let leaves = numbered(size);
        let old = 1 + old % (size - 1);
        let (old_root, root) = (root_of(&leaves[..old]), root_of(&leaves));
        let mut proof = consistency(&leaves, old as u64).expect("in range");
        prop_assert_eq!(verify_consistency(old as u64, &old_root, size as u64, &root, &proof), Ok(()));
        prop_assert!(verify_consistency(old as u64, &old_root, size as u64, &root, &proof[1..]).is_err());
        let bit = bit % (proof.len() * 256);
        proof[bit / 256].0[bit % 256 / 8] ^= 1 << (bit % 8);
        prop_assert!(verify_consistency(old as u64, &old_root, size as u64, &root, &proof).is_err());
    }

    #[test]
    fn hostile_proofs_never_panic(index in any::<u64>(), old in any::<u64>(), size in any::<u64>(), len in 0usize..80) {
        let proof = vec![leaf_hash(b"p"); len];
        let _ = verify_inclusion(&EMPTY_ROOT, index, size, &proof, &EMPTY_ROOT);
        let _ = verify_consistency(old, &EMPTY_ROOT, size, &EMPTY_ROOT, &proof);
    }
}
