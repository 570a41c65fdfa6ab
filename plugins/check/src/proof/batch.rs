//! Several commands at once: each is treated as if it stood alone, but for order and room.

use super::single::{some_domains, some_streams};
use super::table::masks;
use super::{CommandTable, Judged, same};
use crate::random::Random;
use viommu_plugin::{Classes, Codec, HostIds};

/// Guest streams with and without a vdevice in [`some_streams`]; domains with and without a tag in [`some_domains`].
const PRESENT: u64 = 1;
const ABSENT: u64 = 2;

/// One command of each kind: each row legal, with a stream or domain that is absent, with a forbidden bit; and an unknown opcode.
fn kinds(table: &CommandTable) -> Vec<Vec<u64>> {
    let mut kinds = Vec::new();
    for row in &table.rows {
        let mut command = row.base.clone();
        // At most one of the two is there.
        if let Some(field) = row.becomes.stream().or(row.becomes.domain()) {
            field.put(&mut command, ABSENT);
            kinds.push(command.clone());
            field.put(&mut command, PRESENT);
        }
        kinds.push(command.clone());
        let mut allowed = masks(&row.allowed);
        allowed[0] |= table.opcode;
        if let Some(bit) = (0..64 * table.words).rev().find(|bit| allowed[bit / 64] >> (bit % 64) & 1 == 0) {
            command[bit / 64] |= 1 << (bit % 64);
            kinds.push(command);
        }
    }
    let unknown = table.opcodes().find(|opcode| {
        let bare: Vec<u64> = (0..table.words).map(|at| if at == 0 { *opcode } else { 0 }).collect();
        table.row(&bare).is_none()
    });
    kinds.extend(unknown.map(|opcode| (0..table.words).map(|at| if at == 0 { opcode } else { 0 }).collect()));
    kinds
}

/// Every sequence of up to three commands of every kind, on every set of unsynced classes and in every room; and 20 000
/// random batches of up to 64 commands from `seed`.
///
/// # Errors
/// The first batch that `codec` treats otherwise than `table`.
pub fn batches(codec: &dyn Codec, table: &CommandTable, seed: u64) -> Judged {
    let (streams, domains) = (some_streams(), some_domains());
    let ids = HostIds { tag: 0x00a7, streams: &streams, domains: &domains };
    let kinds = kinds(table);
    let mut judged = 0;
    let mut ask = |batch: &[u64], before: u32, room: usize| {
        judged += 1;
        same(codec, table, batch, Classes(before), ids, room)
    };
    ask(&[], 0, 0)?;
    for first in &kinds {
        for second in &kinds {
            for third in &kinds {
                let batch = [&first[..], second, third].concat();
                for (before, room) in (0..8).flat_map(|before| (0..4).map(move |room| (before, room))) {
                    ask(&batch, before, room)?;
                }
            }
        }
    }
    // Those that stop nothing, most of the time: or no batch would become long.
    let plain: Vec<&Vec<u64>> = kinds
        .iter()
        .filter(|kind| table.rewrite(kind, Classes::NONE, ids, &mut [0; super::WORDS_MAX]).taken == 1)
        .collect();
    let mut random = Random::new(seed);
    for _ in 0..20_000 {
        let batch: Vec<u64> = (0..random.index(65))
            .flat_map(|_| {
                if random.index(48) == 0 { &kinds[random.index(kinds.len())] } else { plain[random.index(plain.len())] }
            })
            .copied()
            .collect();
        let room = if random.index(2) == 0 { 64 } else { random.index(65) };
        ask(&batch, random.index(8) as u32, room)?;
    }
    Ok(judged)
}
