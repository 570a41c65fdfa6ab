//! The memory of a guest that never ran: the pages its IOMMU may read, and what changed in them since it was recorded.

use crate::draw::Draw;
use std::collections::BTreeMap;
use viommu_trace::Role;

/// Bytes of a page.
pub(crate) const PAGE: u64 = 4096;
const WORDS: usize = PAGE as usize / 8;

/// Pages of RAM that hold tables and queues, by address.
pub(crate) struct Memory {
    next: u64,
    pages: BTreeMap<u64, Box<[u64; WORDS]>>,
    free: Vec<u64>,
    changed: BTreeMap<u64, Role>,
}

/// Words that changed, next to each other in memory: what a MEM record holds.
pub(crate) struct Change {
    pub(crate) role: Role,
    pub(crate) gpa: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Memory {
    /// Memory whose table pages lie from `base` upwards.
    pub(crate) fn new(base: u64) -> Self {
        Self { next: base, pages: BTreeMap::new(), free: Vec::new(), changed: BTreeMap::new() }
    }

    /// A page of zeroes. One that was given back comes again soon: whoever still believes in its last contents shows.
    pub(crate) fn page(&mut self, draw: &mut Draw, role: Role) -> u64 {
        if !self.free.is_empty() && draw.chance(70) {
            let page = self.free.swap_remove(draw.index(self.free.len()));
            (0..WORDS as u64).for_each(|word| self.write(page + 8 * word, 0, role));
            return page;
        }
        // Gaps, so that tables are not neighbours.
        self.next += PAGE * draw.below(3);
        self.run(1, 1, role)
    }

    /// This many pages of zeroes one after the other, from a multiple of `align` pages on.
    pub(crate) fn run(&mut self, pages: u64, align: u64, role: Role) -> u64 {
        let first = self.next.next_multiple_of(align * PAGE);
        self.next = first + pages * PAGE;
        for page in (first..self.next).step_by(PAGE as usize) {
            self.pages.insert(page, Box::new([0; WORDS]));
            self.changed.extend((page..page + PAGE).step_by(8).map(|word| (word, role)));
        }
        first
    }

    /// Gives a page back.
    pub(crate) fn give_back(&mut self, page: u64) {
        self.free.push(page);
    }

    /// The word at `gpa`, if it is in one of the pages.
    pub(crate) fn read(&self, gpa: u64) -> Option<u64> {
        let page = self.pages.get(&(gpa & !(PAGE - 1)))?;
        Some(page[(gpa % PAGE) as usize / 8])
    }

    /// The guest writes the word at `gpa`, in one of the pages.
    pub(crate) fn write(&mut self, gpa: u64, value: u64, role: Role) {
        let page = self.pages.get_mut(&(gpa & !(PAGE - 1))).expect("the guest writes only to pages it has");
        let word = &mut page[(gpa % PAGE) as usize / 8];
        if *word != value {
            *word = value;
            self.changed.insert(gpa, role);
        }
    }

    /// What changed since this was last asked, in ascending order.
    pub(crate) fn take_changes(&mut self) -> Vec<Change> {
        let mut changes: Vec<Change> = Vec::new();
        for (gpa, role) in std::mem::take(&mut self.changed) {
            let word = self.read(gpa).expect("only words of pages change").to_le_bytes();
            match changes.last_mut() {
                Some(last) if last.role == role && last.gpa + last.bytes.len() as u64 == gpa && gpa % PAGE != 0 => {
                    last.bytes.extend(word);
                }
                _ => changes.push(Change { role, gpa, bytes: word.to_vec() }),
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_told_and_in_runs() {
        let (mut memory, mut draw) = (Memory::new(0x10_0000), Draw::new(1));
        let page = memory.page(&mut draw, Role::PAGE_TABLE);
        assert_eq!(memory.take_changes().iter().map(|change| change.bytes.len()).sum::<usize>(), 4096);
        memory.write(page + 8, 7, Role::PAGE_TABLE);
        memory.write(page + 16, 8, Role::PAGE_TABLE);
        memory.write(page + 64, 9, Role::PAGE_TABLE);
        memory.write(page + 72, 0, Role::PAGE_TABLE);
        let told: Vec<_> = memory.take_changes().iter().map(|change| (change.gpa, change.bytes.len())).collect();
        assert_eq!(told, [(page + 8, 16), (page + 64, 8)]);
        assert!(memory.take_changes().is_empty());
        assert_eq!(memory.read(page + 8), Some(7));
        assert_eq!(memory.read(page + PAGE * 64), None);
    }

    #[test]
    fn a_page_that_comes_again_is_empty() {
        let (mut memory, mut draw) = (Memory::new(0), Draw::new(1));
        let page = memory.page(&mut draw, Role::PAGE_TABLE);
        memory.write(page, 1, Role::PAGE_TABLE);
        memory.give_back(page);
        let again = (0..20).map(|_| memory.page(&mut draw, Role::CONTEXT)).find(|&again| again == page);
        assert_eq!(again.and_then(|again| memory.read(again)), Some(0));
    }
}
