//! A machine for a vendor's own tests of its driver: memory that knows what is allocated, and the vendor's model as its
//! IOMMU. And parts of such machines for other tests of a vendor's.

mod memory;
mod ram;
mod still;

pub use memory::SparseMemory;
pub use ram::Ram;
pub use still::Still;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use viommu_plugin::{Answer, Hardware, Model, ModelHost, Refusal, Request, Unreadable};

/// Where allocations come from.
const POOL: u64 = 0x1_0000_0000;
const PAGE: usize = 4096;

#[derive(Default)]
struct Memory {
    /// Pages that are not zero, by number.
    pages: HashMap<u64, Box<[u8; PAGE]>>,
    /// Length by base.
    live: BTreeMap<u64, u64>,
    top: u64,
    /// Allocations until one fails.
    allocations_left: Option<u32>,
}

impl Memory {
    fn check(&self, pa: u64, len: usize) -> Result<(), Unreadable> {
        let below = self.live.range(..=pa).next_back();
        let covers = below.is_some_and(|(base, size)| pa - base <= *size && len as u64 <= size - (pa - base));
        if covers { Ok(()) } else { Err(Unreadable) }
    }
    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        self.check(pa, bytes.len())?;
        for (page, at, piece) in pieces(pa, bytes.len()) {
            match self.pages.get(&page) {
                Some(words) => bytes[piece.clone()].copy_from_slice(&words[at..][..piece.len()]),
                None => bytes[piece].fill(0),
            }
        }
        Ok(())
    }
    fn write(&mut self, pa: u64, bytes: &[u8]) -> Result<(), Unreadable> {
        self.check(pa, bytes.len())?;
        for (page, at, piece) in pieces(pa, bytes.len()) {
            let words = self.pages.entry(page).or_insert_with(|| Box::new([0; PAGE]));
            words[at..][..piece.len()].copy_from_slice(&bytes[piece]);
        }
        Ok(())
    }
}

/// The pages that `pa..pa+len` touches: number, offset in it, and which of the bytes lie there.
fn pieces(pa: u64, len: usize) -> impl Iterator<Item = (u64, usize, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = (pa as usize + done) % PAGE;
        let piece = done..len.min(done + PAGE - at);
        let page = (pa + done as u64) / PAGE as u64;
        done = piece.end;
        (!piece.is_empty()).then_some((page, at, piece))
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct ModelSide(Arc<Mutex<Memory>>);

impl ModelHost for ModelSide {
    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        lock(&self.0).read(pa, bytes)
    }
    fn write(&self, pa: u64, bytes: &[u8]) -> Result<(), Unreadable> {
        lock(&self.0).write(pa, bytes)
    }
    fn irq(&self, _: u32) {}
}

/// Puts commands and a SYNC on the queue that the registers of a bench describe.
pub type Issue<M> = fn(&Bench<M>, &[u64]) -> Result<(), Refusal>;

/// The machine. Cloned, it is the same machine: one copy for the driver, one for the test.
pub struct Bench<M> {
    memory: Arc<Mutex<Memory>>,
    model: Arc<Mutex<M>>,
    issue: Issue<M>,
    /// Words that went through [`Hardware::issue`].
    issued: Arc<Mutex<Vec<u64>>>,
}

impl<M> Clone for Bench<M> {
    fn clone(&self) -> Self {
        Self { memory: self.memory.clone(), model: self.model.clone(), issue: self.issue, issued: self.issued.clone() }
    }
}

impl<M: Model> Bench<M> {
    /// A machine with the model that `model` makes, whose queue takes commands as `issue` says.
    pub fn new(model: impl FnOnce(Box<dyn ModelHost>) -> M, issue: Issue<M>) -> Self {
        let memory = Arc::new(Mutex::new(Memory { top: POOL, ..Memory::default() }));
        let model = Arc::new(Mutex::new(model(Box::new(ModelSide(memory.clone())))));
        Self { memory, model, issue, issued: Arc::default() }
    }

    /// The driver's copy.
    pub fn boxed(&self) -> Box<dyn Hardware> {
        Box::new(self.clone())
    }
    /// Only so many allocations succeed from now on; all with `None`.
    pub fn fail_allocation_after(&self, allocations: Option<u32>) {
        lock(&self.memory).allocations_left = allocations;
    }
    /// Bytes allocated now.
    pub fn allocated(&self) -> u64 {
        lock(&self.memory).live.values().sum()
    }
    /// A word of allocated memory.
    ///
    /// # Panics
    /// If it is not allocated.
    pub fn word(&self, pa: u64) -> u64 {
        let mut bytes = [0; 8];
        Hardware::read(self, pa, &mut bytes).expect("allocated memory");
        u64::from_le_bytes(bytes)
    }
    /// Sets a word of allocated memory.
    ///
    /// # Panics
    /// If it is not allocated.
    pub fn set_word(&self, pa: u64, value: u64) {
        Hardware::write(self, pa, &value.to_le_bytes()).expect("allocated memory");
    }
    /// Words issued since the last call, without the SYNCs.
    pub fn take_issued(&self) -> Vec<u64> {
        std::mem::take(&mut lock(&self.issued))
    }
    /// A device's access without PASID: 1 reads, 2 writes.
    pub fn dma(&self, stream: u32, iova: u64, access: u32) -> Answer {
        self.dma_pasid(stream, u32::MAX, iova, access)
    }
    /// As [`Bench::dma`], with this PASID.
    pub fn dma_pasid(&self, stream: u32, pasid: u32, iova: u64, access: u32) -> Answer {
        let mut answer = [Answer::default()];
        let request = Request { stream, pasid, iova, access, flags: 0 };
        lock(&self.model).translate(&[request], &mut answer);
        answer[0]
    }
    /// The devices of `stream` answer no device cache invalidation, or do again.
    pub fn unresponsive(&self, stream: u32, unresponsive: bool) {
        lock(&self.model).atc_unresponsive(stream, unresponsive);
    }
}

impl<M: Model> Hardware for Bench<M> {
    fn mmio_read(&self, at: u64, size: u32) -> u64 {
        lock(&self.model).mmio_read(at, size)
    }
    fn mmio_write(&self, at: u64, size: u32, value: u64) {
        let mut model = lock(&self.model);
        model.mmio_write(at, size, value);
        model.step(u32::MAX);
    }
    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        lock(&self.memory).read(pa, bytes)
    }
    fn write(&self, pa: u64, bytes: &[u8]) -> Result<(), Unreadable> {
        lock(&self.memory).write(pa, bytes)
    }
    fn alloc(&self, len: u64, align: u64) -> Result<u64, Refusal> {
        let mut memory = lock(&self.memory);
        match &mut memory.allocations_left {
            Some(0) => return Err(Refusal::new(Refusal::ENOMEM, "no memory")),
            Some(left) => *left -= 1,
            None => {}
        }
        // Addresses are never used twice: what is read after its free is unreadable.
        let base = memory.top.next_multiple_of(align);
        memory.top = base + len;
        memory.live.insert(base, len);
        Ok(base)
    }
    fn free(&self, pa: u64, len: u64) {
        let freed = lock(&self.memory).live.remove(&pa);
        assert_eq!(freed, Some(len), "freed {pa:#x}, which is not allocated, or not so long");
    }
    fn issue(&self, commands: &[u64]) -> Result<(), Refusal> {
        lock(&self.issued).extend(commands);
        (self.issue)(self, commands)
    }
}
