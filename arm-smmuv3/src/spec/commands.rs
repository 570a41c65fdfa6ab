//! Commands: 16 bytes, two words (§4). One type a command, over both words.

use bitfield_struct::bitfield;

/// Words of 8 bytes in a command.
pub const COMMAND_WORDS: usize = 2;
/// Bytes in a command.
pub const COMMAND_BYTES: u64 = 16;

/// The first byte of a command (§4.1.1). An open set: a guest may write any value.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Opcode(pub u8);

impl Opcode {
    /// CMD_PREFETCH_CONFIG, §4.2.1.
    pub const PREFETCH_CONFIG: Self = Self(0x01);
    /// CMD_PREFETCH_ADDR, §4.2.2.
    pub const PREFETCH_ADDR: Self = Self(0x02);
    /// CMD_CFGI_STE, §4.3.1.
    pub const CFGI_STE: Self = Self(0x03);
    /// CMD_CFGI_STE_RANGE, §4.3.2; with Range 31 it is CMD_CFGI_ALL, §4.3.
    pub const CFGI_STE_RANGE: Self = Self(0x04);
    /// CMD_CFGI_CD, §4.3.3.
    pub const CFGI_CD: Self = Self(0x05);
    /// CMD_CFGI_CD_ALL, §4.3.4.
    pub const CFGI_CD_ALL: Self = Self(0x06);
    /// CMD_CFGI_VMS_PIDM, §4.3.
    pub const CFGI_VMS_PIDM: Self = Self(0x07);
    /// CMD_TLBI_NH_ALL, §4.4.2.
    pub const TLBI_NH_ALL: Self = Self(0x10);
    /// CMD_TLBI_NH_ASID, §4.4.2.
    pub const TLBI_NH_ASID: Self = Self(0x11);
    /// CMD_TLBI_NH_VA, §4.4.2.
    pub const TLBI_NH_VA: Self = Self(0x12);
    /// CMD_TLBI_NH_VAA, §4.4.2.
    pub const TLBI_NH_VAA: Self = Self(0x13);
    /// CMD_TLBI_EL3_ALL, §4.4.2. Secure queue only.
    pub const TLBI_EL3_ALL: Self = Self(0x18);
    /// CMD_TLBI_EL3_VA, §4.4.2. Secure queue only.
    pub const TLBI_EL3_VA: Self = Self(0x1a);
    /// CMD_TLBI_EL2_ALL, §4.4.2. Needs IDR0.HYP.
    pub const TLBI_EL2_ALL: Self = Self(0x20);
    /// CMD_TLBI_EL2_ASID, §4.4.2. Needs IDR0.HYP.
    pub const TLBI_EL2_ASID: Self = Self(0x21);
    /// CMD_TLBI_EL2_VA, §4.4.2. Needs IDR0.HYP.
    pub const TLBI_EL2_VA: Self = Self(0x22);
    /// CMD_TLBI_EL2_VAA, §4.4.2. Needs IDR0.HYP.
    pub const TLBI_EL2_VAA: Self = Self(0x23);
    /// CMD_TLBI_S12_VMALL, §4.4.3. Needs IDR0.S2P.
    pub const TLBI_S12_VMALL: Self = Self(0x28);
    /// CMD_TLBI_S2_IPA, §4.4.3. Needs IDR0.S2P.
    pub const TLBI_S2_IPA: Self = Self(0x2a);
    /// CMD_TLBI_NSNH_ALL, §4.4.4.
    pub const TLBI_NSNH_ALL: Self = Self(0x30);
    /// CMD_ATC_INV, §4.5.1. Needs IDR0.ATS.
    pub const ATC_INV: Self = Self(0x40);
    /// CMD_PRI_RESP, §4.5.2. Needs IDR0.PRI.
    pub const PRI_RESP: Self = Self(0x41);
    /// CMD_RESUME, §4.6.1. Needs the stall model.
    pub const RESUME: Self = Self(0x44);
    /// CMD_STALL_TERM, §4.6.2. Needs the stall model.
    pub const STALL_TERM: Self = Self(0x45);
    /// CMD_SYNC, §4.6.3.
    pub const SYNC: Self = Self(0x46);

    /// The opcode of a command's first word.
    #[inline]
    pub const fn of(word0: u64) -> Self {
        Self(word0 as u8)
    }

    /// The manual's name without `CMD_`; `None` if the manual has no such opcode.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::PREFETCH_CONFIG => "PREFETCH_CONFIG",
            Self::PREFETCH_ADDR => "PREFETCH_ADDR",
            Self::CFGI_STE => "CFGI_STE",
            Self::CFGI_STE_RANGE => "CFGI_STE_RANGE/ALL",
            Self::CFGI_CD => "CFGI_CD",
            Self::CFGI_CD_ALL => "CFGI_CD_ALL",
            Self::CFGI_VMS_PIDM => "CFGI_VMS_PIDM",
            Self::TLBI_NH_ALL => "TLBI_NH_ALL",
            Self::TLBI_NH_ASID => "TLBI_NH_ASID",
            Self::TLBI_NH_VA => "TLBI_NH_VA",
            Self::TLBI_NH_VAA => "TLBI_NH_VAA",
            Self::TLBI_EL3_ALL => "TLBI_EL3_ALL",
            Self::TLBI_EL3_VA => "TLBI_EL3_VA",
            Self::TLBI_EL2_ALL => "TLBI_EL2_ALL",
            Self::TLBI_EL2_ASID => "TLBI_EL2_ASID",
            Self::TLBI_EL2_VA => "TLBI_EL2_VA",
            Self::TLBI_EL2_VAA => "TLBI_EL2_VAA",
            Self::TLBI_S12_VMALL => "TLBI_S12_VMALL",
            Self::TLBI_S2_IPA => "TLBI_S2_IPA",
            Self::TLBI_NSNH_ALL => "TLBI_NSNH_ALL",
            Self::ATC_INV => "ATC_INV",
            Self::PRI_RESP => "PRI_RESP",
            Self::RESUME => "RESUME",
            Self::STALL_TERM => "STALL_TERM",
            Self::SYNC => "SYNC",
            _ => return None,
        })
    }
}

/// Defines a command over both words, with its conversions from and to words of the ring.
macro_rules! command {
    ($(#[$meta:meta])* $name:ident { $($body:tt)* }) => {
        $(#[$meta])*
        #[bitfield(u128)]
        #[derive(PartialEq, Eq)]
        pub struct $name { $($body)* }

        impl $name {
            /// From the two words of the ring.
            #[inline]
            pub const fn from_words(words: [u64; COMMAND_WORDS]) -> Self {
                Self::from_bits((words[1] as u128) << 64 | words[0] as u128)
            }
            /// The two words of the ring.
            #[inline]
            pub const fn words(self) -> [u64; COMMAND_WORDS] {
                [self.into_bits() as u64, (self.into_bits() >> 64) as u64]
            }
        }
    };
}

command! {
    /// CMD_PREFETCH_CONFIG (§4.2.1) and CMD_PREFETCH_ADDR (§4.2.2): hints.
    Prefetch {
        /// [`Opcode::PREFETCH_CONFIG`] or [`Opcode::PREFETCH_ADDR`].
        pub opcode: u8,
        #[bits(2)] __: u8,
        /// SSec: Secure stream; reserved in the Non-secure queue.
        pub ssec: bool,
        /// SSV: SubstreamID valid.
        pub ssv: bool,
        /// SubstreamID.
        #[bits(20)] pub substream_id: u32,
        /// StreamID.
        pub stream_id: u32,
        /// Size: log2 of the pages of 4 KiB.
        #[bits(5)] pub size: u8,
        /// Stride (PREFETCH_ADDR).
        #[bits(5)] pub stride: u8,
        #[bits(2)] __: u8,
        /// Address\[63:12\].
        #[bits(52)] pub address: u64,
    }
}

command! {
    /// CMD_CFGI_STE, §4.3.1: the STE of one stream, and all its CDs, may have changed.
    CfgiSte {
        /// [`Opcode::CFGI_STE`].
        pub opcode: u8,
        #[bits(2)] __: u8,
        /// SSec; reserved in the Non-secure queue.
        pub ssec: bool,
        #[bits(21)] __: u32,
        /// StreamID.
        pub stream_id: u32,
        /// Leaf: the level-1 descriptor has not changed.
        pub leaf: bool,
        #[bits(63)] __: u64,
    }
}

command! {
    /// CMD_CFGI_STE_RANGE, §4.3.2: 2^(Range+1) STEs, aligned. Range 31 is CMD_CFGI_ALL.
    CfgiSteRange {
        /// [`Opcode::CFGI_STE_RANGE`].
        pub opcode: u8,
        #[bits(2)] __: u8,
        /// SSec; reserved in the Non-secure queue.
        pub ssec: bool,
        #[bits(21)] __: u32,
        /// StreamID; the low Range+1 bits are ignored.
        pub stream_id: u32,
        /// Range.
        #[bits(5)] pub range: u8,
        #[bits(59)] __: u64,
    }
}

impl CfgiSteRange {
    /// Range that means every stream: CMD_CFGI_ALL.
    pub const ALL: u8 = 31;
}

command! {
    /// CMD_CFGI_CD, §4.3.3, and CMD_CFGI_CD_ALL, §4.3.4 (no SubstreamID, no Leaf).
    CfgiCd {
        /// [`Opcode::CFGI_CD`] or [`Opcode::CFGI_CD_ALL`].
        pub opcode: u8,
        #[bits(2)] __: u8,
        /// SSec; reserved in the Non-secure queue.
        pub ssec: bool,
        __: bool,
        /// SubstreamID.
        #[bits(20)] pub substream_id: u32,
        /// StreamID.
        pub stream_id: u32,
        /// Leaf: the level-1 CD descriptor has not changed.
        pub leaf: bool,
        #[bits(63)] __: u64,
    }
}

command! {
    /// All CMD_TLBI_*, §4.4: commands without an address or ASID leave those fields zero.
    Tlbi {
        /// One of the `TLBI_` opcodes.
        pub opcode: u8,
        #[bits(4)] __: u8,
        /// NUM: units of the range, less one (IDR3.RIL).
        #[bits(5)] pub num: u8,
        #[bits(3)] __: u8,
        /// SCALE: log2 of the granules a unit (IDR3.RIL); its sixth bit needs IDR5.DS.
        #[bits(6)] pub scale: u8,
        #[bits(6)] __: u8,
        /// VMID.
        pub vmid: u16,
        /// ASID.
        pub asid: u16,
        /// Leaf: only last-level entries.
        pub leaf: bool,
        #[bits(7)] __: u8,
        /// TTL: level of the leaf, 0 unknown (IDR3.RIL).
        #[bits(2)] pub ttl: u8,
        /// TG: granule of the range, 0 none, 1 4 KiB, 2 16 KiB, 3 64 KiB (IDR3.RIL).
        #[bits(2)] pub tg: u8,
        /// Address\[63:12\]: VA, or IPA (51:12).
        #[bits(52)] pub address: u64,
    }
}

command! {
    /// CMD_ATC_INV, §4.5.1.
    AtcInv {
        /// [`Opcode::ATC_INV`].
        pub opcode: u8,
        __: bool,
        /// G: all PASIDs.
        pub global: bool,
        /// SSec; reserved in the Non-secure queue.
        pub ssec: bool,
        /// SSV: SubstreamID valid.
        pub ssv: bool,
        /// SubstreamID.
        #[bits(20)] pub substream_id: u32,
        /// StreamID.
        pub stream_id: u32,
        /// Size: log2 of the pages of 4 KiB; 52 is everything.
        #[bits(6)] pub size: u8,
        #[bits(6)] __: u8,
        /// Address\[63:12\].
        #[bits(52)] pub address: u64,
    }
}

impl AtcInv {
    /// Size that covers the whole address space.
    pub const SIZE_ALL: u8 = 52;
}

command! {
    /// CMD_PRI_RESP, §4.5.2.
    PriResp {
        /// [`Opcode::PRI_RESP`].
        pub opcode: u8,
        #[bits(2)] __: u8,
        /// SSec; reserved in the Non-secure queue.
        pub ssec: bool,
        /// SSV: SubstreamID valid.
        pub ssv: bool,
        /// SubstreamID.
        #[bits(20)] pub substream_id: u32,
        /// StreamID.
        pub stream_id: u32,
        /// PRGIndex: the page request group.
        #[bits(9)] pub prg_index: u16,
        #[bits(3)] __: u8,
        /// Resp: 0 deny, 1 fail, 2 success.
        #[bits(2)] pub resp: u8,
        #[bits(50)] __: u64,
    }
}

command! {
    /// CMD_RESUME, §4.6.1, and CMD_STALL_TERM, §4.6.2 (no Resp, no STAG).
    Resume {
        /// [`Opcode::RESUME`] or [`Opcode::STALL_TERM`].
        pub opcode: u8,
        #[bits(2)] __: u8,
        /// SSec; reserved in the Non-secure queue.
        pub ssec: bool,
        __: bool,
        /// Ac and Ab: 0 terminate, 1 retry, 2 abort.
        #[bits(2)] pub resp: u8,
        #[bits(18)] __: u32,
        /// StreamID.
        pub stream_id: u32,
        /// STAG: the stalled transaction.
        pub stag: u16,
        #[bits(48)] __: u64,
    }
}

command! {
    /// CMD_SYNC, §4.6.3: complete when every command before it is.
    Sync {
        /// [`Opcode::SYNC`].
        pub opcode: u8,
        #[bits(4)] __: u8,
        /// CS: how completion is signalled, see [`Signal`].
        #[bits(2)] pub cs: u8,
        __: u8,
        /// MSH: shareability of the MSI write.
        #[bits(2)] pub msh: u8,
        /// MSIAttr: memory type of the MSI write.
        #[bits(4)] pub msi_attr: u8,
        #[bits(4)] __: u8,
        /// MSIData.
        pub msi_data: u32,
        #[bits(2)] __: u8,
        /// MSIAddress\[51:2\]; 0 asks for the wired interrupt.
        #[bits(50)] pub msi_address: u64,
        #[bits(12)] __: u16,
    }
}

/// Completion signal of a CMD_SYNC: its CS field.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(pub u8);

impl Signal {
    /// SIG_NONE: CONS moves, nothing else.
    pub const NONE: Self = Self(0);
    /// SIG_IRQ: MSI or wired interrupt.
    pub const IRQ: Self = Self(1);
    /// SIG_SEV: an event to the PEs.
    pub const SEV: Self = Self(2);
    /// Reserved: CERROR_ILL.
    pub const RESERVED: Self = Self(3);
}
