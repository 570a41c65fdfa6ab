//! A machine with one unit: sparse memory, root, context and PASID tables, an invalidation queue, tables on demand.

use intel_vtd::model::RemappingUnit;
use intel_vtd::spec::context::{LegacyContext0, LegacyContext1, RootEntry, ScalableContext0, ScalableContext1};
use intel_vtd::spec::pasid::{DirectoryEntry, PasidEntry0, PasidEntry1, PasidEntry2, TranslationKind};
use intel_vtd::spec::registers::{Cap, Ecap, Global, TableMode, offset};
use viommu_plugin::{Answer, Message, Model, ModelConfig, Register, Request};
use viommu_plugin_check::bench::SparseMemory;

/// Memory ends here: addresses beyond it abort.
pub(crate) const MEMORY_END: u64 = 1 << 48;
pub(crate) const ROOT: u64 = 0x10_0000;
pub(crate) const QUEUE: u64 = 0x20_0000;
/// Where a wait descriptor's status goes.
pub(crate) const STATUS: u64 = 0x30_0000;
/// Context tables of bus 0: lower half, upper half.
pub(crate) const CONTEXTS: u64 = 0x40_0000;
/// PASID directories, one of 128 entries and one table a device.
pub(crate) const DIRECTORIES: u64 = 0x50_0000;
const TABLES: u64 = 0x1000_0000;
pub(crate) const NO_PASID: u32 = u32::MAX;
pub(crate) const FROM_TLB: u32 = 1;
pub(crate) const FROM_ATC: u32 = 2;

/// What the unit reaches.
pub(crate) type Memory = SparseMemory;

/// Bits of the entries above a leaf, and of a leaf that allows everything: P, R/W, U/S.
pub(crate) const FS_RW: u64 = 7;
pub(crate) const FS_RO: u64 = 5;
/// R, W.
pub(crate) const SS_RW: u64 = 3;
pub(crate) const SS_RO: u64 = 1;
/// PS.
pub(crate) const LARGE: u64 = 1 << 7;

/// A page table that grows as it is mapped into.
pub(crate) struct Tables {
    pub(crate) root: u64,
    pub(crate) levels: u8,
    /// Bits of entries that lead to tables.
    pub(crate) upper: u64,
    /// Where table memory is, seen from the addresses in the tables.
    pub(crate) shift: u64,
    /// Where the next table goes.
    pub(crate) next: u64,
}

impl Tables {
    pub(crate) fn span(level: u8) -> u32 {
        12 + 9 * (u32::from(level) - 1)
    }
    /// Address of the entry of `input` at `level`; tables above it are made.
    pub(crate) fn entry(&mut self, memory: &Memory, input: u64, level: u8) -> u64 {
        let mut base = self.root;
        for upper in (level + 1..=self.levels).rev() {
            let address = base + 8 * (input >> Self::span(upper) & 0x1ff);
            if memory.get(address + self.shift) == 0 {
                memory.put(address + self.shift, &[self.next | self.upper]);
                self.next += 0x1000;
            }
            base = memory.get(address + self.shift) & 0x000f_ffff_ffff_f000;
        }
        base + 8 * (input >> Self::span(level) & 0x1ff)
    }
    /// Maps what an entry of `level` spans; `bits` are the entry's other bits.
    pub(crate) fn map(&mut self, memory: &Memory, input: u64, output: u64, level: u8, bits: u64) {
        let address = self.entry(memory, input, level);
        memory.put(address + self.shift, &[output | bits | if level > 1 { LARGE } else { 0 }]);
    }
}

pub(crate) struct Machine {
    pub(crate) unit: RemappingUnit,
    pub(crate) memory: Memory,
    next_table: u64,
    tail: u32,
    pub(crate) wide: bool,
}

/// CAP and ECAP with the model's own values, changed.
pub(crate) fn identity(change: impl Fn(Cap, Ecap) -> (Cap, Ecap)) -> [Register; 2] {
    let mut unit = RemappingUnit::new(Box::new(Memory::new(MEMORY_END)), ModelConfig::default()).unwrap();
    let (cap, ecap) = (unit.mmio_read(offset::CAP, 8), unit.mmio_read(offset::ECAP, 8));
    let (cap, ecap) = change(cap.into(), ecap.into());
    [Register { offset: offset::CAP, value: cap.into() }, Register { offset: offset::ECAP, value: ecap.into() }]
}

impl Machine {
    /// Scalable mode, on, with an empty context table for bus 0.
    pub(crate) fn new() -> Self {
        Self::with(&[], false, 0)
    }
    pub(crate) fn with(registers: &[Register], atc: bool, tlb_capacity: u32) -> Self {
        let mut machine = Self::off(registers, atc, tlb_capacity);
        machine.enable(TableMode::SCALABLE);
        machine
    }
    pub(crate) fn legacy(registers: &[Register], atc: bool) -> Self {
        let mut machine = Self::off(registers, atc, 0);
        machine.enable(TableMode::LEGACY);
        machine
    }
    pub(crate) fn off(registers: &[Register], atc: bool, tlb_capacity: u32) -> Self {
        let memory = Memory::new(MEMORY_END);
        let config = ModelConfig { registers, atc, tlb_capacity };
        let unit = RemappingUnit::new(Box::new(memory.clone()), config).unwrap();
        Self { unit, memory, next_table: TABLES, tail: 0, wide: true }
    }
    /// Table mode, root table, queue (of one page), then translation.
    pub(crate) fn enable(&mut self, mode: TableMode) {
        let root = RootEntry::new().with_present(true);
        let table = |page: u64| u64::from(root.with_context_table((CONTEXTS >> 12) + page));
        let scalable = mode == TableMode::SCALABLE;
        self.memory.put(ROOT, &[table(0), if scalable { table(1) } else { 0 }]);
        self.wide = scalable;
        self.write(offset::IQA, 8, QUEUE | u64::from(scalable) << 11);
        self.command(Global::new().with_queued_invalidation(true));
        self.set_root(mode);
        self.command(Global::new().with_queued_invalidation(true).with_translation(true));
    }
    pub(crate) fn set_root(&mut self, mode: TableMode) {
        self.write(offset::RTADDR, 8, ROOT | u64::from(mode.0) << 10);
        let on = Global::from(self.read(offset::GSTS));
        self.command(on.with_root_table(true));
    }
    pub(crate) fn command(&mut self, command: Global) {
        self.write(offset::GCMD, 4, u32::from(command).into());
    }
    pub(crate) fn write(&mut self, at: u64, size: u32, value: u64) {
        self.unit.mmio_write(at, size, value);
    }
    pub(crate) fn read(&mut self, at: u64) -> u32 {
        self.unit.mmio_read(at, 4) as u32
    }

    /// Memory for tables, 1 MiB each, so that no two tables touch.
    pub(crate) fn first_stage(&mut self, levels: u8) -> Tables {
        self.tables(levels, FS_RW)
    }
    pub(crate) fn second_stage(&mut self, levels: u8) -> Tables {
        self.tables(levels, SS_RW)
    }
    fn tables(&mut self, levels: u8, upper: u64) -> Tables {
        let root = self.next_table;
        self.next_table += 0x10_0000;
        Tables { root, levels, upper, shift: 0, next: root + 0x1000 }
    }

    /// Puts a descriptor on the ring without executing it.
    pub(crate) fn post(&mut self, words: [u64; 2]) {
        let log2 = if self.wide { 5 } else { 4 };
        self.memory.put(QUEUE + u64::from(self.tail), &words);
        if self.wide {
            self.memory.put(QUEUE + u64::from(self.tail) + 16, &[0, 0]);
        }
        self.tail = (self.tail + (1 << log2)) & 0xfff;
        self.write(offset::IQT, 4, self.tail.into());
    }
    /// Executes a descriptor, which must be accepted.
    pub(crate) fn invalidate(&mut self, words: [u64; 2]) {
        self.post(words);
        assert_eq!(self.unit.step(10), 1, "descriptor {words:x?}: FSTS {:#x}", self.read(offset::FSTS));
        assert_eq!(self.read(offset::IQH), self.tail);
    }

    /// Address of the context entry of device `stream` of bus 0.
    pub(crate) fn context_at(&self, stream: u32) -> u64 {
        CONTEXTS + if self.wide { u64::from(stream) * 32 } else { u64::from(stream) * 16 }
    }
    /// A scalable-mode context entry for `stream`, with PASIDs and (`ats`) device-TLB, and a directory of 128 entries
    /// whose first table is the page after it.
    pub(crate) fn put_context(&self, stream: u32, ats: bool) {
        let directory = directory_of(stream);
        let word0 = ScalableContext0::new().with_present(true).with_device_tlb_enable(ats).with_pasid_enable(true);
        let words = [word0.with_directory(directory >> 12).into(), ScalableContext1::new().into(), 0, 0];
        self.memory.put(self.context_at(stream), &words);
        let entry = DirectoryEntry::new().with_present(true).with_table((directory >> 12) + 1);
        self.memory.put(directory, &[entry.into()]);
    }
    /// A PASID table entry below 64 of `stream`.
    pub(crate) fn put_pasid(&self, stream: u32, pasid: u32, words: [u64; 3]) {
        self.memory.put(pasid_at(stream, pasid), &words);
    }
    /// A device whose requests without PASID have what `words` say.
    pub(crate) fn device(&self, stream: u32, words: [u64; 3]) {
        self.put_context(stream, true);
        self.put_pasid(stream, 0, words);
    }

    pub(crate) fn ask(&mut self, stream: u32, iova: u64) -> Answer {
        self.access(stream, iova, 0)
    }
    pub(crate) fn access(&mut self, stream: u32, iova: u64, access: u32) -> Answer {
        self.request(Request { stream, pasid: NO_PASID, iova, access, flags: 0 })
    }
    pub(crate) fn request(&mut self, request: Request) -> Answer {
        let mut answers = [Answer::default()];
        assert_eq!(self.unit.translate(&[request], &mut answers), 1);
        answers[0]
    }
    pub(crate) fn explain(&mut self, stream: u32, iova: u64) -> String {
        let mut text = Message::default();
        self.unit.explain(&Request { stream, pasid: NO_PASID, iova, access: 0, flags: 0 }, &mut text);
        text.text()
    }
}

pub(crate) fn directory_of(stream: u32) -> u64 {
    DIRECTORIES + u64::from(stream) * 0x2000
}
pub(crate) fn pasid_at(stream: u32, pasid: u32) -> u64 {
    directory_of(stream) + 0x1000 + 64 * u64::from(pasid)
}

/// PASID table entries of each kind.
pub(crate) fn first(domain: u16, tables: &Tables) -> [u64; 3] {
    pasid_entry(TranslationKind::FIRST_STAGE, domain, Some(tables), None)
}
pub(crate) fn second(domain: u16, tables: &Tables) -> [u64; 3] {
    pasid_entry(TranslationKind::SECOND_STAGE, domain, None, Some(tables))
}
pub(crate) fn nested(domain: u16, first: &Tables, second: &Tables) -> [u64; 3] {
    pasid_entry(TranslationKind::NESTED, domain, Some(first), Some(second))
}
pub(crate) fn pasid_entry(
    kind: TranslationKind,
    domain: u16,
    first: Option<&Tables>,
    second: Option<&Tables>,
) -> [u64; 3] {
    let mut words = (
        PasidEntry0::new().with_present(true).with_translation_kind(kind.0),
        PasidEntry1::new().with_domain_id(domain),
        PasidEntry2::new(),
    );
    if let Some(tables) = second {
        words.0 = words.0.with_address_width(tables.levels - 2).with_second_stage_table(tables.root >> 12);
    }
    if let Some(tables) = first {
        words.2 = words.2.with_paging_mode(tables.levels - 4).with_first_stage_table(tables.root >> 12);
    }
    [words.0.into(), words.1.into(), words.2.into()]
}

/// A legacy context entry.
pub(crate) fn legacy_entry(domain: u16, translation_type: u8, tables: &Tables) -> [u64; 2] {
    let word0 = LegacyContext0::new().with_present(true).with_translation_type(translation_type);
    let word1 = LegacyContext1::new().with_address_width(tables.levels - 2).with_domain_id(domain);
    [word0.with_second_stage_table(tables.root >> 12).into(), word1.into()]
}
