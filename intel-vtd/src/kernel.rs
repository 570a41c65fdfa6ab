//! VT-d in the words of Linux's iommufd: `iommu_hw_info_vtd`, `iommu_hwpt_vtd_s1`, `iommu_hwpt_vtd_s1_invalidate`. There is no
//! vIOMMU: a nested HWPT is allocated on its parent, invalidations name the nested HWPTs of a domain.

use crate::features::Features;
use crate::spec::descriptors::{DescriptorType, Granularity, IotlbInv, PasidIotlbGranularity, WIDE_WORDS};
use crate::spec::pasid::PasidEntry2;
use crate::spec::registers::{Cap, Ecap};
use viommu_plugin::{
    EntryKey, HostInvalidation, InvalidateTarget, KernelAbi, KernelEntries, KernelFacts, KeyKind, NO_DOMAIN, Nesting,
    PCI_ATS_NOT_SUPPORTED, Refusal, Register, Scope, TranslationMode,
};

/// Bytes of `iommu_hw_info_vtd`: flags, a reserved word, cap_reg, ecap_reg.
pub const HW_INFO_BYTES: usize = 24;
/// `IOMMU_HW_INFO_TYPE_INTEL_VTD`.
pub const HW_INFO_TYPE: u32 = 1;
/// `IOMMU_HWPT_DATA_VTD_S1`.
pub const HWPT_DATA_TYPE: u32 = 1;
/// Bytes of `iommu_hwpt_vtd_s1`: flags, pgtbl_addr, addr_width, a reserved word.
pub const HWPT_DATA_BYTES: usize = 24;
/// `IOMMU_HWPT_INVALIDATE_DATA_VTD_S1`.
pub const INVALIDATE_DATA_TYPE: u32 = 0;
/// Bytes of `iommu_hwpt_vtd_s1_invalidate`: addr, npages, flags, a reserved word.
pub const INVALIDATE_BYTES: usize = 24;

/// `IOMMU_VTD_S1_SRE`.
const SRE: u64 = 1;
/// `IOMMU_VTD_S1_EAFE`.
const EAFE: u64 = 2;
/// `IOMMU_VTD_S1_WPE`.
const WPE: u64 = 4;
/// `IOMMU_VTD_INV_FLAGS_LEAF`.
const LEAF: u32 = 1;
/// npages of "everything", with addr 0.
const ALL: u64 = u64::MAX;

/// The vendor's payloads.
#[derive(Debug, Clone, Copy)]
pub struct VtdKernel;

impl KernelAbi for VtdKernel {
    fn facts(&self) -> KernelFacts {
        KernelFacts {
            hw_info_type: HW_INFO_TYPE,
            hw_info_bytes: HW_INFO_BYTES as u32,
            hwpt_data_type: HWPT_DATA_TYPE,
            hwpt_data_bytes: HWPT_DATA_BYTES as u32,
            invalidate_data_type: INVALIDATE_DATA_TYPE,
            invalidate_entry_bytes: INVALIDATE_BYTES as u32,
            invalidate_target: InvalidateTarget::NESTED_HWPT,
            nesting: Nesting::PARENT,
            ..KernelFacts::default()
        }
    }

    fn registers(&self, hw_info: &[u8], capabilities: u64, mode: TranslationMode) -> Result<Vec<Register>, Refusal> {
        let Some(&[_, cap, ecap]) = hw_info.first_chunk::<HW_INFO_BYTES>().map(|info| info.as_chunks::<8>().0) else {
            let text = format!("hw_info_vtd of {} bytes: it has {HW_INFO_BYTES}", hw_info.len());
            return Err(Refusal::new(Refusal::EINVAL, text));
        };
        let (cap, ecap) = (Cap::from_bits(u64::from_ne_bytes(cap)), Ecap::from_bits(u64::from_ne_bytes(ecap)));
        let nests = ecap.scalable_mode() && ecap.nested() && ecap.first_stage();
        if mode == TranslationMode::NESTED && !nests
            || !matches!(mode, TranslationMode::NESTED | TranslationMode::SHADOW)
        {
            return Ok(Vec::new());
        }
        let ats = ecap.device_tlb() && capabilities & PCI_ATS_NOT_SUPPORTED == 0;
        // The payload has no VER: a guest is shown the one of where nothing is said.
        let host = Features { cap, ecap: ecap.with_device_tlb(ats), ..Features::default() };
        let shown = Features::shown(host, mode).registers();
        Features::new(&shown)?;
        Ok(shown.to_vec())
    }

    fn hwpt_data(&self, key: &EntryKey, data: &mut [u8]) -> usize {
        let Some((room, _)) = data.split_first_chunk_mut::<HWPT_DATA_BYTES>() else { return 0 };
        if key.kind != KeyKind::TRANSLATE {
            return 0;
        }
        let entry = PasidEntry2::from_bits(key.words[2]);
        let flag = |set: bool, flag: u64| if set { flag } else { 0 };
        let flags = flag(entry.supervisor_enable(), SRE)
            | flag(entry.extended_accessed(), EAFE)
            | flag(entry.write_protect(), WPE);
        let width: u32 = if entry.paging_mode() == 0 { 48 } else { 57 };
        room[..8].copy_from_slice(&flags.to_ne_bytes());
        room[8..16].copy_from_slice(&entry.address().to_ne_bytes());
        room[16..20].copy_from_slice(&width.to_ne_bytes());
        room[20..].fill(0);
        HWPT_DATA_BYTES
    }

    /// Descriptors of one domain. The kernel flushes device-TLBs with the IOTLB, so those of the guest leave no entry.
    fn entries(&self, commands: &[u64], entries: &mut [u8]) -> KernelEntries {
        let mut done = KernelEntries {
            target: InvalidateTarget::NESTED_HWPT,
            entry_bytes: INVALIDATE_BYTES as u32,
            ..KernelEntries::default()
        };
        let mut rooms = entries.chunks_exact_mut(INVALIDATE_BYTES);
        for command in commands.chunks_exact(WIDE_WORDS) {
            match of([command[0], command[1]]) {
                Asked::ByKernel => {}
                Asked::Other => {
                    done.refused = 1;
                    break;
                }
                Asked::Flush { domain, entry } => {
                    if done.domain != NO_DOMAIN && done.domain != u32::from(domain) {
                        break;
                    }
                    let Some(room) = rooms.next() else { break };
                    entry.write(room);
                    done.domain = domain.into();
                    done.written += INVALIDATE_BYTES as u32;
                }
            }
            done.taken += WIDE_WORDS as u32;
        }
        done
    }

    /// The kernel invalidates devices' caches with the IOTLB, and caches of contexts when it attaches.
    fn forget(&self, what: &HostInvalidation, commands: &mut [u64]) -> usize {
        let Ok(domain) = u16::try_from(what.tag) else { return 0 };
        match commands.first_chunk_mut::<WIDE_WORDS>() {
            Some(room) if what.scope == Scope::STAGE1_ALL => {
                let [low, high] =
                    IotlbInv::new().with_granularity(Granularity::DOMAIN.0).with_domain_id(domain).words();
                *room = [low, high, 0, 0];
                WIDE_WORDS
            }
            _ => 0,
        }
    }

    fn repeatable(&self, command: &[u64]) -> bool {
        let kind = command.first().map(|&word| DescriptorType::of(word));
        matches!(
            kind,
            Some(
                DescriptorType::IOTLB
                    | DescriptorType::PASID_IOTLB
                    | DescriptorType::CONTEXT_CACHE
                    | DescriptorType::PASID_CACHE
            )
        )
    }
}

/// What a descriptor asks of the kernel.
enum Asked {
    /// Done with the IOTLB.
    ByKernel,
    /// Translations of a domain.
    Flush { domain: u16, entry: Entry },
    /// Not an invalidation of first-stage translations.
    Other,
}

/// `iommu_hwpt_vtd_s1_invalidate`.
struct Entry {
    addr: u64,
    npages: u64,
    flags: u32,
}

impl Entry {
    const EVERYTHING: Self = Self { addr: 0, npages: ALL, flags: 0 };

    fn write(&self, room: &mut [u8]) {
        room[..8].copy_from_slice(&self.addr.to_ne_bytes());
        room[8..16].copy_from_slice(&self.npages.to_ne_bytes());
        room[16..20].copy_from_slice(&self.flags.to_ne_bytes());
        room[20..].fill(0);
    }
}

/// IOTLB and PASID-based IOTLB invalidations have domain-id, granularity and address in the same places.
fn of(words: [u64; 2]) -> Asked {
    let inv = IotlbInv::from_words(words);
    let pages = match DescriptorType::of(words[0]) {
        DescriptorType::DEVICE_TLB | DescriptorType::PASID_DEVICE_TLB => return Asked::ByKernel,
        DescriptorType::PASID_IOTLB => match PasidIotlbGranularity(inv.granularity()) {
            PasidIotlbGranularity::PASID => false,
            PasidIotlbGranularity::PAGES => true,
            _ => return Asked::Other,
        },
        DescriptorType::IOTLB => match Granularity(inv.granularity()) {
            Granularity::DOMAIN => false,
            Granularity::SELECTIVE => true,
            _ => return Asked::Other,
        },
        _ => return Asked::Other,
    };
    let entry = match inv.address_mask() {
        // 2^AM pages are the whole of the address space, or more.
        mask if pages && mask < 52 => Entry {
            addr: (inv.address() & u64::MAX << mask) << 12,
            npages: 1 << mask,
            flags: if inv.hint() { LEAF } else { 0 },
        },
        _ => Entry::EVERYTHING,
    };
    Asked::Flush { domain: inv.domain_id(), entry }
}
