//! One driver, two SMMUs: QEMU gets each register write that the model gets, and executes a command when the model has.

use super::{EVENTS, EVENTS_LOG2, Sabotage};
use crate::hardware::SCRATCH;
use crate::{QemuError, QemuHardware};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use viommu::backend::direct::{Hardware, InterruptHandler, ModelHardware, PhysicalMemory};

const CR0: u64 = 0x20;
const GERROR: u64 = 0x60;
const GERRORN: u64 = 0x64;
const CMDQ_BASE: u64 = 0x90;
const CMDQ_PROD: u64 = 0x98;
const CMDQ_CONS: u64 = 0x9c;
const EVENTQ_BASE: u64 = 0xa0;
pub(super) const EVENTQ_PROD: u64 = 0x100a8;
pub(super) const EVENTQ_CONS: u64 = 0x100ac;
const CMDQEN: u64 = 1 << 3;
/// Index with wrap bit in CMDQ_PROD and CMDQ_CONS, and GERROR.CMDQ_ERR.
const INDEX: u64 = 0xf_ffff;
const CMDQ_ERR: u64 = 1;

/// A command queue of our own, for a moment: everything forgotten.
const ASIDE: u64 = SCRATCH + 0x2000;
const ASIDE_LOG2: u64 = 3;
/// CFGI_ALL, TLBI_NSNH_ALL, CMD_SYNC.
const FORGET: [[u64; 2]; 3] = [[0x04, 31], [0x30, 0], [0x46, 0]];

/// The model as the driver's hardware, with QEMU behind it.
pub(super) struct Lockstep {
    qemu: Arc<QemuHardware>,
    model: Arc<ModelHardware>,
    sabotage: Option<Sabotage>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// CMDQ_PROD as QEMU has it.
    produced: u64,
    executed: u64,
    invalidations: u64,
    complaint: Option<String>,
}

impl Lockstep {
    pub(super) fn new(qemu: Arc<QemuHardware>, model: Arc<ModelHardware>, sabotage: Option<Sabotage>) -> Self {
        Self { qemu, model, sabotage, state: Mutex::default() }
    }

    pub(super) fn complaint(&self) -> Option<String> {
        self.state().complaint.take()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn complain(&self, of: Result<(), QemuError>) {
        if let Err(error) = of {
            self.state().complaint.get_or_insert(error.to_string());
        }
    }

    fn has_stopped(&self) -> bool {
        (self.model.mmio_read(GERROR, 4) ^ self.model.mmio_read(GERRORN, 4)) & CMDQ_ERR != 0
    }

    /// QEMU executes what the model has executed, and the command at which the model stopped.
    pub(super) fn keep_up(&self) {
        let consumed = self.model.mmio_read(CMDQ_CONS, 4);
        let stopped = self.has_stopped();
        let mask = (2 << (self.model.mmio_read(CMDQ_BASE, 8) & 0x1f)) - 1;
        let wanted = (consumed & INDEX).wrapping_add(stopped.into()) & mask;
        let mut state = self.state();
        if wanted == state.produced {
            return;
        }
        let before = std::mem::replace(&mut state.produced, wanted);
        let done = self.execute(&mut state, before, wanted);
        let compared = done.map(|qemu| {
            let (index, error) = (consumed & INDEX, stopped.then_some(consumed >> 24 & 0x7f));
            let theirs = ((qemu[1] ^ qemu[2]) & CMDQ_ERR != 0).then_some(qemu[0] >> 24 & 0x7f);
            if (qemu[0] & INDEX, theirs) != (index, error) {
                let command = self.command(consumed);
                let what = format!(
                    "at command {command:#x?}: the model is at {index:#x} with error {error:?}, QEMU at {:#x} with {theirs:?}",
                    qemu[0] & INDEX
                );
                state.complaint.get_or_insert(what);
            }
        });
        drop(state);
        self.complain(compared);
    }

    /// CMDQ_CONS, GERROR, GERRORN of QEMU behind the commands.
    fn execute(&self, state: &mut State, from: u64, to: u64) -> Result<Vec<u64>, QemuError> {
        let first = self.command(from);
        let opcode = first.map_or(0, |[word, _]| word & 0xff);
        let translations = matches!(opcode, 0x10..=0x13 | 0x2a | 0x28);
        state.invalidations += u64::from(translations);
        state.executed += 1;
        let skipped = self.sabotage == Some(Sabotage::SkipDoorbell) && state.executed.is_multiple_of(100);
        let lost = match self.sabotage {
            Some(Sabotage::DropInvalidation) => translations && state.invalidations.is_multiple_of(3),
            Some(Sabotage::DropConfiguration) => matches!(opcode, 0x03..=0x06),
            _ => false,
        };
        let cr0 = self.model.mmio_read(CR0, 4);
        let mut accesses = Vec::new();
        if lost {
            // As if it had been executed.
            let jump = [(CR0, cr0 & !CMDQEN), (CMDQ_PROD, to), (CMDQ_CONS, to), (CR0, cr0)];
            accesses.extend(jump.map(|(at, value)| (at, 4, Some(value))));
        } else if !skipped {
            accesses.push((CMDQ_PROD, 4, Some(to)));
        }
        let reads = accesses.len();
        accesses.extend([CMDQ_CONS, GERROR, GERRORN].map(|at| (at, 4, None)));
        self.qemu.registers(&accesses).map(|values| values[reads..].to_vec())
    }

    /// The command at an index of the ring.
    fn command(&self, index: u64) -> Option<[u64; 2]> {
        let base = self.model.mmio_read(CMDQ_BASE, 8);
        let slot = index & ((1 << (base & 0x1f)) - 1);
        let at = (base & 0x000f_ffff_ffff_ffe0) + 16 * slot;
        let word = |at| self.model.memory().load(at).ok();
        Some([word(at)?, word(at + 8)?])
    }

    /// QEMU forgets everything, by commands that nobody else sees. `false` if its queue takes none now.
    pub(super) fn forget_all(&self) -> Result<bool, QemuError> {
        let cr0 = self.model.mmio_read(CR0, 4);
        if cr0 & CMDQEN == 0 || self.has_stopped() {
            return Ok(false);
        }
        for (at, word) in (ASIDE..).step_by(8).zip(FORGET.concat()) {
            let stored = self.qemu.memory().store(at, word);
            stored.map_err(|_| QemuError::Start("the queue aside is no memory".into()))?;
        }
        let base = self.model.mmio_read(CMDQ_BASE, 8);
        let produced = self.state().produced;
        let count = FORGET.len() as u64;
        let write = |at, value| (at, if at == CMDQ_BASE { 8 } else { 4 }, Some(value));
        let values = self.qemu.registers(&[
            write(CR0, cr0 & !CMDQEN),
            write(CMDQ_BASE, ASIDE | ASIDE_LOG2),
            write(CMDQ_PROD, 0),
            write(CMDQ_CONS, 0),
            write(CR0, cr0),
            write(CMDQ_PROD, count),
            (CMDQ_CONS, 4, None),
            write(CR0, cr0 & !CMDQEN),
            write(CMDQ_BASE, base),
            write(CMDQ_PROD, produced),
            write(CMDQ_CONS, produced),
            write(CR0, cr0),
        ])?;
        Ok(values[6] & INDEX == count)
    }
}

impl Hardware for Lockstep {
    fn mmio_read(&self, offset: u64, size: u32) -> u64 {
        self.model.mmio_read(offset, size)
    }

    fn mmio_write(&self, offset: u64, size: u32, value: u64) {
        self.model.mmio_write(offset, size, value);
        let write = |value| self.qemu.registers(&[(offset, size, Some(value))]).map(drop);
        let done = match offset {
            CMDQ_PROD | EVENTQ_PROD | EVENTQ_CONS => Ok(()),
            EVENTQ_BASE => write(EVENTS | u64::from(EVENTS_LOG2)),
            0x80 if self.sabotage == Some(Sabotage::OtherTable) => write(value + (1 << 20)),
            _ => write(value),
        };
        self.complain(done);
        self.keep_up();
    }

    fn memory(&self) -> &PhysicalMemory {
        self.model.memory()
    }

    fn relax(&self) {
        self.model.relax();
    }

    fn on_interrupt(&self, handler: InterruptHandler) {
        self.model.on_interrupt(handler);
    }

    fn ring_ready(&self, ring: &viommu_plugin::RingGeometry) {
        self.model.ring_ready(ring);
    }
}
