//! A guest's memory on a bench.

use super::Bench;
use viommu_plugin::{GuestMemory, GuestQueue, Hardware, Model, Unreadable};

/// A guest's RAM from one guest physical address on, which lies somewhere else in the machine's memory.
pub struct Ram<'a, M> {
    bench: &'a Bench<M>,
    gpa: u64,
    pa: u64,
    length: u64,
}

impl<'a, M: Model> Ram<'a, M> {
    /// `length` bytes at `gpa`, aligned to 1 GiB in the machine.
    ///
    /// # Panics
    /// If the machine has no more memory.
    pub fn new(bench: &'a Bench<M>, gpa: u64, length: u64) -> Self {
        let pa = bench.alloc(length, 1 << 30).expect("memory for a guest");
        Self { bench, gpa, pa, length }
    }

    /// The machine that it is in.
    pub fn bench(&self) -> &'a Bench<M> {
        self.bench
    }

    /// Where `length` bytes of the guest's are in the machine.
    ///
    /// # Errors
    /// If they are not in its RAM.
    pub fn host(&self, gpa: u64, length: usize) -> Result<u64, Unreadable> {
        let at = gpa.checked_sub(self.gpa).ok_or(Unreadable)?;
        let end = at.checked_add(length as u64).ok_or(Unreadable)?;
        (end <= self.length).then_some(self.pa + at).ok_or(Unreadable)
    }

    /// What the guest writes.
    ///
    /// # Errors
    /// If it is not in its RAM.
    pub fn write(&self, gpa: u64, bytes: &[u8]) -> Result<(), Unreadable> {
        Hardware::write(self.bench, self.host(gpa, bytes.len())?, bytes)
    }

    /// The words of the commands that wait in `queue`, as far as the end of its ring.
    ///
    /// # Errors
    /// If the ring is not in its RAM.
    pub fn commands(&self, queue: &GuestQueue) -> Result<Vec<u64>, Unreadable> {
        let command_bytes = 8 * queue.command_words;
        let run = queue.pending.min(queue.capacity - queue.head);
        let mut bytes = vec![0; (run * command_bytes) as usize];
        self.read(queue.base + u64::from(queue.head) * u64::from(command_bytes), &mut bytes)?;
        Ok(bytes.as_chunks::<8>().0.iter().map(|&word| u64::from_le_bytes(word)).collect())
    }
}

impl<M: Model> GuestMemory for Ram<'_, M> {
    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        Hardware::read(self.bench, self.host(gpa, bytes.len())?, bytes)
    }
}
