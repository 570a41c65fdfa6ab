//! The host's physical address space, as far as the IOMMU and this program see it.

use crate::Cause;
use crate::seams::lock;
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use viommu_plugin::Unreadable;
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryError, GuestMemoryRegion, GuestRegionMmap, MemoryRegionAddress, MmapRegion,
    VolatileMemory,
};

/// Blocks are handed out in multiples of this, in bytes: no two share a cache line.
const GRAIN: u64 = 64;

/// Host physical memory: regions of it at host physical addresses, and an allocator for the driver's tables and queues.
///
/// Readers take no lock: the map of regions is replaced as a whole when one comes or goes. Aligned words of 8 bytes are
/// read and written as one, so that a table walker never sees half an entry.
///
/// ```
/// use viommu::backend::direct::PhysicalMemory;
///
/// let memory = PhysicalMemory::new();
/// memory.add_dma(0x1_0000_0000, 16 << 20)?;
/// let table = memory.alloc(4096, 4096)?;
/// memory.store(table + 8, 0x1234).unwrap();
/// assert_eq!(memory.load(table + 8), Ok(0x1234));
/// memory.free(table, 4096)?;
/// # Ok::<(), viommu::Cause>(())
/// ```
pub struct PhysicalMemory {
    regions: ArcSwap<Vec<Region>>,
    change: Mutex<Blocks>,
}

#[derive(Clone)]
struct Region {
    first: u64,
    last: u64,
    memory: Arc<GuestRegionMmap>,
}

/// What the allocator knows.
#[derive(Default)]
struct Blocks {
    /// Free blocks: address to length; neighbours are joined.
    free: BTreeMap<u64, u64>,
    /// Blocks handed out: address to length.
    taken: BTreeMap<u64, u64>,
    /// By region: everything below was handed out at some time, and may not be zero.
    used: BTreeMap<u64, u64>,
}

impl PhysicalMemory {
    /// An address space with no memory in it.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { regions: ArcSwap::from_pointee(Vec::new()), change: Mutex::default() })
    }

    /// Puts memory at host physical address `pa`: a guest's RAM, for example ([`GuestRegionMmap::get_mmap`]).
    ///
    /// # Errors
    /// EEXIST if other memory is there, EINVAL if it would go beyond 2^64.
    pub fn add_region(&self, pa: u64, mapping: Arc<MmapRegion>) -> Result<(), Cause> {
        let _change = lock(&self.change);
        self.insert(pa, mapping)
    }

    /// Takes the memory that starts at `pa` out of the address space. Its bytes live on with whoever else holds them.
    ///
    /// # Errors
    /// ENOENT if no region starts there; EBUSY if the driver has memory of it.
    pub fn remove_region(&self, pa: u64) -> Result<(), Cause> {
        let mut change = lock(&self.change);
        let mut regions = Vec::clone(&self.regions.load());
        let at = regions.iter().position(|region| region.first == pa);
        let region = regions.remove(at.ok_or_else(|| Cause::Absent(format!("no memory starts at {pa:#x}")))?);
        let blocks = change.taken.range(region.first..=region.last).count();
        if blocks > 0 {
            return Err(Cause::Busy { users: format!("{blocks} blocks of the driver") });
        }
        change.free.retain(|&start, _| start < region.first || start > region.last);
        change.used.remove(&pa);
        self.regions.store(Arc::new(regions));
        Ok(())
    }

    /// Maps `len` bytes of fresh memory at `pa` for [`PhysicalMemory::alloc`]. Pages are only taken from the system
    /// when they are first written.
    ///
    /// # Errors
    /// As [`PhysicalMemory::add_region`], or what mmap says.
    pub fn add_dma(&self, pa: u64, len: u64) -> Result<(), Cause> {
        let bytes = usize::try_from(len).ok().filter(|_| in_grains(pa, len)).ok_or_else(|| not_grains(pa, len))?;
        let mapping = MmapRegion::new(bytes).map_err(|e| Cause::Os(std::io::Error::other(e)))?;
        self.add_dma_region(pa, Arc::new(mapping))
    }

    /// As [`PhysicalMemory::add_dma`], with memory that is there already, and zero: hardware that is a process of its
    /// own must share it.
    ///
    /// # Errors
    /// As [`PhysicalMemory::add_region`]; EINVAL if it is not in whole grains of 64 bytes.
    pub fn add_dma_region(&self, pa: u64, mapping: Arc<MmapRegion>) -> Result<(), Cause> {
        let len = mapping.size() as u64;
        if !in_grains(pa, len) {
            return Err(not_grains(pa, len));
        }
        let mut change = lock(&self.change);
        self.insert(pa, mapping)?;
        change.used.insert(pa, pa);
        change.release(pa, len);
        Ok(())
    }

    fn insert(&self, pa: u64, mapping: Arc<MmapRegion>) -> Result<(), Cause> {
        let memory = GuestRegionMmap::with_arc(mapping, GuestAddress(pa))
            .filter(|memory| memory.len() > 0)
            .ok_or_else(|| Cause::Invalid(format!("memory at {pa:#x} is empty or goes beyond 2^64")))?;
        let region = Region { first: pa, last: pa + (memory.len() - 1), memory: Arc::new(memory) };
        let mut regions = Vec::clone(&self.regions.load());
        let at = regions.partition_point(|other| other.first < pa);
        let before = at.checked_sub(1).is_some_and(|i| regions[i].last >= region.first);
        if before || regions.get(at).is_some_and(|next| next.first <= region.last) {
            return Err(Cause::Exists(format!("there is memory in {pa:#x}..={:#x} already", region.last)));
        }
        regions.insert(at, region);
        self.regions.store(Arc::new(regions));
        Ok(())
    }

    /// The word at `pa`, which is a multiple of 8.
    ///
    /// # Errors
    /// If that is not memory.
    #[inline]
    pub fn load(&self, pa: u64) -> Result<u64, Unreadable> {
        let regions = self.regions.load();
        let region = find(&regions, pa)?;
        let word = region.memory.load(MemoryRegionAddress(pa - region.first), Ordering::Acquire);
        word.map(u64::from_le).map_err(|_| Unreadable)
    }

    /// Writes the word at `pa`, which is a multiple of 8.
    ///
    /// # Errors
    /// If that is not memory.
    #[inline]
    pub fn store(&self, pa: u64, word: u64) -> Result<(), Unreadable> {
        let regions = self.regions.load();
        let region = find(&regions, pa)?;
        let at = MemoryRegionAddress(pa - region.first);
        region.memory.store(word.to_le(), at, Ordering::Release).map_err(|_| Unreadable)
    }

    /// Reads `bytes` from `pa`.
    ///
    /// # Errors
    /// If part of it is not memory.
    pub fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        let regions = self.regions.load();
        let mut at = pa;
        let mut rest = bytes;
        while !rest.is_empty() {
            let region = find(&regions, at)?;
            let (now, later) = rest.split_at_mut(region.holds(at, rest.len()));
            region.read(at, now).map_err(|_| Unreadable)?;
            at = at.wrapping_add(now.len() as u64);
            rest = later;
        }
        Ok(())
    }

    /// Writes `bytes` to `pa`.
    ///
    /// # Errors
    /// If part of it is not memory; what is before that part may be written.
    pub fn write(&self, pa: u64, bytes: &[u8]) -> Result<(), Unreadable> {
        let regions = self.regions.load();
        let mut at = pa;
        let mut rest = bytes;
        while !rest.is_empty() {
            let region = find(&regions, at)?;
            let (now, later) = rest.split_at(region.holds(at, rest.len()));
            region.write(at, now).map_err(|_| Unreadable)?;
            at = at.wrapping_add(now.len() as u64);
            rest = later;
        }
        Ok(())
    }

    /// The region that holds `pa..pa+len`, and where in it `pa` is.
    pub(super) fn place(&self, pa: u64, len: u64) -> Option<(Arc<GuestRegionMmap>, usize)> {
        let regions = self.regions.load();
        let region = find(&regions, pa).ok()?;
        let fits = pa.checked_add(len.checked_sub(1)?)? <= region.last;
        fits.then(|| (region.memory.clone(), (pa - region.first) as usize))
    }

    /// Takes `len` bytes of zeroed DMA memory, aligned to `align` bytes (a power of two); their physical address.
    ///
    /// # Errors
    /// ENOSPC if there is no such block, EINVAL for an alignment that is none.
    pub fn alloc(&self, len: u64, align: u64) -> Result<u64, Cause> {
        let bytes = len.checked_next_multiple_of(GRAIN).filter(|&bytes| bytes > 0);
        let (Some(bytes), true) = (bytes, align.is_power_of_two()) else {
            return Err(Cause::Invalid(format!("{len:#x} bytes aligned to {align:#x}")));
        };
        let mut change = lock(&self.change);
        let Some(pa) = change.take(bytes, align) else {
            let size = change.free.values().chain(change.taken.values()).sum();
            return Err(Cause::Exhausted { pool: "bytes of DMA memory", size });
        };
        if let Some((_, used)) = change.used.range_mut(..=pa).next_back() {
            let dirty = used.saturating_sub(pa).min(bytes);
            *used = (*used).max(pa + bytes);
            self.zero(pa, dirty).map_err(|_| Cause::Absent(format!("DMA memory at {pa:#x} is gone")))?;
        }
        Ok(pa)
    }

    /// Gives back what [`PhysicalMemory::alloc`] gave.
    ///
    /// # Errors
    /// EINVAL if it did not give that, or got it back already; nothing happens then.
    pub fn free(&self, pa: u64, len: u64) -> Result<(), Cause> {
        let mut change = lock(&self.change);
        let bytes = len.checked_next_multiple_of(GRAIN);
        if bytes.is_none() || change.taken.get(&pa).copied() != bytes {
            return Err(Cause::Invalid(format!("{len:#x} bytes at {pa:#x} were not allocated")));
        }
        if let Some(bytes) = change.taken.remove(&pa) {
            change.release(pa, bytes);
        }
        Ok(())
    }

    /// Bytes handed out by [`PhysicalMemory::alloc`] and not given back.
    pub fn in_use(&self) -> u64 {
        lock(&self.change).taken.values().sum()
    }

    fn zero(&self, pa: u64, len: u64) -> Result<(), Unreadable> {
        let zeros = [0; 4096];
        let mut done = 0;
        while done < len {
            let part = (len - done).min(zeros.len() as u64);
            let (region, offset) = self.place(pa + done, part).ok_or(Unreadable)?;
            VolatileMemory::get_slice(&**region, offset, part as usize)
                .map_err(|_| Unreadable)?
                .copy_from(&zeros[..part as usize]);
            done += part;
        }
        Ok(())
    }
}

impl fmt::Debug for PhysicalMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        for region in self.regions.load().iter() {
            list.entry(&format_args!("{:#x}..={:#x}", region.first, region.last));
        }
        list.finish()
    }
}

impl Blocks {
    /// The first free block that fits; what is left of it on both sides stays free.
    fn take(&mut self, bytes: u64, align: u64) -> Option<u64> {
        let (start, len, pa) = self.free.iter().find_map(|(&start, &len)| {
            let pa = start.checked_next_multiple_of(align)?;
            (pa - start).checked_add(bytes).filter(|&needed| needed <= len).map(|_| (start, len, pa))
        })?;
        self.free.remove(&start);
        if pa > start {
            self.free.insert(start, pa - start);
        }
        if pa + bytes < start + len {
            self.free.insert(pa + bytes, start + len - (pa + bytes));
        }
        self.taken.insert(pa, bytes);
        Some(pa)
    }

    /// Makes a block free, joined with free neighbours of its own region.
    fn release(&mut self, pa: u64, bytes: u64) {
        let (mut start, mut end) = (pa, pa + bytes);
        if let Some((&before, &len)) = self.free.range(..pa).next_back()
            && before + len == pa
            && !self.used.contains_key(&pa)
        {
            start = before;
        }
        if let Some(&len) = self.free.get(&end)
            && !self.used.contains_key(&end)
        {
            self.free.remove(&end);
            end += len;
        }
        self.free.insert(start, end - start);
    }
}

impl Region {
    /// How many of `len` bytes from `pa`, which is in this region, are in it too.
    fn holds(&self, pa: u64, len: usize) -> usize {
        (self.last - pa).saturating_add(1).min(len as u64) as usize
    }

    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), GuestMemoryError> {
        let mut at = MemoryRegionAddress(pa - self.first);
        let (start, words, end) = parts(pa, bytes.len());
        let (head, rest) = bytes.split_at_mut(start);
        let (middle, tail) = rest.split_at_mut(words);
        self.memory.read_slice(head, at)?;
        at.0 += start as u64;
        for word in middle.as_chunks_mut::<8>().0 {
            *word = self.memory.load::<u64>(at, Ordering::Acquire)?.to_ne_bytes();
            at.0 += 8;
        }
        if end > 0 { self.memory.read_slice(tail, at) } else { Ok(()) }
    }

    fn write(&self, pa: u64, bytes: &[u8]) -> Result<(), GuestMemoryError> {
        let mut at = MemoryRegionAddress(pa - self.first);
        let (start, words, end) = parts(pa, bytes.len());
        self.memory.write_slice(&bytes[..start], at)?;
        at.0 += start as u64;
        for word in bytes[start..start + words].as_chunks::<8>().0 {
            self.memory.store(u64::from_ne_bytes(*word), at, Ordering::Release)?;
            at.0 += 8;
        }
        if end > 0 { self.memory.write_slice(&bytes[start + words..], at) } else { Ok(()) }
    }
}

fn in_grains(pa: u64, len: u64) -> bool {
    len > 0 && (len | pa).is_multiple_of(GRAIN)
}

fn not_grains(pa: u64, len: u64) -> Cause {
    Cause::Invalid(format!("DMA memory of {len:#x} bytes at {pa:#x} is not in grains of {GRAIN}"))
}

#[inline]
fn find(regions: &[Region], pa: u64) -> Result<&Region, Unreadable> {
    let at = regions.partition_point(|region| region.first <= pa);
    at.checked_sub(1).map(|i| &regions[i]).filter(|region| pa <= region.last).ok_or(Unreadable)
}

/// Of `len` bytes at `pa`: those before the first aligned word, those in whole words, those behind.
fn parts(pa: u64, len: usize) -> (usize, usize, usize) {
    let start = len.min((pa.wrapping_neg() % 8) as usize);
    let words = (len - start) & !7;
    (start, words, len - start - words)
}
