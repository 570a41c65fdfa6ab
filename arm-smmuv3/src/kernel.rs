//! The SMMU in the words of Linux's iommufd: `iommu_hw_info_arm_smmuv3`, `iommu_hwpt_arm_smmuv3`,
//! `iommu_viommu_arm_smmuv3_invalidate`, `iommu_vevent_arm_smmuv3`.

use crate::features::Features;
use crate::spec::commands::{AtcInv, COMMAND_BYTES, COMMAND_WORDS, CfgiCd, Opcode, Tlbi};
use crate::spec::events::{EVENT_BYTES, EVENT_WORDS, EventWord0};
use crate::spec::registers::{Idr0, Idr1, Idr3, Idr5};
use crate::spec::ste::{Config, SteWord0};
use viommu_plugin::{
    EntryKey, HostInvalidation, InvalidateTarget, KernelAbi, KernelEntries, KernelEvent, KernelFacts, KeyKind,
    NO_DOMAIN, Nesting, PCI_ATS_NOT_SUPPORTED, Refusal, Register, Scope, TranslationMode,
};

/// Bytes of `iommu_hw_info_arm_smmuv3`: flags, a reserved word, idr\[6\], iidr, aidr.
pub const HW_INFO_BYTES: usize = 40;
/// `IOMMU_HW_INFO_TYPE_ARM_SMMUV3`.
pub const HW_INFO_TYPE: u32 = 2;
/// `IOMMU_VIOMMU_TYPE_ARM_SMMUV3`.
pub const VIOMMU_TYPE: u32 = 1;
/// `IOMMU_HWPT_DATA_ARM_SMMUV3`.
pub const HWPT_DATA_TYPE: u32 = 2;
/// Bytes of `iommu_hwpt_arm_smmuv3`: the first two words of an STE.
pub const HWPT_DATA_BYTES: usize = 16;
/// `IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3`.
pub const INVALIDATE_DATA_TYPE: u32 = 1;
/// `IOMMU_VEVENTQ_TYPE_ARM_SMMUV3`.
pub const VEVENTQ_TYPE: u32 = 1;

/// The vendor's payloads.
#[derive(Debug, Clone, Copy)]
pub struct ArmKernel;

impl KernelAbi for ArmKernel {
    fn facts(&self) -> KernelFacts {
        KernelFacts {
            hw_info_type: HW_INFO_TYPE,
            hw_info_bytes: HW_INFO_BYTES as u32,
            viommu_type: VIOMMU_TYPE,
            hwpt_data_type: HWPT_DATA_TYPE,
            hwpt_data_bytes: HWPT_DATA_BYTES as u32,
            invalidate_data_type: INVALIDATE_DATA_TYPE,
            invalidate_entry_bytes: COMMAND_BYTES as u32,
            invalidate_target: InvalidateTarget::VIOMMU,
            nesting: Nesting::VIOMMU,
            veventq_type: VEVENTQ_TYPE,
            vevent_bytes: EVENT_BYTES as u32,
            ..KernelFacts::default()
        }
    }

    fn registers(&self, hw_info: &[u8], capabilities: u64, mode: TranslationMode) -> Result<Vec<Register>, Refusal> {
        let hw_info = hw_info.first_chunk().ok_or_else(|| {
            let text = format!("hw_info_arm_smmuv3 of {} bytes: it has {HW_INFO_BYTES}", hw_info.len());
            Refusal::new(Refusal::EINVAL, text)
        })?;
        if mode != TranslationMode::NESTED {
            return Ok(Vec::new());
        }
        let guest = shown(hw_info, capabilities & PCI_ATS_NOT_SUPPORTED == 0)?.registers();
        // What cannot be a guest's at all is refused by the name of the field.
        Features::new(&guest)?;
        Ok(guest.to_vec())
    }

    fn hwpt_data(&self, key: &EntryKey, data: &mut [u8]) -> usize {
        let valid = SteWord0::new().with_v(true);
        let words = match key.kind {
            KeyKind::TRANSLATE => [key.words[0], key.words[1]],
            KeyKind::BYPASS => [valid.with_config(Config::BYPASS.0).into_bits(), 0],
            _ => [valid.with_config(Config::ABORT.0).into_bits(), 0],
        };
        let Some((room, _)) = data.split_first_chunk_mut::<HWPT_DATA_BYTES>() else { return 0 };
        for (bytes, word) in room.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        HWPT_DATA_BYTES
    }

    /// An entry is the command itself; the kernel puts in VMID and StreamID.
    fn entries(&self, commands: &[u64], entries: &mut [u8]) -> KernelEntries {
        let mut done =
            KernelEntries { entry_bytes: COMMAND_BYTES as u32, domain: NO_DOMAIN, ..KernelEntries::default() };
        let rooms = entries.chunks_exact_mut(COMMAND_BYTES as usize);
        for (command, room) in commands.chunks_exact(COMMAND_WORDS).zip(rooms) {
            if !taken(Opcode::of(command[0])) {
                done.refused = 1;
                break;
            }
            room[..8].copy_from_slice(&command[0].to_le_bytes());
            room[8..].copy_from_slice(&command[1].to_le_bytes());
            done.taken += COMMAND_WORDS as u32;
            done.written += COMMAND_BYTES as u32;
        }
        done
    }

    fn repeatable(&self, command: &[u64]) -> bool {
        command.first().is_some_and(|&word| Opcode::of(word) != Opcode::ATC_INV && taken(Opcode::of(word)))
    }

    fn forget(&self, what: &HostInvalidation, commands: &mut [u64]) -> usize {
        let stream = what.stream;
        let command = match what.scope {
            Scope::STAGE1_ALL => Tlbi::new().with_opcode(Opcode::TLBI_NH_ALL.0).words(),
            // The kernel sends no CFGI_STE for a guest; what the STE leads to is all that can be out of date.
            Scope::CONFIGURATION => CfgiCd::new().with_opcode(Opcode::CFGI_CD_ALL.0).with_stream_id(stream).words(),
            Scope::DEVICE_CACHE => {
                AtcInv::new().with_opcode(Opcode::ATC_INV.0).with_stream_id(stream).with_size(AtcInv::SIZE_ALL).words()
            }
            _ => return 0,
        };
        match commands.first_chunk_mut::<COMMAND_WORDS>() {
            Some(room) => {
                *room = command;
                COMMAND_WORDS
            }
            None => 0,
        }
    }

    fn event(&self, veventq_type: u32, payload: &[u8]) -> Option<KernelEvent> {
        let bytes: &[u8; EVENT_BYTES as usize] = payload.first_chunk()?;
        if veventq_type != VEVENTQ_TYPE {
            return None;
        }
        let mut event = KernelEvent { words: EVENT_WORDS as u32, ..KernelEvent::default() };
        for (word, bytes) in event.record.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        let word = EventWord0::from_bits(event.record[0]);
        (event.virt_id, event.record[0]) = (word.stream_id(), word.with_stream_id(0).into_bits());
        Some(event)
    }
}

/// What the kernel's vIOMMU takes in an invalidation.
fn taken(opcode: Opcode) -> bool {
    matches!(
        opcode,
        Opcode::TLBI_NSNH_ALL
            | Opcode::TLBI_NH_ALL
            | Opcode::TLBI_NH_ASID
            | Opcode::TLBI_NH_VA
            | Opcode::TLBI_NH_VAA
            | Opcode::ATC_INV
            | Opcode::CFGI_CD
            | Opcode::CFGI_CD_ALL
    )
}

/// The fields that the uAPI lets user space rely on; the rest as a guest is shown it where nothing is said. COHACC is
/// given for every nested guest. No stalls: RESUME is not among the commands that are carried.
fn shown(hw_info: &[u8; HW_INFO_BYTES], ats: bool) -> Result<Features, Refusal> {
    let word = |index: usize| {
        let bytes = hw_info.as_chunks::<4>().0[index];
        u32::from_ne_bytes(bytes)
    };
    let idr = |index: usize| word(2 + index);
    let (idr0, idr1) = (Idr0::from_bits(idr(0)), Idr1::from_bits(idr(1)));
    let (idr3, idr5) = (Idr3::from_bits(idr(3)), Idr5::from_bits(idr(5)));
    if idr0.stall_model() > 1 {
        let text = "IDR0.STALL_MODEL: stalls that cannot be turned off, and a guest is offered none";
        return Err(Refusal::new(Refusal::EOPNOTSUPP, text));
    }
    let own = Features::default();
    Ok(Features {
        idr0: own
            .idr0
            .with_st_level(idr0.st_level())
            .with_term_model(idr0.term_model())
            // Little-endian is what "both" leaves; any other is refused by Features.
            .with_ttendian(if idr0.ttendian() == 0 { 2 } else { idr0.ttendian() })
            .with_cd2l(idr0.cd2l())
            .with_asid16(idr0.asid16())
            .with_ttf(idr0.ttf() & 2)
            .with_ats(idr0.ats() && ats)
            .with_cohacc(true),
        idr1: own.idr1.with_sidsize(idr1.sidsize().min(own.idr1.sidsize())).with_ssidsize(idr1.ssidsize()),
        idr3: Idr3::new().with_ril(idr3.ril()).with_bbml(idr3.bbml()),
        idr5: own
            .idr5
            .with_oas(idr5.oas().min(own.idr5.oas()))
            .with_gran4k(idr5.gran4k())
            .with_gran16k(idr5.gran16k())
            .with_gran64k(idr5.gran64k())
            .with_vax(idr5.vax())
            .with_ds(idr5.ds()),
        ..own
    })
}
