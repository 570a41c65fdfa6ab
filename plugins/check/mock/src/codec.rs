//! Check and rewrite of the mock's commands.

use crate::behaviour::Behaviour;
use crate::spec::{self, opcode};
use std::fmt::Write;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use viommu_plugin::{Classes, Codec, Configuration, EntryKey, GuestFault, HostIds, KeyKind, Message, Rewritten, Stop};

/// The mock's codec.
#[derive(Debug)]
pub struct MockCodec {
    behaviour: Behaviour,
    /// Only the lie "impure" changes it.
    calls: AtomicU32,
}

impl MockCodec {
    pub(crate) fn new(behaviour: Behaviour) -> Self {
        Self { behaviour, calls: AtomicU32::new(0) }
    }

    /// The bits a guest may set in a command; `None` for an opcode that does not exist.
    fn allowed(opcode: u8) -> Option<[u64; 2]> {
        Some(match opcode {
            opcode::INVALIDATE_IOTLB => [0xff | spec::FLAG_ALL | spec::SLOT_MASK, 0],
            opcode::INVALIDATE_CACHE => [0xff | spec::SLOT_MASK, 0xffff_ffff],
            opcode::CONFIG | opcode::PREFETCH => [0xff, 0xffff_ffff],
            opcode::SYNC => [0xff, !0],
            _ => return None,
        })
    }

    fn host(&self, [word, argument]: [u64; 2], ids: HostIds<'_>, done: &mut Rewritten) -> Option<[u64; 2]> {
        if word as u8 == opcode::INVALIDATE_IOTLB {
            done.tlb += 1;
            done.classes = done.classes.with(Classes::TLB);
            let tag = ids.tag + u32::from(self.behaviour.lies("foreign-tag"));
            return Some([word | u64::from(tag) << spec::TAG_SHIFT, 0]);
        }
        let Some(stream) = ids.stream(argument as u32) else {
            done.local_stream += 1;
            return None;
        };
        done.atc += 1;
        done.classes = done.classes.with(Classes::ATC);
        Some([word, u64::from(stream) + u64::from(self.behaviour.lies("foreign-stream"))])
    }
}

impl Codec for MockCodec {
    fn rewrite(&self, guest: &[u64], before: Classes, ids: HostIds<'_>, out: &mut [u64]) -> Rewritten {
        self.behaviour.enter("codec_rewrite");
        let mut done = Rewritten::default();
        for command in guest.chunks_exact(spec::COMMAND_WORDS) {
            let [word, argument] = [command[0], command[1]];
            let anything = self.behaviour.lies("accepts-anything");
            let stop = match Self::allowed(word as u8) {
                None if anything => None,
                None => Some((Stop::FAULT, GuestFault::ILLEGAL_OPCODE)),
                Some([first, second]) if word & !first != 0 || argument & !second != 0 => {
                    Some((Stop::FAULT, GuestFault::RESERVED_BITS))
                }
                Some(_) => match word as u8 {
                    opcode::SYNC => Some((Stop::SYNC, GuestFault::NONE)),
                    opcode::CONFIG => Some((Stop::CONFIGURATION, GuestFault::NONE)),
                    // What does not reach the hardware needs neither order nor room.
                    opcode::PREFETCH => None,
                    opcode::INVALIDATE_CACHE if ids.stream(argument as u32).is_none() => None,
                    opcode::INVALIDATE_CACHE if before.with(done.classes).any(Classes::TLB) => {
                        Some((Stop::ORDER, GuestFault::NONE))
                    }
                    _ if out.len() < (done.written as usize + 1) * spec::COMMAND_WORDS => {
                        Some((Stop::ROOM, GuestFault::NONE))
                    }
                    _ => None,
                },
            };
            if let Some((stop, fault)) = stop {
                (done.stop, done.fault) = (stop, fault);
                break;
            }
            if word as u8 == opcode::PREFETCH {
                done.hints += 1;
            } else if let Some(host) = self.host([word, argument], ids, &mut done) {
                out[done.written as usize * spec::COMMAND_WORDS..][..spec::COMMAND_WORDS].copy_from_slice(&host);
                done.written += 1;
            }
            done.taken += 1;
        }
        if self.behaviour.lies("impure") && self.calls.fetch_add(1, Relaxed) % 2 == 1 {
            done.hints += 1;
        }
        done.taken += if self.behaviour.lies("codec_rewrite") { 1 << 20 } else { 0 };
        done
    }

    fn configuration(&self, command: &[u64]) -> Configuration {
        self.behaviour.enter("codec_configuration");
        let stream = command[1] as u32;
        let last = if self.behaviour.lies("codec_configuration") { stream.wrapping_sub(1) } else { stream };
        Configuration::entries(stream, last)
    }

    fn entry_key(&self, entry: &[u64]) -> EntryKey {
        self.behaviour.enter("codec_entry_key");
        let flags = entry[0] & (spec::ENTRY_VALID | spec::ENTRY_BYPASS);
        let words = if self.behaviour.lies("codec_entry_key") { [1; 4] } else { [0; 4] };
        match flags {
            _ if entry[0] & spec::ENTRY_VALID == 0 => EntryKey { words, ..EntryKey::default() },
            _ if entry[0] != flags || entry[2] != 0 || entry[3] != 0 => {
                EntryKey { event: spec::EVENT_BAD_ENTRY, ..EntryKey::default() }
            }
            spec::ENTRY_VALID => {
                EntryKey { kind: KeyKind::TRANSLATE, words: [flags, entry[1], 0, 0], ..EntryKey::default() }
            }
            _ => EntryKey { kind: KeyKind::BYPASS, ..EntryKey::default() },
        }
    }

    fn opcode(&self, command: &[u64]) -> u8 {
        self.behaviour.enter("codec_opcode");
        command[0] as u8
    }

    fn opcode_name(&self, opcode: u8) -> Option<&'static str> {
        self.behaviour.enter("codec_opcode_name");
        Some(match opcode {
            opcode::INVALIDATE_IOTLB => "INVALIDATE_IOTLB",
            opcode::INVALIDATE_CACHE => "INVALIDATE_CACHE",
            opcode::CONFIG => "CONFIG",
            opcode::PREFETCH => "PREFETCH",
            opcode::SYNC => "SYNC",
            _ => return None,
        })
    }

    fn describe(&self, command: &[u64], text: &mut Message) {
        self.behaviour.enter("codec_describe");
        if self.behaviour.lies("describes-nothing") {
            return;
        }
        let name = self.opcode_name(command[0] as u8).unwrap_or("illegal");
        // Writing into a Message cuts and does not fail.
        let _ = write!(text, "{name} {:#x} {:#x}", command[0], command[1]);
    }
}
