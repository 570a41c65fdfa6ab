//! A machine: memory that knows what is allocated, and the software IOMMU.

use amd_vi::model::Iommu;
use amd_vi::spec::registers::offset;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use viommu_plugin::{Answer, Hardware, Model, ModelConfig, ModelHost, Refusal, Register, Request, Unreadable};

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
    fn covers(&self, pa: u64, len: usize) -> bool {
        let below = self.live.range(..=pa).next_back();
        below.is_some_and(|(base, size)| pa + len as u64 <= base + size)
    }
    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        if !self.covers(pa, bytes.len()) {
            return Err(Unreadable);
        }
        for (page, at, piece) in pieces(pa, bytes.len()) {
            match self.pages.get(&page) {
                Some(words) => bytes[piece.clone()].copy_from_slice(&words[at..][..piece.len()]),
                None => bytes[piece].fill(0),
            }
        }
        Ok(())
    }
    fn write(&mut self, pa: u64, bytes: &[u8]) -> Result<(), Unreadable> {
        if !self.covers(pa, bytes.len()) {
            return Err(Unreadable);
        }
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

/// Cloned, it is the same machine: one copy for the driver, one for the test.
#[derive(Clone)]
pub(crate) struct Machine {
    memory: Arc<Mutex<Memory>>,
    iommu: Arc<Mutex<Iommu>>,
    /// Commands that went through [`Hardware::issue`].
    issued: Arc<Mutex<Vec<[u64; 2]>>>,
}

struct ModelSide(Arc<Mutex<Memory>>);

impl ModelHost for ModelSide {
    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        self.0.lock().unwrap().read(pa, bytes)
    }
    fn write(&self, pa: u64, bytes: &[u8]) -> Result<(), Unreadable> {
        self.0.lock().unwrap().write(pa, bytes)
    }
    fn irq(&self, _: u32) {}
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self::with(&[], false)
    }

    /// A machine whose IOMMU has these ID registers, and devices with caches of their own.
    pub(crate) fn with(registers: &[Register], atc: bool) -> Self {
        let memory = Arc::new(Mutex::new(Memory { top: POOL, ..Memory::default() }));
        let config = ModelConfig { registers, atc, tlb_capacity: 0 };
        let iommu = Iommu::new(Box::new(ModelSide(memory.clone())), config).unwrap();
        Self { memory, iommu: Arc::new(Mutex::new(iommu)), issued: Arc::default() }
    }

    pub(crate) fn boxed(&self) -> Box<dyn Hardware> {
        Box::new(self.clone())
    }
    pub(crate) fn fail_allocation_after(&self, allocations: Option<u32>) {
        self.memory.lock().unwrap().allocations_left = allocations;
    }
    /// Bytes allocated now.
    pub(crate) fn allocated(&self) -> u64 {
        self.memory.lock().unwrap().live.values().sum()
    }
    pub(crate) fn word(&self, pa: u64) -> u64 {
        let mut bytes = [0; 8];
        Hardware::read(self, pa, &mut bytes).expect("allocated memory");
        u64::from_le_bytes(bytes)
    }
    pub(crate) fn set_word(&self, pa: u64, value: u64) {
        Hardware::write(self, pa, &value.to_le_bytes()).expect("allocated memory");
    }
    /// Commands issued since the last call.
    pub(crate) fn take_issued(&self) -> Vec<[u64; 2]> {
        std::mem::take(&mut self.issued.lock().unwrap())
    }
    /// A device's access without PASID.
    pub(crate) fn dma(&self, stream: u32, iova: u64, access: u32) -> Answer {
        self.dma_pasid(stream, u32::MAX, iova, access)
    }
    /// A device's access.
    pub(crate) fn dma_pasid(&self, stream: u32, pasid: u32, iova: u64, access: u32) -> Answer {
        let mut answer = [Answer::default()];
        let request = Request { stream, pasid, iova, access, flags: 0 };
        assert_eq!(self.iommu.lock().unwrap().translate(&[request], &mut answer), 1);
        answer[0]
    }
    pub(crate) fn unresponsive(&self, stream: u32) {
        self.iommu.lock().unwrap().atc_unresponsive(stream, true);
    }
}

impl Hardware for Machine {
    fn mmio_read(&self, at: u64, size: u32) -> u64 {
        self.iommu.lock().unwrap().mmio_read(at, size)
    }
    fn mmio_write(&self, at: u64, size: u32, value: u64) {
        let mut iommu = self.iommu.lock().unwrap();
        iommu.mmio_write(at, size, value);
        iommu.step(u32::MAX);
    }
    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        self.memory.lock().unwrap().read(pa, bytes)
    }
    fn write(&self, pa: u64, bytes: &[u8]) -> Result<(), Unreadable> {
        self.memory.lock().unwrap().write(pa, bytes)
    }
    fn alloc(&self, len: u64, align: u64) -> Result<u64, Refusal> {
        let mut memory = self.memory.lock().unwrap();
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
        let freed = self.memory.lock().unwrap().live.remove(&pa);
        assert_eq!(freed, Some(len), "freed {pa:#x}, which is not allocated, or not so long");
    }
    fn issue(&self, commands: &[u64]) -> Result<(), Refusal> {
        let base = self.mmio_read(offset::COMMAND_BASE, 8);
        let (base, mask) = (base & 0x000f_ffff_ffff_f000, (16 << (base >> 56 & 0xf)) - 1);
        let mut tail = self.mmio_read(offset::COMMAND_TAIL, 8);
        for &[w0, w1] in commands.as_chunks::<2>().0.iter().chain([&[1 << 60, 0]]) {
            self.set_word(base + tail, w0);
            self.set_word(base + tail + 8, w1);
            tail = (tail + 16) & mask;
        }
        self.issued.lock().unwrap().extend(commands.as_chunks::<2>().0);
        self.mmio_write(offset::COMMAND_TAIL, 4, tail);
        match self.mmio_read(offset::COMMAND_HEAD, 8) == tail {
            true => Ok(()),
            false => Err(Refusal::new(Refusal::EIO, "the command buffer stopped")),
        }
    }
}
