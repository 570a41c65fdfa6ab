//! Random fills and invalidations against a list of everything that should be cached, searched by brute force.

use crate::machine::*;
use arm_smmuv3::spec::commands::{Opcode, Tlbi};
use viommu_plugin_check::Random;

/// One cached leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cached {
    vmid: u16,
    /// `None`: stage 2 alone.
    asid: Option<u16>,
    global: bool,
    first: u64,
    bytes: u64,
}

/// Pages of 4 KiB, every fourth global, in the first 2 MiB of each 8; then three blocks of 2 MiB.
fn leaf_of(iova: u64, stage1: bool) -> (u64, u64, bool) {
    let bytes = if iova % (8 << 20) < 2 << 20 { 4096 } else { 2 << 20 };
    let first = iova & !(bytes - 1);
    (first, bytes, stage1 && bytes == 4096 && (iova >> 12).is_multiple_of(4))
}

const LIMIT: u64 = 64 << 20;

fn machine() -> Machine {
    let mut m = Machine::new();
    let mut first = m.tables(12, 0, 48);
    let mut second = m.tables(12, 1, 40);
    let mut iova = 0;
    while iova < LIMIT {
        let (_, bytes, global) = leaf_of(iova, true);
        let level = if bytes == 4096 { 3 } else { 2 };
        first.map(&m.memory, iova, iova, level, if global { S1_GLOBAL } else { S1_RW });
        second.map(&m.memory, iova, iova, level, S2_RW);
        iova += bytes;
    }
    for (stream, vmid, asid) in STREAMS {
        let cd = 0x50_0000 + 64 * u64::from(stream);
        match asid {
            Some(asid) => {
                m.put_cd(cd, asid, &first);
                m.ste_stage1(stream, vmid, cd);
            }
            None => m.ste_stage2(stream, vmid, &second, None),
        }
    }
    m
}

const STREAMS: [(u32, u16, Option<u16>); 6] =
    [(1, 1, Some(1)), (2, 1, Some(2)), (3, 2, Some(1)), (4, 2, Some(7)), (5, 1, None), (6, 2, None)];

#[test]
fn random_traffic_keeps_exactly_what_the_reference_keeps() {
    for seed in [1u64, 0x9e37_79b9_7f4a_7c15, 0xdead_beef] {
        let mut random = Random::new(seed);
        let mut m = machine();
        let mut reference: Vec<Cached> = Vec::new();
        let (mut hits, mut removed) = (0, 0);
        for step in 0..8000 {
            if random.below(8) != 0 {
                let (stream, vmid, asid) = STREAMS[random.below(6) as usize];
                let iova = random.below(LIMIT);
                let (first, bytes, global) = leaf_of(iova, asid.is_some());
                let entry = Cached { vmid, asid: asid.filter(|_| !global), global, first, bytes };
                let expected = reference.contains(&entry);
                let answer = m.ask(stream, iova);
                assert_eq!(answer.output, iova, "seed {seed:#x} step {step}");
                assert_eq!(answer.flags & 1 != 0, expected, "seed {seed:#x} step {step}: {entry:x?}");
                if expected {
                    hits += 1;
                } else {
                    reference.push(entry);
                }
            } else {
                let (command, doomed) = invalidation(&mut random);
                m.command(command.words());
                removed += reference.extract_if(.., |entry| doomed(entry)).count();
            }
        }
        assert!(hits > 500 && removed > 500, "seed {seed:#x}: {hits} hits and {removed} removed say little");
    }
}

type Doomed = Box<dyn Fn(&Cached) -> bool>;

/// A random TLBI, and the manual's words for what it removes.
fn invalidation(random: &mut Random) -> (Tlbi, Doomed) {
    let (vmid, asid) = (1 + random.below(3) as u16, [1, 2, 7][random.below(3) as usize]);
    let address = random.below(LIMIT + (1 << 20)) & !0xfff;
    let command = Tlbi::new().with_vmid(vmid).with_asid(asid);
    let (command, end) = match random.below(3) {
        0 => (command, address),
        _ => {
            let (tg, num, scale) = (1 + random.below(3) as u8, random.below(32) as u8, random.below(6) as u8);
            let granule = [4096u64, 16384, 65536][usize::from(tg) - 1];
            let bytes = ((u64::from(num) + 1) * granule) << scale;
            (command.with_tg(tg).with_num(num).with_scale(scale), address + bytes - 1)
        }
    };
    let touched = move |entry: &Cached| entry.vmid == vmid && entry.first <= end && entry.first + entry.bytes > address;
    let stage1 = |entry: &Cached| entry.global || entry.asid.is_some();
    let at = command.with_address(address >> 12);
    match random.below(40) {
        0 => (at.with_opcode(Opcode::TLBI_NSNH_ALL.0), Box::new(|_| true)),
        1 => (at.with_opcode(Opcode::TLBI_S12_VMALL.0), Box::new(move |entry| entry.vmid == vmid)),
        2 => (at.with_opcode(Opcode::TLBI_NH_ALL.0), Box::new(move |entry| entry.vmid == vmid && stage1(entry))),
        3 => {
            let doomed = move |entry: &Cached| entry.vmid == vmid && entry.asid == Some(asid) && !entry.global;
            (at.with_opcode(Opcode::TLBI_NH_ASID.0), Box::new(doomed))
        }
        4..15 => (at.with_opcode(Opcode::TLBI_S2_IPA.0), Box::new(move |entry| touched(entry) && !stage1(entry))),
        15..25 => (at.with_opcode(Opcode::TLBI_NH_VAA.0), Box::new(move |entry| touched(entry) && stage1(entry))),
        _ => {
            let doomed = move |entry: &Cached| touched(entry) && (entry.global || entry.asid == Some(asid));
            (at.with_opcode(Opcode::TLBI_NH_VA.0), Box::new(doomed))
        }
    }
}
