//! What a guest may command, from the manual (D51397 §6.5.2). Written by hand, bit by bit: nothing here comes from the
//! codec that is judged by it.

use crate::shown::{Shown, Tables};
use viommu_plugin::Classes;
use viommu_plugin_check::proof::{Becomes, CommandTable, Field, Row};

/// Type (bits 3:0 and 11:9), and bits 5:4, in which most types have their granularity.
const OPCODE: u64 = 0xe3f;
const DID: Field = Field::new(16, 31);
const SID: Field = Field::new(32, 47);
const PASID: Field = Field::new(32, 51);
const AM: Field = Field::new(64, 64 + 5);
const IH: Field = Field::bit(64 + 6);
const ADDRESS: Field = Field::new(64 + 12, 127);

const CONFIGURATION: Becomes = Becomes::Configuration { stream: None };
const LOCAL: Becomes = Becomes::Hint { stream: None };

const fn domain(opcode: u64) -> Becomes {
    Becomes::Domain { class: Classes::TLB, opcode, domain: DID }
}

const fn device(opcode: u64, stream: Field) -> Becomes {
    Becomes::Host { class: Classes::ATC, opcode, tag: None, stream: Some(stream) }
}

fn row(name: &'static str, opcode: u64, allowed: &[Field], becomes: Becomes) -> Row {
    Row::new(name, vec![opcode, 0, 0, 0], allowed.to_vec(), becomes)
}

/// Every command that a guest may send.
pub(crate) fn commands(shown: Shown) -> CommandTable {
    let Shown { tables, device_tlb, interrupts, page_requests, pasid, page_selective, max_mask, .. } = shown;
    let (shadow, scalable) = (tables != Tables::FirstStage, tables != Tables::Legacy);
    let pages = |row: Row| row.restricted(vec![AM], move |command| AM.get(command) <= max_mask.into());

    // Second-stage tables: what changes in them is followed; else all of a guest is flushed, or one domain of it.
    let tlb = |global: bool, opcode| match (shadow, global) {
        (true, _) => Becomes::Shadow,
        (false, true) => CONFIGURATION,
        (false, false) => domain(opcode),
    };
    let iotlb = [Field::new(6, 7), DID, AM, IH, ADDRESS];
    let context = [DID, SID, Field::new(48, 49)];
    let mut rows = vec![
        row("CONTEXT global", 0x11, &context, CONFIGURATION),
        row("CONTEXT domain", 0x21, &context, CONFIGURATION),
        row("CONTEXT device", 0x31, &context, CONFIGURATION),
        row("IOTLB global", 0x12, &iotlb, tlb(true, 0x12)),
        row("IOTLB domain", 0x22, &iotlb, tlb(false, 0x22)),
    ];
    // Without a row: reserved where the type is there, unknown where not.
    let mut reserved = vec![0x01, 0x02];
    if page_selective {
        rows.push(pages(row("IOTLB pages", 0x32, &iotlb, tlb(false, 0x32))));
    } else {
        reserved.push(0x32);
    }
    // IF and SW stand where others have a granularity. FN; PD with page requests.
    let drain = if page_requests { Field::new(6, 7) } else { Field::bit(6) };
    for (opcode, name) in [(0x05, "WAIT"), (0x15, "WAIT IF"), (0x25, "WAIT SW"), (0x35, "WAIT IF SW")] {
        let fields = [drain, Field::new(32, 63), Field::new(64 + 2, 127)];
        rows.push(row(name, opcode, &fields, Becomes::Sync));
    }
    if scalable {
        let fields = [DID, PASID, AM, IH, ADDRESS];
        let becomes = |opcode| if shadow { LOCAL } else { domain(opcode) };
        rows.push(row("PIOTLB pasid", 0x26, &fields, becomes(0x26)));
        rows.push(pages(row("PIOTLB pages", 0x36, &fields, becomes(0x36))));
        for (opcode, name) in [(0x07, "PASID_CACHE domain"), (0x17, "PASID_CACHE pasid"), (0x37, "PASID_CACHE global")]
        {
            rows.push(row(name, opcode, &[DID, PASID], CONFIGURATION));
        }
        reserved.extend([0x06, 0x16, 0x27]);
    }
    if device_tlb {
        let fields = [Field::new(16, 20), SID, Field::bit(64), ADDRESS];
        rows.push(row("DEV_TLB", 0x03, &fields, device(0x03, SID)));
        reserved.extend([0x13, 0x23, 0x33]);
    }
    if device_tlb && scalable && pasid {
        // MaxInvsPend is bits 8:4, two of which choose the row here; SID is where others have DID.
        for opcode in [0x08, 0x18, 0x28, 0x38] {
            let fields = [Field::new(6, 8), DID, PASID, Field::bit(64), Field::bit(64 + 11), ADDRESS];
            rows.push(row("PASID_DEV_TLB", opcode, &fields, device(opcode, DID)));
        }
    }
    if interrupts {
        for (opcode, name) in [(0x04, "IEC global"), (0x14, "IEC index")] {
            rows.push(row(name, opcode, &[Field::new(27, 31), Field::new(32, 47)], LOCAL));
        }
        reserved.extend([0x24, 0x34]);
    }
    if page_requests {
        for (opcode, name) in [(0x09, "PAGE_GROUP_RESPONSE"), (0x19, "PAGE_GROUP_RESPONSE with PASID")] {
            rows.push(row(name, opcode, &[Field::new(12, 15), DID, PASID, Field::new(64 + 3, 64 + 11)], LOCAL));
        }
        reserved.extend([0x29, 0x39]);
    }
    CommandTable::new(4, OPCODE, rows).reserving(reserved)
}
