//! Memory in which all 4 bytes name its own address, so that what a DMA read or overwrote says where it was.

use viommu::backend::direct::PhysicalMemory;

/// What the 4 bytes at `pa` (a multiple of 4 below 2^33) of watched memory hold: their own address.
pub fn tag(pa: u64) -> u32 {
    1 << 31 | (pa >> 2) as u32
}

/// The address that 4 bytes name, if they are a tag.
pub(crate) fn tagged(word: u32) -> Option<u64> {
    (word >> 31 == 1).then_some(u64::from(word & !(1 << 31)) << 2)
}

/// What a device writes: no tag.
pub(crate) const MARK: u32 = 0x3a5c_a9e3;

const PAGE: usize = 4096;

/// The watched parts of memory.
#[derive(Debug, Default)]
pub(crate) struct Canvas(Vec<(u64, u64)>);

impl Canvas {
    /// Fills `length` bytes (whole pages) with tags and watches them.
    pub(crate) fn watch(&mut self, memory: &PhysicalMemory, pa: u64, length: u64) {
        for page in (pa..pa + length).step_by(PAGE) {
            let words = (page..).step_by(4).take(PAGE / 4);
            let bytes: Vec<u8> = words.flat_map(|at| tag(at).to_le_bytes()).collect();
            // What is no memory is not watched.
            if memory.write(page, &bytes).is_err() {
                return;
            }
        }
        if !self.0.contains(&(pa, length)) {
            self.0.push((pa, length));
        }
    }

    pub(crate) fn holds(&self, pa: u64) -> bool {
        self.0.iter().any(|(first, length)| pa.checked_sub(*first).is_some_and(|offset| offset < *length))
    }

    /// Where the mark is.
    pub(crate) fn find_mark(&self, memory: &PhysicalMemory) -> Option<u64> {
        let pages = self.0.iter().flat_map(|(first, length)| (*first..first + length).step_by(PAGE));
        let mut bytes = [0; PAGE];
        pages.into_iter().find_map(|page| {
            memory.read(page, &mut bytes).ok()?;
            let at = bytes.as_chunks::<4>().0.iter().position(|word| *word == MARK.to_le_bytes())?;
            Some(page + 4 * at as u64)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_names_its_address_and_the_mark_is_found() {
        let memory = PhysicalMemory::new();
        memory.add_dma(0x1_0000_0000, 4 << 12).unwrap();
        let mut canvas = Canvas::default();
        canvas.watch(&memory, 0x1_0000_1000, 2 << 12);
        let word = |pa| {
            let mut bytes = [0; 4];
            memory.read(pa, &mut bytes).unwrap();
            u32::from_le_bytes(bytes)
        };
        assert_eq!(tagged(word(0x1_0000_1ffc)), Some(0x1_0000_1ffc));
        assert_eq!(tagged(word(0x1_0000_3000)), None, "not watched");
        assert!(canvas.holds(0x1_0000_2fff) && !canvas.holds(0x1_0000_3000));
        assert_eq!(canvas.find_mark(&memory), None);
        memory.write(0x1_0000_202c, &MARK.to_le_bytes()).unwrap();
        assert_eq!(canvas.find_mark(&memory), Some(0x1_0000_202c));
    }
}
