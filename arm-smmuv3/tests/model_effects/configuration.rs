//! Stream table, CD tables, and the cache of both.

use crate::machine::*;
use arm_smmuv3::spec::commands::Opcode;
use arm_smmuv3::spec::registers::offset;
use arm_smmuv3::spec::ste::{Config, SteWord0, SteWord1};
use viommu_plugin::{Request, Status};

const CD: u64 = 0x50_0000;
const IOVA: u64 = 0x4000_1000;

fn bypass() -> [u64; 4] {
    [SteWord0::new().with_v(true).with_config(Config::BYPASS.0).into(), 0, 0, 0]
}
fn abort() -> [u64; 4] {
    [1, 0, 0, 0]
}

/// Stream 1 translates in stage 1.
fn translating() -> Machine {
    let mut m = Machine::new();
    let mut tables = m.tables(12, 0, 48);
    tables.map(&m.memory, IOVA, 0x1_0000, 3, S1_RW);
    m.put_cd(CD, 1, &tables);
    m.ste_stage1(1, 0, CD);
    m
}

#[test]
fn an_ste_stays_until_a_command_names_it() {
    for (command, named) in [
        (cfgi_ste(1), true),
        (cfgi_ste(2), false),
        ([0x0000_0000_0000_0004, 0], true),                   // streams 0 and 1
        ([2 << 32 | 0x04, 0], false),                         // streams 2 and 3
        ([0xffff << 32 | 0x04, 31], true),                    // all
        ([1 << 32 | u64::from(Opcode::CFGI_CD.0), 1], false), // a CD only
    ] {
        let mut m = translating();
        m.put_ste(1, bypass());
        assert_eq!(m.ask(1, IOVA).status, Status::BYPASS);
        m.put_ste(1, abort());
        assert_eq!(m.ask(1, IOVA).status, Status::BYPASS);
        m.command(command);
        let expected = if named { Status::ABORT } else { Status::BYPASS };
        assert_eq!(m.ask(1, IOVA).status, expected, "after {command:x?}");
    }
}

#[test]
fn a_cd_stays_until_a_command_names_it() {
    let cd = |opcode: Opcode, stream: u64, substream: u64| [stream << 32 | substream << 12 | u64::from(opcode.0), 1];
    for (command, named) in [
        (cd(Opcode::CFGI_CD, 1, 0), true),
        (cd(Opcode::CFGI_CD, 1, 1), false),
        (cd(Opcode::CFGI_CD, 2, 0), false),
        (cd(Opcode::CFGI_CD_ALL, 1, 0), true),
        (cd(Opcode::CFGI_CD_ALL, 2, 0), false),
        (cfgi_ste(1), true),
    ] {
        let mut m = translating();
        assert_eq!(m.ask(1, IOVA).status, Status::OK);
        m.memory.put(CD, &[0]);
        assert_eq!(m.ask(1, IOVA).status, Status::OK);
        m.command(command);
        assert_eq!(m.ask(1, IOVA).fault, if named { 0x0a } else { 0 }, "after {command:x?}");
        if named {
            let mut other = translating();
            other.memory.put(CD, &[0]);
            assert_eq!(other.ask(1, IOVA).fault, 0x0a);
            let tables = other.tables(12, 0, 48);
            other.put_cd(CD, 1, &tables);
            assert_eq!(other.ask(1, IOVA).fault, 0x10, "an invalid CD is not cached");
        }
    }
}

#[test]
fn an_invalid_ste_is_not_cached_and_recorded() {
    let mut m = Machine::new();
    let answer = m.ask(3, IOVA);
    assert_eq!((answer.status, answer.fault, answer.stage), (Status::FAULT, 4, 0));
    assert_eq!(m.event(0), [3 << 32 | 4, 0, 0, 0]);
    m.put_ste(3, bypass());
    assert_eq!(m.ask(3, IOVA).status, Status::BYPASS);
}

#[test]
fn what_the_hardware_lacks_is_a_bad_ste() {
    let good = SteWord0::new().with_v(true).with_config(Config::S1_TRANSLATE.0);
    for (words, why) in [
        ([u64::from(good.with_s1_cd_max(9)), 0, 0, 0], "more CDs than SSIDSIZE"),
        ([u64::from(good.with_s1_cd_max(2).with_s1_fmt(3)), 0, 0, 0], "reserved S1Fmt"),
        ([u64::from(good), 2 << 30, 0, 0], "EL2 without HYP"),
        ([u64::from(good.with_config(Config::S2_TRANSLATE.0)), 0, 0, 0], "stage 2 without S2AA64"),
    ] {
        let mut m = Machine::new();
        m.put_ste(1, words);
        assert_eq!(m.ask(1, 0).fault, 4, "{why}");
    }
    let mut m = Machine::new();
    let tables = m.tables(12, 1, 40);
    let right = stage2_word(1, &tables);
    let word0 = u64::from(good.with_config(Config::S2_TRANSLATE.0));
    for (word2, fault, why) in [
        (right, 0x10, "as it should be"),
        (right.with_s2_tg(3), 4, "reserved granule"),
        (right.with_s2_t0sz(15), 4, "more input than OAS"),
        (right.with_s2_sl0(0), 4, "start level too low for its size"),
        (right.with_s2_sl0(2).with_s2_t0sz(25), 4, "start level with no index"),
        (right.with_s2_sl0(3), 4, "small tables without STT"),
        (right.with_s2_endi(true), 4, "big-endian"),
    ] {
        m.put_ste(1, [word0, 0, word2.into(), stage2_table(&tables)]);
        m.command(cfgi_ste(1));
        assert_eq!(m.ask(1, 0).fault, fault, "{why}");
    }
}

#[test]
fn what_the_hardware_lacks_is_a_bad_cd() {
    let mut m = translating();
    let tables = m.tables(12, 0, 48);
    let right = cd_word(1, &tables);
    for (word0, fault, why) in [
        (right, 0x10, "as it should be"),
        (right.with_v(false), 0x0a, "not valid"),
        (right.with_aa64(false), 0x0a, "AArch32"),
        (right.with_t0sz(15), 0x0a, "49 bits"),
        (right.with_t0sz(40), 0x0a, "24 bits without STT"),
        (right.with_tg0(3), 0x0a, "reserved granule"),
        (right.with_s(true), 0x0a, "stall where there is none"),
        (right.with_endi(true), 0x0a, "big-endian"),
        (right.with_epd1(false), 0x0a, "TTB1 with a reserved granule"),
        (right.with_epd0(true), 0x10, "no walks"),
    ] {
        m.memory.put(CD, &[word0.into(), tables.root, 0]);
        m.command(cfgi_ste(1));
        assert_eq!(m.ask(1, 0).fault, fault, "{why}");
    }
}

#[test]
fn streams_beyond_the_table() {
    let mut m = Machine::new();
    assert_eq!(m.ask(256, 0).fault, 2);
    assert_eq!(m.event(0), [256 << 32 | 2, 0, 0, 0]);
    m.write(offset::CR0, 4, 0b1100);
    m.write(offset::CR2, 4, 0);
    m.write(offset::CR0, 4, 0b1101);
    assert_eq!(m.ask(256, 0).fault, 2);
    assert_eq!(m.read(offset::EVENTQ_PROD), 1, "recorded only with RECINVSID");
}

#[test]
fn two_level_stream_table() {
    let mut m = Machine::off(&[], false, 0);
    m.enable();
    m.write(offset::CR0, 4, 0b1100);
    m.write(offset::STRTAB_BASE_CFG, 4, 1 << 16 | 8 << 6 | 16);
    m.write(offset::CR0, 4, 0b1101);
    // Streams 0x200..0x210 only: a level-2 array of 2^(5-1).
    m.memory.put(STREAM_TABLE + 8 * 2, &[0x60_0000 | 5]);
    m.memory.put(STREAM_TABLE + 8 * 3, &[MEMORY_END | 9]);
    m.memory.put(0x60_0000 + 64 * 15, &bypass());
    assert_eq!(m.ask(0x20f, IOVA).status, Status::BYPASS);
    assert_eq!(m.ask(0x210, IOVA).fault, 2, "beyond the span");
    assert_eq!(m.ask(0x100, IOVA).fault, 2, "no level-2 array");
    assert_eq!(m.ask(0x300, IOVA).fault, 3, "array outside memory");
    assert_eq!(m.event(2), [0x300 << 32 | 3, 0, 0, MEMORY_END]);
    assert_eq!(m.ask(0x1_0000, IOVA).fault, 2, "beyond LOG2SIZE");
}

#[test]
fn substreams() {
    let stage1 = SteWord0::new().with_v(true).with_config(Config::S1_TRANSLATE.0).with_s1_context_ptr(CD >> 6);
    let pasid = |pasid| Request { stream: 1, pasid, iova: IOVA, access: 0, flags: 0 };
    let fresh = |word0: SteWord0, dss| {
        let mut m = translating();
        let mut tables = m.tables(12, 0, 48);
        tables.map(&m.memory, IOVA, 0x2_0000, 3, S1_RW);
        m.put_cd(CD + 64 * 3, 3, &tables);
        m.put_ste(1, [word0.into(), ste_word1(dss, 0), 0, 0]);
        m
    };
    let mut m = fresh(stage1, 0);
    assert_eq!(m.request(pasid(0)).fault, 8, "no substreams");
    let four = stage1.with_s1_cd_max(2);
    let mut m = fresh(four, 0);
    assert_eq!(m.ask(1, IOVA).fault, 6, "S1DSS terminates");
    assert_eq!(m.event(0)[0], 1 << 32 | 6);
    assert_eq!(m.request(pasid(3)).output, 0x2_0000);
    assert_eq!(m.request(pasid(0)).output, 0x1_0000);
    assert_eq!(m.request(pasid(4)).fault, 8, "beyond S1CDMax");
    assert_eq!(m.event(1)[0], 1 << 32 | 4 << 12 | 1 << 11 | 8, "with its SubstreamID");
    let mut m = fresh(four, 1);
    assert_eq!(m.ask(1, IOVA).status, Status::BYPASS);
    let mut m = fresh(four, 2);
    assert_eq!(m.ask(1, IOVA).output, 0x1_0000);
    assert_eq!(m.request(pasid(0)).fault, 8, "CD 0 is for traffic without SubstreamID");
    m.put_ste(1, bypass());
    m.command(cfgi_ste(1));
    assert_eq!(m.request(pasid(3)).fault, 8, "no stage 1");
}

#[test]
fn two_level_cd_tables() {
    for (format, split) in [(1, 6), (2, 10)] {
        let mut m = Machine::new();
        let mut tables = m.tables(12, 0, 48);
        tables.map(&m.memory, IOVA, 0x1_0000, 3, S1_RW);
        let word0 = SteWord0::new().with_v(true).with_config(Config::S1_TRANSLATE.0).with_s1_context_ptr(CD >> 6);
        m.put_ste(1, [word0.with_s1_cd_max(8).with_s1_fmt(format).into(), 0, 0, 0]);
        let substream = 0x47u32;
        m.memory.put(CD + 8 * u64::from(substream >> split), &[0x70_0000 | 1]);
        m.put_cd(0x70_0000 + 64 * u64::from(substream & ((1 << split) - 1)), 9, &tables);
        let ask = |pasid| Request { stream: 1, pasid, iova: IOVA, access: 0, flags: 0 };
        assert_eq!(m.request(ask(substream)).output, 0x1_0000, "format {format}");
        let empty = m.request(ask(0xff)).fault;
        assert_eq!(empty, if split == 6 { 8 } else { 0x0a }, "format {format}: no CD there");
    }
}

#[test]
fn disabled_traffic_follows_gbpa() {
    let mut m = Machine::off(&[], false, 0);
    let answer = m.ask(7, IOVA);
    assert_eq!((answer.status, answer.output), (Status::DISABLED, IOVA));
    m.write(offset::GBPA, 4, 1 << 20);
    assert_eq!(m.ask(7, IOVA).status, Status::DISABLED, "without UPDATE nothing changes");
    m.write(offset::GBPA, 4, 1 << 31 | 1 << 20);
    assert_eq!(m.read(offset::GBPA), 1 << 20);
    assert_eq!(m.ask(7, IOVA).status, Status::ABORT);
    assert!(m.explain(7, IOVA).contains("GBPA.ABORT"));
}

/// §3.4: too many bits in an address in which stage 1 has no part.
#[test]
fn an_address_beyond_what_exists_is_stage_1s_fault_even_without_stage_1() {
    const BEYOND: u64 = 1 << 48;
    let mut m = Machine::new();
    let mut tables = m.tables(12, 1, 40);
    tables.map(&m.memory, IOVA, 0x1_0000, 3, S2_RW);
    m.ste_stage2(1, 5, &tables, None);
    let answer = m.access(1, BEYOND | IOVA, 1);
    assert_eq!((answer.status, answer.stage, answer.fault), (Status::FAULT, 1, 0x11), "F_ADDR_SIZE of stage 1");
    let record = m.event(0);
    // RnW, CLASS = IN, S2 = 0.
    assert_eq!((record[1], record[2]), (1 << 35 | 2 << 40, BEYOND | IOVA));
    let answer = m.ask(1, 1 << 40);
    assert_eq!((answer.stage, answer.fault), (2, 0x10), "inside the IAS, outside S2T0SZ: stage 2's F_TRANSLATION");
}

/// §5.2: S1STALLD is illegal where no stalls can be configured.
#[test]
fn stalls_that_do_not_exist_cannot_be_disabled() {
    let mut m = translating();
    let stalld = SteWord1::new().with_s1_stalld(true).into();
    let word0 = SteWord0::new().with_v(true).with_config(Config::S1_TRANSLATE.0).with_s1_context_ptr(CD >> 6);
    m.put_ste(1, [word0.into(), stalld, 0, 0]);
    assert_eq!(m.ask(1, IOVA).fault, 0x04, "C_BAD_STE");
    m.put_ste(2, [bypass()[0], stalld, 0, 0]);
    assert_eq!(m.ask(2, IOVA).status, Status::BYPASS, "ignored without stage 1");
}

/// §5.4: HA and HD are illegal where IDR0.HTTU has no such updates.
#[test]
fn flags_that_hardware_cannot_update_make_a_cd_illegal() {
    for bit in [42, 43] {
        let mut m = translating();
        assert_eq!(m.ask(1, IOVA).status, Status::OK);
        m.memory.put(CD, &[m.memory.get(CD) | 1 << bit]);
        m.command(cfgi_ste(1));
        assert_eq!(m.ask(1, IOVA).fault, 0x0a, "C_BAD_CD for bit {bit}");
    }
}
