//! Changing a DTE that the hardware may read at any moment.
//!
//! Linux writes an entry in halves of 128 bits: the upper half first where the entry comes to life or gains GV, last where
//! it loses them, and through an entry without GV where the guest paging mode changes. A
//! [`Hardware`](viommu_plugin::Hardware) only promises that 64 bits are written as one, and a root pointer seen with
//! another's DomainID would fill somebody else's cache. So: if one word differs, it is written; else the device is stopped
//! (V = 1, TV = 0) while the other words change. Never is the entry not valid: that lets all DMA pass.

use super::{ABORT, Dte};

/// One step of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Write this word of the DTE.
    Write {
        /// Word, 0..4.
        word: usize,
        /// Its value.
        value: u64,
    },
    /// INVALIDATE_DEVTAB_ENTRY and COMPLETION_WAIT: the hardware must have seen all writes before.
    Sync,
}

/// The steps from `current` to `target`.
pub fn plan(current: &Dte, target: &Dte) -> Vec<Step> {
    let differ = |word: &usize| current[*word] != target[*word];
    let write = |word| Step::Write { word, value: target[word] };
    let rest: Vec<Step> = (1..4).filter(differ).map(write).collect();
    // In an entry that stops everything, hardware looks at no other word.
    let (stopped, stops) = (current[0] == ABORT[0], target[0] == ABORT[0]);
    let mut steps = Vec::new();
    match (rest.len(), differ(&0)) {
        (0, false) => {}
        (0, true) => steps.extend([write(0), Step::Sync]),
        (1, false) => steps.extend([rest[0], Step::Sync]),
        _ => {
            if !stopped {
                steps.extend([Step::Write { word: 0, value: ABORT[0] }, Step::Sync]);
            }
            steps.extend(rest);
            if !stops {
                steps.extend([write(0), Step::Sync]);
            }
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a device sees of an entry: nothing, or all of it.
    fn seen(dte: &Dte) -> Dte {
        if dte[0] == ABORT[0] { ABORT } else { *dte }
    }

    #[test]
    fn hardware_sees_the_old_entry_the_new_one_or_none_at_all() {
        let some = [
            ABORT,
            [0x6000_0000_1234_5603, 7, 0, 0],
            [0x6000_0000_1234_5603, 8, 0, 0],
            [0x6000_0000_8888_8603, 7, 0, 0],
            [0x60c0_0000_1234_5603, 0x1234_0007, 0, 0],
            [0x60c0_0000_1234_5603, 0x1234_0008, 1 << 54, 0],
            [0x60c0_0000_1234_5603, 0x5678_0007, 1 << 54, 0],
        ];
        for (old, new) in some.iter().flat_map(|old| some.iter().map(move |new| (old, new))) {
            let mut dte = *old;
            // What the hardware may still hold: every content since the last step it was told of, and the one before.
            let mut held = vec![*old];
            for step in plan(old, new) {
                match step {
                    Step::Write { word, value } => dte[word] = value,
                    Step::Sync => held.clear(),
                }
                held.push(dte);
                for content in &held {
                    let content = seen(content);
                    let right = content == seen(old) || content == seen(new) || content == ABORT;
                    assert!(right && content[0] & 1 == 1, "{old:x?} to {new:x?}: {content:x?}");
                }
            }
            assert_eq!(dte, *new);
            assert_eq!(plan(new, new), []);
            let last = plan(old, new).last().copied();
            let silent = seen(old) == seen(new);
            assert!(silent || last == Some(Step::Sync) || seen(new) == ABORT, "{old:x?} to {new:x?}");
        }
    }
}
