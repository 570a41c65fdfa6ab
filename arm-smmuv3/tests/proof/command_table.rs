//! What a guest may command, from the manual (IHI 0070 §4) and from what Linux's vIOMMU
//! takes. Written by hand, bit by bit: nothing here comes from the codec that is judged by it.

use crate::shown::Shown;
use viommu_plugin::Classes;
use viommu_plugin_check::proof::{Becomes, CommandTable, Field, Row};

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
