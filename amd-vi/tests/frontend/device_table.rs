//! The guest's device table.

use crate::frontend;
use amd_vi::spec::registers::offset;
use viommu_plugin::{Actions, Frontend, GuestMemory, Lookup, Unreadable};

const TABLE: u64 = 0x126_0000;

/// Memory from [`TABLE`] on for `0` bytes, in which every word is its address.
struct Memory(u64);

impl GuestMemory for Memory {
    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        if gpa < TABLE || gpa + bytes.len() as u64 > TABLE + self.0 {
            return Err(Unreadable);
        }
        for (at, word) in (gpa..).step_by(8).zip(bytes.chunks_mut(8)) {
            word.copy_from_slice(&at.to_le_bytes());
        }
        Ok(())
    }
}

#[test]
fn entries_are_found_by_number_as_far_as_the_size_goes() {
    let mut iommu = frontend();
    // Two pages: 256 entries.
    assert_eq!(iommu.write(offset::DEVICE_TABLE_BASE, 8, TABLE | 1).actions, Actions(Actions::RECONFIGURE));
    for (device, found) in [
        (0, Lookup::FOUND),
        (0x88, Lookup::FOUND),
        (255, Lookup::FOUND),
        (256, Lookup::NO_ENTRY),
        (0xffff, Lookup::NO_ENTRY),
        (u32::MAX, Lookup::NO_ENTRY),
    ] {
        let mut dte = [0; 4];
        assert_eq!(iommu.entry(&Memory(0x2000), device, &mut dte), found, "{device:#x}");
        if found == Lookup::FOUND {
            let at = TABLE + 32 * u64::from(device);
            assert_eq!(dte, [at, at + 8, at + 16, at + 24]);
        }
    }
    assert_eq!(iommu.entry(&Memory(0x1000), 128, &mut [0; 4]), Lookup::UNREADABLE);
    iommu.write(offset::DEVICE_TABLE_BASE, 8, TABLE | 0x1ff);
    assert_eq!(iommu.entry(&Memory(1 << 21), 0xffff, &mut [0; 4]), Lookup::FOUND, "the largest table has them all");
}
