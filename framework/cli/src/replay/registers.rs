//! Which registers a replay hands in, and which reads it compares, by the vendor codes of the trace format.

use std::ops::RangeInclusive;
use viommu_plugin::Register;
use viommu_trace::{Scan, Vendor};

/// Registers of one vendor's frame.
struct Layout {
    /// What the hardware is: the same value at every read.
    id: &'static [RangeInclusive<u64>],
    /// Acknowledgements of what the guest set.
    ack: &'static [u64],
    /// Guest physical page that devices write their interrupt messages to, on the machine that was recorded.
    doorbell: Option<u64>,
}

/// SMMU_IDR0..5, IIDR, AIDR; CR0ACK, IRQ_CTRLACK (IHI 0070, 6.3). The doorbell is GITS_TRANSLATER's page on QEMU's
/// `virt` machine.
const ARM_SMMUV3: Layout = Layout { id: &[0x00..=0x1f], ack: &[0x24, 0x54], doorbell: Some(0x0809_0000) };
/// Nothing is known of other vendors' frames: nothing is handed in and nothing compared.
const OTHER: Layout = Layout { id: &[], ack: &[], doorbell: None };

fn layout(vendor: Vendor) -> &'static Layout {
    match vendor {
        Vendor::ARM_SMMUV3 => &ARM_SMMUV3,
        _ => &OTHER,
    }
}

/// The page that devices of the recorded machine write their interrupt messages to.
pub(crate) fn msi_doorbell(vendor: Vendor) -> Option<u64> {
    layout(vendor).doorbell
}

/// Whether `offset` is an ID register's.
pub(crate) fn is_id(vendor: Vendor, offset: u64) -> bool {
    layout(vendor).id.iter().any(|range| range.contains(&offset))
}

/// Whether a recorded read of `offset` has to be what we answer. The values of CONS, PROD and GERROR depend on how
/// soon an IOMMU consumes.
pub(crate) fn is_compared(vendor: Vendor, offset: u64) -> bool {
    is_id(vendor, offset) || layout(vendor).ack.contains(&offset)
}

/// The ID registers this guest was shown: the first recorded value of each.
pub(crate) fn shown(vendor: Vendor, scan: &Scan) -> Vec<Register> {
    let reads = scan.first_reads.iter().filter(|read| is_id(vendor, read.offset));
    reads.map(|read| Register { offset: read.offset, value: read.value }).collect()
}
