//! The answers that one access may get now.

use super::shadow::{Context, Entry, Leaf, Mode, Shadow};
use std::collections::BTreeSet;
use std::fmt;

/// Answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Allowed {
    /// Host physical addresses.
    pub(crate) outputs: BTreeSet<u64>,
    /// It may be refused: aborted, or with a fault.
    pub(crate) refusal: bool,
}

impl Allowed {
    /// Every combination of what is now and what may be cached.
    pub(super) fn of(shadow: &Shadow, virt_id: u32, iova: u64, write: bool) -> Self {
        let mut allowed = Self { outputs: BTreeSet::new(), refusal: shadow.forgiven.is_some() };
        let stream = shadow.streams.get(&virt_id);
        let Some(stream) = stream.filter(|_| !shadow.quarantined) else {
            allowed.refusal = true;
            return allowed;
        };
        allowed.refusal |= stream.present.all().any(|present| !present);
        if !stream.present.all().any(|present| *present) {
            return allowed;
        }
        let changes = [shadow.mode.past.len(), stream.entry.past.len(), stream.contexts.len()];
        allowed.refusal |= shadow.gaps && changes != [0; 3];
        for mode in shadow.mode.all() {
            match mode {
                Mode::Abort => allowed.refusal = true,
                Mode::Bypass => allowed.through_stage_2(shadow, iova),
                Mode::Translate => {
                    for entry in stream.entry.all() {
                        allowed.by_entry(shadow, *entry, &stream.contexts, iova, write);
                    }
                }
            }
        }
        allowed
    }

    fn by_entry(&mut self, shadow: &Shadow, entry: Entry, older: &[(Context, u64)], iova: u64, write: bool) {
        match entry {
            Entry::Abort => self.refusal = true,
            Entry::Bypass => self.through_stage_2(shadow, iova),
            Entry::Context(address) => {
                match shadow.contexts.get(&address).copied().flatten() {
                    Some(context) => self.by_context(shadow, context, iova, write),
                    None => self.refusal = true,
                }
                for (context, _) in older {
                    self.by_context(shadow, *context, iova, write);
                }
            }
        }
    }

    fn by_context(&mut self, shadow: &Shadow, context: Context, iova: u64, write: bool) {
        let grants = |leaf: &&Leaf| leaf.covers(iova) && (leaf.writable || !write);
        match shadow.roots.get(&context.root).and_then(|leaves| leaves.iter().find(grants)) {
            Some(leaf) => self.by_leaf(shadow, leaf, iova),
            None => self.refusal = true,
        }
        let unknown = shadow.unknown.get(&context.tag).into_iter().flatten();
        self.refusal |= unknown.into_iter().any(|(leaf, _)| leaf.covers(iova));
        let cached = shadow.cached.get(&context.tag).into_iter().flatten().map(|(leaf, _)| leaf);
        cached.filter(grants).for_each(|leaf| self.by_leaf(shadow, leaf, iova));
    }

    fn by_leaf(&mut self, shadow: &Shadow, leaf: &Leaf, iova: u64) {
        self.through_stage_2(shadow, leaf.output + (iova - leaf.base));
    }

    fn through_stage_2(&mut self, shadow: &Shadow, address: u64) {
        let inside = |base: u64, length: u64| address.checked_sub(base).filter(|offset| *offset < length);
        let found = shadow.windows.iter().find_map(|window| Some((window, inside(window.base, window.length)?)));
        let Some((window, offset)) = found else {
            self.refusal = true;
            return;
        };
        for backing in window.backing.all() {
            match backing {
                Some(first) => drop(self.outputs.insert(first + offset)),
                None => self.refusal = true,
            }
        }
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut answers: Vec<_> = self.outputs.iter().map(|output| format!("{output:#x}")).collect();
        if self.refusal {
            answers.push("refusal".into());
        }
        write!(f, "{{{}}}", answers.join(", "))
    }
}
