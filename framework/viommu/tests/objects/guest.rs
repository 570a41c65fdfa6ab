//! A small Arm guest: a command queue, a linear stream table and a context descriptor in its memory.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;
use viommu::Cause;
use viommu::blocking::Viommu;
use viommu::objects::ViommuConfig;
use viommu::vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Guest RAM.
pub(crate) const RAM: u64 = 0x4000_0000;
pub(crate) const RAM_SIZE: u64 = 0x20_0000;
const QUEUE: u64 = RAM;
const QUEUE_LOG2: u64 = 8;
const TABLE: u64 = RAM + 0x1_0000;
const TABLE_LOG2: u64 = 8;
/// Context descriptors with ASID 1 and 2.
pub(crate) const CD_1: u64 = RAM + 0x2_0000;
pub(crate) const CD_2: u64 = RAM + 0x2_0040;
const STAGE_1: u64 = RAM + 0x2_1000;

// Registers, IHI 0070 6.3.
const CR0: u64 = 0x20;
const GBPA: u64 = 0x44;
const GERROR: u64 = 0x60;
const GERRORN: u64 = 0x64;
const STRTAB_BASE: u64 = 0x80;
const STRTAB_BASE_CFG: u64 = 0x88;
const CMDQ_BASE: u64 = 0x90;
const CMDQ_PROD: u64 = 0x98;
const CMDQ_CONS: u64 = 0x9c;
const CMDQEN: u64 = 8;

/// STE.Config with V set: abort, bypass, stage 1.
pub(crate) const STE_ABORT: u64 = 1;
pub(crate) const STE_BYPASS: u64 = 1 | 4 << 1;
pub(crate) const STE_STAGE_1: u64 = 1 | 5 << 1;
/// CMD_SYNC, CS = SEV.
pub(crate) const SYNC: [u64; 2] = [0x46 | 2 << 12, 0];

pub(crate) struct Guest {
    viommu: Viommu,
    memory: Arc<GuestMemoryMmap>,
    producer: Cell<u64>,
}

/// Guest RAM with its context descriptors and a stage 1 that maps 1 GiB from IOVA 0 to [`RAM`].
pub(crate) fn memory() -> Arc<GuestMemoryMmap> {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(RAM), RAM_SIZE as usize)]).unwrap();
    let word = |gpa, value: u64| memory.write_obj(value.to_le(), GuestAddress(gpa)).unwrap();
    for (cd, asid) in [(CD_1, 1u64), (CD_2, 2)] {
        // T0SZ 25, EPD1, V, IPS 44 bits, AA64, R, A, ASID.
        word(cd, 25 | 1 << 30 | 1 << 31 | 4 << 32 | 1 << 41 | 1 << 45 | 1 << 46 | asid << 48);
        word(cd + 8, STAGE_1);
    }
    // A level-1 block, EL0 may read and write, accessed, not global.
    word(STAGE_1, RAM | 1 << 11 | 1 << 10 | 1 << 6 | 1);
    Arc::new(memory)
}

pub(crate) fn config(memory: &Arc<GuestMemoryMmap>) -> ViommuConfig {
    ViommuConfig::new(Vec::new(), memory.clone())
}

impl Guest {
    /// Brings its IOMMU up: queue and table on, translation off.
    pub(crate) fn new(viommu: &Viommu, memory: &Arc<GuestMemoryMmap>) -> Self {
        let guest = Self { viommu: viommu.clone(), memory: memory.clone(), producer: Cell::new(0) };
        guest.write(STRTAB_BASE, 8, TABLE);
        guest.write(STRTAB_BASE_CFG, 4, TABLE_LOG2);
        guest.write(CMDQ_BASE, 8, QUEUE | QUEUE_LOG2);
        guest.write(CR0, 4, CMDQEN);
        guest
    }

    /// A guest that is up already and has sent `producer` commands.
    pub(crate) fn of(viommu: &Viommu, memory: &Arc<GuestMemoryMmap>, producer: u64) -> Self {
        Self { viommu: viommu.clone(), memory: memory.clone(), producer: Cell::new(producer) }
    }

    /// A guest hears nothing of its IOMMU's being out of service: it goes on writing.
    pub(crate) fn write(&self, offset: u64, size: u32, value: u64) {
        match self.viommu.mmio_write(offset, size, value) {
            Ok(()) => {}
            Err(error) => assert!(matches!(error.cause, Cause::Quarantined(_)), "{error}"),
        }
    }

    pub(crate) fn enable(&self) {
        self.write(CR0, 4, CMDQEN | 1);
    }

    pub(crate) fn disable(&self) {
        self.write(CR0, 4, CMDQEN);
    }

    /// GBPA.ABORT: what DMA does while translation is off.
    pub(crate) fn abort_while_off(&self, abort: bool) {
        self.write(GBPA, 4, 1 << 31 | u64::from(abort) << 20);
    }

    /// Writes an STE, as a guest does before it announces it.
    pub(crate) fn store_ste(&self, stream: u64, word0: u64) {
        self.memory.write_obj(word0.to_le(), GuestAddress(TABLE + 64 * stream)).unwrap();
        // S1DSS = 2, EATS = 0.
        self.memory.write_obj(2u64.to_le(), GuestAddress(TABLE + 64 * stream + 8)).unwrap();
    }

    /// Writes an STE and announces it; returns when the guest's queue has taken the commands, or stopped.
    pub(crate) fn set_ste(&self, stream: u64, word0: u64) {
        self.store_ste(stream, word0);
        self.send(&[[3 | stream << 32, 1], SYNC]);
    }

    /// Returns when the guest's queue has taken the commands, or stopped.
    pub(crate) fn send(&self, commands: &[[u64; 2]]) {
        self.post(commands);
        assert!(self.viommu.pipeline().wait_settled(Duration::from_secs(20)), "the guest's queue does not settle");
    }

    /// Rings the doorbell, and no more.
    pub(crate) fn post(&self, commands: &[[u64; 2]]) {
        for command in commands {
            let slot = self.producer.get() & ((1 << QUEUE_LOG2) - 1);
            for (at, word) in (0..).zip(command) {
                self.memory.write_obj(word.to_le(), GuestAddress(QUEUE + 16 * slot + 8 * at)).unwrap();
            }
            self.producer.set((self.producer.get() + 1) & ((2 << QUEUE_LOG2) - 1));
        }
        self.write(CMDQ_PROD, 4, self.producer.get());
    }

    /// Whether everything was taken, and no error shows.
    pub(crate) fn all_taken(&self) -> bool {
        // CMDQ_CONS.ERR keeps the last error.
        !self.stopped() && self.viommu.mmio_read(CMDQ_CONS, 4).unwrap() & 0xf_ffff == self.producer.get()
    }

    /// Replaces the command at CONS, as a driver does with one that is illegal.
    #[allow(dead_code)] // for one of the test programs
    pub(crate) fn replace_head(&self, command: [u64; 2]) {
        let head = self.viommu.mmio_read(CMDQ_CONS, 4).unwrap() & ((1 << QUEUE_LOG2) - 1);
        for (at, word) in (0..).zip(command) {
            self.memory.write_obj(word.to_le(), GuestAddress(QUEUE + 16 * head + 8 * at)).unwrap();
        }
    }

    /// Acknowledges a command queue error and sends the command at the head again.
    pub(crate) fn acknowledge(&self) {
        let error = self.viommu.mmio_read(GERROR, 4).unwrap();
        self.write(GERRORN, 4, error);
        assert!(self.viommu.pipeline().wait_settled(Duration::from_secs(20)), "the guest's queue does not settle");
    }

    /// Whether the command queue shows an error.
    pub(crate) fn stopped(&self) -> bool {
        let read = |offset| self.viommu.mmio_read(offset, 4).unwrap();
        (read(GERROR) ^ read(GERRORN)) & 1 != 0
    }
}
