//! Check and rewrite of guest descriptors: every bit is looked at, every domain-id and source-id replaced.
//!
//! A command has four words, as the descriptors of the host's 256-bit queue have. Those of a guest's 128-bit queue come
//! with two words of zeros behind them.

mod allowed;
mod describe;
mod entry;
mod walk;

pub use entry::{ENTRY_WORDS, FoundAt};

use crate::features::{Features, Service};
use crate::spec::descriptors::{
    ContextCacheInv, DescriptorType, DeviceTlbInv, Granularity, IotlbInv, PasidDeviceTlbInv, PasidIotlbGranularity,
    PasidIotlbInv, WIDE_WORDS,
};
use allowed::Allowed;
use viommu_plugin::{
    Classes, Codec, Configuration, EntryKey, GuestFault, GuestMapping, GuestMemory, HostIds, Message, Refusal,
    Register, Rewritten, ShadowRange, Stop, TranslationMode, Walked,
};

/// A descriptor of 256 bits.
type Words = [u64; WIDE_WORDS];

/// The codec of one guest, fixed by the ID registers it is shown.
#[derive(Debug, Clone)]
pub struct VtdCodec {
    features: Features,
    allowed: Allowed,
}

/// DID in the first word of an IOTLB or PASID-IOTLB invalidation.
const DOMAIN: u64 = IotlbInv::new().with_kind(0).with_domain_id(u16::MAX).words()[0];
const DOMAIN_SHIFT: u32 = DOMAIN.trailing_zeros();
/// SID in the first word of a device-TLB invalidation.
const SOURCE: u64 = DeviceTlbInv::new().with_kind(0).with_source_id(u16::MAX).words()[0];
/// SID in the first word of a PASID-based device-TLB invalidation.
const PASID_SOURCE: u64 = PasidDeviceTlbInv::new().with_kind(0).with_source_id(u16::MAX).words()[0];

/// Type and granularity of the descriptor that nearly all are: pages of a PASID.
const PASID_PAGES: u64 = PasidIotlbInv::new().with_granularity(PasidIotlbGranularity::PAGES.0).words()[0];
/// The bits of both.
const KIND_AND_GRANULARITY: u64 = PasidIotlbInv::new().with_kind(0xf).with_kind_high(7).with_granularity(3).words()[0];

impl VtdCodec {
    /// A codec that accepts what these ID registers promise.
    ///
    /// # Errors
    /// As [`Features::new`].
    pub fn new(registers: &[Register]) -> Result<Self, Refusal> {
        let features = Features::new(registers)?;
        Ok(Self { allowed: Allowed::new(&features), features })
    }

    /// Rewrites the page-selective PASID-IOTLB invalidations that `commands` begins with, as far as they are legal,
    /// fit, and name a domain that the host knows; how many. The rest, and whatever is wrong with it, is
    /// [`VtdCodec::step`]'s.
    #[inline(always)]
    fn run_of_pages(&self, commands: &[Words], ids: &HostIds<'_>, slots: &mut std::slice::IterMut<'_, Words>) -> usize {
        let allowed = &self.allowed;
        let mut count = 0;
        for words in commands {
            let [w0, w1, ..] = *words;
            if w0 & KIND_AND_GRANULARITY != PASID_PAGES
                || !(allowed.direct_pasid_iotlb.holds(words) & allowed.address_mask(w1))
            {
                break;
            }
            let Some(tag) = ids.domain(domain(w0)) else { break };
            // The slot is asked for last: one that is taken is filled.
            let Some(slot) = slots.next() else { break };
            *slot = [with_domain(w0, tag), w1, 0, 0];
            count += 1;
        }
        count
    }

    /// What becomes of one command.
    #[inline(always)]
    fn step(&self, words: Words, ids: &HostIds<'_>) -> Step {
        let allowed = &self.allowed;
        let [w0, w1, ..] = words;
        let granularity = IotlbInv::from_words([w0, w1]).granularity();
        let illegal = Step::Stop(Stop::FAULT, GuestFault::ILLEGAL_OPCODE);
        let reserved = Step::Stop(Stop::FAULT, GuestFault::RESERVED_BITS);
        let stop = |stop| Step::Stop(stop, GuestFault::NONE);
        match DescriptorType::of(w0) {
            DescriptorType::PASID_IOTLB if !allowed.scalable => illegal,
            DescriptorType::PASID_IOTLB if allowed.pasid_iotlb.holds(&words) => {
                match PasidIotlbGranularity(granularity) {
                    PasidIotlbGranularity::PAGES if !allowed.address_mask(w1) => reserved,
                    // First-stage translations, of which a guest without first stage has none.
                    PasidIotlbGranularity::PASID | PasidIotlbGranularity::PAGES if allowed.shadow => Step::Hint,
                    PasidIotlbGranularity::PASID | PasidIotlbGranularity::PAGES => of_domain(words, ids),
                    _ => reserved,
                }
            }
            DescriptorType::WAIT if allowed.wait.holds(&words) => stop(Stop::SYNC),
            DescriptorType::DEVICE_TLB if !allowed.device_tlb => illegal,
            DescriptorType::DEVICE_TLB if allowed.device_tlb_inv.holds(&words) => of_device(words, SOURCE, ids),
            DescriptorType::IOTLB if allowed.iotlb.holds(&words) => match Granularity(granularity) {
                Granularity::RESERVED => reserved,
                Granularity::SELECTIVE if !(allowed.page_selective && allowed.address_mask(w1)) => reserved,
                _ if allowed.shadow => stop(Stop::SHADOW),
                Granularity::GLOBAL => stop(Stop::CONFIGURATION),
                _ => of_domain(words, ids),
            },
            DescriptorType::CONTEXT_CACHE
                if allowed.context_cache.holds(&words) && granularity != Granularity::RESERVED.0 =>
            {
                stop(Stop::CONFIGURATION)
            }
            DescriptorType::PASID_CACHE if !allowed.scalable => illegal,
            // 2 is the one granularity that does not exist.
            DescriptorType::PASID_CACHE if allowed.pasid_cache.holds(&words) && granularity != 2 => {
                stop(Stop::CONFIGURATION)
            }
            DescriptorType::PASID_DEVICE_TLB if !allowed.pasid_device_tlb => illegal,
            DescriptorType::PASID_DEVICE_TLB if allowed.pasid_device_tlb_inv.holds(&words) => {
                of_device(words, PASID_SOURCE, ids)
            }
            // Interrupts are remapped by the VMM, page requests answered by it.
            DescriptorType::INTERRUPT_ENTRY_CACHE if !allowed.interrupt_remapping => illegal,
            DescriptorType::INTERRUPT_ENTRY_CACHE if allowed.interrupt_entry_cache.holds(&words) => Step::Hint,
            DescriptorType::PAGE_GROUP_RESPONSE if !allowed.page_request => illegal,
            DescriptorType::PAGE_GROUP_RESPONSE if allowed.page_group_response.holds(&words) => Step::Hint,
            kind if kind.name().is_some() => reserved,
            _ => illegal,
        }
    }
}

/// What becomes of one command.
enum Step {
    /// To the hardware, as a TLB invalidation.
    Tlb(Words),
    /// To the hardware, as a device cache invalidation.
    Atc(Words),
    /// Complete: no vdevice has its stream.
    LocalStream,
    /// Complete: nothing of its domain can be cached.
    LocalDomain,
    /// Complete: not an invalidation of translations.
    Hint,
    /// Not a plain invalidation.
    Stop(Stop, GuestFault),
}

#[inline(always)]
fn domain(w0: u64) -> u32 {
    ((w0 & DOMAIN) >> DOMAIN_SHIFT) as u32
}

/// A tag wider than DID cannot come from this vendor's driver; cut, it still is nobody else's field.
#[inline(always)]
fn with_domain(w0: u64, tag: u32) -> u64 {
    w0 & !DOMAIN | u64::from(tag as u16) << DOMAIN_SHIFT
}

#[inline(always)]
fn of_domain(words: Words, ids: &HostIds<'_>) -> Step {
    match ids.domain(domain(words[0])) {
        None => Step::LocalDomain,
        Some(tag) => Step::Tlb([with_domain(words[0], tag), words[1], 0, 0]),
    }
}

#[inline(always)]
fn of_device(words: Words, source: u64, ids: &HostIds<'_>) -> Step {
    let shift = source.trailing_zeros();
    match ids.stream(((words[0] & source) >> shift) as u32) {
        None => Step::LocalStream,
        Some(stream) => Step::Atc([words[0] & !source | u64::from(stream as u16) << shift, words[1], 0, 0]),
    }
}

/// Fills the next slot, if there is one.
#[inline(always)]
fn put(slots: &mut std::slice::IterMut<'_, Words>, words: Words) -> bool {
    slots.next().map(|slot| *slot = words).is_some()
}

impl Codec for VtdCodec {
    fn rewrite(&self, guest: &[u64], before: Classes, ids: HostIds<'_>, out: &mut [u64]) -> Rewritten {
        let mut slots = out.as_chunks_mut::<WIDE_WORDS>().0.iter_mut();
        let room = slots.len();
        let mut done = Rewritten::default();
        let mut commands = guest.as_chunks::<WIDE_WORDS>().0;
        // A TLB invalidation, which nearly every command is, counts nothing: the sums are taken at the end.
        loop {
            commands = &commands[self.run_of_pages(commands, &ids, &mut slots)..];
            let Some((&command, later)) = commands.split_first() else { break };
            commands = later;
            let fits = match self.step(command, &ids) {
                Step::Tlb(words) => put(&mut slots, words),
                Step::Atc(words) => {
                    let earlier = (room - slots.len()) as u32;
                    if before.any(Classes::TLB) || earlier > done.atc {
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
                Step::LocalDomain => {
                    done.local_domain += 1;
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
        done.taken = done.written + done.local_stream + done.local_domain + done.hints;
        done.tlb = done.written - done.atc;
        for (count, class) in [(done.tlb, Classes::TLB), (done.atc, Classes::ATC)] {
            if count > 0 {
                done.classes = done.classes.with(class);
            }
        }
        done
    }

    /// A context-cache invalidation names a source-id, with up to three bits of its function left open. One of the
    /// PASID cache names a domain-id, which any device may have: every entry is read. An IOTLB invalidation of
    /// everything changes no entry, and leaves nothing cached.
    fn configuration(&self, command: &[u64]) -> Configuration {
        let &[w0, w1, ..] = command else { return Configuration::EVERYTHING };
        let context = ContextCacheInv::from_words([w0, w1]);
        match DescriptorType::of(w0) {
            DescriptorType::IOTLB => Configuration::FLUSH,
            DescriptorType::CONTEXT_CACHE if context.granularity() == Granularity::SELECTIVE.0 => {
                let open = [0, 0b100, 0b110, 0b111][usize::from(context.function_mask())];
                let source = u32::from(context.source_id());
                Configuration::entries(source & !open, source | open)
            }
            DescriptorType::CONTEXT_CACHE | DescriptorType::PASID_CACHE => Configuration::entries(0, u32::MAX),
            // Not a configuration command: the scope that cannot miss anything.
            _ => Configuration::EVERYTHING,
        }
    }

    fn entry_key(&self, entry: &[u64]) -> EntryKey {
        entry::key(&self.features, entry)
    }

    fn mode(&self) -> TranslationMode {
        match self.features.service() {
            Service::Nested => TranslationMode::NESTED,
            Service::Shadow => TranslationMode::SHADOW,
        }
    }

    fn shadow_range(&self, command: &[u64]) -> ShadowRange {
        let everything = ShadowRange { domain: 0, all_domains: 1, first: 0, last: u64::MAX };
        let &[w0, w1, ..] = command else { return everything };
        let iotlb = IotlbInv::from_words([w0, w1]);
        if DescriptorType::of(w0) != DescriptorType::IOTLB || iotlb.granularity() < Granularity::DOMAIN.0 {
            return everything;
        }
        let of_domain = ShadowRange { domain: domain(w0), all_domains: 0, ..everything };
        // log2 of the bytes less one bit, so that all of 2^64 can be said.
        let log2 = u32::from(iotlb.address_mask()) + 12;
        if iotlb.granularity() == Granularity::DOMAIN.0 || log2 >= u64::BITS {
            return of_domain;
        }
        let below = (1 << log2) - 1;
        let first = iotlb.address() << 12 & !below;
        ShadowRange { first, last: first | below, ..of_domain }
    }

    fn walk(
        &self,
        key: &EntryKey,
        memory: &dyn GuestMemory,
        first: u64,
        last: u64,
        out: &mut [GuestMapping],
    ) -> Walked {
        walk::mappings(key, memory, first, last, out)
    }

    fn opcode(&self, command: &[u64]) -> u8 {
        command.first().map_or(0, |&w0| DescriptorType::of(w0).0)
    }

    fn opcode_name(&self, opcode: u8) -> Option<&'static str> {
        DescriptorType(opcode).name()
    }

    fn describe(&self, command: &[u64], text: &mut Message) {
        let mut words = [0; 4];
        words.iter_mut().zip(command).for_each(|(to, &from)| *to = from);
        // A message cuts what does not fit; it reports no error.
        let _ = describe::command(words, text);
    }
}
