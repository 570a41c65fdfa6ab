//! Stream table entries, context descriptors and level-1 descriptors.

use crate::{untouched, words};
use arm_smmuv3::codec::ArmCodec;
use arm_smmuv3::spec::cd::{CdTtb, CdWord0, L1Cd};
use arm_smmuv3::spec::registers::offset;
use arm_smmuv3::spec::ste::{L1StreamTable, SteWord0, SteWord1};
use arm_smmuv3::tables::{Geometry, HostSte, Stage2, physical_ste};
use viommu_plugin::{Codec, EntryKey, Hardware, KeyKind, NO_DOMAIN, Refusal, Register, Unreadable};

struct Golden {
    section: &'static str,
    /// Words 0 and 1 of the guest's STE; the others are zero.
    bytes: [u8; 16],
    apart: fn(SteWord0, SteWord1) -> bool,
    build: fn() -> [u64; 2],
    key: EntryKey,
    /// Words 0 to 3 of the physical STE.
    physical: [u64; 4],
}

const TRANSLATE: EntryKey = EntryKey { kind: KeyKind::TRANSLATE, ..ABORT };
const ABORT: EntryKey = EntryKey { kind: KeyKind::ABORT, event: 0, domain: NO_DOMAIN, reserved: 0, words: [0; 4] };
const BAD_STE: EntryKey = EntryKey { event: 4, ..ABORT };
const BYPASS: EntryKey = EntryKey { kind: KeyKind::BYPASS, ..ABORT };

/// Stage 2 of VMID 0x42 with a root at 0x8000_0000: 44-bit addresses from level 0, write-back inner shareable walks.
const S2_WORD2: u64 = 0x42 | 20 << 32 | 2 << 38 | 1 << 40 | 1 << 42 | 3 << 44 | 4 << 48 | 1 << 51 | 1 << 54 | 1 << 58;
const S2_WORD3: u64 = 0x8000_0000;
const PHYSICAL_ABORT: [u64; 4] = [1, 0, 0, 0];
const MEV: u64 = 1 << 19;

const GOLDEN: &[Golden] = &[
    Golden {
        section: "5.2 STE.V = 0, pointer left over",
        bytes: [0x0a, 0, 0, 0xf0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        apart: |w0, _| !w0.v() && w0.config() == 5 && w0.cd_table() == 0xf000_0000,
        build: || [SteWord0::new().with_config(5).with_s1_context_ptr(0xf000_0000 >> 6).into_bits(), 0],
        key: BAD_STE,
        physical: PHYSICAL_ABORT,
    },
    Golden {
        section: "5.2 STE.Config = abort, pointer left over",
        bytes: [0x01, 0, 0, 0xf0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        apart: |w0, _| w0.v() && w0.config() == 0,
        build: || [SteWord0::new().with_v(true).with_s1_context_ptr(0xf000_0000 >> 6).into_bits(), 0],
        key: ABORT,
        physical: PHYSICAL_ABORT,
    },
    Golden {
        section: "5.2 STE.Config = bypass, pointer left over, incoming shareability",
        bytes: [0x09, 0, 0, 0xf0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0],
        apart: |w0, w1| w0.v() && w0.config() == 4 && w1.shcfg() == 1,
        build: || {
            [
                SteWord0::new().with_v(true).with_config(4).with_s1_context_ptr(0xf000_0000 >> 6).into_bits(),
                SteWord1::new().with_shcfg(1).into_bits(),
            ]
        },
        key: BYPASS,
        physical: [1 | 6 << 1, 0, S2_WORD2, S2_WORD3],
    },
    Golden {
        section: "5.2 STE.Config = stage 1, as Linux writes it: one CD, ATS",
        bytes: [0x0b, 0, 0x10, 0x5c, 0, 0, 0, 0, 0xf6, 0, 0, 0x10, 0, 0, 0, 0],
        apart: |w0, w1| {
            (w0.v(), w0.config(), w0.s1_fmt(), w0.cd_table(), w0.s1_cd_max()) == (true, 5, 0, 0x5c10_0000, 0)
                && (w1.s1_dss(), w1.s1_cir(), w1.s1_cor(), w1.s1_csh()) == (2, 1, 3, 3)
                && (w1.s1_stalld(), w1.eats()) == (false, 1)
        },
        build: || {
            let word0 = SteWord0::new().with_v(true).with_config(5).with_s1_context_ptr(0x5c10_0000 >> 6);
            let word1 = SteWord1::new().with_s1_dss(2).with_s1_cir(1).with_s1_cor(3).with_s1_csh(3);
            [word0.into_bits(), word1.with_eats(1).into_bits()]
        },
        key: EntryKey { words: [0x5c10_000b, 0x1000_00f6, 0, 0], ..TRANSLATE },
        physical: [0x5c10_000f, 0x1000_00f6 | MEV, S2_WORD2, S2_WORD3],
    },
    Golden {
        section: "5.2 STE.Config = stage 1, two-level CD table, and bits that are the host's (MEV, SHCFG)",
        bytes: [0x2b, 0, 0x10, 0x5c, 0, 0, 0, 0xa0, 0x02, 0, 0x08, 0, 0, 0x10, 0, 0],
        apart: |w0, w1| (w0.s1_fmt(), w0.s1_cd_max(), w1.mev(), w1.shcfg(), w1.eats()) == (2, 20, true, 1, 0),
        build: || {
            let word0 = SteWord0::new().with_v(true).with_config(5).with_s1_fmt(2).with_s1_cd_max(20);
            let word1 = SteWord1::new().with_s1_dss(2).with_mev(true).with_shcfg(1);
            [word0.with_s1_context_ptr(0x5c10_0000 >> 6).into_bits(), word1.into_bits()]
        },
        key: EntryKey { words: [0xa000_0000_5c10_002b, 2, 0, 0], ..TRANSLATE },
        physical: [0xa000_0000_5c10_002f, 2 | MEV, S2_WORD2, S2_WORD3],
    },
    Golden {
        section: "5.2 STE.S1STALLD where STALL_MODEL says that there are no stalls",
        bytes: [0x0b, 0, 0x10, 0x5c, 0, 0, 0, 0, 0, 0, 0, 0x08, 0, 0, 0, 0],
        apart: |_, w1| w1.s1_stalld(),
        build: || {
            let word0 = SteWord0::new().with_v(true).with_config(5).with_s1_context_ptr(0x5c10_0000 >> 6);
            [word0.into_bits(), SteWord1::new().with_s1_stalld(true).into_bits()]
        },
        key: BAD_STE,
        physical: PHYSICAL_ABORT,
    },
    Golden {
        section: "5.2 STE.Config = stage 2, which is not the guest's",
        bytes: [0x0d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        apart: |w0, _| w0.config() == 6,
        build: || [SteWord0::new().with_v(true).with_config(6).into_bits(), 0],
        key: BAD_STE,
        physical: PHYSICAL_ABORT,
    },
    Golden {
        section: "5.2 STE.Config = both stages, which is not the guest's",
        bytes: [0x0f, 0, 0x10, 0x5c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        apart: |w0, _| w0.config() == 7,
        build: || [SteWord0::new().with_v(true).with_config(7).with_s1_context_ptr(0x5c10_0000 >> 6).into_bits(), 0],
        key: BAD_STE,
        physical: PHYSICAL_ABORT,
    },
    Golden {
        section: "5.2 STE.EATS = split stage, which needs a stage 2",
        bytes: [0x0b, 0, 0x10, 0x5c, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0],
        apart: |_, w1| w1.eats() == 2,
        build: || {
            let word0 = SteWord0::new().with_v(true).with_config(5).with_s1_context_ptr(0x5c10_0000 >> 6);
            [word0.into_bits(), SteWord1::new().with_eats(2).into_bits()]
        },
        key: BAD_STE,
        physical: PHYSICAL_ABORT,
    },
];

/// Memory that is only ever allocated from.
struct Arena;

impl Hardware for Arena {
    fn mmio_read(&self, _: u64, _: u32) -> u64 {
        0
    }
    fn mmio_write(&self, _: u64, _: u32, _: u64) {}
    fn read(&self, _: u64, _: &mut [u8]) -> Result<(), Unreadable> {
        Err(Unreadable)
    }
    fn write(&self, _: u64, _: &[u8]) -> Result<(), Unreadable> {
        Err(Unreadable)
    }
    fn alloc(&self, _: u64, _: u64) -> Result<u64, Refusal> {
        Ok(S2_WORD3)
    }
    fn free(&self, _: u64, _: u64) {}
    fn issue(&self, _: &[u64]) -> Result<(), Refusal> {
        Ok(())
    }
}

#[test]
fn take_apart() {
    for golden in GOLDEN {
        let [w0, w1]: [u64; 2] = words(&golden.bytes);
        assert!((golden.apart)(w0.into(), w1.into()), "{}", golden.section);
    }
}

#[test]
fn build() {
    for golden in GOLDEN {
        assert_eq!((golden.build)(), words::<16, 2>(&golden.bytes), "{}", golden.section);
    }
}

#[test]
fn parse() {
    let register = |offset, value| Register { offset, value };
    let shown = [register(offset::IDR0, 0x0d4c_141a), register(offset::IDR1, 0x0273_0010 | 20 << 6)];
    let codec = ArmCodec::new(&shown).unwrap();
    for golden in GOLDEN {
        let [w0, w1]: [u64; 2] = words(&golden.bytes);
        assert_eq!(codec.entry_key(&[w0, w1, 0, 0, 0, 0, 0, 0]), golden.key, "{}", golden.section);
    }
}

#[test]
fn emit() {
    let stage2 = Stage2::new(&Arena, Geometry::new(4), 0x42, false).unwrap();
    let host = HostSte { ats: true, ..HostSte::default() };
    for golden in GOLDEN {
        let mut image = untouched::<9>();
        image[..8].copy_from_slice(&physical_ste(&golden.key, &stage2, host));
        let mut expected = untouched::<9>();
        expected[..8].fill(0);
        expected[..4].copy_from_slice(&golden.physical);
        assert_eq!(image, expected, "{}", golden.section);
    }
}

#[test]
fn context_descriptor() {
    // 5.4 CD as Linux writes it for a 4K guest: 48-bit TTB0, EPD1, ASID 1.
    let bytes: [u8; 16] = [0x10, 0x35, 0, 0xc0, 0x04, 0x62, 0x01, 0, 0x00, 0x70, 0x5d, 0x44, 0, 0, 0, 0];
    let [w0, w1]: [u64; 2] = words(&bytes);
    let (cd, ttb) = (CdWord0::from_bits(w0), CdTtb::from_bits(w1));
    assert_eq!((cd.t0sz(), cd.tg0(), cd.ir0(), cd.or0(), cd.sh0()), (16, 0, 1, 1, 3));
    assert_eq!((cd.epd0(), cd.epd1(), cd.v(), cd.ips(), cd.aa64()), (false, true, true, 4, true));
    assert_eq!((cd.s(), cd.r(), cd.a(), cd.aset(), cd.asid()), (false, true, true, false, 1));
    assert_eq!(ttb.table(), 0x445d_7000);
    let built = CdWord0::new().with_t0sz(16).with_ir0(1).with_or0(1).with_sh0(3).with_epd1(true).with_v(true);
    let built = built.with_ips(4).with_aa64(true).with_r(true).with_a(true).with_asid(1);
    assert_eq!([built.into_bits(), CdTtb::new().with_ttb(0x0445_d700).into_bits()], [w0, w1]);
}

#[test]
fn level_1_descriptors() {
    // 5.1: 256 STEs at 0x1_2345_4000. 5.3: 1024 CDs at 0x1_2345_0000.
    let stream = L1StreamTable::from_bits(u64::from_le_bytes([0x09, 0x40, 0x45, 0x23, 0x01, 0, 0, 0]));
    assert_eq!((stream.span(), stream.l2_address()), (9, 0x1_2345_4000));
    assert_eq!(L1StreamTable::new().with_span(9).with_l2_ptr(0x1_2345_4000 >> 6), stream);
    let cd = L1Cd::from_bits(u64::from_le_bytes([0x01, 0, 0x45, 0x23, 0x01, 0, 0, 0]));
    assert_eq!((cd.v(), cd.l2_address()), (true, 0x1_2345_0000));
    assert_eq!(L1Cd::new().with_v(true).with_l2_ptr(0x1_2345_0000 >> 12), cd);
}
