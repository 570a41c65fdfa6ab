//! AMD-Vi in the words of Linux's iommufd: `iommu_hw_info_amd`. Linux 7.3 nests no AMD guest, so there is nothing else:
//! guests have shadow tables, which are plain mappings of an IOAS.

use crate::driver::Identity;
use crate::features::Features;
use crate::spec::commands::{COMMAND_WORDS, Opcode};
use crate::spec::registers::{CapabilityHeader, Efr, Efr2};
use viommu_plugin::{
    EntryKey, KernelAbi, KernelEntries, KernelFacts, Nesting, PCI_ATS_NOT_SUPPORTED, Refusal, Register, TranslationMode,
};

/// Bytes of `iommu_hw_info_amd`: efr, efr2.
pub const HW_INFO_BYTES: usize = 16;
/// `IOMMU_HW_INFO_TYPE_AMD`.
pub const HW_INFO_TYPE: u32 = 4;

/// The vendor's payloads.
#[derive(Debug, Clone, Copy)]
pub struct AmdKernel;

impl KernelAbi for AmdKernel {
    fn facts(&self) -> KernelFacts {
        KernelFacts {
            hw_info_type: HW_INFO_TYPE,
            hw_info_bytes: HW_INFO_BYTES as u32,
            nesting: Nesting::NONE,
            ..KernelFacts::default()
        }
    }

    /// Those of a shadowed guest; none of a nested one, whatever the hardware could: the kernel's allocator of nested HWPTs is
    /// not reachable.
    fn registers(&self, hw_info: &[u8], capabilities: u64, mode: TranslationMode) -> Result<Vec<Register>, Refusal> {
        let Some(&[efr, efr2]) = hw_info.first_chunk::<HW_INFO_BYTES>().map(|info| info.as_chunks::<8>().0) else {
            let text = format!("hw_info_amd of {} bytes: it has {HW_INFO_BYTES}", hw_info.len());
            return Err(Refusal::new(Refusal::EINVAL, text));
        };
        if mode != TranslationMode::SHADOW {
            return Ok(Vec::new());
        }
        let host = Identity {
            efr: Efr::from_bits(u64::from_ne_bytes(efr)),
            efr2: Efr2::from_bits(u64::from_ne_bytes(efr2)),
            header: CapabilityHeader::new().with_iotlb_sup(capabilities & PCI_ATS_NOT_SUPPORTED == 0),
        };
        let shown = host.shown(mode);
        Features::new(&shown)?;
        Ok(shown)
    }

    fn hwpt_data(&self, _key: &EntryKey, _data: &mut [u8]) -> usize {
        0
    }

    /// Device caches of a shadowed guest are flushed by the kernel when its IOAS is unmapped; nothing else comes by.
    fn entries(&self, commands: &[u64], _entries: &mut [u8]) -> KernelEntries {
        let mut done = KernelEntries::default();
        for command in commands.chunks_exact(COMMAND_WORDS) {
            if Opcode::of(command[0]) != Opcode::INVALIDATE_IOTLB_PAGES {
                done.refused = 1;
                break;
            }
            done.taken += COMMAND_WORDS as u32;
        }
        done
    }

    fn repeatable(&self, command: &[u64]) -> bool {
        let opcode = command.first().map(|&word| Opcode::of(word));
        opcode.is_some_and(|opcode| matches!(opcode, Opcode::INVALIDATE_IOMMU_PAGES | Opcode::INVALIDATE_IOMMU_ALL))
    }
}
