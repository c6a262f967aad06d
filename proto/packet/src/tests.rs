//! What is expected of `packet`, as tests.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::sample::*;
use super::*;

const A: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

fn v4(bytes: &[u8]) -> Ipv4<'_> {
    parse_ipv4(bytes).expect("a good packet")
}

#[test]
fn a_tcp_packet_shows_its_fields() {
    let bytes = tcp((A, 40_000), (B, 2404), 7, 9, flag::PSH | flag::ACK, b"hello");
    let ip = v4(&bytes);
    assert_eq!((ip.source, ip.destination, ip.protocol, ip.length()), (A, B, number::TCP, bytes.len()));
    let tcp = ip.tcp().expect("a good segment");
    assert_eq!((tcp.source_port, tcp.destination_port, tcp.seq, tcp.ack, tcp.payload), (40_000, 2404, 7, 9, 5));
    assert_eq!(tcp.end(), 12);
    assert_eq!(ip.destination_port(), Some(2404));
}

#[test]
fn syn_and_fin_count_one_each_and_sequence_numbers_wrap() {
    let segment = |flags| Tcp { source_port: 1, destination_port: 2, seq: u32::MAX, ack: 0, flags, payload: 2 };
    assert_eq!(segment(flag::ACK).end(), 1);
    assert_eq!(segment(flag::SYN).end(), 2);
    assert_eq!(segment(flag::SYN | flag::FIN).end(), 3);
}

#[test]
fn a_header_that_contradicts_itself_is_malformed() {
    let good = udp((A, 1), (B, 2), b"xxxx");
    let broken = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        parse_ipv4(&bytes).map(|_| ()).expect_err("malformed")
    };
    assert_eq!(broken(&|bytes| bytes.truncate(19)), Malformed::Short);
    assert_eq!(broken(&|bytes| bytes[0] = 0x55), Malformed::Version);
    assert_eq!(broken(&|bytes| bytes[0] = 0x44), Malformed::Length);
    assert_eq!(broken(&|bytes| bytes[0] = 0x4f), Malformed::Length);
    assert_eq!(broken(&|bytes| bytes[0] = 0x46), Malformed::Options);
    assert_eq!(broken(&|bytes| bytes.push(0)), Malformed::Length);
    assert_eq!(broken(&|bytes| bytes.truncate(23)), Malformed::Length);
    assert_eq!(broken(&|bytes| bytes[8] -= 1), Malformed::Checksum);
    let fragment = |value: u16| {
        broken(&move |bytes: &mut Vec<u8>| {
            bytes[6..8].copy_from_slice(&value.to_be_bytes());
            seal(bytes);
        })
    };
    // The reserved bit, a piece behind the end, and a first piece that is no multiple of eight.
    assert_eq!(fragment(0x8000), Malformed::Fragment);
    assert_eq!(fragment(0x1fff), Malformed::Fragment);
    assert_eq!(broken(&|bytes| *bytes = ipv4(A, B, 17, 1, 0x2000, &[0; 12])), Malformed::Fragment);
    assert_eq!(broken(&|bytes| *bytes = ipv4(A, B, 17, 1, 0x2000, &[])), Malformed::Fragment);
}

#[test]
fn a_transport_header_must_be_whole() {
    let short = ipv4(A, B, number::TCP, 1, 0, &[0; 19]);
    assert_eq!(v4(&short).tcp(), Err(Malformed::Length));
    let mut far = vec![0; 24];
    far[12] = 15 << 4;
    assert_eq!(v4(&ipv4(A, B, number::TCP, 1, 0, &far)).tcp(), Err(Malformed::Length));
    assert_eq!(v4(&ipv4(A, B, number::TCP, 1, 0x2000, &far)).tcp(), Err(Malformed::Split));
    assert_eq!(v4(&ipv4(A, B, number::TCP, 1, 0x2000, &[0; 8])).tcp(), Err(Malformed::Short));
    assert_eq!(v4(&ipv4(A, B, number::TCP, 1, 1, &[0x50; 40])).tcp(), Err(Malformed::Split));
    assert_eq!(v4(&ipv4(A, B, number::UDP, 1, 0, &[0; 7])).udp(), Err(Malformed::Short));
    assert_eq!(v4(&ipv4(A, B, number::UDP, 1, 0, &[0, 1, 0, 2, 0, 9, 0, 0])).udp(), Err(Malformed::Length));
    assert!(v4(&ipv4(A, B, number::UDP, 1, 0x2000, &[0, 1, 0, 2, 0, 9, 0, 0])).udp().is_ok());
    assert_eq!(v4(&ipv4(A, B, number::UDP, 1, 0x2000, &[0, 1, 0, 2, 0, 8, 0, 0])).udp(), Err(Malformed::Length));
}

#[test]
fn only_errors_are_icmp_errors() {
    let inner = udp((A, 40_000), (B, 2404), b"question");
    for kind in [3, 11, 12] {
        let bytes = icmp(B, A, kind, &inner);
        let error = v4(&bytes).icmp_error().expect("an error");
        assert_eq!((error.source, error.destination), (A, B));
        assert_eq!((error.source_port, error.destination_port), (40_000, 2404));
    }
    for kind in [0, 4, 5, 8, 9, 13] {
        assert_eq!(v4(&icmp(B, A, kind, &inner)).icmp_error(), Err(Malformed::NotAnError), "{kind}");
    }
    assert_eq!(v4(&icmp(B, A, 3, &inner[..22])).icmp_error(), Err(Malformed::Short));
    let later = ipv4(A, B, number::UDP, 1, 4, &[0; 32]);
    assert_eq!(v4(&icmp(B, A, 3, &later)).icmp_error(), Err(Malformed::Split));
    let mut wrong = icmp(B, A, 3, &inner);
    wrong[30] ^= 1;
    assert_eq!(v4(&wrong).icmp_error(), Err(Malformed::Checksum));
    let long = ipv4(B, A, number::ICMP, 1, 0, &[3; 600]);
    assert_eq!(v4(&long).icmp_error(), Err(Malformed::Length));
}

#[test]
fn a_written_reset_reads_back_with_right_checksums() {
    let reset = TcpReset { source: (B, 2404), destination: (A, 40_000), seq: 0xdead_beef, ack: Some(5) };
    let bytes = tcp_reset(&reset);
    let ip = v4(&bytes);
    let tcp = ip.tcp().expect("a good segment");
    assert_eq!((ip.source, ip.destination), (B, A));
    assert_eq!((tcp.seq, tcp.ack, tcp.flags), (0xdead_beef, 5, flag::RST | flag::ACK));
    assert_eq!(naive_transport(B, A, number::TCP, ip.payload), 0);
    let plain = tcp_reset(&TcpReset { ack: None, ..reset });
    assert_eq!(v4(&plain).tcp().expect("a good segment").flags, flag::RST);
}

#[test]
fn the_mss_of_a_syn_is_lowered_and_never_raised() {
    let syn = |options: &[u8]| tcp_with((A, 1), (B, 2), 5, 0, flag::SYN, options, b"");
    let mut bytes = syn(&[1, 1, 2, 4, 0x05, 0xb4, 1, 0]);
    assert!(clamp_mss(&mut bytes, 1380));
    let ip = v4(&bytes);
    assert_eq!(bytes[44..46], 1380u16.to_be_bytes());
    assert_eq!(naive_transport(A, B, number::TCP, ip.payload), 0);
    assert!(!clamp_mss(&mut bytes, 1400));
    // Behind an option of odd length the value crosses two words of the sum.
    let mut odd = syn(&[1, 2, 4, 0x05, 0xb4, 0, 0, 0]);
    assert!(clamp_mss(&mut odd, 1380));
    assert_eq!(naive_transport(A, B, number::TCP, v4(&odd).payload), 0);
    for options in [&[][..], &[0, 2, 4, 5], &[3, 3, 7, 0], &[2, 3, 1, 0], &[9, 0, 2, 4], &[9, 1, 1, 2], &[1, 1, 1, 2]] {
        let mut bytes = syn(options);
        let before = bytes.clone();
        assert!(!clamp_mss(&mut bytes, 100), "{options:?}");
        assert_eq!(bytes, before);
    }
    let mut ack = tcp_with((A, 1), (B, 2), 5, 0, flag::ACK, &[2, 4, 0x05, 0xb4], b"");
    assert!(!clamp_mss(&mut ack, 100));
}

/// Flips every bit and cuts at every length: nothing panics, and no header with a flipped bit is taken.
#[test]
fn no_mutation_of_a_packet_makes_reading_panic() {
    let inner = tcp((A, 40_000), (B, 2404), 7, 9, flag::ACK, b"hello");
    let samples = [
        inner.clone(),
        udp((A, 1), (B, 2), b"x"),
        icmp(B, A, 3, &inner),
        tcp_with((A, 1), (B, 2), 1, 0, 2, &[1, 1, 2, 4, 5, 180, 1, 0], b""),
    ];
    let read = |bytes: &[u8]| {
        let _ = (source_of(bytes), destination_of(bytes), clamp_mss(&mut bytes.to_vec(), 1000));
        if let Ok(Ip::V4(ip)) = parse(bytes) {
            let _ = (ip.tcp().map(|tcp| tcp.end()), ip.udp(), ip.icmp_error(), ip.destination_port());
            return true;
        }
        false
    };
    for sample in &samples {
        assert!(read(sample));
        for at in 0..sample.len() {
            read(&sample[..at]);
            for bit in 0..8 {
                let mut bytes = sample.clone();
                bytes[at] ^= 1 << bit;
                assert!(!read(&bytes) || at >= IPV4_HEADER, "bit {bit} of byte {at}");
            }
        }
    }
}

proptest! {
    #[test]
    fn the_checksum_is_what_the_rfc_tells(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert_eq!(checksum(0, &bytes), naive_checksum(&bytes));
    }

    #[test]
    fn no_bytes_make_reading_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), steer in 0u8..4) {
        if let (Some(first), true) = (bytes.first_mut(), steer > 0) {
            *first = 0x45;
        }
        if steer > 1 && bytes.len() >= IPV4_HEADER {
            let length = bytes.len() as u16;
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
            seal(&mut bytes);
        }
        clamp_mss(&mut bytes, 1000);
        let _ = (source_of(&bytes), destination_of(&bytes));
        if let Ok(Ip::V4(ip)) = parse(&bytes) {
            let _ = (ip.tcp().map(|tcp| tcp.end()), ip.udp(), ip.icmp_error(), ip.destination_port());
        }
    }

    #[test]
    fn clamping_keeps_any_syn_valid(mss in 0u16.., most in 0u16.., pad in 0usize..4, rest in proptest::collection::vec(any::<u8>(), 0..40)) {
        let mut options = vec![1u8; pad];
        options.extend_from_slice(&[2, 4]);
        options.extend_from_slice(&mss.to_be_bytes());
        options.resize(8, 0);
        let mut bytes = tcp_with((A, 1), (B, 2), 5, 0, flag::SYN, &options, &rest);
        prop_assert_eq!(clamp_mss(&mut bytes, most), mss > most);
        let at = 40 + pad + 2;
        prop_assert_eq!(&bytes[at..at + 2], &mss.min(most).to_be_bytes());
        prop_assert_eq!(naive_transport(A, B, number::TCP, v4(&bytes).payload), 0);
    }
}
