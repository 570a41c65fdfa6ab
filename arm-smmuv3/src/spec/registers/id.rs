//! Identification registers (§6.3.1 to §6.3.8).

use bitfield_struct::bitfield;

/// SMMU_IDR0 (§6.3.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Idr0 {
    /// S2P: stage 2.
    pub s2p: bool,
    /// S1P: stage 1.
    pub s1p: bool,
    /// TTF: table formats, bit 1 is AArch64.
    #[bits(2)]
    pub ttf: u8,
    /// COHACC: coherent accesses.
    pub cohacc: bool,
    /// BTM: broadcast TLB maintenance.
    pub btm: bool,
    /// HTTU: hardware access flag (1), and dirty state (2).
    #[bits(2)]
    pub httu: u8,
    /// DORMHINT.
    pub dormhint: bool,
    /// HYP: EL2 contexts.
    pub hyp: bool,
    /// ATS.
    pub ats: bool,
    /// NS1ATS.
    pub ns1ats: bool,
    /// ASID16.
    pub asid16: bool,
    /// MSI.
    pub msi: bool,
    /// SEV.
    pub sev: bool,
    /// ATOS.
    pub atos: bool,
    /// PRI.
    pub pri: bool,
    /// VMW: VMID wildcards.
    pub vmw: bool,
    /// VMID16.
    pub vmid16: bool,
    /// CD2L: two-level CD tables.
    pub cd2l: bool,
    /// VATOS.
    pub vatos: bool,
    /// TTENDIAN: 0 mixed, 2 little, 3 big.
    #[bits(2)]
    pub ttendian: u8,
    /// ATSRECERR.
    pub atsrecerr: bool,
    /// STALL_MODEL: 0 stall and terminate, 1 terminate only, 2 stall forced.
    #[bits(2)]
    pub stall_model: u8,
    /// TERM_MODEL.
    pub term_model: bool,
    /// ST_LEVEL: 1 is two-level stream tables.
    #[bits(2)]
    pub st_level: u8,
    #[bits(3)]
    __: u8,
}

/// SMMU_IDR1 (§6.3.2).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Idr1 {
    /// SIDSIZE: StreamID bits.
    #[bits(6)]
    pub sidsize: u8,
    /// SSIDSIZE: SubstreamID bits, 0 none.
    #[bits(5)]
    pub ssidsize: u8,
    /// PRIQS: log2 of the largest PRI queue.
    #[bits(5)]
    pub priqs: u8,
    /// EVENTQS: log2 of the largest event queue.
    #[bits(5)]
    pub eventqs: u8,
    /// CMDQS: log2 of the largest command queue.
    #[bits(5)]
    pub cmdqs: u8,
    /// ATTR_PERMS_OVR.
    pub attr_perms_ovr: bool,
    /// ATTR_TYPES_OVR.
    pub attr_types_ovr: bool,
    /// REL: preset bases are relative.
    pub rel: bool,
    /// QUEUES_PRESET.
    pub queues_preset: bool,
    /// TABLES_PRESET.
    pub tables_preset: bool,
    /// ECMDQ.
    pub ecmdq: bool,
}

/// SMMU_IDR3 (§6.3.4).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Idr3 {
    #[bits(2)]
    __: u8,
    /// HAD: hierarchical attribute disable.
    pub had: bool,
    /// PBHA.
    pub pbha: bool,
    /// XNX.
    pub xnx: bool,
    /// PPS.
    pub pps: bool,
    #[bits(1)]
    __: u8,
    /// MPAM.
    pub mpam: bool,
    /// FWB: forced write-back of stage 2.
    pub fwb: bool,
    /// STT: small translation tables.
    pub stt: bool,
    /// RIL: range invalidation and level hint.
    pub ril: bool,
    /// BBML: break-before-make level.
    #[bits(2)]
    pub bbml: u8,
    #[bits(19)]
    __: u32,
}

/// SMMU_IDR5 (§6.3.6).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Idr5 {
    /// OAS: output address size, 0..=6 for 32, 36, 40, 42, 44, 48, 52 bits.
    #[bits(3)]
    pub oas: u8,
    #[bits(1)]
    __: u8,
    /// GRAN4K.
    pub gran4k: bool,
    /// GRAN16K.
    pub gran16k: bool,
    /// GRAN64K.
    pub gran64k: bool,
    /// DS: 52-bit addresses with 4 and 16 KiB granules.
    pub ds: bool,
    #[bits(2)]
    __: u8,
    /// VAX: 1 is 52-bit virtual addresses.
    #[bits(2)]
    pub vax: u8,
    #[bits(4)]
    __: u8,
    /// STALL_MAX.
    pub stall_max: u16,
}

/// Bits of an address size coded as in IDR5.OAS, STE.S2PS and CD.IPS; reserved codes mean the largest.
pub const fn address_bits(code: u8) -> u32 {
    match code {
        0 => 32,
        1 => 36,
        2 => 40,
        3 => 42,
        4 => 44,
        5 => 48,
        _ => 52,
    }
}
