//! The guest's event queue: the one part of the emulation that other threads than the vCPU's write to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use viommu::pipeline::Interrupts;
use viommu::vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Registers, and where the records go.
pub(crate) struct EventQueue {
    memory: Arc<GuestMemoryMmap>,
    queue: Mutex<EventRegisters>,
    count: AtomicU64,
}

#[derive(Default)]
pub(crate) struct EventRegisters {
    pub(crate) enabled: bool,
    pub(crate) base: u64,
    pub(crate) prod: u64,
    cons: u64,
}

impl EventRegisters {
    fn log2(&self) -> u64 {
        (self.base & 0x1f).min(19)
    }

    /// Records that the guest has not taken yet.
    fn used(&self) -> u64 {
        self.prod.wrapping_sub(self.cons) & ((2 << self.log2()) - 1)
    }

    /// The guest has taken the records up to `cons`. A recorded one does not wait for us and may be ahead: then it has
    /// taken what there is.
    pub(crate) fn consumed(&mut self, cons: u64) {
        self.cons = cons;
        if self.used() > 1 << self.log2() {
            self.cons = self.prod;
        }
    }
}

impl EventQueue {
    pub(crate) fn new(memory: &Arc<GuestMemoryMmap>) -> Self {
        Self { memory: memory.clone(), queue: Mutex::default(), count: AtomicU64::new(0) }
    }

    /// Records written so far.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, EventRegisters> {
        self.queue.lock().expect("no panic under it")
    }
}

impl Interrupts for EventQueue {
    // The queue's interrupt would be raised behind `event`; messages and lines of its own come from a frontend only.
    fn msi(&self, _address: u64, _data: u32) {}
    fn line(&self, _line: u32) {}

    /// A device of the guest faulted: the record (7.3) with the guest's number for the device.
    fn event(&self, virt_id: u32, record: &[u64]) {
        let mut queue = self.lock();
        let log2 = queue.log2();
        if !queue.enabled || queue.used() >= 1 << log2 {
            return;
        }
        let at = (queue.base & 0xf_ffff_ffff_ffe0) + (queue.prod & ((1 << log2) - 1)) * 32;
        for (offset, &word) in (0..4).zip(record) {
            let word = if offset == 0 { word & 0xffff_ffff | u64::from(virt_id) << 32 } else { word };
            // A queue outside memory takes nothing.
            drop(self.memory.write_obj(word.to_le(), GuestAddress(at + 8 * offset)));
        }
        queue.prod = (queue.prod + 1) & ((2 << log2) - 1);
        self.count.fetch_add(1, Ordering::Relaxed);
    }
}
