//! Check and rewrite of guest commands: every bit is looked at, every ID replaced.
//!
//! | command | nested | shadowed |
//! |---|---|---|
//! | COMPLETION_WAIT | `SYNC` | `SYNC` |
//! | INVALIDATE_DEVTAB_ENTRY, INVALIDATE_IOMMU_ALL | `CONFIGURATION` | `CONFIGURATION` |
//! | INVALIDATE_IOMMU_PAGES | DomainID replaced; complete if no nested HWPT has the domain | `SHADOW` |
//! | INVALIDATE_IOTLB_PAGES | DeviceID and QueueID replaced | the same |
//! | INVALIDATE_INTERRUPT_TABLE | complete: interrupts are the VMM's | the same |
//! | PREFETCH_IOMMU_PAGES | complete: a hint | the same |
//! | COMPLETE_PPR_REQUEST | complete: no page request ever reaches a guest | the same |

mod allowed;
mod describe;
mod entry;
mod walk;

pub(crate) use entry::GUEST;

use crate::features::Features;
use crate::spec::commands::{InvalidateDevice, InvalidateIommuPages, Opcode, span};
use allowed::Allowed;
use std::slice::IterMut;
use viommu_plugin::{
    Classes, Codec, Configuration, EntryKey, GuestFault, GuestMapping, GuestMemory, GuestTraits, HostIds, Message,
    Refusal, Register, Rewritten, ShadowRange, Stop, TranslationMode, Walked,
};

/// The codec of one guest, fixed by the ID registers it is shown.
#[derive(Debug, Clone)]
pub struct AmdCodec {
    features: Features,
    allowed: Allowed,
}

/// What becomes of one command.
enum Step {
    /// To the hardware, as a TLB invalidation.
    Tlb([u64; 2]),
    /// To the hardware, as a device cache invalidation.
    Atc([u64; 2]),
    /// Complete: no vdevice has its DeviceID.
    LocalStream,
    /// Complete: no nested HWPT has its DomainID.
    LocalDomain,
    /// Complete: a hint, or the VMM's affair.
    Hint,
    /// Not a plain invalidation.
    Stop(Stop, GuestFault),
}

const DOMAIN: u64 = InvalidateIommuPages::new().with_domain_id(u16::MAX).words()[0];
/// DeviceID and QueueID of INVALIDATE_IOTLB_PAGES.
const DEVICE_AND_QUEUE: u64 = 0x0000_ffff_0000_ffff;

impl AmdCodec {
    /// A codec that accepts what these ID registers promise.
    ///
    /// # Errors
    /// As [`Features::new`].
    pub fn new(registers: &[Register]) -> Result<Self, Refusal> {
        let features = Features::new(registers)?;
        Ok(Self { allowed: Allowed::new(&features), features })
    }

    #[inline(always)]
    fn step(&self, [w0, w1]: [u64; 2], ids: &HostIds<'_>) -> Step {
        let allowed = &self.allowed;
        let device = w0 as u16;
        let illegal = Step::Stop(Stop::FAULT, GuestFault::ILLEGAL_OPCODE);
        let (legal, step) = match Opcode::of(w0) {
            Opcode::INVALIDATE_IOMMU_PAGES if allowed.shadow => {
                (allowed.pages(w0, w1), Step::Stop(Stop::SHADOW, GuestFault::NONE))
            }
            Opcode::INVALIDATE_IOMMU_PAGES => {
                let step = match ids.domain((w0 >> 32) as u16 as u32) {
                    Some(tag) => Step::Tlb(with_domain(w0, w1, tag)),
                    None => Step::LocalDomain,
                };
                (allowed.pages(w0, w1), step)
            }
            Opcode::COMPLETION_WAIT => (allowed.wait.holds(w0, w1), Step::Stop(Stop::SYNC, GuestFault::NONE)),
            Opcode::INVALIDATE_IOTLB_PAGES if allowed.ats => {
                let step = match ids.stream(device.into()) {
                    Some(stream) => {
                        let stream = u64::from(stream as u16);
                        Step::Atc([w0 & !DEVICE_AND_QUEUE | stream | stream << 32, w1])
                    }
                    None => Step::LocalStream,
                };
                (allowed.device_pages(w0, w1), step)
            }
            Opcode::INVALIDATE_DEVTAB_ENTRY => {
                let stop = Step::Stop(Stop::CONFIGURATION, GuestFault::NONE);
                (allowed.device.holds(w0, w1), for_device(ids, device, stop))
            }
            Opcode::INVALIDATE_IOMMU_ALL if allowed.all => {
                (allowed.nothing.holds(w0, w1), Step::Stop(Stop::CONFIGURATION, GuestFault::NONE))
            }
            // The VMM remaps interrupts, those of devices that have no vdevice too.
            Opcode::INVALIDATE_INTERRUPT_TABLE => (allowed.device.holds(w0, w1), Step::Hint),
            Opcode::PREFETCH_IOMMU_PAGES if allowed.hints => {
                (allowed.prefetch(w0, w1), for_device(ids, device, Step::Hint))
            }
            Opcode::COMPLETE_PPR_REQUEST if allowed.requests => {
                (allowed.response(w0, w1), for_device(ids, device, Step::Hint))
            }
            // INSERT_GUEST_EVENT and RESET_VMMIO exist, but are the host's.
            _ => return illegal,
        };
        if legal { step } else { Step::Stop(Stop::FAULT, GuestFault::RESERVED_BITS) }
    }
}

impl AmdCodec {
    /// Rewrites the INVALIDATE_IOMMU_PAGES that `commands` begins with, as [`AmdCodec::step`] does each; nearly every
    /// command of a guest is one. How many went out: it stops at whatever needs a second look.
    #[inline(always)]
    fn run_of_pages(&self, commands: &[[u64; 2]], ids: &HostIds<'_>, slots: &mut IterMut<'_, [u64; 2]>) -> usize {
        let Allowed { shadow, .. } = self.allowed;
        let plain = |w0, w1| !shadow && Opcode::of(w0) == Opcode::INVALIDATE_IOMMU_PAGES && self.allowed.pages(w0, w1);
        let mut run = 0;
        for &[w0, w1] in commands {
            let Some(tag) = ids.domain((w0 >> 32) as u16 as u32).filter(|_| plain(w0, w1)) else { break };
            let Some(slot) = slots.next() else { break };
            *slot = with_domain(w0, w1, tag);
            run += 1;
        }
        run
    }
}

/// A tag wider than DomainID cannot come from this vendor's driver; cut, it still is in its field.
#[inline(always)]
fn with_domain(w0: u64, w1: u64, tag: u32) -> [u64; 2] {
    [w0 & !DOMAIN | u64::from(tag as u16) << 32, w1]
}

#[inline(always)]
fn for_device(ids: &HostIds<'_>, device: u16, step: Step) -> Step {
    if ids.stream(device.into()).is_some() { step } else { Step::LocalStream }
}

impl Codec for AmdCodec {
    fn rewrite(&self, guest: &[u64], before: Classes, ids: HostIds<'_>, out: &mut [u64]) -> Rewritten {
        let mut slots = out.as_chunks_mut::<2>().0.iter_mut();
        let mut done = Rewritten::default();
        let mut commands = guest.as_chunks::<2>().0;
        loop {
            let run = self.run_of_pages(commands, &ids, &mut slots);
            done.tlb += run as u32;
            let Some((&command, later)) = commands[run..].split_first() else { break };
            commands = later;
            let words = match self.step(command, &ids) {
                Step::Tlb(words) => words,
                Step::Atc(words) => {
                    if before.any(Classes::TLB) || done.tlb > 0 {
                        done.stop = Stop::ORDER;
                        break;
                    }
                    words
                }
                Step::LocalStream => {
                    done.local_stream += 1;
                    continue;
                }
                Step::LocalDomain => {
                    done.local_domain += 1;
                    continue;
                }
                Step::Hint => {
                    done.hints += 1;
                    continue;
                }
                Step::Stop(stop, fault) => {
                    (done.stop, done.fault) = (stop, fault);
                    break;
                }
            };
            let Some(slot) = slots.next() else {
                done.stop = Stop::ROOM;
                break;
            };
            *slot = words;
            *(if Opcode::of(words[0]) == Opcode::INVALIDATE_IOMMU_PAGES { &mut done.tlb } else { &mut done.atc }) += 1;
        }
        done.written = done.tlb + done.atc;
        done.taken = done.written + done.local_stream + done.local_domain + done.hints;
        for (count, class) in [(done.tlb, Classes::TLB), (done.atc, Classes::ATC)] {
            if count > 0 {
                done.classes = done.classes.with(class);
            }
        }
        done
    }

    fn configuration(&self, command: &[u64]) -> Configuration {
        let &[w0, w1, ..] = command else { return Configuration::EVERYTHING };
        match Opcode::of(w0) {
            Opcode::INVALIDATE_DEVTAB_ENTRY => {
                let device = InvalidateDevice::from_words([w0, w1]).device_id();
                Configuration::entries(device.into(), device.into())
            }
            // INVALIDATE_IOMMU_ALL; and if it is not a configuration command, the scope that cannot miss anything.
            _ => Configuration::EVERYTHING,
        }
    }

    fn entry_key(&self, dte: &[u64]) -> EntryKey {
        entry::key(&self.features, dte)
    }

    fn mode(&self) -> TranslationMode {
        self.features.mode()
    }

    /// Hardware consumes what a guest with its own part says, INVALIDATE_DEVTAB_ENTRY too.
    fn traits(&self) -> GuestTraits {
        let own = GuestTraits::INTERFACE | GuestTraits::WRITES_CONFIGURE;
        GuestTraits(if self.features.hw_viommu() { own } else { 0 })
    }

    fn shadow_range(&self, command: &[u64]) -> ShadowRange {
        let everything = ShadowRange { domain: 0, all_domains: 1, first: 0, last: u64::MAX };
        let &[w0, w1, ..] = command else { return everything };
        let command = InvalidateIommuPages::from_words([w0, w1]);
        if Opcode(command.opcode()) != Opcode::INVALIDATE_IOMMU_PAGES {
            return everything;
        }
        // An address of a GCR3 table says nothing of the v1 table; nothing here has one, and nothing may be missed.
        let (first, log2) = if command.gn() { (0, 64) } else { span(command.s(), command.address()) };
        let last = first | 1u64.checked_shl(log2.into()).map_or(u64::MAX, |size| size - 1);
        ShadowRange { domain: command.domain_id().into(), all_domains: 0, first, last }
    }

    fn walk(
        &self,
        key: &EntryKey,
        memory: &dyn GuestMemory,
        first: u64,
        last: u64,
        out: &mut [GuestMapping],
    ) -> Walked {
        walk::leaves(key, memory, first, last, out)
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
