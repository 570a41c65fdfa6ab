//! The config page: what there is, who has which queue, what failed.

use bitfield_struct::bitfield;

/// Offsets in the config page.
pub mod offset {
    /// CONFIG.
    pub const CONFIG: u64 = 0x0000;
    /// PARAM.
    pub const PARAM: u64 = 0x0004;
    /// STATUS.
    pub const STATUS: u64 = 0x0008;
    /// VINTF_ERR_MAP: two words, a bit for each VINTF.
    pub const VINTF_ERR_MAP: u64 = 0x0014;
    /// VINTF_INT_MASK: two words, 1 keeps a VINTF's errors from interrupting.
    pub const VINTF_INT_MASK: u64 = 0x001c;
    /// CMDQ_ERR_MAP: four words, a bit for each queue.
    pub const CMDQ_ERR_MAP: u64 = 0x0024;
    /// CMDQ_ALLOC: a word for each queue.
    pub const CMDQ_ALLOC: u64 = 0x0200;
    /// The block of VINTF 0.
    pub const VINTF: u64 = 0x1000;
    /// Bytes of a VINTF's block.
    pub const VINTF_STRIDE: u64 = 0x100;
}

/// Offsets in a VINTF's block.
pub mod vintf {
    /// VINTF_CONFIG.
    pub const CONFIG: u64 = 0x00;
    /// VINTF_STATUS.
    pub const STATUS: u64 = 0x04;
    /// SID_MATCH: a word for each slot.
    pub const SID_MATCH: u64 = 0x40;
    /// SID_REPLACE: a word for each slot.
    pub const SID_REPLACE: u64 = 0x80;
    /// LVCMDQ_ERR_MAP: four words, a bit for each of the VINTF's queues.
    pub const LVCMDQ_ERR_MAP: u64 = 0xc0;
    /// Slots that the block has room for.
    pub const SLOTS: u32 = 16;
}

/// The largest numbers that the error maps can show.
pub const VINTFS_MAX: u32 = 64;
/// Queues that the error maps can show.
pub const VCMDQS_MAX: u32 = 128;

/// CONFIG and STATUS: one bit.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Enable {
    /// EN; in STATUS: ENABLED.
    pub en: bool,
    #[bits(31)]
    __: u32,
}

/// PARAM: what there is.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Param {
    /// VER. 0: there is no CMDQV.
    #[bits(4)]
    pub ver: u8,
    /// NUM_VCMDQ_LOG2: log2 of the queues.
    #[bits(4)]
    pub num_vcmdq_log2: u8,
    /// NUM_VINTF_LOG2: log2 of the VINTFs.
    #[bits(4)]
    pub num_vintf_log2: u8,
    /// NUM_SID_PER_VM_LOG2: log2 of the slots of a VINTF.
    #[bits(4)]
    pub num_sid_log2: u8,
    #[bits(16)]
    __: u16,
}

impl Param {
    /// Version 1, 128 queues, 64 VINTFs of 2 queues and 16 slots each: all that the error maps have room for.
    pub const MODEL: Self = Self::new().with_ver(1).with_num_vcmdq_log2(7).with_num_vintf_log2(6).with_num_sid_log2(4);

    /// What a guest is shown of it: one VINTF with its queues.
    pub const fn of_one_vintf(self) -> Self {
        let queues = self.num_vcmdq_log2().saturating_sub(self.num_vintf_log2());
        self.with_num_vintf_log2(0).with_num_vcmdq_log2(queues)
    }
    /// VINTFs, at most [`VINTFS_MAX`].
    pub const fn vintfs(self) -> u32 {
        let vintfs = 1 << self.num_vintf_log2();
        if vintfs < VINTFS_MAX { vintfs } else { VINTFS_MAX }
    }
    /// Queues, at most [`VCMDQS_MAX`].
    pub const fn vcmdqs(self) -> u32 {
        let vcmdqs = 1 << self.num_vcmdq_log2();
        if vcmdqs < VCMDQS_MAX { vcmdqs } else { VCMDQS_MAX }
    }
    /// Queues of one VINTF.
    pub const fn per_vintf(self) -> u32 {
        self.vcmdqs() / self.vintfs()
    }
    /// SID_MATCH/SID_REPLACE slots of one VINTF, at most [`vintf::SLOTS`].
    pub const fn slots(self) -> u32 {
        let slots = 1 << self.num_sid_log2();
        if slots < vintf::SLOTS { slots } else { vintf::SLOTS }
    }
}

/// CMDQ_ALLOC: whose a queue is.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CmdqAlloc {
    /// ALLOCATED: the VINTF's pages show the queue.
    pub allocated: bool,
    /// LVCMDQ: its number in the VINTF.
    #[bits(7)]
    pub lvcmdq: u8,
    #[bits(7)]
    __: u8,
    /// VINTF.
    #[bits(6)]
    pub vintf: u8,
    #[bits(11)]
    __: u16,
}

/// VINTF_CONFIG.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct VintfConfig {
    /// EN.
    pub en: bool,
    /// VMID that the commands of its queues get.
    pub vmid: u16,
    /// HYP_OWN: its queues are the hypervisor's, and take every command as it is.
    pub hyp_own: bool,
    #[bits(14)]
    __: u16,
}

/// VINTF_STATUS.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct VintfStatus {
    /// ENABLED.
    pub enabled: bool,
    /// STATUS.
    #[bits(3)]
    pub status: u8,
    #[bits(28)]
    __: u32,
}

/// SID_MATCH: a StreamID as the guest writes it.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct SidMatch {
    /// ENABLE.
    pub enable: bool,
    /// VIRT_SID.
    #[bits(20)]
    pub virt_sid: u32,
    #[bits(11)]
    __: u16,
}
