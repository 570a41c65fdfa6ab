//! A machine with one SMMU: sparse memory, a stream table, a command and an event queue, tables built on demand.

use arm_smmuv3::model::Smmu;
use arm_smmuv3::spec::cd::{CdTtb, CdWord0};
use arm_smmuv3::spec::commands::Opcode;
use arm_smmuv3::spec::registers::offset;
use arm_smmuv3::spec::ste::{Config, SteWord0, SteWord1, SteWord2, SteWord3};
use viommu_plugin::{Answer, Message, Model, ModelConfig, Register, Request};
use viommu_plugin_check::bench::SparseMemory;

/// Memory ends here: addresses beyond it abort.
pub(crate) const MEMORY_END: u64 = 1 << 40;
pub(crate) const STREAM_TABLE: u64 = 0x10_0000;
pub(crate) const COMMANDS: u64 = 0x20_0000;
pub(crate) const EVENTS: u64 = 0x30_0000;
/// log2 of both queues' entries.
pub(crate) const QUEUE_LOG2: u32 = 4;
const TABLES: u64 = 0x1000_0000;
pub(crate) const NO_PASID: u32 = u32::MAX;

/// What the SMMU reaches.
pub(crate) type Memory = SparseMemory;

/// A translation table that grows as it is mapped into.
pub(crate) struct Tables {
    pub(crate) root: u64,
    pub(crate) granule: u8,
    pub(crate) level: u8,
    pub(crate) input_bits: u8,
    /// Where table memory is, seen from the addresses in the tables.
    pub(crate) shift: u64,
    next: u64,
}

impl Tables {
    /// An empty table whose memory starts at address `root`.
    pub(crate) fn new(root: u64, granule: u8, level: u8, input_bits: u8) -> Self {
        Self { root, granule, level, input_bits, shift: 0, next: root + 0x10_0000 }
    }
    pub(crate) fn span(&self, level: u8) -> u8 {
        self.granule + (self.granule - 3) * (3 - level)
    }
    /// Maps 2^`span(level)` bytes; `attributes` are the descriptor's other bits.
    pub(crate) fn map(&mut self, memory: &Memory, input: u64, output: u64, level: u8, attributes: u64) {
        let address = self.descriptor(memory, input, level);
        memory.put(address + self.shift, &[output | attributes | if level == 3 { 3 } else { 1 }]);
    }
    /// Address of the descriptor of `input` at `level`; tables above it are made.
    pub(crate) fn descriptor(&mut self, memory: &Memory, input: u64, level: u8) -> u64 {
        let (mut base, mut bits) = (self.root, self.input_bits - self.span(self.level));
        for upper in self.level..level {
            let address = base + 8 * (input >> self.span(upper) & ((1 << bits) - 1));
            if memory.get(address + self.shift) & 1 == 0 {
                self.next = (self.next + (1 << self.granule) - 1) & !((1 << self.granule) - 1);
                memory.put(address + self.shift, &[self.next | 3]);
                self.next += 1 << self.granule;
            }
            base = memory.get(address + self.shift) & 0x0000_ffff_ffff_f000;
            bits = self.granule - 3;
        }
        base + 8 * (input >> self.span(level) & ((1 << bits) - 1))
    }
}

/// Stage-1 page attributes: access flag, unprivileged, writable, non-global.
pub(crate) const S1_RW: u64 = 1 << 10 | 1 << 6 | 1 << 11;
pub(crate) const S1_RO: u64 = S1_RW | 1 << 7;
pub(crate) const S1_GLOBAL: u64 = 1 << 10 | 1 << 6;
/// Stage-2 page attributes.
pub(crate) const S2_RW: u64 = 1 << 10 | 3 << 6;
pub(crate) const S2_RO: u64 = 1 << 10 | 1 << 6;

/// TG0 and S2TG code of a granule.
pub(crate) fn tg(granule: u8) -> u8 {
    match granule {
        12 => 0,
        16 => 1,
        _ => 2,
    }
}

pub(crate) struct Machine {
    pub(crate) smmu: Smmu,
    pub(crate) memory: Memory,
    next_table: u64,
    prod: u32,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self::with(&[], false, 0)
    }

    /// A machine whose SMMU is enabled, with an empty linear stream table of 256 entries.
    pub(crate) fn with(registers: &[Register], atc: bool, tlb_capacity: u32) -> Self {
        let mut machine = Self::off(registers, atc, tlb_capacity);
        machine.enable();
        machine
    }

    pub(crate) fn off(registers: &[Register], atc: bool, tlb_capacity: u32) -> Self {
        let memory = Memory::new(MEMORY_END);
        let config = ModelConfig { registers, atc, tlb_capacity };
        let smmu = Smmu::new(Box::new(memory.clone()), config).unwrap();
        Self { smmu, memory, next_table: TABLES, prod: 0 }
    }

    pub(crate) fn enable(&mut self) {
        self.write(offset::STRTAB_BASE, 8, STREAM_TABLE);
        self.write(offset::STRTAB_BASE_CFG, 4, 8);
        self.write(offset::CMDQ_BASE, 8, COMMANDS | u64::from(QUEUE_LOG2));
        self.write(offset::EVENTQ_BASE, 8, EVENTS | u64::from(QUEUE_LOG2));
        self.write(offset::CR2, 4, 2);
        self.write(offset::IRQ_CTRL, 4, 7);
        self.write(offset::CR0, 4, 0b1101);
    }

    pub(crate) fn write(&mut self, at: u64, size: u32, value: u64) {
        self.smmu.mmio_write(at, size, value);
    }
    pub(crate) fn read(&mut self, at: u64) -> u32 {
        self.smmu.mmio_read(at, 4) as u32
    }

    /// Memory for tables, 4 MiB each, so that no two tests' tables touch.
    pub(crate) fn tables(&mut self, granule: u8, level: u8, input_bits: u8) -> Tables {
        let root = self.next_table;
        self.next_table += 0x40_0000;
        Tables::new(root, granule, level, input_bits)
    }

    /// Puts a command on the ring without executing it.
    pub(crate) fn post(&mut self, words: [u64; 2]) {
        let slot = u64::from(self.prod & ((1 << QUEUE_LOG2) - 1));
        self.memory.put(COMMANDS + 16 * slot, &words);
        self.prod = (self.prod + 1) & ((2 << QUEUE_LOG2) - 1);
        self.write(offset::CMDQ_PROD, 4, self.prod.into());
    }

    /// Executes a command, which must be accepted.
    pub(crate) fn command(&mut self, words: [u64; 2]) {
        self.post(words);
        assert_eq!(self.smmu.step(10), 1, "command {words:x?}");
        assert_eq!(self.read(offset::CMDQ_CONS), self.prod);
    }

    pub(crate) fn put_ste(&self, stream: u32, words: [u64; 4]) {
        self.memory.put(STREAM_TABLE + 64 * u64::from(stream), &words);
    }

    /// An STE for stage 1 with one CD at `cd`.
    pub(crate) fn ste_stage1(&self, stream: u32, vmid: u16, cd: u64) {
        let word0 = SteWord0::new().with_v(true).with_config(Config::S1_TRANSLATE.0).with_s1_context_ptr(cd >> 6);
        self.put_ste(stream, [word0.into(), 0, vmid.into(), 0]);
    }

    /// An STE for stage 2 alone, or with stage 1 and one CD at IPA `cd`.
    pub(crate) fn ste_stage2(&self, stream: u32, vmid: u16, tables: &Tables, cd: Option<u64>) {
        let config = if cd.is_some() { Config::NESTED } else { Config::S2_TRANSLATE };
        let word0 = SteWord0::new().with_v(true).with_config(config.0).with_s1_context_ptr(cd.unwrap_or(0) >> 6);
        self.put_ste(stream, [word0.into(), 0, stage2_word(vmid, tables).into(), stage2_table(tables)]);
    }

    /// A CD at physical address `at`.
    pub(crate) fn put_cd(&self, at: u64, asid: u16, tables: &Tables) {
        let word1 = CdTtb::new().with_ttb(tables.root >> 4);
        self.memory.put(at, &[cd_word(asid, tables).into(), word1.into(), 0]);
    }

    pub(crate) fn ask(&mut self, stream: u32, iova: u64) -> Answer {
        self.request(Request { stream, pasid: NO_PASID, iova, access: 0, flags: 0 })
    }
    pub(crate) fn access(&mut self, stream: u32, iova: u64, access: u32) -> Answer {
        self.request(Request { stream, pasid: NO_PASID, iova, access, flags: 0 })
    }
    pub(crate) fn request(&mut self, request: Request) -> Answer {
        let mut answers = [Answer::default()];
        assert_eq!(self.smmu.translate(&[request], &mut answers), 1);
        answers[0]
    }
    pub(crate) fn explain(&mut self, stream: u32, iova: u64) -> String {
        let mut text = Message::default();
        self.smmu.explain(&Request { stream, pasid: NO_PASID, iova, access: 0, flags: 0 }, &mut text);
        text.text()
    }

    /// The words of event record `index`.
    pub(crate) fn event(&self, index: u64) -> [u64; 4] {
        std::array::from_fn(|word| self.memory.get(EVENTS + 32 * index + 8 * word as u64))
    }
}

pub(crate) fn stage2_word(vmid: u16, tables: &Tables) -> SteWord2 {
    let sl0 = if tables.granule == 12 { 2 - tables.level } else { 3 - tables.level };
    SteWord2::new()
        .with_s2_vmid(vmid)
        .with_s2_t0sz(64 - tables.input_bits)
        .with_s2_sl0(sl0)
        .with_s2_tg(tg(tables.granule))
        .with_s2_ps(5)
        .with_s2_aa64(true)
        .with_s2_r(true)
}

pub(crate) fn stage2_table(tables: &Tables) -> u64 {
    SteWord3::new().with_s2_ttb(tables.root >> 4).into()
}

pub(crate) fn cd_word(asid: u16, tables: &Tables) -> CdWord0 {
    CdWord0::new()
        .with_v(true)
        .with_t0sz(64 - tables.input_bits)
        .with_tg0(tg(tables.granule))
        .with_epd1(true)
        .with_ips(5)
        .with_aa64(true)
        .with_r(true)
        .with_a(true)
        .with_asid(asid)
}

/// STE word 1 with these S1DSS and EATS.
pub(crate) fn ste_word1(dss: u8, eats: u8) -> u64 {
    SteWord1::new().with_s1_dss(dss).with_eats(eats).into()
}

pub(crate) fn sync() -> [u64; 2] {
    [u64::from(Opcode::SYNC.0), 0]
}
pub(crate) fn cfgi_ste(stream: u32) -> [u64; 2] {
    [u64::from(stream) << 32 | u64::from(Opcode::CFGI_STE.0), 1]
}
