//! What a guest may command and write into an STE, from the manual (IHI 0070 §4, §5.2) and from what Linux's vIOMMU
//! takes. Written by hand, bit by bit: nothing here comes from the codec that is judged by it.

use arm_smmuv3::codec::ArmCodec;
use viommu_plugin::{Classes, EntryKey, KeyKind, Register};
use viommu_plugin_check::proof::{Becomes, CommandTable, EntryTable, Field, Row};

/// What a guest is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown {
    /// IDR0.ATS.
    pub(crate) ats: bool,
    /// IDR0.ASID16.
    pub(crate) asid16: bool,
    /// IDR3.RIL.
    pub(crate) ril: bool,
    /// IDR5.DS.
    pub(crate) ds: bool,
    /// IDR1.SSIDSIZE.
    pub(crate) ssidsize: u8,
    /// IDR0.CD2L.
    pub(crate) cd2l: bool,
}

const IDR0: u64 = 0x00;
const IDR1: u64 = 0x04;
const IDR3: u64 = 0x0c;
const IDR5: u64 = 0x14;

impl Shown {
    /// The sets that a command's legality depends on, all of them, by number below 32.
    pub(crate) fn of_commands(number: u32) -> Self {
        let bit = |at: u32| number >> at & 1 != 0;
        Self { ats: bit(0), asid16: bit(1), ril: bit(2), ds: bit(3), ssidsize: if bit(4) { 20 } else { 0 }, cd2l: true }
    }

    /// A codec whose guest is shown this.
    pub(crate) fn codec(self) -> ArmCodec {
        let bit = |set: bool, at: u32| u64::from(set) << at;
        let register = |offset, value| Register { offset, value };
        ArmCodec::new(&[
            register(IDR0, 0x0d40_000a | bit(self.ats, 10) | bit(self.asid16, 12) | bit(self.cd2l, 19)),
            register(IDR1, 0x0273_0010 | u64::from(self.ssidsize) << 6),
            register(IDR3, bit(self.ril, 10)),
            register(IDR5, 0x74 | bit(self.ds, 7)),
        ])
        .expect("a set of ID registers that a vIOMMU can be")
    }
}

const VMID: Field = Field::new(32, 47);
const SID: Field = Field::new(32, 63);
const SSID: Field = Field::new(12, 31);
const NUM: Field = Field::new(12, 16);
const TTL: Field = Field::new(64 + 8, 64 + 9);
const TG: Field = Field::new(64 + 10, 64 + 11);
const ADDRESS: Field = Field::new(64 + 12, 127);
const LEAF: Field = Field::bit(64);

const fn tlb(opcode: u64) -> Becomes {
    Becomes::Host { class: Classes::TLB, opcode, tag: Some(VMID), stream: None }
}

const fn cache(class: Classes, opcode: u64) -> Becomes {
    Becomes::Host { class, opcode, tag: None, stream: Some(SID) }
}

/// Every command that a guest may send.
pub(crate) fn commands(shown: Shown) -> CommandTable {
    let Shown { ats, asid16, ril, ds, ssidsize, .. } = shown;
    let substreams = ssidsize > 0;
    let asid = Field::new(48, if asid16 { 63 } else { 55 });
    // Bit 25 is SCALE's sixth, there with IDR5.DS only.
    let scale = Field::new(20, if ds { 25 } else { 24 });
    let with_substreams = |fields: &[Field], more: &[Field]| {
        let mut all = fields.to_vec();
        if substreams {
            all.extend(more);
        }
        all
    };
    let by_address = |name, opcode: u64, more: &[Field]| {
        let mut allowed = [&[VMID, LEAF, ADDRESS], more].concat();
        if !ril {
            return Row::new(name, vec![opcode, 0], allowed, tlb(opcode));
        }
        let range = [NUM, scale, TTL, TG];
        allowed.extend(range);
        // A base with a range, so that no flipped address bit stands alone: 4 KiB granules, NUM 1, SCALE 1, TTL 1.
        Row::new(name, vec![opcode | 1 << 12 | 1 << 20, 1 << 8 | 1 << 10], allowed, tlb(opcode)).restricted(
            range.to_vec(),
            move |command| match (TG.get(command), TTL.get(command)) {
                // No granule: nothing that needs one.
                (0, ttl) => ttl == 0 && NUM.get(command) == 0 && scale.get(command) == 0,
                // 16 KiB leaves at level 1 exist with 52-bit addresses only.
                (2, 1) => ds,
                (_, ttl) => ttl != 0 || NUM.get(command) != 0 || scale.get(command) != 0,
            },
        )
    };
    let prefetch = |name, opcode| {
        let fields = [SID, Field::new(64, 68), Field::new(69, 73), ADDRESS];
        let fields = with_substreams(&fields, &[Field::bit(11), SSID]);
        Row::new(name, vec![opcode, 0], fields, Becomes::Hint { stream: Some(SID) })
    };
    let signal = Field::new(12, 13);
    let mut rows = vec![
        prefetch("PREFETCH_CONFIG", 0x01),
        prefetch("PREFETCH_ADDR", 0x02),
        Row::new("CFGI_STE", vec![0x03, 0], vec![SID, LEAF], Becomes::Configuration { stream: Some(SID) }),
        // The range may cover streams with and without a vdevice: it is looked at whatever it names.
        Row::new(
            "CFGI_STE_RANGE",
            vec![0x04, 0],
            vec![SID, Field::new(64, 68)],
            Becomes::Configuration { stream: None },
        ),
        Row::new("CFGI_CD", vec![0x05, 0], with_substreams(&[SID, LEAF], &[SSID]), cache(Classes::CONFIG, 0x05)),
        Row::new("CFGI_CD_ALL", vec![0x06, 0], vec![SID], cache(Classes::CONFIG, 0x06)),
        Row::new("TLBI_NH_ALL", vec![0x10, 0], vec![VMID], tlb(0x10)),
        Row::new("TLBI_NH_ASID", vec![0x11, 0], vec![VMID, asid], tlb(0x11)),
        by_address("TLBI_NH_VA", 0x12, &[asid]),
        by_address("TLBI_NH_VAA", 0x13, &[]),
        // Everything of this guest, which is what NH_ALL of its VMID says.
        Row::new("TLBI_NSNH_ALL", vec![0x30, 0], vec![], tlb(0x10)),
        Row::new(
            "CMD_SYNC",
            vec![0x46, 0],
            vec![signal, Field::new(22, 27), Field::new(32, 63), Field::new(64 + 2, 64 + 51)],
            Becomes::Sync,
        )
        .restricted(vec![signal], move |command| signal.get(command) != 3),
    ];
    if ats {
        let size = Field::new(64, 69);
        let fields = with_substreams(&[SID, size, ADDRESS], &[Field::bit(9), Field::bit(11), SSID]);
        let row = Row::new("ATC_INV", vec![0x40, 0], fields, cache(Classes::ATC, 0x40));
        rows.push(row.restricted(vec![size], move |command| size.get(command) <= 52));
    }
    CommandTable::new(2, 0xff, rows)
}

/// Word 0 of an STE: V, Config, S1Fmt, S1ContextPtr, S1CDMax.
pub(crate) const GUEST0: u64 = 0xf80f_ffff_ffff_ffff;
/// Word 1 of an STE: S1DSS, S1CIR, S1COR, S1CSH, S1STALLD, EATS.
pub(crate) const GUEST1: u64 = 0x3800_00ff;

/// What an STE asks for.
pub(crate) fn entries(shown: Shown) -> EntryTable {
    let (v, config, format) = (Field::bit(0), Field::new(1, 3), Field::new(4, 5));
    let (cd_max, dss, eats) = (Field::new(59, 63), Field::new(64, 65), Field::new(64 + 28, 64 + 29));
    let key = move |ste: &[u64]| {
        let abort = |event| EntryKey { kind: KeyKind::ABORT, event, words: [0; 4] };
        // C_BAD_STE is event 0x04.
        let (bad, aborts) = (abort(4), abort(0));
        match (v.get(ste), config.get(ste)) {
            (0, _) => return bad,
            (_, 0..=3) => return aborts,
            (_, 4) => return EntryKey { kind: KeyKind::BYPASS, event: 0, words: [0; 4] },
            (_, 5) => {}
            // Stage 2 is the host's.
            _ => return bad,
        }
        let substreams = cd_max.get(ste) > 0;
        let formats = if shown.cd2l { 2 } else { 0 };
        let bad_table = cd_max.get(ste) > shown.ssidsize.into() || format.get(ste) > formats || dss.get(ste) == 3;
        if substreams && bad_table || shown.ats && eats.get(ste) > 1 {
            return bad;
        }
        let guest1 = if shown.ats { GUEST1 } else { GUEST1 & !eats.mask() };
        EntryKey { kind: KeyKind::TRANSLATE, event: 0, words: [ste[0] & GUEST0, ste[1] & guest1, 0, 0] }
    };
    let ste = |word0: u64, word1: u64| vec![word0, word1, 0, 0, 0, 0, 0, 0];
    EntryTable {
        bases: vec![
            ste(0b0001, 0),
            ste(0b1001, 0),
            // Stage 1: one CD, and a two-level table of CDs with ATS on.
            ste(0x4321_1000 | 0b1011, 0xec),
            ste(0x2 << 59 | 0x4321_1000 | 2 << 4 | 0b1011, 0x1000_00ee),
            // A leftover of everything, as a guest's host kernel would write.
            vec![0x4321_1000 | 0b1111, 0x1208_0000_30f8_00fe, 0x0473_5599_0000_ffff, 0x9876_5430, 1, 2, 3, 4],
        ],
        restricted: vec![v, config, format, cd_max, dss, eats],
        allowed: vec![Field::new(0, 51), cd_max, Field::new(64, 71), Field::bit(64 + 27), eats],
        key: Box::new(key),
    }
}
