//! Check and rewrite of guest commands: every bit is looked at, every ID replaced.

mod allowed;
mod describe;
mod entry;

pub(crate) use entry::{GUEST_WORD0, GUEST_WORD1};

use crate::features::Features;
use crate::spec::commands::{CfgiSte, CfgiSteRange, Opcode};
use allowed::Allowed;
use viommu_plugin::{
    Classes, Codec, Configuration, EntryKey, GuestFault, HostIds, Message, Refusal, Register, Rewritten, Stop,
};

/// The codec of one guest, fixed by the ID registers it is shown.
#[derive(Debug, Clone)]
pub struct ArmCodec {
    features: Features,
    allowed: Allowed,
}

impl ArmCodec {
    /// A codec that accepts what these ID registers promise.
    ///
    /// # Errors
    /// As [`Features::new`].
    pub fn new(registers: &[Register]) -> Result<Self, Refusal> {
        let features = Features::new(registers)?;
        Ok(Self { allowed: Allowed::new(&features), features })
    }

    /// Rewrites the TLBI_NH_VAs that `commands` begins with, as far as they are legal and fit; how many. The rest, and
    /// whatever is wrong with it, is [`ArmCodec::step`]'s.
    #[inline(always)]
    fn run_of_nh_va(&self, commands: &[[u64; 2]], vmid: u64, slots: &mut std::slice::IterMut<'_, [u64; 2]>) -> usize {
        let (allowed, mask) = (&self.allowed, self.allowed.nh_va);
        let legal = |&&[w0, w1]: &&[u64; 2]| Opcode::of(w0) == Opcode::TLBI_NH_VA && allowed.range(&mask, w0, w1);
        let mut count = 0;
        // The slot is asked for last: one that is taken is filled.
        for &[w0, w1] in commands.iter().take_while(legal) {
            let Some(slot) = slots.next() else { break };
            *slot = [w0 & !allowed::VMID | vmid, w1];
            count += 1;
        }
        count
    }

    /// What becomes of one command.
    #[inline(always)]
    fn step(&self, [w0, w1]: [u64; 2], vmid: u64, ids: &HostIds<'_>) -> Step {
        let allowed = &self.allowed;
        let reserved = Step::Stop(Stop::FAULT, GuestFault::RESERVED_BITS);
        match Opcode::of(w0) {
            Opcode::TLBI_NH_VA if allowed.range(&allowed.nh_va, w0, w1) => Step::Tlb([w0 & !allowed::VMID | vmid, w1]),
            Opcode::SYNC if allowed.sync(w0, w1) => Step::Stop(Stop::SYNC, GuestFault::NONE),
            Opcode::ATC_INV if allowed.atc(w0, w1) => match ids.stream(stream_id(w0)) {
                None => Step::LocalStream,
                Some(stream) => Step::Atc([with_stream(w0, stream), w1]),
            },
            Opcode::ATC_INV if !allowed.ats => Step::Stop(Stop::FAULT, GuestFault::ILLEGAL_OPCODE),
            Opcode::TLBI_NH_ASID if allowed.nh_asid.holds(w0, w1) => Step::Tlb([w0 & !allowed::VMID | vmid, w1]),
            Opcode::TLBI_NH_VAA if allowed.range(&allowed.nh_vaa, w0, w1) => {
                Step::Tlb([w0 & !allowed::VMID | vmid, w1])
            }
            Opcode::TLBI_NH_ALL if allowed.nh_all.holds(w0, w1) => Step::Tlb([w0 & !allowed::VMID | vmid, w1]),
            // "Everything" is everything of this guest.
            Opcode::TLBI_NSNH_ALL if allowed.nsnh_all.holds(w0, w1) => {
                Step::Tlb([u64::from(Opcode::TLBI_NH_ALL.0) | vmid, 0])
            }
            Opcode::CFGI_CD if allowed.cfgi_cd.holds(w0, w1) => config(w0, w1, ids),
            Opcode::CFGI_CD_ALL if allowed.cfgi_cd_all.holds(w0, w1) => config(w0, w1, ids),
            Opcode::CFGI_STE if allowed.cfgi_ste.holds(w0, w1) => match ids.stream(stream_id(w0)) {
                None => Step::LocalStream,
                Some(_) => Step::Stop(Stop::CONFIGURATION, GuestFault::NONE),
            },
            Opcode::CFGI_STE_RANGE if allowed.cfgi_ste_range.holds(w0, w1) => {
                Step::Stop(Stop::CONFIGURATION, GuestFault::NONE)
            }
            Opcode::PREFETCH_CONFIG | Opcode::PREFETCH_ADDR if allowed.prefetch.holds(w0, w1) => {
                match ids.stream(stream_id(w0)) {
                    None => Step::LocalStream,
                    Some(_) => Step::Hint,
                }
            }
            Opcode::TLBI_NH_VA
            | Opcode::TLBI_NH_VAA
            | Opcode::TLBI_NH_ASID
            | Opcode::TLBI_NH_ALL
            | Opcode::TLBI_NSNH_ALL
            | Opcode::ATC_INV
            | Opcode::SYNC
            | Opcode::CFGI_CD
            | Opcode::CFGI_CD_ALL
            | Opcode::CFGI_STE
            | Opcode::CFGI_STE_RANGE
            | Opcode::PREFETCH_CONFIG
            | Opcode::PREFETCH_ADDR => reserved,
            // EL2, EL3 and stage-2 invalidations, RESUME, STALL_TERM and PRI_RESP exist, but not for this guest.
            _ => Step::Stop(Stop::FAULT, GuestFault::ILLEGAL_OPCODE),
        }
    }
}

/// What becomes of one command.
enum Step {
    /// To the hardware, as a TLB invalidation.
    Tlb([u64; 2]),
    /// To the hardware, as a configuration cache invalidation.
    Config([u64; 2]),
    /// To the hardware, as a device cache invalidation.
    Atc([u64; 2]),
    /// Complete: no vdevice has its stream.
    LocalStream,
    /// Complete: a hint.
    Hint,
    /// Not a plain invalidation.
    Stop(Stop, GuestFault),
}

#[inline(always)]
fn stream_id(w0: u64) -> u32 {
    (w0 >> 32) as u32
}

#[inline(always)]
fn with_stream(w0: u64, stream: u32) -> u64 {
    w0 & 0xffff_ffff | u64::from(stream) << 32
}

#[inline(always)]
fn config(w0: u64, w1: u64, ids: &HostIds<'_>) -> Step {
    match ids.stream(stream_id(w0)) {
        None => Step::LocalStream,
        Some(stream) => Step::Config([with_stream(w0, stream), w1]),
    }
}

/// Fills the next slot, if there is one.
#[inline(always)]
fn put(slots: &mut std::slice::IterMut<'_, [u64; 2]>, words: [u64; 2]) -> bool {
    slots.next().map(|slot| *slot = words).is_some()
}

impl Codec for ArmCodec {
    fn rewrite(&self, guest: &[u64], before: Classes, ids: HostIds<'_>, out: &mut [u64]) -> Rewritten {
        // A tag wider than VMID cannot come from this vendor's driver; cut, it still is nobody else's field.
        let vmid = u64::from(ids.tag as u16) << 32;
        let mut slots = out.as_chunks_mut::<2>().0.iter_mut();
        let room = slots.len();
        let mut done = Rewritten::default();
        let mut commands = guest.as_chunks::<2>().0;
        // A TLB invalidation, which nearly every command is, counts nothing: the sums are taken at the end.
        loop {
            commands = &commands[self.run_of_nh_va(commands, vmid, &mut slots)..];
            let Some((&command, later)) = commands.split_first() else { break };
            commands = later;
            let fits = match self.step(command, vmid, &ids) {
                Step::Tlb(words) => put(&mut slots, words),
                Step::Config(words) => {
                    let fits = put(&mut slots, words);
                    done.config += u32::from(fits);
                    fits
                }
                Step::Atc(words) => {
                    let earlier = (room - slots.len()) as u32;
                    if before.any(Classes::TLB) || earlier > done.config + done.atc {
                        done.stop = Stop::ORDER;
                        break;
                    }
                    let fits = put(&mut slots, words);
                    done.atc += u32::from(fits);
                    fits
                }
                Step::LocalStream => {
                    done.local_stream += 1;
                    true
                }
                Step::Hint => {
                    done.hints += 1;
                    true
                }
                Step::Stop(stop, fault) => {
                    done.stop = stop;
                    done.fault = fault;
                    break;
                }
            };
            if !fits {
                done.stop = Stop::ROOM;
                break;
            }
        }
        done.written = (room - slots.len()) as u32;
        done.taken = done.written + done.local_stream + done.hints;
        done.tlb = done.written - done.config - done.atc;
        for (count, class) in [(done.tlb, Classes::TLB), (done.config, Classes::CONFIG), (done.atc, Classes::ATC)] {
            if count > 0 {
                done.classes = done.classes.with(class);
            }
        }
        done
    }

    fn configuration(&self, command: &[u64]) -> Configuration {
        let &[w0, w1, ..] = command else { return Configuration::entries(0, u32::MAX) };
        match Opcode::of(w0) {
            Opcode::CFGI_STE => {
                let stream = CfgiSte::from_words([w0, w1]).stream_id();
                Configuration::entries(stream, stream)
            }
            Opcode::CFGI_STE_RANGE => {
                let command = CfgiSteRange::from_words([w0, w1]);
                let below = (2u64 << command.range()) - 1;
                let first = command.stream_id() & !(below as u32);
                Configuration::entries(first, first | below as u32)
            }
            // Not a configuration command: the scope that cannot miss anything.
            _ => Configuration::entries(0, u32::MAX),
        }
    }

    fn entry_key(&self, ste: &[u64]) -> EntryKey {
        entry::key(&self.features, ste)
    }

    fn opcode(&self, command: &[u64]) -> u8 {
        command.first().map_or(0, |&w0| Opcode::of(w0).0)
    }

    fn opcode_name(&self, opcode: u8) -> Option<&'static str> {
        Opcode(opcode).name()
    }

    fn describe(&self, command: &[u64], text: &mut Message) {
        let mut words = [0; 2];
        words.iter_mut().zip(command).for_each(|(to, &from)| *to = from);
        // A message cuts what does not fit; it reports no error.
        let _ = describe::command(words, text);
    }
}
