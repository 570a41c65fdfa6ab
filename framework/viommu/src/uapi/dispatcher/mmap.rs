//! Registers of vIOMMUs that the caller may map.

use super::driver::{PAGE_SIZE, Registers};
use crate::uapi::Errno;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The bytes of some registers: a model's memory.
pub(super) type Page = Arc<Mutex<Vec<u8>>>;

#[derive(Debug)]
struct Region {
    owner: u32,
    length: u64,
    page: Page,
}

/// What can be mapped, by offset.
#[derive(Debug, Default)]
pub(super) struct Mmaps(BTreeMap<u64, Region>);

/// How something is to be mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapFlags {
    /// MAP_SHARED.
    pub shared: bool,
    /// PROT_EXEC.
    pub executable: bool,
}

impl Default for MapFlags {
    fn default() -> Self {
        Self { shared: true, executable: false }
    }
}

impl Mmaps {
    /// The lowest offset with room, which is never zero.
    pub(super) fn offer(&mut self, owner: u32, registers: Registers) -> Result<u64, Errno> {
        let length = registers.length;
        if length == 0 || length > 1 << 30 || !length.is_multiple_of(PAGE_SIZE) {
            return Err(Errno::INVAL);
        }
        let mut offset = PAGE_SIZE;
        for (at, region) in &self.0 {
            if at - offset >= length {
                break;
            }
            offset = at + region.length;
        }
        let mut bytes = vec![0; length as usize];
        bytes[..4].copy_from_slice(&registers.first_word.to_ne_bytes());
        self.0.insert(offset, Region { owner, length, page: Arc::new(Mutex::new(bytes)) });
        Ok(offset)
    }

    pub(super) fn remove(&mut self, owner: u32) {
        self.0.retain(|_, region| region.owner != owner);
    }

    /// The registers of an owner, mapped or not.
    pub(super) fn of(&self, owner: u32) -> Option<Page> {
        self.0.values().find(|region| region.owner == owner).map(|region| region.page.clone())
    }

    /// What is at exactly this offset and length, and whose it is.
    pub(super) fn find(&self, offset: u64, length: u64, flags: MapFlags) -> Result<(u32, Page), Errno> {
        // The length of a mapping is rounded up to whole pages before the file sees it.
        let length = length.checked_next_multiple_of(PAGE_SIZE).filter(|length| *length > 0).ok_or(Errno::INVAL)?;
        if !offset.is_multiple_of(PAGE_SIZE) || !flags.shared {
            return Err(Errno::INVAL);
        }
        if flags.executable {
            return Err(Errno::PERM);
        }
        let region = self.0.get(&offset).filter(|region| region.length == length).ok_or(Errno::NXIO)?;
        Ok((region.owner, region.page.clone()))
    }
}

/// Reads a word of a page; `None` outside of it.
pub(super) fn read(page: &Page, offset: usize) -> Option<u32> {
    let page = page.lock().unwrap_or_else(PoisonError::into_inner);
    Some(u32::from_ne_bytes(page.get(offset..offset.checked_add(4)?)?.try_into().ok()?))
}

/// Writes a word of a page; `None` outside of it.
pub(super) fn write(page: &Page, offset: usize, word: u32) -> Option<()> {
    let mut page = page.lock().unwrap_or_else(PoisonError::into_inner);
    page.get_mut(offset..offset.checked_add(4)?)?.copy_from_slice(&word.to_ne_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c6_11_only_what_was_offered_can_be_mapped() {
        let mut mmaps = Mmaps::default();
        let registers = Registers { length: 0x2000, first_word: 7 };
        let offsets: Vec<u64> = (1..4).map(|owner| mmaps.offer(owner, registers.clone()).unwrap()).collect();
        assert_eq!(offsets, [0x1000, 0x3000, 0x5000]);
        mmaps.remove(2);
        assert_eq!(mmaps.offer(4, Registers { length: 0x1000, first_word: 0 }), Ok(0x3000));
        let find = |offset, length, flags| mmaps.find(offset, length, flags).map(|(owner, _)| owner);
        let flags = MapFlags::default();
        assert_eq!(find(0x1000, 0x2000, flags), Ok(1));
        for (offset, length) in [(0, 0x2000), (0x2000, 0x2000), (0x1000, 0x1000), (0x1000, 0x4000)] {
            assert_eq!(find(offset, length, flags), Err(Errno::NXIO));
        }
        assert_eq!(find(0x1000, 0x2000, MapFlags { shared: false, ..flags }), Err(Errno::INVAL));
        assert_eq!(find(0x1000, 0x2000, MapFlags { executable: true, ..flags }), Err(Errno::PERM));
        assert_eq!([find(0x1000, 0, flags), find(0x1001, 0x2000, flags)], [Err(Errno::INVAL); 2]);
    }
}
