//! The bytes of a saved vIOMMU. The file of version 1 was written by hand, from docs/saved-state.md, and is read for ever.

use rand_pcg::Pcg64;
use rand_pcg::rand_core::{Rng, SeedableRng};
use viommu::plugin::Register;
use viommu::save::{GuestEntry, SavedHwQueue, SavedVdevice, SavedViommu};

const VERSION_1: &[u8] = include_bytes!("data/viommu-1.saved");

/// What the file says.
fn version_1() -> SavedViommu {
    let entry = [0x4000_1000_000b, 2, 0, 0, 0, 0, 0, u64::MAX];
    SavedViommu {
        vendor: "arm-smmuv3".into(),
        shown: vec![Register { offset: 0, value: 0x0d48_101a }, Register { offset: 0x14, value: 0x74 }],
        frontend: Some(vec![1, 0, 0, 0, 0xaa, 0xbb]),
        quarantined: Some("illegal_opcode".into()),
        event_queue: true,
        vdevices: vec![
            SavedVdevice { virt_id: 3, entry: GuestEntry::Abort },
            SavedVdevice { virt_id: 8, entry: GuestEntry::Bypass },
            SavedVdevice { virt_id: 0xf_ffff, entry: GuestEntry::Words(entry.into()) },
        ],
        hw_queues: vec![
            SavedHwQueue { iova: 0x4000_0000, length: 0x8_0000 },
            SavedHwQueue { iova: 0x4010_0000, length: 0x10 },
        ],
    }
}

fn refused(bytes: &[u8]) -> String {
    SavedViommu::from_bytes(bytes).expect_err("not a state").to_string()
}

#[test]
fn version_1_is_read_for_ever_and_still_what_is_written() {
    assert_eq!(SavedViommu::from_bytes(VERSION_1), Ok(version_1()));
    assert_eq!(version_1().to_bytes(), VERSION_1);
}

#[test]
fn the_least_state_there_is_comes_back() {
    let least = SavedViommu { vendor: "x".into(), ..SavedViommu::default() };
    assert_eq!(SavedViommu::from_bytes(&least.to_bytes()), Ok(least));
}

#[test]
fn bytes_that_are_cut_or_go_on_are_refused_with_the_field() {
    for length in 0..VERSION_1.len() {
        let why = refused(&VERSION_1[..length]);
        assert!(why.contains("cut short in") || why.contains("with room for"), "{length}: {why}");
    }
    assert_eq!(refused(&[VERSION_1, &[0, 0]].concat()), "saved vIOMMU: 2 bytes behind the end");
}

#[test]
fn what_is_never_written_is_refused_by_name() {
    let with = |at: usize, bytes: &[u8]| {
        let mut state = VERSION_1.to_vec();
        state[at..at + bytes.len()].copy_from_slice(bytes);
        state
    };
    let find = |what: &[u8]| VERSION_1.windows(what.len()).position(|window| window == what).unwrap();
    let vdevices = find(&[3, 0, 0, 0, 0, 8, 0, 0, 0, 1]);
    for (bytes, says) in [
        (with(0, b"QEVM"), "magic: these bytes are something else"),
        (with(8, &[2]), "version 2 is unknown, the newest known is 1"),
        (with(12, &[0xff; 4]), "vendor: counts 4294967295"),
        (with(16, &[0xff]), "vendor: not UTF-8"),
        (with(26, &[0x0f]), "parts: 0xf has bits of no part"),
        (with(vdevices - 4, &[0xff, 0xff, 0, 0]), "vdevices: counts 65535"),
        (with(vdevices, &[0xff, 0xff, 0xff, 0xff]), "guest ID: 4294967295"),
        (with(vdevices, &[8]), "guest ID: 8 is not from 9"),
        (with(vdevices + 4, &[3]), "kind of entry: 3 is unknown"),
        (with(vdevices + 15, &[17]), "words of an entry: 17"),
        (with(vdevices + 15, &[0]), "words of an entry: 0"),
    ] {
        let why = refused(&bytes);
        assert!(why.contains(says), "{says}: {why}");
    }
}

#[test]
fn a_reason_of_any_length_fits() {
    let long = SavedViommu { quarantined: Some("ä".repeat(1000)), ..version_1() };
    let read = SavedViommu::from_bytes(&long.to_bytes()).unwrap();
    assert_eq!(read.quarantined.unwrap(), "ä".repeat(128));
}

/// Whatever the bytes are: an answer, and no more memory than they themselves have some ten times over.
#[test]
fn bytes_that_somebody_made_up_break_nothing() {
    let seed = 0x5a7ed;
    let mut random = Pcg64::seed_from_u64(seed);
    let mut taken = 0;
    for _ in 0..200_000 {
        let mut bytes = VERSION_1.to_vec();
        for _ in 0..=random.next_u32() % 4 {
            let at = random.next_u32() as usize % bytes.len();
            bytes[at] = random.next_u32() as u8;
        }
        bytes.truncate(random.next_u32() as usize % (4 * bytes.len()));
        if let Ok(state) = SavedViommu::from_bytes(&bytes) {
            taken += 1;
            assert_eq!(state.to_bytes(), bytes, "seed {seed}: read as something else");
        }
    }
    assert!(taken > 1000, "seed {seed}: only {taken} states were none the worse");
}
