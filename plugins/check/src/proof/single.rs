//! Single commands: every bit, every pair of bits, every value of a restricted field.

use super::table::masks;
use super::{CommandTable, Judged, Row, WORDS_MAX, same};
use crate::random::Random;
use viommu_plugin::{Classes, Codec, HostIds, NO_STREAM, NO_TAG};

/// Seed of everything random here: a proof is the same every time.
const SEED: u64 = 0x9e37;

/// Calls `visit` with `base` as it is, with every bit flipped and with every pair of bits flipped; how many that were.
///
/// # Errors
/// The first of `visit`.
pub fn flips<E>(base: &[u64], mut visit: impl FnMut(&[u64]) -> Result<(), E>) -> Result<u64, E> {
    let bits = 64 * base.len();
    let mut words = base.to_vec();
    visit(&words)?;
    for one in 0..bits {
        words[one / 64] ^= 1 << (one % 64);
        visit(&words)?;
        for other in one + 1..bits {
            words[other / 64] ^= 1 << (other % 64);
            visit(&words)?;
            words[other / 64] ^= 1 << (other % 64);
        }
        words[one / 64] ^= 1 << (one % 64);
    }
    Ok((1 + bits + bits * (bits - 1) / 2) as u64)
}

/// Guest streams of which half have a vdevice, so that a flipped bit of a stream finds both.
pub(super) fn some_streams() -> Vec<u32> {
    (0..64).map(|id| if id % 4 < 2 { 0x8000_0040 + id * 0x0101 } else { NO_STREAM }).collect()
}

/// Guest domains of which half have a tag.
pub(super) fn some_domains() -> Vec<u32> {
    (0..64).map(|id| if id % 4 < 2 { 0x1080 + id * 0x0101 } else { NO_TAG }).collect()
}

/// A row's base with every allowed bit set that has no reserved values.
pub(super) fn full(row: &Row) -> Vec<u64> {
    let (allowed, restricted) = (masks(&row.allowed), masks(&row.restricted));
    row.base.iter().enumerate().map(|(at, word)| word | allowed[at] & !restricted[at]).collect()
}

/// Judges each of `bases` with no, one and two bits flipped anywhere.
fn flipped(codec: &dyn Codec, table: &CommandTable, bases: &[Vec<u64>]) -> Judged {
    let (streams, domains) = (some_streams(), some_domains());
    let ids = HostIds { tag: 0xa5c3, streams: &streams, domains: &domains };
    bases.iter().map(|base| flips(base, |command| same(codec, table, command, Classes::NONE, ids, 1))).sum()
}

/// The opcode with no other bit, and with every other bit.
fn bare_and_full(table: &CommandTable, opcode: u64) -> [Vec<u64>; 2] {
    let (mut bare, mut full) = (vec![0; table.words], vec![u64::MAX; table.words]);
    bare[0] = opcode;
    full[0] = opcode | !table.opcode;
    [bare, full]
}

/// Every opcode of the table: with nothing else, with every other bit, its base and its fullest legal command; each with
/// no, one and two bits flipped anywhere.
///
/// # Errors
/// The first command that `codec` treats otherwise than `table`.
pub fn bits(codec: &dyn Codec, table: &CommandTable) -> Judged {
    let bases = |row: &Row| {
        let mut bases = bare_and_full(table, row.base[0] & table.opcode).to_vec();
        bases.extend([row.base.clone(), full(row)]);
        bases.dedup();
        bases
    };
    table.rows.iter().map(|row| flipped(codec, table, &bases(row))).sum()
}

/// Every opcode value that the table does not have: with nothing else and with every other bit, each with no, one and two
/// bits flipped anywhere.
///
/// # Errors
/// The first command that `codec` treats otherwise than `table`.
pub fn unknown(codec: &dyn Codec, table: &CommandTable) -> Judged {
    let unknown =
        table.opcodes().map(|opcode| bare_and_full(table, opcode)).filter(|bases| table.row(&bases[0]).is_none());
    unknown.map(|bases| flipped(codec, table, &bases)).sum()
}

/// Every value of each row's restricted fields, over an otherwise empty and an otherwise full command, alone and with a
/// forbidden bit, another one each time; and random legal commands with up to two forbidden bits.
///
/// # Errors
/// The first command that `codec` treats otherwise than `table`.
pub fn values(codec: &dyn Codec, table: &CommandTable) -> Judged {
    let (streams, domains) = (some_streams(), some_domains());
    let ids = HostIds { tag: 0x0c3a, streams: &streams, domains: &domains };
    let mut random = Random::new(SEED);
    let mut judged = 0;
    for row in &table.rows {
        let mut allowed = masks(&row.allowed);
        allowed[0] |= table.opcode;
        let forbidden: Vec<usize> =
            (0..64 * table.words).filter(|bit| allowed[bit / 64] >> (bit % 64) & 1 == 0).collect();
        let mut ask = |command: &[u64]| {
            judged += 1;
            same(codec, table, command, Classes::NONE, ids, 1)
        };
        let total: u32 = row.restricted.iter().map(|field| field.width()).sum();
        assert!(total <= 20, "{}: too many restricted bits to try every value", row.name);
        let empty: Vec<u64> = (0..table.words).map(|at| if at == 0 { row.base[0] & table.opcode } else { 0 }).collect();
        for fill in [empty, full(row)] {
            for value in 0..1u64 << total {
                let mut command = fill.clone();
                let mut rest = value;
                for field in &row.restricted {
                    field.put(&mut command, rest);
                    rest >>= field.width();
                }
                ask(&command)?;
                if !forbidden.is_empty() {
                    let bit = forbidden[value as usize % forbidden.len()];
                    command[bit / 64] ^= 1 << (bit % 64);
                    ask(&command)?;
                }
            }
        }
        for _ in 0..4_000 {
            let mut command = [0; WORDS_MAX];
            for (word, allowed) in command.iter_mut().zip(allowed) {
                *word = (random.word() | random.word()) & allowed;
            }
            command[0] = command[0] & !table.opcode | row.base[0] & table.opcode;
            for _ in 0..random.index(3).min(forbidden.len()) {
                let bit = random.of(&forbidden);
                command[bit / 64] |= 1 << (bit % 64);
            }
            ask(&command[..table.words])?;
        }
    }
    Ok(judged)
}
