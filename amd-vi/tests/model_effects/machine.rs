//! A machine with one IOMMU: sparse memory, a device table, a command buffer and an event log, tables built on demand.

use amd_vi::model::Iommu;
use amd_vi::spec::commands::{
    CompletionWait, InvalidateDevice, InvalidateIommuAll, InvalidateIommuPages, InvalidateIotlbPages, Opcode,
    encode_span,
};
use amd_vi::spec::dte::{DteWord0, DteWord1, DteWord2, with_gcr3_table};
use amd_vi::spec::events::EventWord0;
use amd_vi::spec::pte::{Gcr3Entry, GuestPte, HostPte, span_log2};
use amd_vi::spec::registers::{Control, RingBase, offset};
use amd_vi::spec::size;
use viommu_plugin::{Answer, Message, Model, ModelConfig, Register, Request};
use viommu_plugin_check::bench::SparseMemory;

/// Memory ends here: addresses beyond it abort.
pub(crate) const MEMORY_END: u64 = 1 << 40;
pub(crate) const DEVICE_TABLE: u64 = 0x10_0000;
pub(crate) const COMMANDS: u64 = 0x20_0000;
pub(crate) const EVENTS: u64 = 0x30_0000;
/// log2 of both rings' entries.
pub(crate) const RING_LOG2: u8 = 8;
const TABLES: u64 = 0x1000_0000;
pub(crate) const NO_PASID: u32 = u32::MAX;
pub(crate) const READ: u32 = 1;
pub(crate) const WRITE: u32 = 2;
/// Both permissions.
pub(crate) const RW: u8 = 3;

/// What the IOMMU reaches.
pub(crate) type Memory = SparseMemory;

/// A device table entry in the making.
#[derive(Clone, Copy)]
pub(crate) struct Dte(pub(crate) DteWord0, pub(crate) DteWord1, pub(crate) DteWord2);

impl Dte {
    /// Identity in `domain`.
    pub(crate) fn identity(domain: u16) -> Self {
        let word0 = DteWord0::new().with_v(true).with_tv(true).with_ir(true).with_iw(true);
        Self(word0, DteWord1::new().with_domain_id(domain), DteWord2::new())
    }
    /// A host table.
    pub(crate) fn host(domain: u16, table: u64, levels: u8) -> Self {
        let Self(word0, word1, word2) = Self::identity(domain);
        Self(word0.with_mode(levels).with_host_root(table >> 12), word1, word2)
    }
    /// The same with guest tables behind it; requests without PASID are PASID 0's.
    pub(crate) fn nested(self, gcr3: u64, glx: u8, five_levels: bool) -> Self {
        let (word0, word1) = with_gcr3_table(self.0, self.1, gcr3);
        let word0 = word0.with_gv(true).with_giov(true).with_glx(glx);
        Self(word0, word1, self.2.with_guest_paging_mode(five_levels.into()))
    }
    /// The same for a device with a cache of its own.
    pub(crate) fn with_ats(self) -> Self {
        Self(self.0, self.1.with_i(true), self.2)
    }
}

/// A guest's page tables, which are at GPA = PA + `shift`.
#[derive(Clone, Copy)]
pub(crate) struct GuestTables {
    pub(crate) root: u64,
    pub(crate) levels: u8,
    pub(crate) shift: u64,
}

pub(crate) struct Machine {
    pub(crate) memory: Memory,
    pub(crate) iommu: Iommu,
    tail: u64,
    free: u64,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self::with(&[], false, 0)
    }

    /// With these feature registers, device caches, and room in the TLB.
    pub(crate) fn with(registers: &[Register], atc: bool, tlb_capacity: u32) -> Self {
        let memory = Memory::new(MEMORY_END);
        let config = ModelConfig { registers, atc, tlb_capacity };
        let mut machine =
            Self { iommu: Iommu::new(Box::new(memory.clone()), config).unwrap(), memory, tail: 0, free: TABLES };
        machine.write(offset::DEVICE_TABLE_BASE, DEVICE_TABLE);
        let ring = |base: u64| RingBase::new().with_base(base >> 12).with_length(RING_LOG2).into();
        machine.write(offset::COMMAND_BASE, ring(COMMANDS));
        machine.write(offset::EVENT_BASE, ring(EVENTS));
        machine.write(offset::CONTROL, Self::control().into());
        machine
    }

    /// Everything on that these tests use.
    pub(crate) fn control() -> Control {
        Control::new()
            .with_iommu_en(true)
            .with_event_log_en(true)
            .with_event_int_en(true)
            .with_com_wait_int_en(true)
            .with_inv_timeout(4)
            .with_cmd_buf_en(true)
            .with_gt_en(true)
            .with_gcr3_trp_mode(true)
    }

    pub(crate) fn write(&mut self, offset: u64, value: u64) {
        self.iommu.mmio_write(offset, 8, value);
    }
    pub(crate) fn read(&mut self, offset: u64) -> u64 {
        self.iommu.mmio_read(offset, 8)
    }

    /// A page of zeroes.
    pub(crate) fn page(&mut self) -> u64 {
        self.free += 0x1000;
        self.free - 0x1000
    }

    pub(crate) fn set_dte(&self, device: u32, Dte(word0, word1, word2): Dte) {
        self.memory.put(DEVICE_TABLE + 32 * u64::from(device), &[word0.into(), word1.into(), word2.into(), 0]);
    }

    /// Maps 2^`log2` bytes at `gpa` in a host table of `levels`; a size between two levels' is repeated as hardware
    /// wants it.
    pub(crate) fn map_host(&mut self, root: u64, levels: u8, gpa: u64, pa: u64, log2: u8, permissions: u8) {
        let leaf_level = (log2 - 12) / 9 + 1;
        let span = span_log2(leaf_level);
        let (mut table, mut level) = (root, levels);
        while level > leaf_level {
            let at = table + 8 * (gpa >> span_log2(level) & 0x1ff);
            if self.memory.get(at) == 0 {
                let next = self.page();
                let entry = HostPte::new().with_pr(true).with_ir(true).with_iw(true).with_next_level(level - 1);
                self.memory.put(at, &[entry.with_address(next >> 12).into()]);
            }
            table = HostPte::from(self.memory.get(at)).pointer();
            level -= 1;
        }
        let entry = HostPte::new().with_pr(true).with_ir(permissions & 1 != 0).with_iw(permissions & 2 != 0);
        let entry = match log2 == span {
            true => entry.with_address(pa >> 12),
            false => entry.with_next_level(HostPte::SIZED_PAGE).with_address(size::encode(pa, log2) >> 12),
        };
        for index in 0..1u64 << (log2 - span) {
            self.memory.put(table + 8 * ((gpa >> span & 0x1ff) + index), &[entry.into()]);
        }
    }

    /// Maps a page of `log2` (12, 21, 30) in a guest's tables.
    pub(crate) fn map_guest(&mut self, tables: GuestTables, iova: u64, gpa: u64, log2: u8, writable: bool) {
        let GuestTables { root, levels, shift } = tables;
        let (mut table, mut level) = (root - shift, levels);
        while span_log2(level) > log2 {
            let at = table + 8 * (iova >> span_log2(level) & 0x1ff);
            if self.memory.get(at) == 0 {
                let next = self.page() + shift;
                let entry = GuestPte::new().with_p(true).with_us(true).with_rw(true).with_address(next >> 12);
                self.memory.put(at, &[entry.into()]);
            }
            table = GuestPte::from(self.memory.get(at)).pointer() - shift;
            level -= 1;
        }
        let entry = GuestPte::new().with_p(true).with_us(true).with_rw(writable).with_address(gpa >> 12);
        self.memory.put(table + 8 * (iova >> log2 & 0x1ff), &[entry.with_ps(level > 1).into()]);
    }

    /// Puts `root` into a GCR3 table of GLX `glx`, whose tables are at GPA = PA + `shift`.
    pub(crate) fn set_gcr3(&mut self, gcr3: u64, glx: u8, pasid: u32, root: u64, shift: u64) {
        let mut table = gcr3 - shift;
        for level in (1..=glx).rev() {
            let at = table + 8 * (u64::from(pasid) >> (9 * level) & 0x1ff);
            if self.memory.get(at) == 0 {
                let next = self.page() + shift;
                self.memory.put(at, &[Gcr3Entry::new().with_v(true).with_address(next >> 12).into()]);
            }
            table = Gcr3Entry::from(self.memory.get(at)).pointer() - shift;
        }
        let entry = Gcr3Entry::new().with_v(true).with_address(root >> 12);
        self.memory.put(table + 8 * u64::from(pasid & 0x1ff), &[entry.into()]);
    }

    /// Puts commands into the buffer and rings the doorbell.
    pub(crate) fn place(&mut self, commands: &[[u64; 2]]) {
        for command in commands {
            self.memory.put(COMMANDS + self.tail, command);
            self.tail = (self.tail + 16) & ((16 << RING_LOG2) - 1);
        }
        self.write(offset::COMMAND_TAIL, self.tail);
    }
    /// [`Self::place`], and lets the IOMMU run; how many commands it consumed.
    pub(crate) fn submit(&mut self, commands: &[[u64; 2]]) -> u32 {
        self.place(commands);
        self.iommu.step(1000)
    }

    pub(crate) fn ask(&mut self, request: Request) -> Answer {
        let mut answers = [Answer::default()];
        assert_eq!(self.iommu.translate(&[request], &mut answers), 1);
        answers[0]
    }
    /// A DMA without PASID.
    pub(crate) fn dma(&mut self, stream: u32, iova: u64, access: u32) -> Answer {
        self.ask(Request { stream, pasid: NO_PASID, iova, access, flags: 0 })
    }
    pub(crate) fn dma_pasid(&mut self, stream: u32, pasid: u32, iova: u64, access: u32) -> Answer {
        self.ask(Request { stream, pasid, iova, access, flags: 0 })
    }
    pub(crate) fn explain(&mut self, stream: u32, pasid: u32, iova: u64) -> String {
        let mut text = Message::default();
        self.iommu.explain(&Request { stream, pasid, iova, access: 0, flags: 0 }, &mut text);
        text.text().to_owned()
    }

    /// Interrupts ever, all of them on the one line that there is.
    pub(crate) fn irqs(&self) -> usize {
        let lines = self.memory.irqs();
        assert!(lines.iter().all(|line| *line == 0), "{lines:?}");
        lines.len()
    }

    /// The event log's entries that software has not taken.
    pub(crate) fn events(&mut self) -> Vec<(EventWord0, u64)> {
        let (head, tail) = (self.read(offset::EVENT_HEAD), self.read(offset::EVENT_TAIL));
        let distance = (tail.wrapping_sub(head) & ((16 << RING_LOG2) - 1)) / 16;
        let at = |n: u64| EVENTS + ((head + 16 * n) & ((16 << RING_LOG2) - 1));
        (0..distance).map(|n| (self.memory.get(at(n)).into(), self.memory.get(at(n) + 8))).collect()
    }
}

pub(crate) fn wait() -> [u64; 2] {
    CompletionWait::new().with_opcode(Opcode::COMPLETION_WAIT.0).words()
}
pub(crate) fn wait_storing(address: u64, data: u64) -> [u64; 2] {
    CompletionWait::from_words(wait()).with_s(true).with_store_address(address).with_data(data).words()
}
pub(crate) fn devtab(device: u16) -> [u64; 2] {
    InvalidateDevice::new().with_opcode(Opcode::INVALIDATE_DEVTAB_ENTRY.0).with_device_id(device).words()
}
pub(crate) fn all() -> [u64; 2] {
    InvalidateIommuAll::new().with_opcode(Opcode::INVALIDATE_IOMMU_ALL.0).words()
}
/// Host addresses of a domain.
pub(crate) fn pages(domain: u16, address: u64, log2: u8) -> [u64; 2] {
    let (s, field) = encode_span(address, log2);
    InvalidateIommuPages::new()
        .with_opcode(Opcode::INVALIDATE_IOMMU_PAGES.0)
        .with_domain_id(domain)
        .with_s(s)
        .with_address(field)
        .words()
}
/// Guest addresses of a PASID.
pub(crate) fn guest_pages(domain: u16, pasid: u32, address: u64, log2: u8) -> [u64; 2] {
    InvalidateIommuPages::from_words(pages(domain, address, log2)).with_gn(true).with_pasid(pasid).words()
}
/// A device's own cache; `pasid` or [`NO_PASID`].
pub(crate) fn iotlb(device: u16, pasid: u32, address: u64, log2: u8) -> [u64; 2] {
    let (s, field) = encode_span(address, log2);
    let command = InvalidateIotlbPages::new()
        .with_opcode(Opcode::INVALIDATE_IOTLB_PAGES.0)
        .with_device_id(device)
        .with_queue_id(device)
        .with_s(s)
        .with_address(field);
    match pasid {
        NO_PASID => command.words(),
        pasid => command.with_gn(true).with_pasid(pasid as u16).words(),
    }
}
