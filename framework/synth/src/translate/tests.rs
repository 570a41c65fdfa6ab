//! The oracle on tables written by hand, bit by bit as the manuals draw them.

use super::{Leaf, READ, Read, Request, Verdict, WRITE, amd, amd_guest, amd_host, arm, vtd, vtd_first, vtd_second};
use viommu_trace::Outcome;

/// Memory that holds these words and nothing else.
fn memory(words: &[(u64, u64)]) -> impl Fn(u64) -> Option<u64> {
    move |gpa| words.iter().find(|(at, _)| *at == gpa).map(|(_, word)| *word)
}

fn leaf(address: u64, log2: u8, permissions: u8) -> Leaf {
    Leaf { address, log2, permissions }
}

fn request(stream: u32, iova: u64, access: u8) -> Request {
    Request { stream, pasid: None, iova, access }
}

#[test]
fn amd_host_tables_of_each_shape() {
    let read = memory(&[
        // Level 3: a 1 GiB page; a table of level 2; a table of level 1, so index 0 at level 2 only.
        (0x1000, 0x6000_0000_4000_0001),
        (0x1008, 0x6000_0000_0000_2401),
        (0x1010, 0x6000_0000_0000_3201),
        // Level 2: 2 MiB read-only; 4 MiB of which this is one of two entries.
        (0x2000, 0x2000_0000_0020_0001),
        (0x2010, 0x6000_0000_005f_fe01),
        // Level 1: 4 KiB write-only; 16 KiB; not present; an entry that leads upwards.
        (0x3000, 0x4000_0000_0008_8001),
        (0x3020, 0x6000_0000_0009_1e01),
        (0x3028, 0x6000_0000_0009_1e00),
        (0x3030, 0x6000_0000_0009_1601),
    ]);
    let walk = |iova| amd_host::walk(&read as Read<'_>, 0x1000, 3, iova);
    assert_eq!(walk(0x1234_5678), Some(leaf(0x4000_0000, 30, 3)));
    assert_eq!(walk(0x4000_1234), Some(leaf(0x20_0000, 21, 1)));
    assert_eq!(walk(0x4040_0000), Some(leaf(0x40_0000, 22, 3)));
    assert_eq!(walk(0x8000_0008), Some(leaf(0x8_8000, 12, 2)));
    assert_eq!(walk(0x8000_4000), Some(leaf(0x9_0000, 14, 3)));
    assert_eq!(walk(0x8000_5000), None, "not present");
    assert_eq!(walk(0x8000_6000), None, "a table of a higher level");
    assert_eq!(walk(0x8020_0000), None, "an index in a level that is left out");
    assert_eq!(walk(0x80_0000_0000), None, "beyond three levels");
}

#[test]
fn amd_guest_tables_by_pasid() {
    let read = memory(&[
        // GCR3, two levels: PASID 0x203 is entry 3 of the second table.
        (0x1008, 0x2001),
        (0x2018, 0x3001),
        // Four levels to 4 KiB without R/W, and a 2 MiB page.
        (0x3000, 0x4027),
        (0x4000, 0x5027),
        (0x5000, 0x6027),
        (0x5008, 0x0020_00e7),
        (0x6008, 0x7065),
    ]);
    let read = &read as Read<'_>;
    assert_eq!(amd_guest::root(read, 0x1000, 1, 0x203), Some(0x3000));
    assert_eq!(amd_guest::root(read, 0x1000, 1, 0x003), None);
    assert_eq!(amd_guest::root(read, 0x1000, 0, 0x203), None, "more than one level of 512");
    let walk = |iova| amd_guest::walk(read, 0x3000, 4, iova);
    assert_eq!(walk(0x1008), Some(leaf(0x7000, 12, 1)));
    assert_eq!(walk(0x20_1000), Some(leaf(0x20_0000, 21, 3)));
    assert_eq!(walk(0x2000), None);
    assert_eq!(walk(0x8000_0000_1000), None, "not canonical");
}

#[test]
fn amd_device_table_entries() {
    const DTE: u64 = 0x10_0000 + 32 * 0x18;
    let of = |words: [u64; 3]| {
        let tables = [(DTE, words[0]), (DTE + 8, words[1]), (DTE + 16, words[2]), (0x1000, 0x6000_0000_0008_8001)];
        let registers = amd::Registers { enabled: true, table: 0x10_0000 };
        move |iova, access| {
            let pieces = [(0x8000_9000, 0x8000_a001), (0x8000_a000, 0x1_b027), (0x1_b000, 0x1_c027)];
            let last = [(0x1_c000, 0x1_d027), (0x1_d000, 0x4_4067)];
            let all: Vec<_> = tables.iter().chain(&pieces).chain(&last).copied().collect();
            amd::translate(&memory(&all), registers, &request(0x18, iova, access))
        }
    };
    assert_eq!(of([0, 0, 0])(0x1008, READ), Verdict::bypass(0x1008));
    assert_eq!(of([1, 0, 0])(0x1008, READ), Verdict::abort());
    assert_eq!(of([3 | 3 << 61, 0, 0])(0x1008, READ), Verdict::bypass(0x1008));
    assert_eq!(of([3 | 3 << 61 | 7 << 9, 0, 0])(0x1008, READ), Verdict::fault(4));
    assert_eq!(of([3 | 3 << 61 | 1 << 55 | 3 << 56, 0, 0])(0x1008, READ), Verdict::fault(2));
    assert_eq!(of([3 | 3 << 61 | 1 << 55, 0, 2 << 54])(0x1008, READ), Verdict::fault(2));
    let host = of([0x1000 | 1 << 9 | 3 | 3 << 61, 7, 0]);
    assert_eq!(host(0x008, WRITE), Verdict::of(leaf(0x8_8000, 12, 3), 8));
    assert_eq!(host(0x1008, WRITE), Verdict::fault(1));
    // GCR3 0x8000_9000: bits 14:12 are 1, 30:15 are 1 (0x8000), 51:31 are 1.
    let guest = of([3 | 3 << 61 | 3 << 54 | 1 << 58, 1 << 43 | 7, 0]);
    assert_eq!(guest(0x10, WRITE).outcome, Outcome::Fault, "GCR3 is at 0x8000_1000");
    let guest = of([3 | 3 << 61 | 3 << 54 | 1 << 58, 1 << 43 | 1 << 16 | 7, 0]);
    assert_eq!(guest(0x10, WRITE), Verdict::of(leaf(0x4_4000, 12, 3), 0x10));
    let read_only_device = of([3 | 1 << 61 | 3 << 54 | 1 << 58, 1 << 43 | 1 << 16 | 7, 0]);
    assert_eq!(read_only_device(0x10, WRITE), Verdict::fault(1));
}

#[test]
fn vtd_stages() {
    let read = memory(&[
        (0x1000, 0x2007),
        (0x2000, 0x3003),
        (0x3000, 0x4003),
        (0x3008, 0x20_0083),
        (0x4000, 0x5001),
        (0x4008, 0x6002),
    ]);
    let read = &read as Read<'_>;
    assert_eq!(vtd_second::walk(read, 0x1000, 4, 0x8), Some(leaf(0x5000, 12, 1)));
    assert_eq!(vtd_second::walk(read, 0x1000, 4, 0x1008), Some(leaf(0x6000, 12, 2)));
    assert_eq!(vtd_second::walk(read, 0x2000, 3, 0x20_1008), Some(leaf(0x20_0000, 21, 3)));
    assert_eq!(vtd_second::walk(read, 0x1000, 4, 0x2008), None);
    assert_eq!(vtd_first::walk(read, 0x1000, 4, 0x8), Ok(leaf(0x5000, 12, 1)));
    assert_eq!(vtd_first::walk(read, 0x1000, 4, 0x1008), Err(0x71));
    assert_eq!(vtd_first::walk(read, 0x1000, 4, 0x8000_0000_0000), Err(0x80));
}

#[test]
fn vtd_entries_of_both_modes() {
    // Source-id 0x110: bus 1, function 0x10. Page tables of one page, read-only.
    let tables = [(0x5000, 0x6003), (0x6000, 0x7003), (0x7000, 0x8003), (0x8000, 0x9001)];
    let legacy = |low, high| {
        let words = [&[(0x1010, 0x2001), (0x2100, low), (0x2108, high)][..], &tables].concat();
        move |iova, access| {
            let registers = vtd::Registers { enabled: true, root: 0x1000 };
            vtd::translate(&memory(&words), registers, &request(0x110, iova, access))
        }
    };
    assert_eq!(legacy(0, 0)(0x8, READ), Verdict::fault(2));
    assert_eq!(legacy(9, 2)(0x8, READ), Verdict::bypass(8));
    assert_eq!(legacy(0x5001, 0x302)(0x8, READ), Verdict::of(leaf(0x9000, 12, 1), 8));
    assert_eq!(legacy(0x5001, 0x302)(0x8, WRITE), Verdict::fault(5));
    assert_eq!(legacy(0x5001, 0x302)(0x1008, READ), Verdict::fault(6));
    assert_eq!(legacy(0x6001, 0x301)(0x80_0000_0000, READ), Verdict::fault(4), "beyond 39 bits");
    let scalable = |first: u64, third: u64| {
        let context = [(0x1010, 0x2001), (0x2200, 0x3001), (0x2208, 0x41), (0x3008, 0x4001)];
        let entry = [(0x4040, first), (0x4048, 7), (0x4050, third)];
        let words = [&context[..], &entry, &tables].concat();
        move |iova, access| {
            let registers = vtd::Registers { enabled: true, root: 0x1400 };
            vtd::translate(&memory(&words), registers, &request(0x110, iova, access))
        }
    };
    assert_eq!(scalable(0, 0)(0x8, READ), Verdict::fault(0x59));
    assert_eq!(scalable(0x101, 0)(0x8, READ), Verdict::bypass(8));
    assert_eq!(scalable(0x41, 0x5000)(0x8, READ), Verdict::of(leaf(0x9000, 12, 1), 8));
    assert_eq!(scalable(0x41, 0x5000)(0x8, WRITE), Verdict::fault(0x85));
    assert_eq!(scalable(0x41, 0x5000)(0x1008, WRITE), Verdict::fault(0x71));
    assert_eq!(scalable(0x41, 0x5004)(0x8, READ), Verdict::fault(0x71), "five levels need five tables");
}

#[test]
fn arm_stage_1() {
    const STE: u64 = 0x10_0000 + 64 * 8;
    let of = |ste: u64| {
        let tables = [(0x2008, 0x3000), (0x3000, 0x4003), (0x4000, 0x5003), (0x5000, 0x6003), (0x5008, 0x20_0481)];
        let words = [&[(STE, ste), (0x6000, 0x7443)][..], &tables].concat();
        move |iova, access| {
            let registers = arm::Registers { enabled: true, table: 0x10_0000 };
            arm::translate(&memory(&words), registers, &request(8, iova, access))
        }
    };
    assert_eq!(of(0)(8, READ), Verdict::fault(4));
    assert_eq!(of(1)(8, READ), Verdict::abort());
    assert_eq!(of(9)(8, READ), Verdict::bypass(8));
    let stage1 = of(0x200b);
    assert_eq!(stage1(8, WRITE), Verdict { stage: 1, ..Verdict::of(leaf(0x7000, 12, 3), 8) });
    assert_eq!(stage1(0x20_1000, READ), Verdict { stage: 1, ..Verdict::of(leaf(0x20_0000, 21, 1), 0x20_1000) });
    assert_eq!(stage1(0x20_1000, WRITE), Verdict::fault(0x13));
    assert_eq!(stage1(0x1000, READ), Verdict::fault(0x10));
    assert_eq!(stage1(1 << 48, READ), Verdict::fault(0x10));
}

#[test]
fn nothing_is_translated_before_it_is_enabled() {
    let nothing = memory(&[]);
    let asked = request(8, 0x1234, READ);
    let disabled = Verdict::disabled(0x1234);
    assert_eq!(amd::translate(&nothing, amd::Registers { enabled: false, table: 0 }, &asked), disabled);
    assert_eq!(vtd::translate(&nothing, vtd::Registers { enabled: false, root: 0 }, &asked), disabled);
    assert_eq!(arm::translate(&nothing, arm::Registers { enabled: false, table: 0 }, &asked), disabled);
}
