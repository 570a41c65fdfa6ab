//! AMD's commands: two words each, opcode in bits 63:60 of the first.

use super::size::Size;

/// INVALIDATE_DEVTAB_ENTRY: DeviceID 15:0.
pub(super) fn invalidate_devtab_entry(device: u32) -> [u64; 2] {
    [u64::from(device) | 2 << 60, 0]
}

/// INVALIDATE_IOMMU_PAGES: PASID 19:0, DomainID 47:32; S 0, PDE 1, GN 2, address 63:12.
pub(super) fn invalidate_iommu_pages(domain: u16, pasid: Option<u32>, tables: bool, size: Size) -> [u64; 2] {
    let word0 = u64::from(pasid.unwrap_or(0)) | u64::from(domain) << 32 | 3 << 60;
    [word0, size.word() | u64::from(tables) << 1 | u64::from(pasid.is_some()) << 2]
}

/// INVALIDATE_IOTLB_PAGES: DeviceID 15:0, PASID[15:8] 23:16, most pending 31:24, queue 47:32, PASID[7:0] 55:48; S 0,
/// GN 2, address 63:12.
pub(super) fn invalidate_iotlb_pages(device: u32, pasid: Option<u32>, size: Size) -> [u64; 2] {
    let (device, number) = (u64::from(device), u64::from(pasid.unwrap_or(0)));
    let word0 = device | (number >> 8 & 0xff) << 16 | 4 << 24 | device << 32 | (number & 0xff) << 48 | 4 << 60;
    [word0, size.word() | u64::from(pasid.is_some()) << 2]
}

/// INVALIDATE_IOMMU_ALL.
pub(super) const INVALIDATE_IOMMU_ALL: [u64; 2] = [8 << 60, 0];

/// COMPLETION_WAIT that stores `value` at `address`: S 0, address 51:3.
pub(super) fn completion_wait(address: u64, value: u64) -> [u64; 2] {
    [address | 1 | 1 << 60, value]
}
