//! Changing a PASID table entry that the hardware may read at any moment.
//!
//! Hardware reads an entry in pieces of 128 bits at best, and words of 64 bits are what can be written as one. If the
//! words that matter to the old and to the new entry differ in one only, the others are prepared first and that one
//! flips: DMA sees the old or the new entry, never a mix. Otherwise P is cleared in between, and set last.

use super::PasidEntry;
use crate::spec::pasid::{PasidEntry0, TranslationKind};

/// One step of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Write this word of the entry.
    Write {
        /// Word, 0..8.
        word: usize,
        /// Its value.
        value: u64,
    },
    /// PASID cache, IOTLB, wait: the hardware must have forgotten what it read before.
    Forget,
}

const PRESENT: u64 = PasidEntry0::new().with_present(true).into_bits();

/// The steps from `current` to `target`; none if they are equal. Both have zeros in what they do not use.
pub fn plan(current: &PasidEntry, target: &PasidEntry) -> Vec<Step> {
    let mut change = Change { entry: *current, steps: Vec::new() };
    let (old, new) = (used(current), used(target));
    let differs = |&word: &usize| (current[word] ^ target[word]) & new[word] != 0;
    let mut critical = (0..target.len()).filter(|word| old[*word] != 0 && differs(word));
    match (critical.next(), critical.next()) {
        // Words that the old entry does not use, then the one that both do, and when the hardware has seen that, what the
        // new one does not use.
        (flip, None) => {
            change.write(target, (0..8).filter(|word| old[*word] == 0));
            change.write(target, flip.into_iter());
            change.forget(current);
            change.write(target, 0..8);
        }
        _ => {
            change.write(&[0; 8], 0..1);
            change.forget(current);
            change.write(target, 1..8);
            change.write(target, 0..1);
        }
    }
    change.steps
}

/// Bits that hardware looks at in this entry.
fn used(entry: &PasidEntry) -> PasidEntry {
    let word0 = PasidEntry0::from_bits(entry[0]);
    match (word0.present(), TranslationKind(word0.translation_kind())) {
        (false, _) => [PRESENT, 0, 0, 0, 0, 0, 0, 0],
        (true, TranslationKind::NESTED) => [u64::MAX, u64::MAX, u64::MAX, 0, 0, 0, 0, 0],
        (true, _) => [u64::MAX, u64::MAX, 0, 0, 0, 0, 0, 0],
    }
}

struct Change {
    entry: PasidEntry,
    steps: Vec<Step>,
}

impl Change {
    /// Brings words of the entry to `target`.
    fn write(&mut self, target: &PasidEntry, words: impl Iterator<Item = usize>) {
        for word in words {
            if self.entry[word] != target[word] {
                self.entry[word] = target[word];
                self.steps.push(Step::Write { word, value: target[word] });
            }
        }
    }

    /// Has the hardware forget the entry if it was one, and anything of it changed.
    fn forget(&mut self, current: &PasidEntry) {
        if current[0] & PRESENT != 0 && !self.steps.is_empty() {
            self.steps.push(Step::Forget);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABORT: PasidEntry = [0; 8];
    const BYPASS: PasidEntry = [0x7000_0089, 7, 0, 0, 0, 0, 0, 0];
    const NESTED: PasidEntry = [0x7000_00c9, 9, 0x4000_1000, 0, 0, 0, 0, 0];

    /// The entries that hardware may see on the way.
    fn seen(current: PasidEntry, target: PasidEntry) -> Vec<PasidEntry> {
        let mut entry = current;
        let mut seen = vec![entry];
        for step in plan(&current, &target) {
            if let Step::Write { word, value } = step {
                entry[word] = value;
                seen.push(entry);
            }
        }
        assert_eq!(entry, target);
        seen
    }

    /// What the hardware makes of an entry: nothing, or the words it uses.
    fn meaning(entry: PasidEntry) -> Option<Vec<u64>> {
        let used = used(&entry);
        (entry[0] & 1 != 0).then(|| (0..8).map(|word| entry[word] & used[word]).collect())
    }

    #[test]
    fn hardware_sees_the_old_entry_the_new_one_or_none() {
        let other_table = {
            let mut entry = NESTED;
            entry[2] += 0x1000;
            entry
        };
        let other_domain = {
            let mut entry = NESTED;
            entry[1] = 10;
            entry
        };
        let all = [ABORT, BYPASS, NESTED, other_table, other_domain];
        for (current, target) in all.into_iter().flat_map(|one| all.map(|other| (one, other))) {
            for entry in seen(current, target) {
                let may = [meaning(current), meaning(target), None];
                assert!(may.contains(&meaning(entry)), "{entry:x?} between {current:x?} and {target:x?}");
            }
        }
    }

    #[test]
    fn one_word_flips_with_no_gap_and_several_have_one() {
        let other_table = {
            let mut entry = NESTED;
            entry[2] += 0x1000;
            entry
        };
        let gap = |one, other| seen(one, other)[1..].iter().any(|entry| entry[0] & 1 == 0);
        assert!(!gap(NESTED, other_table), "DMA goes on");
        assert!(gap(BYPASS, NESTED) && gap(NESTED, BYPASS));
        assert!(!gap(ABORT, ABORT));
        // P is the last bit to be set, and the first to go.
        assert_eq!(plan(&ABORT, &NESTED).last(), Some(&Step::Write { word: 0, value: NESTED[0] }));
        assert_eq!(plan(&NESTED, &ABORT)[0], Step::Write { word: 0, value: 0 });
    }

    #[test]
    fn the_hardware_forgets_every_entry_that_was_one_and_nothing_else() {
        for (current, target, forgets) in
            [(NESTED, BYPASS, 1), (BYPASS, ABORT, 1), (ABORT, NESTED, 0), (NESTED, NESTED, 0)]
        {
            let steps = plan(&current, &target);
            assert_eq!(steps.iter().filter(|step| **step == Step::Forget).count(), forgets, "{steps:x?}");
        }
    }
}
