//! Device table entries: 32 bytes, four words, at base + 32 * DeviceID (manual: device table entry format).

use bitfield_struct::bitfield;

/// Words of 8 bytes in an entry.
pub const DTE_WORDS: usize = 4;
/// Bytes in an entry.
pub const DTE_BYTES: u64 = 32;

/// Word 0: validity, host (v1) table, guest translation.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct DteWord0 {
    /// V: the entry is valid.
    pub v: bool,
    /// TV: its translation fields are valid.
    pub tv: bool,
    #[bits(5)]
    __: u8,
    /// HAD: the IOMMU writes accessed and dirty bits of the host table.
    #[bits(2)]
    pub had: u8,
    /// Mode: levels of the host table; 0 none (identity), 7 reserved.
    #[bits(3)]
    pub mode: u8,
    /// Host page table root pointer\[51:12\].
    #[bits(40)]
    pub host_root: u64,
    /// PPR: page requests allowed.
    pub ppr: bool,
    __: bool,
    /// GIOV: requests without PASID are translated as PASID 0.
    pub giov: bool,
    /// GV: guest translation.
    pub gv: bool,
    /// GLX: levels of the GCR3 table less one; 3 reserved.
    #[bits(2)]
    pub glx: u8,
    /// GCR3\[14:12\].
    #[bits(3)]
    pub gcr3_14_12: u8,
    /// IR: reads allowed.
    pub ir: bool,
    /// IW: writes allowed.
    pub iw: bool,
    __: bool,
}

impl DteWord0 {
    /// Largest Mode that is a number of levels.
    pub const MODE_MOST: u8 = 6;
    /// The reserved value of GLX.
    pub const GLX_RESERVED: u8 = 3;

    /// Address of the host table's root.
    #[inline]
    pub const fn host_table(self) -> u64 {
        self.host_root() << 12
    }
}

/// Word 1: domain, rest of the GCR3 pointer, ATS.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct DteWord1 {
    /// DomainID: tags what the IOMMU caches.
    pub domain_id: u16,
    /// GCR3\[30:15\].
    pub gcr3_30_15: u16,
    /// I: the device may have a cache of translations (IOTLB, ATS).
    pub i: bool,
    /// SE: page faults of this device are logged once only (the manual; Linux does not set it).
    pub se: bool,
    /// SA: page faults of this device are not logged.
    pub sa: bool,
    #[bits(5)]
    __: u8,
    /// SysMgt: system management messages.
    #[bits(2)]
    pub sys_mgt: u8,
    __: bool,
    /// GCR3\[51:31\].
    #[bits(21)]
    pub gcr3_51_31: u32,
}

/// Word 2: interrupts, guest paging mode.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct DteWord2 {
    /// IV: the interrupt fields are valid.
    pub iv: bool,
    /// IntTabLen: log2 of the interrupt table's entries.
    #[bits(4)]
    pub int_tab_len: u8,
    /// IG: faults of interrupts are not logged.
    pub ig: bool,
    /// Interrupt table root\[51:6\].
    #[bits(46)]
    pub int_tab_root: u64,
    #[bits(2)]
    __: u8,
    /// GuestPagingMode: 0 four levels, 1 five; 2 and 3 reserved.
    #[bits(2)]
    pub guest_paging_mode: u8,
    /// InitPass.
    pub init_pass: bool,
    /// EIntPass.
    pub eint_pass: bool,
    /// NMIPass.
    pub nmi_pass: bool,
    __: bool,
    /// IntCtl: 2 remap.
    #[bits(2)]
    pub int_ctl: u8,
    /// Lint0Pass.
    pub lint0_pass: bool,
    /// Lint1Pass.
    pub lint1_pass: bool,
}

/// Word 3: hardware vIOMMU (out-of-tree drivers only).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct DteWord3 {
    #[bits(15)]
    __: u16,
    /// vImuEn: the device belongs to a guest of the hardware vIOMMU.
    pub vimu_en: bool,
    /// GDeviceID: the number that the guest knows the device by.
    pub guest_device_id: u16,
    /// GuestID. (The posted drivers' names of these two fields are swapped, the values that they write are not.)
    pub guest_id: u16,
    __: u16,
}

/// Address of the GCR3 table, put together from its three fields.
#[inline]
pub const fn gcr3_table(word0: DteWord0, word1: DteWord1) -> u64 {
    (word0.gcr3_14_12() as u64) << 12 | (word1.gcr3_30_15() as u64) << 15 | (word1.gcr3_51_31() as u64) << 31
}

/// Both words with the address of the GCR3 table, a multiple of 4 KiB below 2^52, spread over its three fields.
#[inline]
pub const fn with_gcr3_table(word0: DteWord0, word1: DteWord1, address: u64) -> (DteWord0, DteWord1) {
    let word0 = word0.with_gcr3_14_12((address >> 12 & 0x7) as u8);
    let word1 = word1.with_gcr3_30_15((address >> 15) as u16).with_gcr3_51_31((address >> 31 & 0x1f_ffff) as u32);
    (word0, word1)
}
