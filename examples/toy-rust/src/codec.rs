//! Check and rewrite of a guest's commands, and what its table entries ask for.

use crate::spec::{self, COMMAND_WORDS, INVALIDATE_DEVICE};
use std::fmt::Write;
use viommu_plugin::{Classes, Codec, Configuration, EntryKey, GuestFault, HostIds, KeyKind, Message, Rewritten, Stop};

/// For a guest that was shown these features.
#[derive(Debug)]
pub struct ToyCodec {
    features: u64,
}

impl ToyCodec {
    pub(crate) fn new(features: u64) -> Self {
        Self { features }
    }

    /// Why a rewrite cannot take this command, if so.
    fn stop_at(&self, command: [u64; 2]) -> Option<(Stop, GuestFault)> {
        let Some([first, second]) = spec::allowed(command, self.features) else {
            return Some((Stop::FAULT, GuestFault::ILLEGAL_OPCODE));
        };
        if command[0] & !first != 0 || command[1] & !second != 0 {
            return Some((Stop::FAULT, GuestFault::RESERVED_BITS));
        }
        match command[0] as u8 {
            spec::CHANGED => Some((Stop::CONFIGURATION, GuestFault::NONE)),
            spec::WAIT => Some((Stop::SYNC, GuestFault::NONE)),
            _ => None,
        }
    }
}

impl Codec for ToyCodec {
    fn rewrite(&self, guest: &[u64], before: Classes, ids: HostIds<'_>, out: &mut [u64]) -> Rewritten {
        let mut done = Rewritten::default();
        for command in guest.chunks_exact(COMMAND_WORDS) {
            // Each word is read once: what is checked is what goes out.
            let command = [command[0], command[1]];
            if let Some((stop, fault)) = self.stop_at(command) {
                return Rewritten { stop, fault, ..done };
            }
            let host = if command[0] as u8 == INVALIDATE_DEVICE {
                let Some(stream) = ids.stream((command[0] >> spec::STREAM_SHIFT) as u32) else {
                    done.local_stream += 1;
                    done.taken += 1;
                    continue;
                };
                if before.with(done.classes).any(Classes::TLB) {
                    return Rewritten { stop: Stop::ORDER, ..done };
                }
                command[0] & !spec::STREAM | u64::from(stream) << spec::STREAM_SHIFT
            } else {
                command[0] & !spec::TAG | u64::from(ids.tag) << spec::TAG_SHIFT
            };
            let place = done.written as usize * COMMAND_WORDS;
            let Some(place) = out.get_mut(place..place + COMMAND_WORDS) else {
                return Rewritten { stop: Stop::ROOM, ..done };
            };
            place.copy_from_slice(&[host, command[1]]);
            if command[0] as u8 == INVALIDATE_DEVICE {
                done.atc += 1;
                done.classes = done.classes.with(Classes::ATC);
            } else {
                done.tlb += 1;
                done.classes = done.classes.with(Classes::TLB);
            }
            done.written += 1;
            done.taken += 1;
        }
        done
    }

    fn configuration(&self, command: &[u64]) -> Configuration {
        let stream = (command[0] >> spec::STREAM_SHIFT) as u32;
        Configuration::entries(stream, stream)
    }

    fn entry_key(&self, entry: &[u64]) -> EntryKey {
        if entry[0] & spec::ENTRY_VALID == 0 {
            EntryKey::default()
        } else if !spec::is_legal(entry, self.features) {
            EntryKey { event: spec::BAD_ENTRY, ..EntryKey::default() }
        } else if entry[0] & spec::ENTRY_TABLE != 0 {
            EntryKey { kind: KeyKind::TRANSLATE, words: [entry[0], entry[1], 0, 0], ..EntryKey::default() }
        } else {
            EntryKey { kind: KeyKind::BYPASS, ..EntryKey::default() }
        }
    }

    fn opcode(&self, command: &[u64]) -> u8 {
        command[0] as u8
    }

    fn opcode_name(&self, opcode: u8) -> Option<&'static str> {
        Some(match opcode {
            spec::INVALIDATE_PAGE => "INVALIDATE_PAGE",
            spec::INVALIDATE_TAG => "INVALIDATE_TAG",
            INVALIDATE_DEVICE => "INVALIDATE_DEVICE",
            spec::CHANGED => "CHANGED",
            spec::WAIT => "WAIT",
            _ => return None,
        })
    }

    fn describe(&self, command: &[u64], text: &mut Message) {
        let [word, address] = [command[0], command[1]];
        let name = self.opcode_name(word as u8).unwrap_or("illegal");
        let stream = word >> spec::STREAM_SHIFT;
        // Writing into a Message cuts and does not fail.
        let _ = match word as u8 {
            INVALIDATE_DEVICE if word & spec::ALL != 0 => write!(text, "{name} STREAM={stream:#x} ALL"),
            INVALIDATE_DEVICE => write!(text, "{name} STREAM={stream:#x} address={address:#x}"),
            spec::CHANGED => write!(text, "{name} STREAM={stream:#x}"),
            spec::INVALIDATE_PAGE | spec::WAIT => write!(text, "{name} address={address:#x}"),
            spec::INVALIDATE_TAG => write!(text, "{name}"),
            _ => write!(text, "{name} {word:#x} {address:#x}"),
        };
    }
}
