//! A machine for a driver: memory, and the plugin's own model behind the registers. Everything happens at once.

use crate::Verdict;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use viommu_plugin::{
    Answer, Hardware, HostInvalidation, ModelConfig, ModelHost, Refusal, Register, Request, RingGeometry, Scope,
    Unreadable,
};
use viommu_plugin_host::{CallError, Driver, Model, Plugin};

/// First and last + 1 address of the machine's memory.
const RAM: std::ops::Range<u64> = 0x10_0000_0000..0x10_4000_0000;
/// Steps of the model after which it is taken to be stuck.
const STEPS_MAX: usize = 1024;

/// Memory by pages, as far as it was written; a bump allocator that counts.
#[derive(Default)]
pub(crate) struct Memory {
    pages: Mutex<HashMap<u64, Box<[u8; 4096]>>>,
    allocated: Mutex<(u64, u64)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memory {
    /// Bytes allocated and not freed.
    pub(crate) fn allocated(&self) -> u64 {
        lock(&self.allocated).1
    }

    fn inside(pa: u64, len: usize) -> Result<(), Unreadable> {
        let end = pa.checked_add(len as u64).ok_or(Unreadable)?;
        if RAM.contains(&pa) && end <= RAM.end { Ok(()) } else { Err(Unreadable) }
    }

    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        Self::inside(pa, bytes.len())?;
        let pages = lock(&self.pages);
        for (byte, at) in bytes.iter_mut().zip(pa..) {
            *byte = pages.get(&(at >> 12)).map_or(0, |page| page[(at & 0xfff) as usize]);
        }
        Ok(())
    }

    fn write(&self, pa: u64, bytes: &[u8]) -> Result<(), Unreadable> {
        Self::inside(pa, bytes.len())?;
        let mut pages = lock(&self.pages);
        for (byte, at) in bytes.iter().zip(pa..) {
            pages.entry(at >> 12).or_insert_with(|| Box::new([0; 4096]))[(at & 0xfff) as usize] = *byte;
        }
        Ok(())
    }

    pub(crate) fn alloc(&self, len: u64, align: u64) -> Result<u64, Refusal> {
        let mut allocated = lock(&self.allocated);
        let pa = (RAM.start + allocated.0).next_multiple_of(align.max(1));
        let end = pa.checked_add(len).filter(|end| *end <= RAM.end);
        let end = end.ok_or_else(|| Refusal::new(Refusal::ENOMEM, "the machine has no more memory"))?;
        *allocated = (end - RAM.start, allocated.1 + len);
        Ok(pa)
    }
}

struct ModelSide(Arc<Memory>);

impl ModelHost for ModelSide {
    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        self.0.read(pa, bytes)
    }
    fn write(&self, pa: u64, bytes: &[u8]) -> Result<(), Unreadable> {
        self.0.write(pa, bytes)
    }
    fn irq(&self, _line: u32) {}
}

/// The machine as the driver sees it.
pub(crate) struct Board {
    pub(crate) memory: Arc<Memory>,
    model: Mutex<Model>,
    /// Known once the driver has said it: its ring, and the words of a SYNC.
    ring: Mutex<Option<(RingGeometry, Vec<u64>)>>,
}

impl Board {
    /// Writes commands onto the ring and lets the model run; `true` if it consumed all of them.
    fn put(&self, commands: &[u64]) -> Result<bool, CallError> {
        let Some((ring, _)) = lock(&self.ring).clone() else { return Ok(false) };
        let words = ring.command_words as usize;
        let mask = (1 << (ring.log2_commands + ring.wrap_bit)) - 1;
        let slots = (1 << ring.log2_commands) - 1;
        for command in commands.chunks_exact(words) {
            let index = self.model().mmio_read(ring.consumer, 4)? >> ring.index_shift & mask;
            let place = ring.base + (index & slots) * 8 * words as u64;
            if !self.store(place, command) {
                return Ok(false);
            }
            let next = (index + 1) & mask;
            self.model().mmio_write(ring.producer, 4, next << ring.index_shift)?;
            self.run()?;
            let register = self.model().mmio_read(ring.consumer, 4)?;
            if register >> ring.index_shift & mask != next || register & u64::from(ring.error_mask) != 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Lets the model run until it has nothing to do.
    fn run(&self) -> Result<(), CallError> {
        let mut model = self.model();
        for _ in 0..STEPS_MAX {
            if model.step(64)? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Stores words into memory; `false` if it is not memory.
    pub(crate) fn store(&self, pa: u64, words: &[u64]) -> bool {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.memory.write(pa, &bytes).is_ok()
    }

    pub(crate) fn model(&self) -> MutexGuard<'_, Model> {
        lock(&self.model)
    }
}

struct Port(Arc<Board>);

impl Hardware for Port {
    fn mmio_read(&self, offset: u64, size: u32) -> u64 {
        self.0.model().mmio_read(offset, size).unwrap_or(u64::MAX)
    }
    fn mmio_write(&self, offset: u64, size: u32, value: u64) {
        // A model that fails shows in what the check reads next.
        let _ = self.0.model().mmio_write(offset, size, value);
        let _ = self.0.run();
    }
    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        self.0.memory.read(pa, bytes)
    }
    fn write(&self, pa: u64, bytes: &[u8]) -> Result<(), Unreadable> {
        self.0.memory.write(pa, bytes)
    }
    fn alloc(&self, len: u64, align: u64) -> Result<u64, Refusal> {
        self.0.memory.alloc(len, align)
    }
    fn free(&self, _pa: u64, len: u64) {
        let mut allocated = lock(&self.0.memory.allocated);
        allocated.1 = allocated.1.saturating_sub(len);
    }
    fn issue(&self, commands: &[u64]) -> Result<(), Refusal> {
        let sync = lock(&self.0.ring).as_ref().map(|(_, sync)| sync.clone());
        let sync = sync.ok_or_else(|| Refusal::new(Refusal::EIO, "issue before the ring is known"))?;
        let done = self.0.put(commands).and_then(|done| Ok(done && self.0.put(&sync)?));
        match done {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refusal::new(Refusal::EIO, "the queue stopped")),
            Err(error) => Err(Refusal::new(Refusal::EIO, error.to_string())),
        }
    }
}

/// A driver in charge of its plugin's own model.
pub(crate) struct Machine {
    pub(crate) driver: Driver,
    pub(crate) board: Arc<Board>,
}

impl Machine {
    pub(crate) fn new(plugin: &Plugin, registers: &[Register]) -> Result<Self, Verdict> {
        for (part, why) in [("driver", "it offers no driver"), ("model", "it offers no model")] {
            if !plugin.info().parts.contains(&part) {
                return Err(Verdict::Skipped(why));
            }
        }
        let memory = Arc::new(Memory::default());
        let config = ModelConfig { registers, atc: false, tlb_capacity: 0 };
        let model = Mutex::new(plugin.model(Box::new(ModelSide(memory.clone())), config)?);
        let board = Arc::new(Board { memory, model, ring: Mutex::new(None) });
        let driver = plugin.driver(Box::new(Port(board.clone())))?;
        let geometry = driver.info()?.ring;
        let machine = Self { driver, board };
        let sync = machine.encode(HostInvalidation { scope: Scope::SYNC, ..Default::default() })?;
        *lock(&machine.board.ring) = Some((geometry, sync));
        Ok(machine)
    }

    /// The words of a host-side invalidation.
    pub(crate) fn encode(&self, what: HostInvalidation) -> Result<Vec<u64>, CallError> {
        let mut words = vec![0; 64];
        let written = self.driver.encode(&what, &mut words)?;
        words.truncate(written);
        Ok(words)
    }

    /// Issues host-side invalidations, each followed by a SYNC; `false` if the queue stopped.
    pub(crate) fn invalidate(&self, what: &[HostInvalidation]) -> Result<bool, CallError> {
        let sync = self.encode(HostInvalidation { scope: Scope::SYNC, ..Default::default() })?;
        for invalidation in what {
            if !self.board.put(&self.encode(*invalidation)?)? || !self.board.put(&sync)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Puts raw words on the ring; `false` if the queue stopped.
    pub(crate) fn put(&self, words: &[u64]) -> Result<bool, CallError> {
        self.board.put(words)
    }

    /// A device's access; `access` is 1 to read, 2 to write.
    pub(crate) fn access(&self, stream: u32, iova: u64, access: u32) -> Result<Answer, CallError> {
        let request = Request { stream, pasid: u32::MAX, iova, access, flags: 0 };
        let mut answer = [Answer::default()];
        self.board.model().translate(&[request], &mut answer)?;
        Ok(answer[0])
    }
}
