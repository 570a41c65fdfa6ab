//! All that a replay has to know of a vendor by itself, by the vendor codes of the trace format: which registers it
//! hands in, which reads it compares, and which commands `--bare --inject` takes out of a queue. Everything else the
//! plugin answers.

use std::ops::RangeInclusive;
use viommu_plugin::{Register, TranslationMode};
use viommu_plugin_check::Capabilities;
use viommu_plugin_host::Plugin;
use viommu_trace::{Header, Scan, Vendor};

/// What is known of one vendor.
struct Layout {
    /// Offsets of registers that say what the hardware is: the same value at every read.
    id: &'static [RangeInclusive<u64>],
    /// Offsets of acknowledgements of what the guest set.
    ack: &'static [u64],
    /// An ID register outside the frame, which no MMIO_READ shows: where the plugin expects it, and its value.
    outside: Option<fn(&Header) -> Register>,
    /// Guest physical page that devices write their interrupt messages to through the IOMMU, on the machine that was
    /// recorded.
    doorbell: Option<u64>,
    /// What can be taken out of a queue.
    commands: Option<Commands>,
    /// Faults that the guest's own IOMMU has and the physical one answers otherwise.
    refusals: &'static [Refusal],
}

/// How the physical IOMMU refuses what the guest's own would have refused with a fault of this code.
struct Refusal {
    recorded: u32,
    /// Only in this mode; `None`: in all.
    mode: Option<TranslationMode>,
    physical: Refused,
}

/// A refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// A fault of this code.
    Fault(u32),
    /// No answer and no event.
    Abort,
}

/// Commands that a bare replay can take out of a guest's queue, by the opcodes that the vendor's codec gives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Commands {
    /// TLB invalidations.
    pub(crate) tlb: &'static [RangeInclusive<u8>],
    /// Device cache invalidations.
    pub(crate) atc: &'static [RangeInclusive<u8>],
    /// First word of what stands in their place, the others are zero: waits for what is done already and signals
    /// nobody.
    pub(crate) sync: u64,
}

/// SMMU_IDR0..5, IIDR, AIDR; CR0ACK, IRQ_CTRLACK (IHI 0070, 6.3). The doorbell is GITS_TRANSLATER's page on QEMU's
/// `virt` machine. CMD_TLBI_* (4.4), CMD_ATC_INV (4.5.1), CMD_SYNC with CS = SIG_NONE (4.7.3).
/// C_BAD_STE (7.3.4).
const ARM_SMMUV3: Layout = Layout {
    id: &[0x00..=0x1f],
    ack: &[0x24, 0x54],
    outside: None,
    doorbell: Some(0x0809_0000),
    commands: Some(Commands { tlb: &[0x10..=0x30], atc: &[0x40..=0x40], sync: 0x46 }),
    refusals: &[aborts(0x04)],
};

/// Extended Feature registers 1 and 2; the Control register reads as written (48882, 3.4). Interrupt messages of a PC do
/// not pass the translation tables. INVALIDATE_IOMMU_PAGES, INVALIDATE_IOTLB_PAGES, COMPLETION_WAIT without store and
/// interrupt (2.4). The trace format's codes of illegal device table entries and of their modes.
const AMD_VI: Layout = Layout {
    id: &[0x30..=0x37, 0x1a0..=0x1a7],
    ack: &[0x18],
    outside: Some(amd_capability_header),
    doorbell: None,
    commands: Some(Commands { tlb: &[0x03..=0x03], atc: &[0x04..=0x04], sync: 1 << 60 }),
    refusals: &[aborts(2), aborts(4)],
};

/// Version, Capability, Extended Capability; Global Status (VT-d, 11.4). IOTLB and PASID-based IOTLB, device-TLB and
/// PASID-based device-TLB, wait without status write and interrupt (6.5). Legacy mode's reasons for context entries that are
/// not present and for accesses that the second stage does not grant, and scalable mode's (7.1.3).
const INTEL_VTD: Layout = Layout {
    id: &[0x00..=0x03, 0x08..=0x17],
    ack: &[0x1c],
    outside: None,
    doorbell: None,
    commands: Some(Commands { tlb: &[0x02..=0x02, 0x06..=0x06], atc: &[0x03..=0x03, 0x08..=0x08], sync: 0x05 }),
    refusals: &[shadowed(0x02, 0x59), shadowed(0x05, 0x79), shadowed(0x06, 0x79)],
};

/// An illegal entry of a guest: its device is given one that aborts.
const fn aborts(recorded: u32) -> Refusal {
    Refusal { recorded, mode: None, physical: Refused::Abort }
}

/// A fault of the guest's format, and the one of the format that its shadow has.
const fn shadowed(recorded: u32, physical: u32) -> Refusal {
    Refusal { recorded, mode: Some(TranslationMode::SHADOW), physical: Refused::Fault(physical) }
}

/// Nothing is known of other vendors: nothing is compared or dropped, and what is handed in the plugin says.
const OTHER: Layout = Layout { id: &[], ack: &[], outside: None, doorbell: None, commands: None, refusals: &[] };

fn layout(vendor: Vendor) -> &'static Layout {
    match vendor {
        Vendor::ARM_SMMUV3 => &ARM_SMMUV3,
        Vendor::AMD_VI => &AMD_VI,
        Vendor::INTEL_VTD => &INTEL_VTD,
        _ => &OTHER,
    }
}

/// The header of AMD's IOMMU capability block in PCI configuration space (48882, 3.2.1), as QEMU shows it: capability
/// 0fh of type 3, HtTunnel 25, NpCache 26 unless the recorder cleared it, EFRSup 27, CapExt 28. The recordings do not
/// tell IotlbSup 24, and no recorded guest enables ATS or invalidates a device's cache: it is claimed only for synthetic ones
/// that do.
fn amd_capability_header(header: &Header) -> Register {
    const OFFSET: u64 = 0x1_0000_0000;
    const SHOWN: u64 = 0x1e03_000f;
    const NP_CACHE: u64 = 1 << 26;
    const IOTLB_SUP: u64 = 1 << 24;
    let shown = if header.iotlb_sup() { SHOWN | IOTLB_SUP } else { SHOWN };
    Register { offset: OFFSET, value: if header.npcache_cleared() { shown & !NP_CACHE } else { shown } }
}

/// How the physical IOMMU has to refuse what was recorded as a fault of this code.
pub(crate) fn refused(vendor: Vendor, mode: TranslationMode, recorded: u32) -> Refused {
    let is_it = |refusal: &&Refusal| refusal.recorded == recorded && refusal.mode.is_none_or(|only| only == mode);
    let known = layout(vendor).refusals.iter().find(is_it);
    known.map_or(Refused::Fault(recorded), |refusal| refusal.physical)
}

/// The page that devices of the recorded machine write their interrupt messages to.
pub(crate) fn msi_doorbell(vendor: Vendor) -> Option<u64> {
    layout(vendor).doorbell
}

/// What can be taken out of a queue of this vendor; `None` if that is not known.
pub(crate) fn commands(vendor: Vendor) -> Option<Commands> {
    layout(vendor).commands
}

/// Whether `offset` is an ID register's.
pub(crate) fn is_id(vendor: Vendor, offset: u64) -> bool {
    layout(vendor).id.iter().any(|range| range.contains(&offset))
}

/// Whether a recorded read of `offset` has to be what we answer. The values of queue pointers, status and fault
/// registers depend on how soon an IOMMU consumes.
pub(crate) fn is_compared(vendor: Vendor, offset: u64) -> bool {
    is_id(vendor, offset) || layout(vendor).ack.contains(&offset)
}

/// The ID registers this guest was shown: the first recorded value of each. One that it never read is absent. Of a vendor
/// that nothing is known of, ID registers are those that `plugin`'s driver offers guests.
pub(crate) fn shown(header: &Header, scan: &Scan, plugin: &Plugin) -> Vec<Register> {
    let offered = match header.vendor.name() {
        Some(_) => Vec::new(),
        // A plugin that cannot say has a vendor without ID registers.
        None => Capabilities::of(plugin).map(|can| [can.nested, can.shadow].concat()).unwrap_or_default(),
    };
    let is_offered = |offset| offered.iter().any(|register| register.offset == offset);
    let reads = scan.first_reads.iter().filter(|read| is_id(header.vendor, read.offset) || is_offered(read.offset));
    let reads = reads.map(|read| Register { offset: read.offset, value: read.value });
    reads.chain(layout(header.vendor).outside.map(|outside| outside(header))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use viommu_trace::FirstRead;

    #[test]
    fn what_was_read_and_what_is_outside_the_frame_is_handed_in() {
        let read = |offset, value| FirstRead { offset, size: 8, value };
        let scan = Scan { first_reads: vec![read(0x18, 7), read(0x30, 0x29d7), read(0x2000, 3)], ..Scan::default() };
        let mut header = Header::new(Vendor::AMD_VI);
        let efr = Register { offset: 0x30, value: 0x29d7 };
        let capability = |value| Register { offset: 1 << 32, value };
        let mock = Plugin::linked::<mock_plugin::Mock>();
        assert_eq!(shown(&header, &scan, &mock), [efr, capability(0x1e03_000f)]);
        header.json.insert("npcache_cleared".into(), json!(true));
        assert_eq!(shown(&header, &scan, &mock), [efr, capability(0x1a03_000f)]);
        header.json.insert("iotlb_sup".into(), json!(true));
        assert_eq!(shown(&header, &scan, &mock)[1].value & 0x0500_0000, 0x0100_0000);
        assert_eq!(shown(&Header::new(Vendor::INTEL_VTD), &scan, &mock), []);
    }

    #[test]
    fn a_vendor_that_nothing_is_known_of_is_asked() {
        let read = |offset, value| FirstRead { offset, size: 8, value };
        let (id, features, queue) = (mock_plugin::spec::ID, mock_plugin::spec::FEATURES, mock_plugin::spec::QUEUE_CONS);
        let scan = Scan { first_reads: vec![read(id, 7), read(queue, 5), read(features, 1)], ..Scan::default() };
        let shown = shown(&Header::new(Vendor(0x8000)), &scan, &Plugin::linked::<mock_plugin::Mock>());
        assert_eq!(shown, [Register { offset: id, value: 7 }, Register { offset: features, value: 1 }]);
    }

    #[test]
    fn faults_of_entries_and_of_shadowed_formats_are_other_faults() {
        let (nested, shadow) = (TranslationMode::NESTED, TranslationMode::SHADOW);
        assert_eq!(refused(Vendor::AMD_VI, nested, 1), Refused::Fault(1));
        assert_eq!(refused(Vendor::AMD_VI, nested, 2), Refused::Abort);
        assert_eq!(refused(Vendor::ARM_SMMUV3, nested, 0x10), Refused::Fault(0x10));
        assert_eq!(refused(Vendor::INTEL_VTD, nested, 6), Refused::Fault(6));
        assert_eq!(refused(Vendor::INTEL_VTD, shadow, 6), Refused::Fault(0x79));
        assert_eq!(refused(Vendor(0x8000), shadow, 6), Refused::Fault(6));
    }

    #[test]
    fn queue_pointers_are_not_compared() {
        for (vendor, compared, not) in [
            (Vendor::ARM_SMMUV3, [0, 0x24], [0x98, 0x60]),
            (Vendor::AMD_VI, [0x30, 0x18], [0x2000, 0x2020]),
            (Vendor::INTEL_VTD, [0x08, 0x1c], [0x80, 0x34]),
        ] {
            assert_eq!(compared.map(|offset| is_compared(vendor, offset)), [true; 2], "{vendor:?}");
            assert_eq!(not.map(|offset| is_compared(vendor, offset)), [false; 2], "{vendor:?}");
        }
    }
}
