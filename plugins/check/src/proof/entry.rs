//! Guest table entries.

use super::table::masks;
use super::{Field, Judged, flips};
use viommu_plugin::{Codec, EntryKey, KeyKind};

/// The key of an entry.
pub type KeyOf = Box<dyn Fn(&[u64]) -> EntryKey + Send + Sync>;

/// What each guest table entry asks for, with one set of ID registers.
pub struct EntryTable {
    /// Entries to start from, one of each kind at least.
    pub bases: Vec<Vec<u64>>,
    /// Fields on whose values the kind of an entry depends.
    pub restricted: Vec<Field>,
    /// Bits that a key may hold: those a guest decides on.
    pub allowed: Vec<Field>,
    /// The key of an entry.
    pub key: KeyOf,
}

impl EntryTable {
    /// Whether `codec` gives `entry` the key that the table gives it, and whether that key keeps the rules of keys.
    ///
    /// # Errors
    /// If not, with both keys.
    pub fn same(&self, codec: &dyn Codec, entry: &[u64]) -> Result<EntryKey, String> {
        let (key, expected) = (codec.entry_key(entry), (self.key)(entry));
        let allowed = masks(&self.allowed);
        let outside = key.words.iter().zip(allowed).any(|(word, allowed)| word & !allowed != 0);
        let rules = match key.kind {
            KeyKind::TRANSLATE => !outside && key.event == 0,
            KeyKind::BYPASS => key.words == [0; 4] && key.event == 0,
            KeyKind::ABORT => key.words == [0; 4],
            _ => false,
        };
        if key == expected && rules {
            return Ok(key);
        }
        Err(format!("entry {entry:#x?}:\n  the codec's key is {key:x?},\n  the table's key is {expected:x?}"))
    }
}

impl std::fmt::Debug for EntryTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EntryTable").field("bases", &self.bases).finish_non_exhaustive()
    }
}

/// Every base, and nothing and everything, with every bit and pair of bits flipped; every value of the restricted fields
/// over each of them. `visit` sees each entry with its key.
///
/// # Errors
/// The first entry that `codec` reads otherwise than `table`, or the first of `visit`.
pub fn entries(
    codec: &dyn Codec,
    table: &EntryTable,
    mut visit: impl FnMut(&[u64], &EntryKey) -> Result<(), String>,
) -> Judged {
    let words = table.bases[0].len();
    let mut judged = 0;
    let total: u32 = table.restricted.iter().map(|field| field.width()).sum();
    assert!(total <= 20, "too many restricted bits to try every value");
    for base in table.bases.iter().cloned().chain([vec![0; words], vec![u64::MAX; words]]) {
        judged += flips(&base, |entry| visit(entry, &table.same(codec, entry)?))?;
        for value in 0..1u64 << total {
            let mut entry = base.clone();
            let mut rest = value;
            for field in &table.restricted {
                field.put(&mut entry, rest);
                rest >>= field.width();
            }
            visit(&entry, &table.same(codec, &entry)?)?;
            judged += 1;
        }
    }
    Ok(judged)
}
