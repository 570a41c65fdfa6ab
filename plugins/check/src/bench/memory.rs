//! Memory for a model that is driven directly.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use viommu_plugin::{ModelHost, Unreadable};

#[derive(Default)]
struct Inner {
    words: HashMap<u64, u64>,
    irqs: Vec<u32>,
}

/// What a model reaches: memory that is zero where it was not written and ends somewhere, and interrupt lines. Cloned, it is
/// the same memory: one copy for the model, one for the test.
#[derive(Clone)]
pub struct SparseMemory {
    inner: Arc<Mutex<Inner>>,
    end: u64,
}

impl SparseMemory {
    /// Empty memory below the address `end`; accesses that reach beyond abort.
    pub fn new(end: u64) -> Self {
        Self { inner: Arc::default(), end }
    }
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Writes `words` from `address`, which is aligned to 8.
    pub fn put(&self, address: u64, words: &[u64]) {
        let mut inner = self.lock();
        for (at, word) in (address..).step_by(8).zip(words) {
            inner.words.insert(at, *word);
        }
    }
    /// The word at `address`, which is aligned to 8.
    pub fn get(&self, address: u64) -> u64 {
        self.lock().words.get(&address).copied().unwrap_or(0)
    }
    /// Everything that was ever written.
    pub fn words(&self) -> HashMap<u64, u64> {
        self.lock().words.clone()
    }
    /// The lines of all interrupts so far.
    pub fn irqs(&self) -> Vec<u32> {
        self.lock().irqs.clone()
    }
    fn check(&self, pa: u64, bytes: usize) -> Result<(), Unreadable> {
        let end = pa.checked_add(bytes as u64).ok_or(Unreadable)?;
        if end <= self.end { Ok(()) } else { Err(Unreadable) }
    }
}

impl ModelHost for SparseMemory {
    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        self.check(pa, bytes.len())?;
        let inner = self.lock();
        let word = |at: u64| inner.words.get(&(at & !7)).copied().unwrap_or(0).to_le_bytes();
        for (at, byte) in (pa..).zip(bytes) {
            *byte = word(at)[(at & 7) as usize];
        }
        Ok(())
    }
    fn write(&self, pa: u64, bytes: &[u8]) -> Result<(), Unreadable> {
        self.check(pa, bytes.len())?;
        let mut inner = self.lock();
        for (at, byte) in (pa..).zip(bytes) {
            let word = inner.words.entry(at & !7).or_default();
            let mut whole = word.to_le_bytes();
            whole[(at & 7) as usize] = *byte;
            *word = u64::from_le_bytes(whole);
        }
        Ok(())
    }
    fn irq(&self, line: u32) {
        self.lock().irqs.push(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_words_are_the_same_memory_and_it_ends() {
        let memory = SparseMemory::new(0x1000);
        memory.put(0x10, &[0x1122_3344_5566_7788, 9]);
        let mut bytes = [0; 4];
        memory.read(0x14, &mut bytes).unwrap();
        assert_eq!(bytes, [0x44, 0x33, 0x22, 0x11]);
        memory.write(0x16, &[0xaa, 0xbb, 0xcc]).unwrap();
        assert_eq!((memory.get(0x10), memory.get(0x18)), (0xbbaa_3344_5566_7788, 0xcc));
        assert_eq!((memory.get(0x20), memory.words().len()), (0, 2));
        assert_eq!(memory.write(0xffc, &[0; 8]), Err(Unreadable));
        assert_eq!(memory.read(u64::MAX, &mut bytes), Err(Unreadable));
        memory.clone().irq(3);
        assert_eq!(memory.irqs(), [3]);
    }
}
