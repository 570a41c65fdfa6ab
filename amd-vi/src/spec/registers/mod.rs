//! Register frame (manual: MMIO registers) and the capability header of the IOMMU's PCI function.

mod control;
mod features;
mod rings;

pub use control::*;
pub use features::*;
pub use rings::*;

/// Bytes of the register frame that this crate knows: without the performance counters above it.
pub const FRAME_BYTES: u64 = 0x4000;

/// Pseudo offset of the PCI capability header, above any frame: a [`Register`](viommu_plugin::Register) with this offset
/// has the header as its value. See [`CapabilityHeader`].
pub const CAPABILITY_HEADER: u64 = 0x1_0000_0000;

/// Byte offsets of the registers. All are 64 bits wide, and may be accessed in halves.
pub mod offset {
    /// Device table base.
    pub const DEVICE_TABLE_BASE: u64 = 0x0000;
    /// Command buffer base.
    pub const COMMAND_BASE: u64 = 0x0008;
    /// Event log base.
    pub const EVENT_BASE: u64 = 0x0010;
    /// IOMMU control.
    pub const CONTROL: u64 = 0x0018;
    /// Exclusion range base; completion store base with SNP.
    pub const EXCLUSION_BASE: u64 = 0x0020;
    /// Exclusion range limit.
    pub const EXCLUSION_LIMIT: u64 = 0x0028;
    /// Extended feature register.
    pub const EFR: u64 = 0x0030;
    /// PPR log base.
    pub const PPR_BASE: u64 = 0x0038;
    /// Guest virtual APIC log base.
    pub const GA_LOG_BASE: u64 = 0x00e0;
    /// Guest virtual APIC log tail address.
    pub const GA_LOG_TAIL: u64 = 0x00e8;
    /// MSI address, low and high half at +4 (32-bit registers 0x15c, 0x160); MSI data is at 0x164.
    pub const MSI_ADDRESS_LOW: u64 = 0x015c;
    /// MSI address, high half.
    pub const MSI_ADDRESS_HIGH: u64 = 0x0160;
    /// MSI data.
    pub const MSI_DATA: u64 = 0x0164;
    /// x2APIC interrupt of the event log.
    pub const X2APIC_EVENT: u64 = 0x0170;
    /// x2APIC interrupt of the PPR log.
    pub const X2APIC_PPR: u64 = 0x0178;
    /// x2APIC interrupt of the guest virtual APIC log.
    pub const X2APIC_GA_LOG: u64 = 0x0180;
    /// Extended feature register 2.
    pub const EFR2: u64 = 0x01a0;
    /// Command buffer head: where the IOMMU reads.
    pub const COMMAND_HEAD: u64 = 0x2000;
    /// Command buffer tail: where software writes. The doorbell.
    pub const COMMAND_TAIL: u64 = 0x2008;
    /// Event log head: where software reads.
    pub const EVENT_HEAD: u64 = 0x2010;
    /// Event log tail: where the IOMMU writes.
    pub const EVENT_TAIL: u64 = 0x2018;
    /// IOMMU status.
    pub const STATUS: u64 = 0x2020;
    /// PPR log head.
    pub const PPR_HEAD: u64 = 0x2030;
    /// PPR log tail.
    pub const PPR_TAIL: u64 = 0x2038;
    /// Guest virtual APIC log head.
    pub const GA_LOG_HEAD: u64 = 0x2040;
    /// Guest virtual APIC log tail.
    pub const GA_LOG_TAIL_INDEX: u64 = 0x2048;
}

/// The register's name at `offset`, `None` where there is none.
pub const fn register_name(offset: u64) -> Option<&'static str> {
    Some(match offset {
        offset::DEVICE_TABLE_BASE => "DEVICE_TABLE_BASE",
        offset::COMMAND_BASE => "COMMAND_BASE",
        offset::EVENT_BASE => "EVENT_BASE",
        offset::CONTROL => "CONTROL",
        offset::EXCLUSION_BASE => "EXCLUSION_BASE",
        offset::EXCLUSION_LIMIT => "EXCLUSION_LIMIT",
        offset::EFR => "EFR",
        offset::PPR_BASE => "PPR_BASE",
        offset::GA_LOG_BASE => "GA_LOG_BASE",
        offset::GA_LOG_TAIL => "GA_LOG_TAIL",
        offset::MSI_ADDRESS_LOW => "MSI_ADDRESS_LOW",
        offset::MSI_ADDRESS_HIGH => "MSI_ADDRESS_HIGH",
        offset::MSI_DATA => "MSI_DATA",
        offset::X2APIC_EVENT => "X2APIC_EVENT",
        offset::X2APIC_PPR => "X2APIC_PPR",
        offset::X2APIC_GA_LOG => "X2APIC_GA_LOG",
        offset::EFR2 => "EFR2",
        offset::COMMAND_HEAD => "COMMAND_HEAD",
        offset::COMMAND_TAIL => "COMMAND_TAIL",
        offset::EVENT_HEAD => "EVENT_HEAD",
        offset::EVENT_TAIL => "EVENT_TAIL",
        offset::STATUS => "STATUS",
        offset::PPR_HEAD => "PPR_HEAD",
        offset::PPR_TAIL => "PPR_TAIL",
        offset::GA_LOG_HEAD => "GA_LOG_HEAD",
        offset::GA_LOG_TAIL_INDEX => "GA_LOG_TAIL_INDEX",
        CAPABILITY_HEADER => "CAPABILITY_HEADER",
        _ => return None,
    })
}
