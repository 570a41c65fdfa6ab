//! Codecs that are wrong in one small way each: a prover that does not notice one of them proves nothing.

use super::{CommandTable, EntryTable, Judged, batches, bits, entries, ids, unknown, values};
use viommu_plugin::{Classes, Codec, Configuration, EntryKey, HostIds, Message, NO_STREAM, NO_TAG, Rewritten};

/// The IDs that a wrong codec looks things up in.
#[derive(Debug, Clone)]
pub struct Ids {
    /// [`HostIds::tag`].
    pub tag: u32,
    /// [`HostIds::streams`].
    pub streams: Vec<u32>,
    /// [`HostIds::domains`].
    pub domains: Vec<u32>,
}

impl Ids {
    /// The streams that are somebody's.
    pub fn some_streams(&mut self) -> impl Iterator<Item = &mut u32> {
        self.streams.iter_mut().filter(|stream| **stream != NO_STREAM)
    }
    /// The tags of domains that have one.
    pub fn some_domains(&mut self) -> impl Iterator<Item = &mut u32> {
        self.domains.iter_mut().filter(|tag| **tag != NO_TAG)
    }
    /// Each stream becomes that of the next guest number.
    pub fn next_stream(&mut self) {
        let next = 1.min(self.streams.len());
        self.streams.rotate_left(next);
    }
    /// Each domain's tag becomes that of the next guest number.
    pub fn next_domain(&mut self) {
        let next = 1.min(self.domains.len());
        self.domains.rotate_left(next);
    }
    /// The table of streams is one shorter.
    pub fn lose_last_stream(&mut self) {
        self.streams.pop();
    }
    /// The table of domains is one shorter.
    pub fn lose_last_domain(&mut self) {
        self.domains.pop();
    }
    /// A host's stream with all of these bits loses the lowest of them.
    pub fn cut_streams(&mut self, bits: u32) {
        let lowest = bits & bits.wrapping_neg();
        self.some_streams().filter(|stream| **stream & bits == bits).for_each(|stream| *stream &= !lowest);
    }
}

/// A way to be wrong.
#[derive(Debug, Clone, Copy)]
pub enum Wrong {
    /// Not at all.
    Not,
    /// A command is taken for another: the words of each as they are looked at.
    Takes(fn(&mut [u64])),
    /// Something is looked up in IDs that are not those given.
    LooksUp(fn(&mut Ids)),
    /// Other words are written: those of a guest command, and the host's that became of it.
    Writes(fn(&[u64], &mut [u64])),
    /// The third command of a batch is not looked at if the second is like it but for its last bit.
    TrustsNeighbour,
    /// Unsynced TLB invalidations do not matter to a device cache.
    NoOrder,
    /// There is a word behind the last that it says it wrote.
    LeavesWord,
    /// Another key is made of a table entry than the right codec makes.
    Reads(fn(&dyn Codec, &[u64]) -> EntryKey),
}

/// The part of the proof that a mistake concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// [`bits`].
    Bits,
    /// [`unknown`].
    Unknown,
    /// [`values`].
    Values,
    /// [`ids`].
    Ids,
    /// [`batches`].
    Batches,
    /// [`entries`].
    Entries,
}

impl Part {
    fn judge(self, codec: &dyn Codec, commands: &CommandTable, table: &EntryTable) -> Judged {
        match self {
            Self::Bits => bits(codec, commands),
            Self::Unknown => unknown(codec, commands),
            Self::Values => values(codec, commands),
            Self::Ids => ids(codec, commands),
            Self::Batches => batches(codec, commands, 0),
            Self::Entries => entries(codec, table, |_, _| Ok(())),
        }
    }
}

/// A mistake in words, the mistake, and the part of the proof that has to notice it.
pub type Mistake = (&'static str, Wrong, Part);

/// Whether each of `mistakes` in a codec that `right` makes is noticed by the part it concerns; and whether no part
/// complains of a codec that goes the same way and is not wrong.
///
/// # Errors
/// If the codec that is not wrong is not as the tables say, why; or the mistakes that nothing noticed.
pub fn mistakes_are_noticed<C: Codec>(
    right: impl Fn() -> C,
    commands: &CommandTable,
    table: &EntryTable,
    mistakes: &[Mistake],
) -> Result<(), String> {
    let mutant = |wrong| Mutant { right: right(), words: commands.words, wrong };
    super::commands(&mutant(Wrong::Not), commands)?;
    entries(&mutant(Wrong::Not), table, |_, _| Ok(()))?;
    let unnoticed = mistakes.iter().filter(|(_, wrong, part)| part.judge(&mutant(*wrong), commands, table).is_ok());
    let unnoticed: Vec<&str> = unnoticed.map(|(what, ..)| *what).collect();
    if unnoticed.is_empty() { Ok(()) } else { Err(format!("nothing noticed: {}", unnoticed.join("; "))) }
}

/// A codec that is wrong in one way.
struct Mutant<C> {
    right: C,
    /// Words of a command.
    words: usize,
    wrong: Wrong,
}

impl<C: Codec> Codec for Mutant<C> {
    fn rewrite(&self, guest: &[u64], before: Classes, ids: HostIds<'_>, out: &mut [u64]) -> Rewritten {
        let (mut taken, mut before) = (guest.to_vec(), before);
        let mut given = Ids { tag: ids.tag, streams: ids.streams.to_vec(), domains: ids.domains.to_vec() };
        match self.wrong {
            Wrong::Takes(change) => taken.chunks_exact_mut(self.words).for_each(change),
            Wrong::LooksUp(change) => change(&mut given),
            Wrong::TrustsNeighbour => {
                let mut commands = taken.chunks_exact_mut(self.words);
                if let (Some(second), Some(third)) = (commands.nth(1), commands.next())
                    && third[self.words - 1] ^ second[self.words - 1] == 1 << 63
                {
                    third.copy_from_slice(second);
                }
            }
            Wrong::NoOrder => before = Classes(before.0 & !Classes::TLB.0),
            _ => {}
        }
        let given = HostIds { tag: given.tag, streams: &given.streams, domains: &given.domains };
        let done = self.right.rewrite(&taken, before, given, out);
        let (written, behind) = out.split_at_mut(done.written as usize * self.words);
        match self.wrong {
            Wrong::Writes(change) => {
                let pairs = guest.chunks_exact(self.words).zip(written.chunks_exact_mut(self.words));
                pairs.for_each(|(command, words)| change(command, words));
            }
            Wrong::LeavesWord => behind.iter_mut().take(1).for_each(|word| *word = 0),
            _ => {}
        }
        done
    }

    fn configuration(&self, command: &[u64]) -> Configuration {
        self.right.configuration(command)
    }

    fn entry_key(&self, entry: &[u64]) -> EntryKey {
        match self.wrong {
            Wrong::Reads(key) => key(&self.right, entry),
            _ => self.right.entry_key(entry),
        }
    }

    fn opcode(&self, command: &[u64]) -> u8 {
        self.right.opcode(command)
    }
    fn opcode_name(&self, opcode: u8) -> Option<&'static str> {
        self.right.opcode_name(opcode)
    }
    fn describe(&self, command: &[u64], text: &mut Message) {
        self.right.describe(command, text);
    }
}
