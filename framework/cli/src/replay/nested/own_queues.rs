//! A guest with command queues of its own: what Linux's Tegra241 driver would have put there goes there, and the rest into
//! the IOMMU's queue, which the framework serves.
//!
//! ```text
//!   recorded ring ─► run of commands up to its SYNC ─┬─ only what the queues take ─► a vCPU's queue ─► hardware, polled
//!                                                    └─ anything else ─► the guest's ring, made anew ─► framework
//! ```
//! A run is one batch and is not split, but where it meets, behind a doorbell, what its queue does not take: as in Linux
//! it is then closed by a SYNC and goes on in the other queue. All rings are in memory that the recorded guest did not have.

use super::machine::unless_quarantined;
use crate::replay::args::Injection;
use crate::replay::commands::{Command, GuestCommands, waiting};
use crate::replay::{Job, ReplayError};
use rand_pcg::Pcg32;
use rand_pcg::rand_core::{Rng, SeedableRng};
use std::sync::Arc;
use std::time::{Duration, Instant};
use viommu::blocking::Viommu;
use viommu::objects::MappedPage;
use viommu::vm_memory::{Bytes, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};
use viommu_plugin::{QueueState, Register};

/// Where the memory of the rings is, to the guest and to the host.
pub(super) const MEMORY: u64 = 1 << 39;
pub(super) const HOST_MEMORY: u64 = 1 << 47;
/// Bytes of it: the largest ring of an SMMU, and the own queues.
pub(super) const BYTES: u64 = 32 << 20;
/// The own queues behind the ring, 2^LOG2 commands of 16 bytes each.
const OWN: u64 = MEMORY + (16 << 20);
const LOG2: u32 = 8;

/// SMMU registers.
const CMDQ_BASE: u64 = 0x90;
const CMDQ_PROD: u64 = 0x98;
/// CMDQV registers, behind the SMMU's frame; see the plugin `tegra-vcmdq`.
const CMDQV: u64 = 0x2_0000;
const PARAM: u64 = CMDQV + 0x4;
const CMDQ_ALLOC: u64 = CMDQV + 0x200;
const VINTF_CONFIG: u64 = CMDQV + 0x1000;
const PAGE1: u64 = CMDQV + 0x4_0000;
const STRIDE: u64 = 0x80;
/// A queue's registers in the page.
const CONS: u64 = 0x0;
const PROD: u64 = 0x4;
const CONFIG: u64 = 0x8;
const GERROR: u64 = 0x10;
const GERRORN: u64 = 0x14;

const TLBI_NH_ASID: u8 = 0x11;
const TLBI_NH_VA: u8 = 0x12;
const ATC_INV: u8 = 0x40;
const SYNC: u8 = 0x46;

/// A ring that this guest fills.
#[derive(Debug, Clone, Copy, Default)]
struct Ring {
    base: u64,
    log2: u32,
    prod: u32,
}

impl Ring {
    fn put(&mut self, memory: &GuestMemoryMmap, words: &[u64]) -> Result<(), viommu::Cause> {
        let slot = self.base + 16 * u64::from(self.prod & ((1 << self.log2) - 1));
        for (at, word) in (slot..).step_by(8).zip(words) {
            let written = memory.write_obj(word.to_le(), GuestAddress(at));
            written.map_err(|error| viommu::Cause::Invalid(format!("a ring of the guest's: {error}")))?;
        }
        self.prod = (self.prod + 1) & ((2 << self.log2) - 1);
        Ok(())
    }
}

/// Where the batch goes that has no SYNC yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    No,
    Ring,
    Own(usize),
}

/// The guest's driver.
pub(super) struct OwnQueues {
    guest: GuestCommands,
    page: MappedPage,
    ring: Ring,
    /// Empty until they are brought up.
    queues: Vec<Ring>,
    vcpus: u32,
    random: Pcg32,
    open: Open,
    limit: Duration,
    inject: Option<Injection>,
    invalidations: u64,
    /// Commands by queue, without SYNCs.
    pub(super) commands: Vec<u64>,
    pub(super) syncs: u64,
}

/// Memory for the rings.
pub(super) fn memory() -> Result<Arc<GuestRegionMmap>, viommu::Cause> {
    let bad = |what: String| viommu::Cause::Invalid(format!("memory for a guest's own queues: {what}"));
    let mapping = Arc::new(MmapRegion::new(BYTES as usize).map_err(|error| bad(error.to_string()))?);
    let region = GuestRegionMmap::with_arc(mapping, GuestAddress(MEMORY));
    Ok(Arc::new(region.ok_or_else(|| bad("no such address".into()))?))
}

impl OwnQueues {
    /// The driver of machine `index`, with the hardware's page mapped.
    ///
    /// # Errors
    /// If the plugin lends guests no queues.
    pub(super) fn new(
        job: &Job<'_>,
        (shown, index, vcpus, limit): (&[Register], u32, u32, Duration),
        viommu: &Viommu,
    ) -> Result<Self, ReplayError> {
        let no =
            || viommu::Cause::Unsupported(format!("{} lends guests no queues of their own", job.plugin.info().name));
        let place = viommu.page().ok_or_else(no)?;
        Ok(Self {
            guest: GuestCommands::new(&job.plugin, shown)?,
            page: viommu.map_page(place.offset, place.length)?,
            ring: Ring::default(),
            queues: Vec::new(),
            vcpus,
            random: Pcg32::seed_from_u64(u64::from(index) + 1),
            open: Open::No,
            limit,
            inject: job.args.inject,
            invalidations: 0,
            commands: Vec::new(),
            syncs: 0,
        })
    }

    /// The machine was reset, its IOMMU with it.
    pub(super) fn reset(&mut self) -> Result<(), ReplayError> {
        self.queues.clear();
        self.open = Open::No;
        Ok(self.guest.frontend.reset()?)
    }

    /// A recorded register write, as this guest makes it.
    pub(super) fn write(
        &mut self,
        (viommu, memory): (&Viommu, &GuestMemoryMmap),
        has_device: impl Fn(u32) -> bool,
        (offset, size, value): (u64, u32, u64),
    ) -> Result<(), ReplayError> {
        let queue = self.guest.write(offset, size, value)?;
        let running = queue.state == QueueState::RUNNING;
        match (offset, size) {
            (CMDQ_BASE, 8) => {
                self.ring = Ring { base: MEMORY, log2: (value & 0x1f) as u32, prod: 0 };
                unless_quarantined(viommu.mmio_write(offset, size, value & !0x000f_ffff_ffff_ffe0 | MEMORY))?;
            }
            (CMDQ_PROD, _) if running => {}
            (CMDQ_PROD, _) => {
                self.ring.prod = value as u32;
                unless_quarantined(viommu.mmio_write(offset, size, value))?;
            }
            _ => unless_quarantined(viommu.mmio_write(offset, size, value))?,
        }
        if !running || queue.pending == 0 {
            return Ok(());
        }
        let read = |gpa, bytes: &mut [u8]| memory.read_slice(bytes, GuestAddress(gpa)).is_ok();
        let commands: Vec<_> = waiting(&queue, queue.pending, read).collect();
        self.guest.frontend.advance(queue.pending)?;
        self.send((viommu, memory), has_device, &commands)
    }

    fn send(
        &mut self,
        (viommu, memory): (&Viommu, &GuestMemoryMmap),
        has_device: impl Fn(u32) -> bool,
        mut commands: &[Command],
    ) -> Result<(), ReplayError> {
        let opcode = |command: &Command| command.words()[0] as u8;
        let is_taken = |command: &Command| match opcode(command) {
            TLBI_NH_ASID | TLBI_NH_VA => true,
            ATC_INV => has_device((command.words()[0] >> 32) as u32),
            _ => false,
        };
        while !commands.is_empty() {
            let run = commands.iter().position(|command| opcode(command) == SYNC);
            let (batch, synced) = run.map_or((commands, false), |end| (&commands[..end], true));
            if self.open == Open::No {
                let all = !batch.is_empty() && batch.iter().all(is_taken);
                self.open = if all { Open::Own(self.pick(viommu)?) } else { Open::Ring };
            }
            if let Open::Own(queue) = self.open {
                let taken = batch.iter().take_while(|command| is_taken(command)).count();
                for command in &batch[..taken] {
                    self.commands[queue] += 1;
                    if !self.is_lost(opcode(command)) {
                        self.put(queue, memory, command.words())?;
                    }
                }
                let sync = synced || taken < batch.len();
                if sync {
                    self.put(queue, memory, &[u64::from(SYNC), 0])?;
                    self.syncs += 1;
                }
                self.ring_own(queue, sync)?;
                if taken < batch.len() {
                    self.open = Open::Ring;
                    commands = &commands[taken..];
                    continue;
                }
            } else {
                let end = batch.len() + usize::from(synced);
                for command in &commands[..end] {
                    self.ring.put(memory, command.words())?;
                }
                unless_quarantined(viommu.mmio_write(CMDQ_PROD, 4, self.ring.prod.into()))?;
                // The next batch of this guest's may be on another queue, but is not before this one.
                viommu.pipeline().wait_settled(self.limit);
            }
            if synced {
                self.open = Open::No;
            }
            commands = &commands[batch.len() + usize::from(synced)..];
        }
        Ok(())
    }

    /// `--inject` loses commands here as it does on the physical queue.
    fn is_lost(&mut self, opcode: u8) -> bool {
        match self.inject {
            Some(Injection::DropInvalidation { every }) if opcode != ATC_INV => {
                self.invalidations += 1;
                self.invalidations % every == 0
            }
            Some(Injection::DropAtc) => opcode == ATC_INV,
            _ => false,
        }
    }

    /// The queue of some vCPU.
    fn pick(&mut self, viommu: &Viommu) -> Result<usize, ReplayError> {
        if self.queues.is_empty() {
            self.bring_up(viommu)?;
        }
        let vcpu = self.random.next_u32() % self.vcpus;
        Ok(vcpu as usize % self.queues.len())
    }

    fn bring_up(&mut self, viommu: &Viommu) -> Result<(), ReplayError> {
        let count = 1 << (viommu.mmio_read(PARAM, 4)? >> 4 & 0xf);
        viommu.mmio_write(CMDQV, 4, 1)?;
        viommu.mmio_write(VINTF_CONFIG, 4, 1)?;
        for queue in 0..count {
            let base = OWN + (16 << LOG2) * queue;
            viommu.mmio_write(CMDQ_ALLOC + 4 * queue, 4, queue << 1 | 1)?;
            viommu.mmio_write(PAGE1 + STRIDE * queue, 8, base | u64::from(LOG2))?;
            self.page.write(STRIDE * queue + CONFIG, 4, 1);
            if self.page.read(STRIDE * queue + CONFIG, 4) & 1 == 0 {
                let what = format!("own queue {queue} of a guest cannot be enabled");
                return Err(viommu::Cause::Queue(what).into());
            }
            self.queues.push(Ring { base, log2: LOG2, prod: 0 });
        }
        self.commands.resize(self.queues.len(), 0);
        Ok(())
    }

    /// Puts a command; waits for room if there is none.
    fn put(&mut self, queue: usize, memory: &GuestMemoryMmap, words: &[u64]) -> Result<(), ReplayError> {
        let full = |ring: &Ring, cons: u32| ring.prod ^ cons == 1 << ring.log2;
        if full(&self.queues[queue], self.cons(queue)) {
            self.ring_own(queue, true)?;
        }
        Ok(self.queues[queue].put(memory, words)?)
    }

    fn cons(&self, queue: usize) -> u32 {
        self.page.read(STRIDE * queue as u64 + CONS, 4) as u32 & 0xf_ffff
    }

    /// Rings the doorbell, past the framework; with `wait` polls until hardware took everything.
    fn ring_own(&mut self, queue: usize, wait: bool) -> Result<(), ReplayError> {
        let (at, prod) = (STRIDE * queue as u64, self.queues[queue].prod);
        self.page.write(at + PROD, 4, prod.into());
        let start = Instant::now();
        while wait && self.cons(queue) != prod {
            let errors = self.page.read(at + GERROR, 4) ^ self.page.read(at + GERRORN, 4);
            if errors != 0 || start.elapsed() > self.limit {
                let cons = self.page.read(at + CONS, 4);
                let what = format!("own queue {queue} of a guest stopped: CONS {cons:#x}, PROD {prod:#x}");
                return Err(viommu::Cause::Queue(what).into());
            }
            self.page.relax();
            std::thread::yield_now();
        }
        Ok(())
    }
}
