//! The IDs: host words name what was given, whole, in its place, and nothing else.

use super::single::full;
use super::{Becomes, CommandTable, Judged, same};
use viommu_plugin::{Classes, Codec, HostIds, NO_STREAM};

/// Guest streams in the tables lent: every number below has its place.
const STREAMS: usize = 1 << 12;

/// Zero, all ones, every bit and every pair of bits of a number of `width` bits.
fn numbers(width: u32) -> Vec<u32> {
    let ones = u32::MAX >> (32 - width);
    let bits = || (0..width).map(|bit| 1 << bit);
    let mut all: Vec<u32> = bits().flat_map(|one| bits().map(move |other| one | other)).chain([0, ones]).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Every bit and pair of bits of the tag; of the host's stream; of the guest's stream, with every other stream of the
/// table being somebody else's; in an otherwise sparse and an otherwise full command.
///
/// # Errors
/// The first command that `codec` treats otherwise than `table`.
pub fn ids(codec: &dyn Codec, table: &CommandTable) -> Judged {
    let mut judged = 0;
    for row in &table.rows {
        let (tag, stream) = match row.becomes {
            Becomes::Host { tag, stream, .. } => (tag, stream),
            Becomes::Hint { stream } | Becomes::Configuration { stream } => (None, stream),
            Becomes::Sync => (None, None),
        };
        for fill in [row.base.clone(), full(row)] {
            let mut ask = |command: &[u64], tag, streams: &[u32]| {
                judged += 1;
                same(codec, table, command, Classes::NONE, HostIds { tag, streams, domains: &[] }, 1)
            };
            if let Some(tag) = tag {
                for given in numbers(tag.width()) {
                    ask(&fill, given, &[9; 4])?;
                }
            }
            let Some(field) = stream else { continue };
            // Somebody else's everywhere, so that a wrong place shows.
            let mut streams = vec![0x5555_aaaa; STREAMS];
            let mut command = fill.clone();
            for guest in numbers(field.width()).into_iter().chain(0..64) {
                field.put(&mut command, guest.into());
                let Some(slot) = streams.get_mut(guest as usize) else {
                    ask(&command, 7, &streams)?;
                    continue;
                };
                *slot = NO_STREAM;
                ask(&command, 7, &streams)?;
                streams[guest as usize] = 0x1234_5678;
                ask(&command, 7, &streams)?;
                // The table ends right before, and right behind.
                ask(&command, 7, &streams[..guest as usize])?;
                ask(&command, 7, &streams[..=guest as usize])?;
                streams[guest as usize] = 0x5555_aaaa;
            }
            for host in numbers(field.width()).into_iter().filter(|host| *host != NO_STREAM) {
                field.put(&mut command, 5);
                streams[5] = host;
                ask(&command, 7, &streams)?;
            }
        }
    }
    Ok(judged)
}
