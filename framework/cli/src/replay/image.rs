//! What is known of a recorded guest's memory.

use rustc_hash::FxHashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use viommu_plugin::{ModelHost, Unreadable};
use viommu_trace::Header;

const PAGE: u64 = 4096;
const WORDS: usize = PAGE as usize / 8;

/// A guest's RAM as far as the recording has shown it: pages of 4 KiB, with a bit for each word that is known.
pub(crate) struct Image {
    header: Header,
    pages: FxHashMap<u64, Box<Page>>,
    unknown_read: Option<u64>,
}

struct Page {
    bytes: [u8; PAGE as usize],
    known: [u64; WORDS / 64],
}

/// A piece of a range that lies in one page: the page's number, the offset in it, and where in the range it begins.
fn pieces(address: u64, length: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let at = address.wrapping_add(start as u64);
        let offset = (at % PAGE) as usize;
        let end = length.min(start + PAGE as usize - offset);
        let piece = (start < end).then_some((at / PAGE, offset, start..end));
        start = end;
        piece
    })
}

impl Image {
    /// A guest's memory of which nothing is known.
    pub(crate) fn new(header: &Header) -> Self {
        Self { header: header.clone(), pages: FxHashMap::default(), unknown_read: None }
    }

    /// From now on the memory at `gpa` (a multiple of 8) holds `bytes` (whole words). What is not RAM stays unknown,
    /// so that the image never grows beyond the guest's RAM; whether all of it was RAM.
    pub(crate) fn put(&mut self, gpa: u64, bytes: &[u8]) -> bool {
        if !self.header.in_ram(gpa, bytes.len() as u64) {
            return false;
        }
        for (number, offset, range) in pieces(gpa, bytes.len()) {
            let blank = || Box::new(Page { bytes: [0; PAGE as usize], known: [0; WORDS / 64] });
            let page = self.pages.entry(number).or_insert_with(blank);
            page.bytes[offset..offset + range.len()].copy_from_slice(&bytes[range.clone()]);
            for word in offset / 8..(offset + range.len()) / 8 {
                page.known[word / 64] |= 1 << (word % 64);
            }
        }
        true
    }

    /// Fills `bytes` from `gpa`.
    ///
    /// # Errors
    /// If any of it is not RAM, or was never recorded; the latter is remembered.
    pub(crate) fn get(&mut self, gpa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        if !self.header.in_ram(gpa, bytes.len() as u64) {
            return Err(Unreadable);
        }
        for (number, offset, range) in pieces(gpa, bytes.len()) {
            let known = |page: &Page| {
                (offset / 8..(offset + range.len()).div_ceil(8))
                    .all(|word| page.known[word / 64] >> (word % 64) & 1 == 1)
            };
            let Some(page) = self.pages.get(&number).filter(|page| known(page)) else {
                self.unknown_read = Some(number * PAGE + offset as u64);
                return Err(Unreadable);
            };
            bytes[range.clone()].copy_from_slice(&page.bytes[offset..offset + range.len()]);
        }
        Ok(())
    }

    /// [`Image::get`] as a function that says whether it could.
    pub(crate) fn reader(&mut self) -> impl FnMut(u64, &mut [u8]) -> bool + '_ {
        |gpa, bytes| self.get(gpa, bytes).is_ok()
    }

    /// Takes the address of the last read of something that was never recorded.
    pub(crate) fn take_unknown_read(&mut self) -> Option<u64> {
        self.unknown_read.take()
    }
}

/// The image as a model sees it.
///
/// What the model writes is dropped: the recording tells what memory holds, and after a word that the guest wrote twice
/// with the same value it tells it only once.
#[derive(Clone)]
pub(crate) struct ModelMemory {
    image: Arc<Mutex<Image>>,
}

impl ModelMemory {
    /// Shares an image.
    pub(crate) fn new(image: Image) -> Self {
        Self { image: Arc::new(Mutex::new(image)) }
    }

    /// The image. Not to be held while the model is called.
    pub(crate) fn image(&self) -> MutexGuard<'_, Image> {
        self.image.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ModelHost for ModelMemory {
    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        self.image().get(pa, bytes)
    }

    fn write(&self, pa: u64, bytes: &[u8]) -> Result<(), Unreadable> {
        // Four bytes outside RAM are a message-signalled interrupt.
        if bytes.len() == 4 || self.image().header.in_ram(pa, bytes.len() as u64) { Ok(()) } else { Err(Unreadable) }
    }

    fn irq(&self, _line: u32) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use viommu_trace::Vendor;

    fn image() -> Image {
        Image::new(&Header::new(Vendor::ARM_SMMUV3).ram(0x1_0000, 0x4000))
    }

    #[test]
    fn only_what_was_recorded_can_be_read() {
        let mut image = image();
        let mut bytes = [0xa5; 24];
        assert!(image.put(0x1_0ff8, &[7; 16]));
        assert_eq!(image.get(0x1_0ff8, &mut bytes[..16]), Ok(()));
        assert_eq!(bytes[..16], [7; 16]);
        assert_eq!(image.get(0x1_0ffc, &mut bytes[..4]), Ok(()));
        assert_eq!(image.take_unknown_read(), None);
        assert_eq!(image.get(0x1_1000, &mut bytes[..16]), Err(Unreadable));
        assert_eq!(image.take_unknown_read(), Some(0x1_1000));
        assert_eq!(image.get(0x1_3000, &mut bytes[..8]), Err(Unreadable));
        assert_eq!(image.take_unknown_read(), Some(0x1_3000));
    }

    #[test]
    fn what_is_not_ram_is_neither_kept_nor_read() {
        let mut image = image();
        for gpa in [0, 0xfff8, 0x1_3ff8, 0x1_4000, u64::MAX - 7] {
            assert!(!image.put(gpa, &[1; 16]), "{gpa:#x}");
            assert_eq!(image.get(gpa, &mut [0; 16]), Err(Unreadable), "{gpa:#x}");
        }
        assert!(image.pages.is_empty());
        assert_eq!(image.take_unknown_read(), None);
    }

    #[test]
    fn a_model_writes_to_ram_and_messages_but_changes_nothing() {
        let memory = ModelMemory::new(image());
        memory.image().put(0x1_0000, &[3; 8]);
        assert_eq!(memory.write(0x1_0000, &[9; 8]), Ok(()));
        assert_eq!(memory.write(0x800_0040, &[9; 4]), Ok(()));
        assert_eq!(memory.write(0x800_0040, &[9; 32]), Err(Unreadable));
        let mut bytes = [0; 8];
        assert_eq!(memory.read(0x1_0000, &mut bytes), Ok(()));
        assert_eq!(bytes, [3; 8]);
    }
}
