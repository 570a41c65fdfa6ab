//! What a guest may command, from the layouts that Linux's driver writes and public headers add. Written by hand, bit by
//! bit: nothing here comes from the codec that is judged by it.

use crate::shown::Shown;
use viommu_plugin::Classes;
use viommu_plugin_check::proof::{Becomes, CommandTable, Field, Row};

const DEVICE: Field = Field::new(0, 15);
const DOMAIN: Field = Field::new(32, 47);
const QUEUE: Field = Field::new(32, 47);
const S: Field = Field::bit(64);
const PDE: Field = Field::bit(65);
const GN: Field = Field::bit(66);
const ADDRESS: Field = Field::new(64 + 12, 127);

/// Every command that a guest may send.
pub(crate) fn commands(shown: Shown) -> CommandTable {
    let op = |opcode: u64| vec![opcode << 60, 0];
    let device = |name, opcode, becomes| Row::new(name, op(opcode), vec![DEVICE], becomes);
    // A PASID stands at `fields`, as far as it has bits, and only with GN, which there is with guest translation.
    let with_pasid = |name, opcode: u64, mut allowed: Vec<Field>, fields: &[Field], becomes| {
        let row = |allowed| Row::new(name, op(opcode), allowed, becomes);
        if !shown.gt {
            return row(allowed);
        }
        allowed.push(GN);
        allowed.extend(fields);
        // The lowest bit of each part is enough to try: a restricted field is looked at as zero or not.
        let looked: Vec<Field> = fields.iter().map(|field| Field::bit(field.first)).chain([GN]).collect();
        let fields = fields.to_vec();
        let legal = move |command: &[u64]| GN.get(command) == 1 || fields.iter().all(|field| field.get(command) == 0);
        row(allowed).restricted(looked, legal)
    };
    let low = shown.pasid_bits;
    let pages = if shown.nested {
        Becomes::Domain { class: Classes::TLB, opcode: 3 << 60, domain: DOMAIN }
    } else {
        Becomes::Shadow
    };
    let mut rows = vec![
        Row::new("COMPLETION_WAIT", op(1), vec![Field::new(0, 51), Field::new(64, 127)], Becomes::Sync),
        device("INVALIDATE_DEVTAB_ENTRY", 2, Becomes::Configuration { stream: Some(DEVICE) }),
        with_pasid("INVALIDATE_IOMMU_PAGES", 3, vec![DOMAIN, S, PDE, ADDRESS], &[Field::new(0, low - 1)], pages),
        device("INVALIDATE_INTERRUPT_TABLE", 5, Becomes::Hint { stream: None }),
    ];
    if shown.ats {
        // PASID bits 15:8 at 23:16, 7:0 at 55:48.
        let mut pasid = vec![Field::new(48, 48 + low.min(8) - 1)];
        if low > 8 {
            pasid.push(Field::new(16, 16 + low.min(16) - 8 - 1));
        }
        let fields = vec![DEVICE, Field::new(24, 31), QUEUE, S, ADDRESS];
        let becomes = Becomes::Device { class: Classes::ATC, opcode: 4 << 60, stream: DEVICE, copy: QUEUE };
        rows.push(with_pasid("INVALIDATE_IOTLB_PAGES", 4, fields, &pasid, becomes));
    }
    let hint = Becomes::Hint { stream: Some(DEVICE) };
    let pasid = [Field::new(32, 32 + low - 1)];
    if shown.hints {
        let fields = vec![DEVICE, Field::new(24, 31), S, Field::bit(68), ADDRESS];
        rows.push(with_pasid("PREFETCH_IOMMU_PAGES", 6, fields, &pasid, hint));
    }
    if shown.requests {
        let fields = vec![DEVICE, Field::new(64 + 32, 64 + 40), Field::new(64 + 44, 64 + 47)];
        rows.push(with_pasid("COMPLETE_PPR_REQUEST", 7, fields, &pasid, hint));
    }
    if shown.all {
        rows.push(Row::new("INVALIDATE_IOMMU_ALL", op(8), vec![], Becomes::Configuration { stream: None }));
    }
    CommandTable::new(2, 0xf << 60, rows)
}
