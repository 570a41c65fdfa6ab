//! The IDs: host words name what was given, whole, in its place, and nothing else.

use super::single::full;
use super::{Becomes, CommandTable, Field, Judged, same};
use viommu_plugin::{Classes, Codec, HostIds, NO_STREAM, NO_TAG};

/// Guest streams and domains in the tables lent: every number below has its place, so every one of 16 bits.
const STREAMS: usize = 1 << 16;

/// Zero, all ones, every bit and every pair of bits of a number of `width` bits.
fn numbers(width: u32) -> Vec<u32> {
    let ones = u32::MAX >> (32 - width);
    let bits = || (0..width).map(|bit| 1 << bit);
    let mut all: Vec<u32> = bits().flat_map(|one| bits().map(move |other| one | other)).chain([0, ones]).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Every bit and pair of bits of the tag; of the host's stream or of a domain's tag; of the guest's stream or domain, with
/// every other one of the table being somebody else's; in an otherwise sparse and an otherwise full command.
///
/// # Errors
/// The first command that `codec` treats otherwise than `table`.
pub fn ids(codec: &dyn Codec, table: &CommandTable) -> Judged {
    let mut judged = 0;
    for row in &table.rows {
        for fill in [row.base.clone(), full(row)] {
            let mut ask = |command: &[u64], ids: HostIds<'_>| {
                judged += 1;
                same(codec, table, command, Classes::NONE, ids, 1)
            };
            if let Becomes::Host { tag: Some(tag), .. } = row.becomes {
                for given in numbers(tag.width()) {
                    ask(&fill, HostIds { tag: given, streams: &[9; 4], domains: &[] })?;
                }
            }
            if let Some(field) = row.becomes.stream() {
                looked_up(field, NO_STREAM, &fill, |command, streams| {
                    ask(command, HostIds { tag: 7, streams, domains: &[3; 4] })
                })?;
            }
            if let Some(field) = row.becomes.domain() {
                looked_up(field, NO_TAG, &fill, |command, domains| {
                    ask(command, HostIds { tag: 7, streams: &[9; 4], domains })
                })?;
            }
        }
    }
    Ok(judged)
}

/// Asks about every guest number in `field` that matters, there and not there (`none`), and about every host number.
fn looked_up(
    field: Field,
    none: u32,
    fill: &[u64],
    mut ask: impl FnMut(&[u64], &[u32]) -> Result<(), String>,
) -> Result<(), String> {
    // Somebody else's everywhere, so that a wrong place shows.
    let mut given = vec![0x5555_aaaa; STREAMS];
    let mut command = fill.to_vec();
    for guest in numbers(field.width()).into_iter().chain(0..64) {
        field.put(&mut command, guest.into());
        let Some(slot) = given.get_mut(guest as usize) else {
            ask(&command, &given)?;
            continue;
        };
        *slot = none;
        ask(&command, &given)?;
        given[guest as usize] = 0x1234_5678;
        ask(&command, &given)?;
        // The table ends right before, and right behind.
        ask(&command, &given[..guest as usize])?;
        ask(&command, &given[..=guest as usize])?;
        given[guest as usize] = 0x5555_aaaa;
    }
    for host in numbers(field.width()).into_iter().filter(|host| *host != none) {
        field.put(&mut command, 5);
        given[5] = host;
        ask(&command, &given)?;
    }
    Ok(())
}
