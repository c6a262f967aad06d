//! Putting packets together.

use super::*;

/// What reached the interface: the writes, and the packets that the kernel would make of each.
#[derive(Default)]
struct Written(Vec<Vec<Vec<u8>>>);

impl Sink for Written {
    fn write(&mut self, header: &[u8; HEADER], packet: &[u8]) {
        let mut bytes = [&header[..], packet].concat();
        let parcel = Parcel::read(&mut bytes).expect("the kernel could cut it");
        let mut room = vec![0; 65_535];
        self.0.push((0..parcel.count()).map(|at| parcel.segment(at, &mut room).to_vec()).collect());
    }
}

impl Written {
    fn counts(&self) -> Vec<usize> {
        self.0.iter().map(Vec::len).collect()
    }
}

fn put_together(packets: &[Vec<u8>], udp: bool) -> Written {
    let mut coalescer = Coalescer::new(udp);
    let mut written = Written::default();
    for packet in packets {
        coalescer.push(packet, &mut written);
    }
    coalescer.flush(&mut written);
    written
}

/// Segments of `size` bytes that follow each other.
fn stream(count: usize, size: usize) -> Vec<Spec> {
    let part = |at: usize| Spec { id: 7 + at as u16, ..Spec::tcp((at * size) as u32, &vec![at as u8; size]) };
    (0..count).map(part).collect()
}

fn packets(specs: &[Spec]) -> Vec<Vec<u8>> {
    specs.iter().map(Spec::packet).collect()
}

#[test]
fn a_stream_becomes_as_few_writes_as_the_kernel_takes() {
    let packets = packets(&stream(100, 1368));
    let written = put_together(&packets, true);
    // 65 535 bytes hold 47 segments and the headers.
    assert_eq!(written.counts(), [47, 47, 6]);
    assert!(written.0.concat() == packets);
    let short = self::packets(&stream(130, 10));
    assert_eq!(put_together(&short, true).counts(), [64, 64, 2]);
}

#[test]
fn datagrams_of_one_length_go_together_where_the_interface_takes_them() {
    let datagrams = |lengths: &[usize]| {
        let of = |(at, length): (usize, &usize)| Spec { id: at as u16, ..Spec::udp(&vec![at as u8; *length]) };
        packets(&lengths.iter().enumerate().map(of).collect::<Vec<_>>())
    };
    let three = datagrams(&[500, 500, 500, 20, 500, 501]);
    assert_eq!(put_together(&three, true).counts(), [4, 1, 1]);
    assert!(put_together(&three, true).0.concat() == three);
    assert_eq!(put_together(&three, false).counts(), [1; 6]);
    let mut without_checksum = three.clone();
    without_checksum[1][26..28].fill(0);
    assert_eq!(put_together(&without_checksum, true).counts(), [1, 1, 2, 1, 1]);
}

#[test]
fn flows_that_take_turns_are_put_together_each_on_its_own() {
    let mut mixed = Vec::new();
    for part in stream(10, 100) {
        for port in 0..4 {
            mixed.push(Spec { ports: (port, 2404), ..part.clone() });
        }
    }
    assert_eq!(put_together(&packets(&mixed), true).counts(), [10; 4]);
    // A fifth ends the one that was longest without a packet, and nothing is lost.
    let fifth: Vec<Spec> =
        (0..5).flat_map(|port| stream(2, 100).into_iter().map(move |part| Spec { ports: (port, 1), ..part })).collect();
    assert_eq!(put_together(&packets(&fifth), true).counts(), [2; 5]);
}

#[test]
fn whatever_differs_ends_a_run() {
    let same = |change: fn(&mut Spec)| {
        let mut parts = stream(4, 100);
        parts[2..].iter_mut().for_each(change);
        let packets = packets(&parts);
        let written = put_together(&packets, true);
        assert!(written.0.concat() == packets, "{parts:?}");
        written.counts()
    };
    assert_eq!(same(|_| {}), [4]);
    assert_eq!(same(|part| part.ack += 1), [2, 2]);
    assert_eq!(same(|part| part.window += 1), [2, 2]);
    assert_eq!(same(|part| part.options[11] += 1), [2, 2]);
    assert_eq!(same(|part| part.options.truncate(8)), [2, 2]);
    assert_eq!(same(|part| part.tos += 1), [2, 2]);
    assert_eq!(same(|part| part.ttl -= 1), [2, 2]);
    assert_eq!(same(|part| part.atomic = false), [2, 2]);
    // A gap, and a step back.
    assert_eq!(same(|part| part.seq += 1), [2, 2]);
    assert_eq!(same(|part| part.seq -= 100), [2, 2]);
    // Other flags than ACK and PSH never go together: FIN, URG, ECE, CWR, RST; nor does what has none.
    for flag in [0x01, 0x20, 0x40, 0x80, 0x04] {
        let mut parts = stream(4, 100);
        parts[2].flags |= flag;
        assert_eq!(put_together(&packets(&parts), true).counts(), [2, 1, 1], "{flag:#x}");
    }
    assert_eq!(same(|part| part.flags = 0), [2, 1, 1]);
}

#[test]
fn a_push_and_a_shorter_segment_are_the_last_of_their_run() {
    let mut parts = stream(4, 100);
    parts[1].flags |= 0x08;
    assert_eq!(put_together(&packets(&parts), true).counts(), [2, 2]);
    assert!(put_together(&packets(&parts), true).0.concat() == packets(&parts));
    let mut parts = stream(4, 100);
    parts[1].payload.truncate(99);
    parts[2].seq -= 1;
    parts[3].seq -= 1;
    assert_eq!(put_together(&packets(&parts), true).counts(), [2, 2]);
    assert!(put_together(&packets(&parts), true).0.concat() == packets(&parts));
    // A longer one begins anew.
    let mut parts = stream(3, 100);
    parts[2].payload.push(1);
    assert_eq!(put_together(&packets(&parts), true).counts(), [2, 1]);
}

#[test]
fn ids_count_on_where_fragments_would_need_them() {
    let mut parts = stream(4, 100);
    parts.iter_mut().for_each(|part| part.atomic = false);
    assert_eq!(put_together(&packets(&parts), true).counts(), [4]);
    parts[2].id = 1000;
    parts[3].id = 1001;
    assert_eq!(put_together(&packets(&parts), true).counts(), [2, 2]);
    assert!(put_together(&packets(&parts), true).0.concat() == packets(&parts));
}

#[test]
fn a_wrong_checksum_is_never_blessed() {
    for at in [10, 36, 60, 130] {
        for wrong in 0..3 {
            let mut packets = packets(&stream(3, 100));
            packets[wrong][at] ^= 0x40;
            let written = put_together(&packets, true);
            assert!(written.0.concat() == packets, "byte {at} of packet {wrong}");
            assert!(written.0.iter().all(|write| write.len() == 1 || !write.contains(&packets[wrong])));
        }
    }
}

#[test]
fn an_acknowledgement_does_not_overtake_the_data_before_it() {
    let parts = stream(2, 100);
    let ack = Spec::tcp(200, b"");
    let other = Spec { ports: (1, 2), ..Spec::udp(b"other") };
    let sequence = [&packets(&parts)[..], &[other.packet(), ack.packet()]].concat();
    let written = put_together(&sequence, true);
    let at = |packet: &Vec<u8>| written.0.concat().iter().position(|seen| seen == packet);
    assert!(at(&sequence[1]) < at(&ack.packet()), "{:?}", written.counts());
    // What is no flow of ours waits for all.
    let strange = vec![0x60; 48];
    let written = put_together(&[&packets(&parts)[..], std::slice::from_ref(&strange)].concat(), true);
    assert_eq!(written.0.concat().last(), Some(&strange));
}

/// A stream of a few flows with everything that may happen to one.
fn traffic() -> impl Strategy<Value = Vec<Spec>> {
    let step = (0u16..6, prop_oneof![Just(100usize), Just(100), 1usize..200], 0u8..40, any::<u8>());
    proptest::collection::vec(step, 1..120).prop_map(|steps| {
        let mut flows: Vec<Spec> = (0..6u16)
            .map(|port| {
                let base = if port < 4 { Spec::tcp(u32::MAX - 500, &[]) } else { Spec::udp(&[]) };
                Spec { ports: (port, 9), atomic: port % 2 == 0, ..base }
            })
            .collect();
        steps
            .into_iter()
            .map(|(port, length, event, seed)| {
                let flow = &mut flows[usize::from(port)];
                match event {
                    0 => flow.ack = flow.ack.wrapping_add(1),
                    1 => flow.window ^= 1,
                    2 => flow.tos ^= 2,
                    3 => flow.ttl ^= 1,
                    4 => flow.seq = flow.seq.wrapping_add(1),
                    5 => flow.id = flow.id.wrapping_add(1),
                    6 if !flow.udp => flow.options[11] ^= 1,
                    _ => {}
                }
                flow.flags = match event {
                    _ if flow.udp => 0,
                    7 | 8 => 0x18,
                    9 => 0x11,
                    10 => 0x50,
                    _ => 0x10,
                };
                flow.payload = vec![seed; if event == 11 { 0 } else { length }];
                let packet = flow.clone();
                flow.seq = flow.seq.wrapping_add(if flow.udp { 0 } else { flow.payload.len() as u32 });
                flow.id = flow.id.wrapping_add(1);
                packet
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn what_is_put_together_and_cut_again_is_what_came(specs in traffic(), udp in any::<bool>()) {
        let written = put_together(&packets(&specs), udp).0.concat();
        prop_assert_eq!(written.len(), specs.len());
        for port in 0..6u16 {
            let own = |bytes: &[u8]| bytes[20..22] == port.to_be_bytes();
            // The id of a packet that may not be fragmented means nothing, and may have become another.
            let plain = |bytes: Vec<u8>| {
                let mut bytes = bytes;
                if bytes[6] & 0x40 != 0 {
                    bytes[4..6].fill(0);
                    bytes[10..12].fill(0);
                }
                bytes
            };
            let came: Vec<Vec<u8>> = packets(&specs).into_iter().filter(|bytes| own(bytes)).map(plain).collect();
            let went: Vec<Vec<u8>> = written.iter().filter(|bytes| own(bytes)).cloned().map(plain).collect();
            prop_assert_eq!(came, went, "flow {}", port);
        }
        // And every checksum that is new is right.
        for packet in &written {
            prop_assert_eq!(naive_checksum(&packet[..20]), 0);
        }
    }

    #[test]
    fn no_bytes_break_the_coalescer(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        super::super::fuzz_coalesce(&bytes, &mut |_| {});
    }
}
