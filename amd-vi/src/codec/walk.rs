//! The guest's v1 page table, leaf by leaf: what its shadow is made of.

use crate::spec::dte::DteWord0;
use crate::spec::pte::{HostPte, PTE_BYTES, span_log2};
use viommu_plugin::{EntryKey, GuestMapping, GuestMemory, KeyKind, WALK_READS, Walked};

/// A table on the way down.
#[derive(Debug, Clone, Copy, Default)]
struct Table {
    gpa: u64,
    level: u8,
    /// First address it maps.
    base: u64,
    /// Last address of the entry that points to it: more than the table maps, if that skips levels.
    last: u64,
    /// Bit 0 read, bit 1 write: what all levels above allow.
    permissions: u32,
}

impl Table {
    /// The last address that the table itself maps.
    fn reach(&self) -> u64 {
        self.base | below(span_log2(self.level).into(), 512)
    }
}

/// `count << log2`, less one, or all ones where that is beyond a word.
fn below(log2: u32, count: u64) -> u64 {
    u64::try_from((u128::from(count) << log2) - 1).unwrap_or(u64::MAX)
}

/// What an entry is.
enum Entry {
    Nothing,
    Table(Table),
    Leaf(GuestMapping),
}

/// The leaves of the v1 table of `key` that map any of `first..=last`, ascending. See [`viommu_plugin::Codec::walk`].
pub(super) fn leaves(
    key: &EntryKey,
    memory: &dyn GuestMemory,
    first: u64,
    last: u64,
    out: &mut [GuestMapping],
) -> Walked {
    let finished = |written| Walked { written, done: 1, next: 0 };
    let word0 = DteWord0::from_bits(key.words[0]);
    let levels = word0.mode();
    if key.kind != KeyKind::TRANSLATE || !(1..=DteWord0::MODE_MOST).contains(&levels) || first > last {
        return finished(0);
    }
    let permissions = u32::from(word0.ir()) | u32::from(word0.iw()) << 1;
    let mut path = [Table::default(); DteWord0::MODE_MOST as usize];
    path[0] = Table { gpa: word0.host_table(), level: levels, base: 0, last: u64::MAX, permissions };
    let mut depth = 1usize;
    let (mut at, mut written, mut reads) = (first, 0, 0u32);
    loop {
        if at > last {
            return finished(written);
        }
        let Some(table) = depth.checked_sub(1).and_then(|top| path.get(top)).copied() else { return finished(written) };
        let next = if at > table.reach() {
            // Behind the table: the addresses that its pointer skips map nothing.
            depth -= 1;
            table.last.checked_add(1)
        } else {
            if reads + READS_OF_AN_ENTRY > WALK_READS {
                return Walked { written, done: 0, next: at };
            }
            match entry(memory, &table, at, &mut reads) {
                Entry::Table(inner) => {
                    path[depth] = inner;
                    depth += 1;
                    continue;
                }
                Entry::Nothing => at.checked_add(1 + (below(span_log2(table.level).into(), 1) & !at)),
                Entry::Leaf(leaf) => {
                    let Some(slot) = out.get_mut(written as usize) else {
                        return Walked { written, done: 0, next: at };
                    };
                    *slot = leaf;
                    written += 1;
                    (leaf.iova + (leaf.length - 1)).checked_add(1)
                }
            }
        };
        let Some(next) = next else { return finished(written) };
        // Once behind a table's last address, it is not looked at again; a leaf may end far above.
        while depth > 1 && next > path[depth - 1].last {
            depth -= 1;
        }
        at = next;
    }
}

/// Reads of one entry at most: its own, and of those that repeat it.
const READS_OF_AN_ENTRY: u32 = 1 + 256;

/// The entry for `at` of `table`.
///
/// A page that is larger than its entry's place is repeated in every place it covers. Where a guest repeats something else,
/// hardware goes by the entry it reads, and so does this: the entry maps its own place. Leaves so never overlap.
fn entry(memory: &dyn GuestMemory, table: &Table, at: u64, reads: &mut u32) -> Entry {
    let log2 = u32::from(span_log2(table.level));
    let index = (at - table.base) >> log2 & 511;
    let mut word_at = |index: u64| {
        *reads += 1;
        memory.read_u64(table.gpa.checked_add(index * PTE_BYTES)?).ok()
    };
    let Some(word) = word_at(index) else { return Entry::Nothing };
    let pte = HostPte::from_bits(word);
    let permissions = table.permissions & (u32::from(pte.ir()) | u32::from(pte.iw()) << 1);
    if !pte.pr() || permissions == 0 {
        return Entry::Nothing;
    }
    let base = at & !below(log2, 1);
    let leaf = |gpa: u64, log2: u32| {
        let iova = at & !below(log2, 1);
        let whole = log2 < 64 && gpa.checked_add(below(log2, 1)).is_some() && gpa & below(log2, 1) == 0;
        if whole {
            Entry::Leaf(GuestMapping { iova, gpa, length: 1 << log2, permissions, reserved: 0 })
        } else {
            Entry::Nothing
        }
    };
    match pte.next_level() {
        HostPte::PAGE => leaf(pte.pointer() & !below(log2, 1), log2),
        HostPte::SIZED_PAGE => {
            let (gpa, size) = pte.sized_page();
            // From the size of one entry to less than the whole table's; anything else means nothing.
            if !(log2..log2 + 9).contains(&size.into()) {
                return Entry::Nothing;
            }
            let places = 1 << (u32::from(size) - log2);
            let first = index & !(places - 1);
            if (first..first + places).all(|other| other == index || word_at(other) == Some(word)) {
                leaf(gpa, size.into())
            } else {
                leaf(gpa | base & below(size.into(), 1), log2)
            }
        }
        level if level < table.level => {
            let last = base | below(log2, 1);
            Entry::Table(Table { gpa: pte.pointer(), level, base, last, permissions })
        }
        _ => Entry::Nothing,
    }
}
