//! One stage: granules, levels, blocks, attributes, address sizes.

use crate::machine::*;
use arm_smmuv3::spec::cd::CdTtb;
use viommu_plugin::Status;

const CD: u64 = 0x50_0000;

/// Every leaf size of every granule, in stage 1 and stage 2, from every start level that its input sizes give.
#[test]
fn every_leaf_of_every_granule() {
    for (granule, input_bits, level, leaves) in [
        (12, 48, 0, vec![(3, 12), (2, 21), (1, 30)]),
        (12, 39, 1, vec![(3, 12), (2, 21), (1, 30)]),
        (12, 30, 2, vec![(3, 12), (2, 21)]),
        (14, 48, 0, vec![(3, 14), (2, 25)]),
        (14, 47, 1, vec![(3, 14), (2, 25)]),
        (14, 36, 2, vec![(3, 14), (2, 25)]),
        (16, 48, 1, vec![(3, 16), (2, 29)]),
        (16, 42, 2, vec![(3, 16), (2, 29)]),
        (16, 29, 3, vec![(3, 16)]),
    ] {
        for (leaf_level, log2) in leaves {
            let mut m = Machine::new();
            let mut tables = m.tables(granule, level, input_bits);
            let last = (1u64 << input_bits) - (1 << log2);
            tables.map(&m.memory, last, 0x7f << log2, leaf_level, S1_RW);
            m.put_cd(CD, 1, &tables);
            m.ste_stage1(1, 0, CD);
            let what = format!("granule 2^{granule}, {input_bits} bits, leaf 2^{log2}\n{}", m.explain(1, last));
            let answer = m.ask(1, last + 0x123);
            assert_eq!((answer.output, answer.leaf_log2, answer.stage), ((0x7f << log2) + 0x123, log2, 1), "{what}");
            assert_eq!(m.ask(1, last + (1 << log2) - 1).output, (0x80 << log2) - 1, "{what}");
            assert_eq!(m.ask(1, last - 1).fault, 0x10, "{what}");
            assert_eq!(m.ask(1, 1 << input_bits).fault, 0x10, "{what}");
        }
    }
}

/// Stage 2 may start with up to 16 tables side by side.
#[test]
fn concatenated_start_tables() {
    for (granule, input_bits, level) in [(12, 40, 1), (12, 43, 1), (12, 34, 2), (14, 40, 2), (16, 46, 2), (16, 33, 3)] {
        let mut m = Machine::new();
        let mut tables = m.tables(granule, level, input_bits);
        let last = (1u64 << input_bits) - (1 << granule);
        tables.map(&m.memory, last, 0x1_0000_0000, 3, S2_RO);
        m.ste_stage2(1, 1, &tables, None);
        let answer = m.ask(1, last + 8);
        let why = m.explain(1, last + 8);
        assert_eq!((answer.output, answer.stage, answer.permissions), (0x1_0000_0008, 2, 1), "{why}");
        let answer = m.ask(1, 1 << input_bits);
        assert_eq!((answer.fault, answer.stage, answer.ipa), (0x10, 2, 1 << input_bits), "{why}");
    }
}

#[test]
fn blocks_only_where_the_granule_has_them() {
    for (granule, input_bits, level, block) in [(12, 48, 0, 0), (14, 48, 0, 1), (16, 48, 1, 1)] {
        let mut m = Machine::new();
        let mut tables = m.tables(granule, level, input_bits);
        tables.map(&m.memory, 0, 0, block, S1_RW);
        m.put_cd(CD, 1, &tables);
        m.ste_stage1(1, 0, CD);
        assert_eq!(m.ask(1, 0).fault, 0x10, "level {block} of granule 2^{granule}");
    }
    let mut m = Machine::new();
    let mut tables = m.tables(12, 0, 48);
    let descriptor = tables.descriptor(&m.memory, 0x1000, 3);
    m.memory.put(descriptor, &[0x1000 | S1_RW | 1]);
    m.put_cd(CD, 1, &tables);
    m.ste_stage1(1, 0, CD);
    assert_eq!(m.ask(1, 0x1000).fault, 0x10, "a level-3 descriptor is a page or nothing");
}

#[test]
fn stage1_attributes() {
    const UNPRIVILEGED: u64 = 1 << 6;
    const READ_ONLY: u64 = 1 << 7;
    const AF: u64 = 1 << 10;
    const NO_UNPRIVILEGED: u64 = 1 << 61;
    const NO_WRITE: u64 = 1 << 62;
    for (leaf, table, user, kernel) in [
        (AF | UNPRIVILEGED, 0, 3, 3),
        (AF | UNPRIVILEGED | READ_ONLY, 0, 1, 1),
        (AF, 0, 0, 3),
        (AF | READ_ONLY, 0, 0, 1),
        (AF | UNPRIVILEGED, NO_WRITE, 1, 1),
        (AF | UNPRIVILEGED, NO_UNPRIVILEGED, 0, 3),
        (AF | UNPRIVILEGED, NO_WRITE | NO_UNPRIVILEGED, 0, 1),
    ] {
        for (privcfg, granted) in [(0u64, user), (2, user), (3, kernel)] {
            let mut m = Machine::new();
            let mut tables = m.tables(12, 0, 48);
            tables.map(&m.memory, 0x1000, 0x9000, 3, leaf);
            let above = tables.descriptor(&m.memory, 0x1000, 1);
            m.memory.put(above, &[m.memory.get(above) | table]);
            m.put_cd(CD, 1, &tables);
            m.put_ste(1, [5 << 1 | 1 | CD, privcfg << 48, 0, 0]);
            let what = format!("{leaf:#x} under {table:#x}, PRIVCFG {privcfg}");
            assert_eq!(m.ask(1, 0x1000).permissions, granted, "{what}");
            for access in [1, 2] {
                let answer = m.access(1, 0x1000, access);
                assert_eq!(answer.fault, if granted & access == 0 { 0x13 } else { 0 }, "{what}");
            }
        }
    }
    let mut m = Machine::new();
    let mut tables = m.tables(12, 0, 48);
    tables.map(&m.memory, 0x1000, 0x9000, 3, UNPRIVILEGED);
    m.put_cd(CD, 1, &tables);
    m.ste_stage1(1, 0, CD);
    assert_eq!(m.access(1, 0x1000, 2).fault, 0x12, "AF before permission");
    assert_eq!(m.event(0)[0] & 0xff, 0x12);
    m.memory.put(CD, &[cd_word(1, &tables).with_affd(true).into()]);
    m.command(cfgi_ste(1));
    assert_eq!(m.ask(1, 0x1000).status, Status::OK, "AFFD");
}

#[test]
fn output_addresses_have_a_size() {
    let mut m = Machine::new();
    let mut tables = m.tables(12, 0, 48);
    tables.map(&m.memory, 0x1000, 1 << 36, 3, S1_RW);
    tables.map(&m.memory, 0x2000, 1 << 35, 3, S1_RW);
    tables.map(&m.memory, 1 << 39, 0x3000, 3, S1_RW);
    let upper = tables.descriptor(&m.memory, 1 << 39, 0);
    m.memory.put(upper, &[1 << 36 | 3]);
    m.memory.put(CD, &[cd_word(1, &tables).with_ips(1).into(), tables.root]);
    m.ste_stage1(1, 0, CD);
    assert_eq!(m.ask(1, 0x2000).output, 1 << 35);
    let answer = m.ask(1, 0x1000);
    assert_eq!((answer.fault, answer.stage), (0x11, 1), "a page beyond IPS");
    assert_eq!(m.ask(1, 1 << 39).fault, 0x11, "a table beyond IPS");
}

#[test]
fn an_unreadable_table_is_an_external_abort() {
    let mut m = Machine::new();
    let mut tables = m.tables(12, 0, 48);
    let descriptor = tables.descriptor(&m.memory, 0, 1);
    m.memory.put(descriptor, &[MEMORY_END | 3]);
    m.put_cd(CD, 1, &tables);
    m.ste_stage1(1, 0, CD);
    let answer = m.ask(1, 0x3000);
    assert_eq!((answer.fault, answer.stage, answer.ipa), (0x0b, 1, 0));
    assert_eq!(m.event(0)[3], MEMORY_END, "FetchAddr");
    m.ste_stage1(2, 0, MEMORY_END);
    assert_eq!(m.ask(2, 0).fault, 9, "F_CD_FETCH");
}

#[test]
fn both_halves_and_the_top_byte() {
    let mut m = Machine::new();
    let mut low = m.tables(12, 1, 39);
    let mut high = m.tables(16, 2, 42);
    low.map(&m.memory, 0x1000, 0x1_0000, 3, S1_RW);
    high.map(&m.memory, (1 << 42) - 0x1_0000, 0x2_0000, 3, S1_RW);
    let word0 = cd_word(1, &low).with_epd1(false).with_t1sz(64 - 42).with_tg1(3);
    let ttb = |tables: &Tables| u64::from(CdTtb::new().with_ttb(tables.root >> 4));
    m.memory.put(CD, &[word0.into(), ttb(&low), ttb(&high)]);
    m.ste_stage1(1, 0, CD);
    assert_eq!(m.ask(1, 0x1008).output, 0x1_0008);
    assert_eq!(m.ask(1, !0xffff | 8).output, 0x2_0008);
    assert_eq!(m.ask(1, 1 << 39).fault, 0x10);
    assert_eq!(m.ask(1, !0 << 43).fault, 0x10, "between the halves");
    assert_eq!(m.ask(1, 0x55 << 56 | 0x1000).fault, 0x10, "no TBI");
    m.memory.put(CD, &[word0.with_tbi0(true).with_tbi1(true).into()]);
    m.command(cfgi_ste(1));
    let tagged = m.ask(1, 0x55 << 56 | 0x1010);
    assert_eq!((tagged.output, tagged.flags), (0x1_0010, 1), "one entry, whatever the top byte");
    assert_eq!(m.ask(1, !0xffff & !(0x3 << 56)).output, 0x2_0000);
}
