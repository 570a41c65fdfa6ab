//! The CMDQV in the words of Linux's iommufd, on top of the SMMU's: `iommu_hw_info_tegra241_cmdqv`,
//! `iommu_viommu_tegra241_cmdqv`, `iommu_vevent_tegra241_cmdqv`.

use crate::spec::{CMDQV, Param, VINTF_PAGES, offset};
use arm_smmuv3::kernel::{ArmKernel, HW_INFO_BYTES as SMMU_INFO_BYTES};
use viommu_plugin::{
    EntryKey, HostInvalidation, KernelAbi, KernelEntries, KernelEvent, KernelFacts, Refusal, Register, TranslationMode,
    VirtualInterface,
};

/// Bytes of `iommu_hw_info_tegra241_cmdqv`: flags, version, log2vcmdqs, log2vsids, a reserved byte.
pub const HW_INFO_BYTES: usize = 8;
/// `IOMMU_HW_INFO_TYPE_TEGRA241_CMDQV`.
pub const HW_INFO_TYPE: u32 = 3;
/// `IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV`.
pub const VIOMMU_TYPE: u32 = 2;
/// Bytes of `iommu_viommu_tegra241_cmdqv`: out_vintf_mmap_offset, out_vintf_mmap_length.
pub const VIOMMU_DATA_BYTES: usize = 16;
/// `IOMMU_VEVENTQ_TYPE_TEGRA241_CMDQV`.
pub const VEVENTQ_TYPE: u32 = 2;
/// Bytes of `iommu_vevent_tegra241_cmdqv`: lvcmdq_err_map\[2\].
pub const VEVENT_BYTES: usize = 16;
/// `IOMMU_HW_QUEUE_TYPE_TEGRA241_CMDQV`.
pub const HW_QUEUE_TYPE: u32 = 1;

/// The vendor's payloads.
#[derive(Debug, Clone, Copy)]
pub struct TegraKernel;

impl KernelAbi for TegraKernel {
    fn facts(&self) -> KernelFacts {
        KernelFacts {
            hw_info_more_type: HW_INFO_TYPE,
            hw_info_more_bytes: HW_INFO_BYTES as u32,
            viommu_type: VIOMMU_TYPE,
            viommu_data_bytes: VIOMMU_DATA_BYTES as u32,
            interface_veventq_type: VEVENTQ_TYPE,
            interface_vevent_bytes: VEVENT_BYTES as u32,
            hw_queue_type: HW_QUEUE_TYPE,
            ..ArmKernel.facts()
        }
    }

    /// The SMMU's, and PARAM of one VINTF: the kernel gives the queues and StreamIDs of one VINTF already. Zeros are an SMMU
    /// without a CMDQV, and so is what is not there.
    fn registers(&self, hw_info: &[u8], capabilities: u64, mode: TranslationMode) -> Result<Vec<Register>, Refusal> {
        let mut registers = ArmKernel.registers(hw_info, capabilities, mode)?;
        if registers.is_empty() {
            return Ok(registers);
        }
        let [version, queues, streams] = match hw_info.get(SMMU_INFO_BYTES..) {
            Some(&[_, _, _, _, version, queues, streams, ..]) => [version, queues, streams],
            _ => [0; 3],
        };
        if [version, queues, streams].iter().any(|&field| field > 0xf) {
            let text = "hw_info_tegra241_cmdqv: a number beyond its four bits in PARAM";
            return Err(Refusal::new(Refusal::EINVAL, text));
        }
        let param = match version {
            0 => Param::new(),
            _ => Param::new().with_ver(version).with_num_vcmdq_log2(queues).with_num_sid_log2(streams),
        };
        registers.push(Register { offset: CMDQV + offset::PARAM, value: param.into_bits().into() });
        crate::frontend::shown(&registers)?;
        Ok(registers)
    }

    fn hwpt_data(&self, key: &EntryKey, data: &mut [u8]) -> usize {
        ArmKernel.hwpt_data(key, data)
    }

    fn entries(&self, commands: &[u64], entries: &mut [u8]) -> KernelEntries {
        ArmKernel.entries(commands, entries)
    }

    fn repeatable(&self, command: &[u64]) -> bool {
        ArmKernel.repeatable(command)
    }

    fn forget(&self, what: &HostInvalidation, commands: &mut [u64]) -> usize {
        ArmKernel.forget(what, commands)
    }

    /// The error map is what the frontend takes as an event without a stream.
    fn event(&self, veventq_type: u32, payload: &[u8]) -> Option<KernelEvent> {
        if veventq_type != VEVENTQ_TYPE {
            return ArmKernel.event(veventq_type, payload);
        }
        let map: &[u8; VEVENT_BYTES] = payload.first_chunk()?;
        let mut event = KernelEvent { words: 2, ..KernelEvent::default() };
        for (word, bytes) in event.record.iter_mut().zip(map.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Some(event)
    }

    fn interface(&self, viommu_data: &[u8]) -> Option<VirtualInterface> {
        let data: &[u8; VIOMMU_DATA_BYTES] = viommu_data.first_chunk()?;
        let &[page, page_length] = data.as_chunks::<8>().0 else { return None };
        let (page, page_length) = (u64::from_ne_bytes(page), u64::from_ne_bytes(page_length));
        let flags = VirtualInterface::PHYSICAL_QUEUES;
        (page_length > 0).then_some(VirtualInterface {
            handle: 0,
            flags,
            page,
            page_length,
            guest_page: CMDQV + VINTF_PAGES,
        })
    }
}
