//! Cutting what the interface hands over.

use super::*;

fn cut(bytes: &mut [u8]) -> Vec<Vec<u8>> {
    let parcel = Parcel::read(bytes).expect("it can be cut");
    let mut room = vec![0; 65_535];
    (0..parcel.count()).map(|at| parcel.segment(at, &mut room).to_vec()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn segments_are_what_a_slow_reference_makes(spec in spec(20_000), size in 1u16..9000) {
        // Not more of them than there are ids, or than a test has time for.
        let size = size.max((spec.payload.len() / 200) as u16 + 1);
        let mut bytes = spec.large(size);
        let wanted: Vec<Vec<u8>> = spec.cut(size.into()).iter().map(Spec::packet).collect();
        {
            let parcel = Parcel::read(&mut bytes).expect("it can be cut");
            prop_assert_eq!(parcel.count(), wanted.len());
            prop_assert_eq!(parcel.total(), wanted.iter().map(Vec::len).sum::<usize>());
            prop_assert!(parcel.segment(wanted.len(), &mut [0; 100]).is_empty());
        }
        prop_assert_eq!(cut(&mut bytes), wanted);
    }

    #[test]
    fn a_lone_packet_gets_its_checksum(spec in spec(2000)) {
        let mut bytes = spec.large(0);
        let mut parcel = Parcel::read(&mut bytes).expect("it is whole");
        prop_assert_eq!(parcel.count(), 1);
        prop_assert_eq!(parcel.as_whole().map(|packet| packet.to_vec()), Some(spec.packet()));
    }

    #[test]
    fn no_bytes_break_the_cut(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        super::super::fuzz_header(&bytes, &mut |_| {});
        super::super::fuzz_segment(&bytes, &mut |_| {});
    }

    #[test]
    fn no_change_of_a_good_header_breaks_the_cut(spec in spec(300), at in 0usize..60, byte in any::<u8>()) {
        let mut bytes = spec.large(100);
        let at = at % bytes.len();
        bytes[at] = byte;
        super::super::fuzz_segment(&bytes, &mut |_| {});
    }
}

#[test]
fn a_packet_without_a_word_on_its_checksum_is_left_as_it_is() {
    let packet = Spec::udp(b"payload").packet();
    let mut bytes = [&[0; HEADER][..], &packet].concat();
    assert_eq!(cut(&mut bytes), [packet]);
}

#[test]
fn headers_that_contradict_their_packet_are_refused() {
    let good = Spec::tcp(1, &[7; 300]).large(100);
    let header = |change: &dyn Fn(&mut Header)| {
        let mut bytes = good.clone();
        let mut header = Header::read(bytes.first_chunk().expect("a header")).expect("a good one");
        change(&mut header);
        bytes[..HEADER].copy_from_slice(&header.bytes());
        Parcel::read(&mut bytes).map(|_| ()).expect_err("refused")
    };
    assert_eq!(header(&|header| header.size = 0), Malformed::Length);
    assert_eq!(header(&|header| header.kind = Kind::Tcp6), Malformed::Version);
    assert_eq!(header(&|header| header.checksum_start = 24), Malformed::Version);
    assert_eq!(header(&|header| header.needs_checksum = false), Malformed::Version);
    let lone = |header: &mut Header| {
        header.kind = Kind::Whole;
        header.checksum_start = 360;
    };
    assert_eq!(header(&lone), Malformed::Checksum);
    assert_eq!(Parcel::read(&mut good[..60].to_vec()).map(|_| ()), Err(Malformed::Length));
    assert_eq!(Parcel::read(&mut [0; 9]).map(|_| ()), Err(Malformed::Short));
}

#[test]
fn a_hint_of_wrong_header_length_is_not_believed() {
    let spec = Spec::tcp(1, &[7; 300]);
    let mut bytes = spec.large(100);
    let mut header = Header::read(bytes.first_chunk().expect("a header")).expect("a good one");
    header.headers = 999;
    bytes[..HEADER].copy_from_slice(&header.bytes());
    assert_eq!(cut(&mut bytes), spec.cut(100).iter().map(Spec::packet).collect::<Vec<_>>());
}
