//! The mock in the words of Linux's iommufd, as the kernel's own mock driver (CONFIG_IOMMUFD_TEST) has them.

use crate::spec::{self, opcode};
use crate::{Mock, MockCodec, MockDriver, MockFrontend, MockModel};
use viommu_plugin::{
    EntryKey, Hardware, InvalidateTarget, KernelAbi, KernelEntries, KernelEvent, KernelFacts, KeyKind, ModelConfig,
    ModelHost, Nesting, Refusal, Register, TranslationMode, Vendor, VendorInfo, VirtualInterface,
};

/// GET_HW_INFO type; the payload is {flags, test_reg}, and test_reg is [`spec::ID_VALUE`].
pub const HW_INFO_TYPE: u32 = 0xfeed_beef;
/// HWPT_ALLOC data type; the payload is {iotlb, pagetable_type}.
pub const HWPT_DATA_TYPE: u32 = 0xdead;
/// VIOMMU_ALLOC type; the data is {in_data, out_data, mmap_offset, mmap_length}.
pub const VIOMMU_TYPE: u32 = 0xdead_beef;
/// HWPT_INVALIDATE data type, of {flags, iotlb_id} to a nested HWPT and {flags, vdev_id, cache_id} to a vIOMMU.
pub const INVALIDATE_DATA_TYPE: u32 = 0xdead_beef;
/// VEVENTQ_ALLOC type; the payload is {virt_id}.
pub const VEVENTQ_TYPE: u32 = 0xbeef_beef;
/// HW_QUEUE_ALLOC type.
pub const HW_QUEUE_TYPE: u32 = 0xdead_beef;
/// Where the guest expects what mmap gives.
pub const GUEST_PAGE: u64 = 0xf000;
/// In flags of {flags, iotlb_id}: all slots.
const INVALIDATE_ALL: u32 = 1;
const IOTLB_BYTES: usize = 8;
const CACHE_BYTES: usize = 12;

/// The mock's payloads. `BAD` is 0, or [`panics_in`] or [`lies_in`] of one of [`KERNEL_SLOTS`].
#[derive(Debug, Clone, Copy)]
pub struct MockKernel<const BAD: usize>;

/// The slots that [`KernelMock`] can be told to panic or to lie in.
pub const KERNEL_SLOTS: [&str; 7] = [
    "kernel_facts",
    "kernel_registers",
    "kernel_hwpt_data",
    "kernel_entries",
    "kernel_repeatable",
    "kernel_event",
    "kernel_interface",
];

/// The mock with payloads that misbehave as `BAD` says.
#[derive(Debug)]
pub struct KernelMock<const BAD: usize>;

/// What to tell [`KernelMock`] so that it panics in slot `index` of [`KERNEL_SLOTS`].
pub const fn panics_in(index: usize) -> usize {
    1 + index
}

/// What to tell [`KernelMock`] so that it lies in slot `index` of [`KERNEL_SLOTS`].
pub const fn lies_in(index: usize) -> usize {
    1 + KERNEL_SLOTS.len() + index
}

impl<const BAD: usize> MockKernel<BAD> {
    /// Begins slot `index`: panics in it if told to; whether to lie.
    fn enter(self, index: usize) -> bool {
        assert!(BAD != panics_in(index), "told to panic in {}", KERNEL_SLOTS[index]);
        BAD == lies_in(index)
    }
}

impl<const BAD: usize> KernelAbi for MockKernel<BAD> {
    fn facts(&self) -> KernelFacts {
        let nesting = if self.enter(0) { Nesting::PARENT } else { Nesting::VIOMMU };
        KernelFacts {
            hw_info_type: HW_INFO_TYPE,
            hw_info_bytes: 8,
            viommu_type: VIOMMU_TYPE,
            viommu_data_bytes: 24,
            hwpt_data_type: HWPT_DATA_TYPE,
            hwpt_data_bytes: 8,
            invalidate_data_type: INVALIDATE_DATA_TYPE,
            invalidate_entry_bytes: CACHE_BYTES as u32,
            invalidate_target: InvalidateTarget::VIOMMU,
            nesting,
            veventq_type: VEVENTQ_TYPE,
            vevent_bytes: 4,
            hw_queue_type: HW_QUEUE_TYPE,
            ..KernelFacts::default()
        }
    }

    fn registers(&self, hw_info: &[u8], _capabilities: u64, mode: TranslationMode) -> Result<Vec<Register>, Refusal> {
        let lie = self.enter(1);
        let test_reg = match hw_info.as_chunks::<4>().0 {
            [_, test_reg, ..] => u32::from_ne_bytes(*test_reg),
            _ if lie => 0,
            _ => return Err(Refusal::new(Refusal::EINVAL, "hw_info of the mock has 8 bytes")),
        };
        if mode != TranslationMode::NESTED {
            return Ok(Vec::new());
        }
        let register = |offset, value| Register { offset, value };
        Ok(vec![register(spec::ID, test_reg.into()), register(spec::FEATURES, spec::FEATURES_VALUE)])
    }

    fn hwpt_data(&self, key: &EntryKey, data: &mut [u8]) -> usize {
        let lie = self.enter(2);
        match data.first_chunk_mut::<8>() {
            _ if lie => data.len() + 1,
            Some(room) if key.kind == KeyKind::TRANSLATE => {
                *room = (key.words[1] & 0xffff_ffff).to_ne_bytes();
                room.len()
            }
            _ => 0,
        }
    }

    fn entries(&self, commands: &[u64], entries: &mut [u8]) -> KernelEntries {
        let mut done = KernelEntries::default();
        if self.enter(3) {
            return KernelEntries { written: u32::MAX, ..done };
        }
        for command in commands.as_chunks::<{ spec::COMMAND_WORDS }>().0 {
            let slot = ((command[0] & spec::SLOT_MASK) >> spec::SLOT_SHIFT) as u32;
            let all = if command[0] & spec::FLAG_ALL != 0 { INVALIDATE_ALL } else { 0 };
            let (target, entry) = match command[0] as u8 {
                opcode::INVALIDATE_IOTLB => (InvalidateTarget::NESTED_HWPT, vec![all, slot]),
                opcode::INVALIDATE_CACHE => (InvalidateTarget::VIOMMU, vec![0, command[1] as u32, slot]),
                _ => {
                    done.refused = 1;
                    break;
                }
            };
            let length = if target == InvalidateTarget::VIOMMU { CACHE_BYTES } else { IOTLB_BYTES };
            let at = done.written as usize;
            if done.taken > 0 && target != done.target || entries.len() < at + length {
                break;
            }
            for (bytes, word) in entries[at..].as_chunks_mut::<4>().0.iter_mut().zip(entry) {
                *bytes = word.to_ne_bytes();
            }
            (done.target, done.entry_bytes) = (target, length as u32);
            done.written += length as u32;
            done.taken += spec::COMMAND_WORDS as u32;
        }
        done
    }

    fn repeatable(&self, command: &[u64]) -> bool {
        let lie = self.enter(4);
        command.first().is_some_and(|word| *word as u8 == opcode::INVALIDATE_IOTLB) != lie
    }

    fn event(&self, veventq_type: u32, payload: &[u8]) -> Option<KernelEvent> {
        let words = if self.enter(5) { 9 } else { spec::EVENT_WORDS as u32 };
        let virt_id = u32::from_ne_bytes(*payload.first_chunk()?);
        (veventq_type == VEVENTQ_TYPE).then_some(KernelEvent { virt_id, words, record: [0; 8] })
    }

    fn interface(&self, viommu_data: &[u8]) -> Option<VirtualInterface> {
        let more = u64::from(self.enter(6));
        let (_, words) = viommu_data.split_at_checked(8)?;
        let &[page, page_length] = words.as_chunks::<8>().0 else { return None };
        let page_length = u64::from_ne_bytes(page_length);
        (page_length > 0).then_some(VirtualInterface {
            page: u64::from_ne_bytes(page) & !0xfff,
            page_length: 0x1000 + more,
            guest_page: GUEST_PAGE,
            ..VirtualInterface::default()
        })
    }
}

impl<const BAD: usize> Vendor for KernelMock<BAD> {
    const INFO: VendorInfo = Mock::INFO;
    const KERNEL: Option<&'static dyn KernelAbi> = Some(&MockKernel::<BAD>);
    type Frontend = MockFrontend;
    type Codec = MockCodec;
    type Driver = MockDriver;
    type Model = MockModel;

    fn frontend(registers: &[Register]) -> Result<MockFrontend, Refusal> {
        Mock::frontend(registers)
    }
    fn codec(registers: &[Register]) -> Result<MockCodec, Refusal> {
        Mock::codec(registers)
    }
    fn driver(hardware: Box<dyn Hardware>) -> Result<MockDriver, Refusal> {
        Mock::driver(hardware)
    }
    fn model(host: Box<dyn ModelHost>, config: ModelConfig<'_>) -> Result<MockModel, Refusal> {
        Mock::model(host, config)
    }
}
