//! The hardware vIOMMU: a part of the IOMMU that a guest drives itself. No algorithms.
//!
//! **Evidence M**: names and layouts are those of out-of-tree drivers (AMD's RFC of 2023 and AMD's development branches
//! up to 2026) and of public headers. AMD's manual is not readable here, and nothing of this was ever run on silicon.
//! docs/amd-viommu.md lists what no source says and was chosen here.
//!
//! ```text
//!   VF      0x10_0000 + 0x1000 * GuestID   the guest's own page: heads, tails, status
//!   VFCtl   0x20_0000 + 0x40 * GuestID     the host's: maps, rings
//!   private address space (IPA)            mapping tables, behind the IOMMU's own device table entry
//! ```

use bitfield_struct::bitfield;

/// GuestIDs that this frame has registers for; 0 means that a device has no guest. Hardware has 65536.
pub const GUESTS: u16 = 256;

/// Where the VF page of a guest is in the register frame. On hardware the VF BAR says where the first is.
pub const fn vf(guest: u16) -> u64 {
    VF + PAGE * guest as u64
}
/// Where a guest's VFCtl registers are in the register frame. On hardware the VFCtl BAR says where the first are.
pub const fn vfctl(guest: u16) -> u64 {
    VFCTL + VFCTL_STRIDE * guest as u64
}

/// The interrupt line that stands for the interrupts that hardware posts to guests. (There, the IOMMU's own entry leads to
/// the tables that say where to.)
pub const GUEST_LINE: u32 = 1;

/// First VF page, behind the 512 KiB that AMD's manual gives the registers.
pub const VF: u64 = 0x10_0000;
/// End of the VF pages.
pub const VF_END: u64 = vf(GUESTS);
/// First VFCtl registers.
pub const VFCTL: u64 = 0x20_0000;
/// End of the VFCtl registers.
pub const VFCTL_END: u64 = vfctl(GUESTS);
/// Bytes of a VF page.
pub const PAGE: u64 = 0x1000;
/// Bytes of a guest's VFCtl registers.
pub const VFCTL_STRIDE: u64 = 0x40;
/// Where a guest has its VF page: offset in the frame that it sees.
pub const GUEST_PAGE: u64 = 0x2000;

/// DeviceID of the IOMMU's own function, whose entry leads to the private address space (of this platform: the ACPI table
/// says it elsewhere).
pub const OWN_DEVICE: u16 = 0xffff;
/// The translate DeviceID of a guest: nobody's, and its entry has the guest's stage 2.
pub const fn translate_device(guest: u16) -> u16 {
    OWN_DEVICE - guest
}
/// DeviceIDs below this are devices' in an IOMMU whose vIOMMU is on.
pub const DEVICES: u32 = translate_device(GUESTS - 1) as u32;
/// DomainID of the private address space.
pub const PRIVATE_DOMAIN: u16 = 0xffff;

/// Offsets in a VF page; all registers are 64 bits wide.
pub mod page {
    /// Command buffer head.
    pub const COMMAND_HEAD: u64 = 0x00;
    /// Command buffer tail: the doorbell.
    pub const COMMAND_TAIL: u64 = 0x08;
    /// Event log head.
    pub const EVENT_HEAD: u64 = 0x10;
    /// Event log tail.
    pub const EVENT_TAIL: u64 = 0x18;
    /// Status, as [`Status`](crate::spec::registers::Status).
    pub const STATUS: u64 = 0x20;
}

/// Offsets in a guest's VFCtl registers; all are 64 bits wide.
pub mod control {
    /// DeviceID map: [`DidMap`](super::DidMap).
    pub const DEVICE_MAP: u64 = 0x00;
    /// DomainID map: [`DidMap`](super::DidMap).
    pub const DOMAIN_MAP: u64 = 0x08;
    /// [`GuestMisc`](super::GuestMisc).
    pub const MISC: u64 = 0x10;
    /// [`GuestCommand`](super::GuestCommand).
    pub const COMMAND: u64 = 0x20;
    /// [`GuestEvent`](super::GuestEvent).
    pub const EVENT: u64 = 0x28;
    /// PPR log.
    pub const PPR: u64 = 0x30;
}

/// Guest DID map control: one write changes one entry of a guest's mapping table.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct DidMap {
    /// The entry is valid. Drivers only ever write 1.
    pub valid: bool,
    #[bits(13)]
    __: u16,
    /// The host's DeviceID or DomainID.
    pub host: u16,
    #[bits(16)]
    __: u16,
    /// The guest's DeviceID or DomainID.
    pub guest: u16,
    __: bool,
    /// Write strobe.
    pub strobe: bool,
}

/// Guest miscellaneous control.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct GuestMisc {
    __: u16,
    /// Translate DeviceID: whose entry the guest's rings are reached through; 0 none.
    pub translate: u16,
    __: u32,
}

/// Guest command control.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct GuestCommand {
    /// ComLen: log2 of the entries, 8 to 15.
    #[bits(4)]
    pub length: u8,
    #[bits(4)]
    __: u8,
    /// CmdBufEn.
    pub enable: bool,
    /// ComWaitIntEn.
    pub wait_int: bool,
    #[bits(2)]
    __: u8,
    /// ComBase\[51:12\], guest physical.
    #[bits(40)]
    pub base: u64,
    #[bits(12)]
    __: u16,
}

/// Guest event control.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct GuestEvent {
    /// EventLen: log2 of the entries, 8 to 15.
    #[bits(4)]
    pub length: u8,
    /// EventLenB.
    #[bits(4)]
    pub length_b: u8,
    /// EventLogEn.
    pub enable: bool,
    /// EventIntEn.
    pub interrupt: bool,
    /// DualEventLogEn.
    #[bits(2)]
    pub dual: u8,
    /// Base\[51:12\], guest physical.
    #[bits(40)]
    pub base: u64,
    #[bits(12)]
    __: u16,
}

/// Tables in the private address space. Only the host's side of an entry in the DeviceID map is known (bits 39:24 of its
/// first word, read by AMD's own debugging code); the rest of both forms is this model's.
pub mod tables {
    use bitfield_struct::bitfield;

    /// What the driver maps at IPA 0: places for the registers of guests, and the IOMMU's notes.
    pub const NOTES_BYTES: u64 = 0x80_0000;
    /// Bytes of a guest's DeviceID map.
    pub const DEVICE_MAP_BYTES: u64 = 1 << 20;
    /// Bytes of a guest's DomainID map.
    pub const DOMAIN_MAP_BYTES: u64 = 1 << 19;
    /// log2 of the bytes of an entry in the DeviceID map.
    const DEVICE_ENTRY_LOG2: u32 = 4;
    /// log2 of the bytes of an entry in the DomainID map.
    const DOMAIN_ENTRY_LOG2: u32 = 3;

    /// A guest's DeviceID map.
    pub const fn device_map(guest: u16) -> u64 {
        0x10_0000_0000 + DEVICE_MAP_BYTES * guest as u64
    }
    /// A guest's DomainID map.
    pub const fn domain_map(guest: u16) -> u64 {
        0x20_0000_0000 + DOMAIN_MAP_BYTES * guest as u64
    }
    /// The entry of a guest's DeviceID.
    pub const fn device_entry(guest: u16, device: u16) -> u64 {
        device_map(guest) + ((device as u64) << DEVICE_ENTRY_LOG2)
    }
    /// The entry of a guest's DomainID.
    pub const fn domain_entry(guest: u16, domain: u16) -> u64 {
        domain_map(guest) + ((domain as u64) << DOMAIN_ENTRY_LOG2)
    }

    /// First word of an entry of either map.
    #[bitfield(u64)]
    #[derive(PartialEq, Eq)]
    pub struct MapEntry {
        /// The entry was written.
        pub valid: bool,
        #[bits(23)]
        __: u32,
        /// The host's number.
        pub host: u16,
        #[bits(24)]
        __: u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_numbers() {
        let map = DidMap::new().with_valid(true).with_strobe(true).with_guest(0x10).with_host(0x4100);
        assert_eq!((vfctl(5) - VFCTL, map.into_bits()), (0x140, 0x8004_0000_1040_0001));
        assert_eq!((tables::device_entry(5, 0x10), tables::domain_entry(5, 3)), (0x10_0050_0100, 0x20_0028_0018));
        assert_eq!(GuestCommand::new().with_enable(true).with_length(9).with_base(0x12345).into_bits(), 0x1234_5109);
        assert_eq!(GuestMisc::new().with_translate(0xfff0).into_bits(), 0xfff0_0000);
        assert_eq!((VF_END, VFCTL_END, DEVICES), (0x20_0000, 0x20_4000, 0xff00));
    }
}
