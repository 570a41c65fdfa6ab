//! Proof by exhaustion that a codec is what an independently written table says it is.
//!
//! ```text
//!   manual, kernel ─► CommandTable ─┐ the same question            ┌─► equal: counted
//!                                   ├─► every opcode, bit, pair ───┤
//!   vendor's code  ─► Codec ────────┘ every ID, neighbour, room    └─► not equal: the command, in an Err
//! ```
//!
//! A [`CommandTable`] says for each opcode which bits a guest may set, which fields have values that are reserved, where
//! the IDs are and what becomes of the command; [`CommandTable::rewrite`] carries that out in the plainest way. Nothing
//! of it may come from the codec that is judged. An [`EntryTable`] does the same for guest table entries.
//!
//! | function | asks about | and so shows |
//! |---|---|---|
//! | [`bits`] | every opcode of the table: nothing else, everything else, legal commands; each with every bit and every pair of bits flipped | no bit outside the list passes, alone or beside any one other |
//! | [`unknown`] | every other opcode value, in the same way | no other opcode passes |
//! | [`values`] | every value of the fields that have reserved values, over an empty and a full command, with and without forbidden bits | no reserved combination passes |
//! | [`ids`] | every bit and pair of bits of the host's tags and streams, every bit of a guest stream or domain | host words name what was given, in its place, and nothing else |
//! | [`batches`] | every sequence of three commands of every kind, on every `before`, in every room; long random ones | what becomes of a command does not depend on its neighbours, except through order and room |
//! | [`entries`] | every bit and pair of bits of a guest table entry, every value of its restricted fields | keys hold allowed bits only, and say what the entry says |
//!
//! Pairs suffice for a codec of the usual shape, whose decision on one command is "no bit of a mask chosen by the
//! opcode, and a condition on a few fields": the mask needs single bits, the condition all values of its fields, and
//! that the two do not mix needs pairs. That a codec has this shape is for its reader to see.
//!
//! [`every_set`] asks for each set of features that a guest may be shown, and [`mistakes_are_noticed`] asks about the
//! prover: is a codec with one small [`Wrong`] in it noticed by the [`Part`] that this concerns?

mod batch;
mod entry;
mod ids;
mod mutant;
mod sets;
mod single;
mod table;

pub use batch::batches;
pub use entry::{EntryTable, KeyOf, entries};
pub use ids::ids;
pub use mutant::{Ids, Mistake, Part, Wrong, mistakes_are_noticed};
pub use sets::every_set;
pub use single::{bits, flips, unknown, values};
pub use table::{Becomes, CommandTable, Field, Legal, Row};

use viommu_plugin::{Classes, Codec, HostIds};

/// Words of the longest command that a host takes.
pub const WORDS_MAX: usize = 8;
/// What the codec must leave alone has this value.
const CANARY: u64 = 0xa5a5_a5a5_a5a5_a5a5;

/// How many commands or entries were judged, or the first that was not as the table says.
pub type Judged = Result<u64, String>;

/// Everything a prover can ask about the commands of `codec`.
///
/// # Errors
/// The first command, batch or ID that `codec` treats otherwise than `table`; or what is wrong with the table.
pub fn commands(codec: &dyn Codec, table: &CommandTable) -> Judged {
    table.check()?;
    let single = bits(codec, table)? + unknown(codec, table)? + values(codec, table)?;
    Ok(single + ids(codec, table)? + batches(codec, table, 0)?)
}

/// One rewrite by both, with room for `room` commands; the codec's answer and all it leaves in the buffer must be the
/// table's.
///
/// # Errors
/// If they differ, with both answers.
pub fn same(
    codec: &dyn Codec,
    table: &CommandTable,
    guest: &[u64],
    before: Classes,
    ids: HostIds<'_>,
    room: usize,
) -> Result<(), String> {
    let words = room * table.words;
    // Most questions are about one command: no allocation for them.
    let (mut few, mut many);
    let (out, right) = if words <= WORDS_MAX {
        few = [[CANARY; WORDS_MAX]; 2];
        let [out, right] = &mut few;
        (&mut out[..words], &mut right[..words])
    } else {
        many = vec![CANARY; 2 * words];
        many.split_at_mut(words)
    };
    let got = codec.rewrite(guest, before, ids, out);
    let expected = table.rewrite(guest, before, ids, right);
    // What was not written still holds the canary in both.
    if got == expected && out == right {
        return Ok(());
    }
    let streams = &ids.streams[..ids.streams.len().min(8)];
    Err(format!(
        "commands {guest:#x?} with {before:?}, tag {:#x}, streams {streams:x?}.., room for {room}:\n  the codec says {got:?} \
         and leaves {out:#x?},\n  the table says {expected:?} and leaves {right:#x?}",
        ids.tag
    ))
}
