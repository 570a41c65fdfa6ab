//! A caller of the software iommufd: its calls, and the objects that most tests begin with.

use viommu::uapi::{
    Command, Errno, ProcessMemory,
    dispatcher::{Dispatcher, Options},
    flags, layout,
    selftest::{self, TestCommand, op},
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

pub(crate) struct Caller {
    pub(crate) fd: Dispatcher,
}

/// A mock device: what keeps it, its HWPT, and the device itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mock {
    pub(crate) stdev: u32,
    pub(crate) hwpt: u32,
    pub(crate) device: u32,
}

impl Caller {
    pub(crate) fn new() -> Self {
        Self { fd: Dispatcher::new(Options::selftest()) }
    }

    /// The command with its argument, whose first word is set to its size.
    pub(crate) fn call<T: FromBytes + IntoBytes + Immutable>(
        &self,
        command: Command,
        own: &mut T,
    ) -> Result<(), Errno> {
        own.as_mut_bytes()[..4].copy_from_slice(&(size_of::<T>() as u32).to_ne_bytes());
        self.fd.ioctl(command.code(), own.as_mut_bytes(), &ProcessMemory)
    }

    pub(crate) fn test(&self, op: u32, id: u32, words: &[(usize, u64)]) -> Result<TestCommand, Errno> {
        let mut own = TestCommand { op, id, ..TestCommand::default() };
        for (offset, word) in words {
            match offset {
                0..100 => own.set_u32_at(*offset, *word as u32),
                _ => own.set_u64_at(*offset - 100, *word),
            }
        }
        self.call(Command::Test, &mut own).map(|()| own)
    }

    pub(crate) fn destroy(&self, id: u32) -> Result<(), Errno> {
        self.call(Command::Destroy, &mut layout::Destroy { id, ..Default::default() })
    }

    pub(crate) fn try_ioas(&self) -> Result<u32, Errno> {
        let mut own = layout::IoasAlloc::default();
        self.call(Command::IoasAlloc, &mut own).map(|()| own.out_ioas_id)
    }

    pub(crate) fn ioas(&self) -> u32 {
        self.try_ioas().unwrap()
    }

    pub(crate) fn map_fixed(&self, ioas_id: u32, memory: &[u8], iova: u64) -> Result<(), Errno> {
        let flags = flags::IOAS_MAP_FIXED_IOVA | flags::IOAS_MAP_READABLE | flags::IOAS_MAP_WRITEABLE;
        let (user_va, length) = (memory.as_ptr() as u64, memory.len() as u64);
        self.call(
            Command::IoasMap,
            &mut layout::IoasMap { flags, ioas_id, user_va, length, iova, ..Default::default() },
        )
    }

    pub(crate) fn unmap(&self, ioas_id: u32, iova: u64, length: u64) -> Result<u64, Errno> {
        let mut own = layout::IoasUnmap { ioas_id, iova, length, ..Default::default() };
        self.call(Command::IoasUnmap, &mut own).map(|()| own.length)
    }

    pub(crate) fn mock(&self, pt_id: u32, dev_flags: u32) -> Result<Mock, Errno> {
        let own = self.test(op::MOCK_DOMAIN_FLAGS, pt_id, &[(28, dev_flags.into())])?;
        Ok(Mock { stdev: own.u32_at(16), hwpt: own.u32_at(20), device: own.u32_at(24) })
    }

    pub(crate) fn replace(&self, stdev: u32, pt_id: u32) -> Result<u32, Errno> {
        self.test(op::MOCK_DOMAIN_REPLACE, stdev, &[(16, pt_id.into())]).map(|own| own.u32_at(16))
    }

    pub(crate) fn pasid(&self, op: u32, stdev: u32, pasid: u32, pt_id: u32) -> Result<(), Errno> {
        self.test(op, stdev, &[(16, pasid.into()), (20, pt_id.into())]).map(|_| ())
    }

    pub(crate) fn hwpt_with(&self, mut own: layout::HwptAlloc) -> Result<u32, Errno> {
        self.call(Command::HwptAlloc, &mut own).map(|()| own.out_hwpt_id)
    }

    pub(crate) fn hwpt(&self, dev_id: u32, pt_id: u32, flags: u32) -> Result<u32, Errno> {
        self.hwpt_with(layout::HwptAlloc { dev_id, pt_id, flags, ..Default::default() })
    }

    /// A nested HWPT with the mock's payload.
    pub(crate) fn nested(&self, dev_id: u32, pt_id: u32, flags: u32, fault_id: u32) -> Result<u32, Errno> {
        let payload = selftest::HwptSelftest { iotlb: 0xbad_beef, pagetable_type: 0 };
        self.hwpt_with(layout::HwptAlloc {
            dev_id,
            pt_id,
            flags,
            fault_id,
            data_type: selftest::HWPT_DATA,
            data_len: size_of_val(&payload) as u32,
            data_uptr: address(&payload),
            ..Default::default()
        })
    }

    pub(crate) fn viommu(&self, dev_id: u32, hwpt_id: u32, r#type: u32) -> Result<u32, Errno> {
        let mut own = layout::ViommuAlloc { r#type, dev_id, hwpt_id, ..Default::default() };
        self.call(Command::ViommuAlloc, &mut own).map(|()| own.out_viommu_id)
    }

    pub(crate) fn vdevice(&self, viommu_id: u32, dev_id: u32, virt_id: u64) -> Result<u32, Errno> {
        let mut own = layout::VdeviceAlloc { viommu_id, dev_id, virt_id, ..Default::default() };
        self.call(Command::VdeviceAlloc, &mut own).map(|()| own.out_vdevice_id)
    }

    pub(crate) fn veventq(&self, viommu_id: u32, r#type: u32, veventq_depth: u32) -> Result<(u32, i32), Errno> {
        let mut own = layout::VeventqAlloc { viommu_id, r#type, veventq_depth, ..Default::default() };
        self.call(Command::VeventqAlloc, &mut own).map(|()| (own.out_veventq_id, own.out_veventq_fd as i32))
    }

    pub(crate) fn fault_queue(&self) -> (u32, i32) {
        let mut own = layout::FaultAlloc::default();
        self.call(Command::FaultQueueAlloc, &mut own).unwrap();
        (own.out_fault_id, own.out_fault_fd as i32)
    }

    pub(crate) fn hw_queue(
        &self,
        viommu_id: u32,
        r#type: u32,
        index: u32,
        iova: u64,
        length: u64,
    ) -> Result<u32, Errno> {
        let nesting_parent_iova = iova;
        let mut own =
            layout::HwQueueAlloc { viommu_id, r#type, index, nesting_parent_iova, length, ..Default::default() };
        self.call(Command::HwQueueAlloc, &mut own).map(|()| own.out_hw_queue_id)
    }

    /// The errno and the number of entries that came back.
    pub(crate) fn invalidate<T: IntoBytes + Immutable>(
        &self,
        hwpt_id: u32,
        data_type: u32,
        entries: &[T],
        entry_len: u32,
    ) -> (Result<(), Errno>, u32) {
        self.invalidate_at(hwpt_id, data_type, entries.as_ptr() as u64, entry_len, entries.len() as u32)
    }

    pub(crate) fn invalidate_at(
        &self,
        hwpt_id: u32,
        data_type: u32,
        data_uptr: u64,
        entry_len: u32,
        entry_num: u32,
    ) -> (Result<(), Errno>, u32) {
        let mut own =
            layout::HwptInvalidate { hwpt_id, data_uptr, data_type, entry_len, entry_num, ..Default::default() };
        (self.call(Command::HwptInvalidate, &mut own), own.entry_num)
    }

    pub(crate) fn iotlb(&self, nested: u32, slots: [u32; 4]) {
        for (slot, value) in (0..).zip(slots) {
            let checked = self.test(op::MD_CHECK_IOTLB, nested, &[(16, slot), (20, value.into())]);
            assert!(checked.is_ok(), "slot {slot} of HWPT {nested} is not {value:#x}");
        }
    }

    pub(crate) fn cache(&self, device: u32, slots: [u32; 4]) {
        for (slot, value) in (0..).zip(slots) {
            let checked = self.test(op::DEV_CHECK_CACHE, device, &[(16, slot), (20, value.into())]);
            assert!(checked.is_ok(), "slot {slot} of device {device} is not {value:#x}");
        }
    }

    /// Closes everything; nothing may be left.
    pub(crate) fn close(self) {
        let end = self.fd.shutdown();
        assert!(end.left.is_empty() && end.stray_pins == 0, "{end:?}");
    }
}

pub(crate) fn address<T>(value: &T) -> u64 {
    std::ptr::from_ref(value) as u64
}

/// Whole pages of memory, page aligned.
pub(crate) struct Pages(Vec<u8>, usize, usize);

impl Pages {
    pub(crate) fn new(pages: usize) -> Self {
        let memory = vec![0x5a; (pages + 1) * 4096];
        let start = memory.as_ptr().align_offset(4096);
        Self(memory, start, pages * 4096)
    }
}

impl std::ops::Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0[self.1..self.1 + self.2]
    }
}
