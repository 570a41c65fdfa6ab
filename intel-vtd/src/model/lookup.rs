//! From a source-id and PASID to a [`Route`]: root, context and PASID tables in memory (§3.4), and the caches over them.

use super::entries::{ContextEntry, PasidEntry, Route, ScalableEntry, legacy_context, scalable_context};
use super::fault::Fault;
use super::identity::Identity;
use super::walk::{Narrator, Walker};
use crate::spec::context::{LEGACY_CONTEXT_BYTES, ROOT_BYTES, RootEntry, SCALABLE_CONTEXT_BYTES};
use crate::spec::fault_reason::FaultReason;
use crate::spec::pasid::{DirectoryEntry, ENTRY_BYTES, TABLE_LOG2};
use crate::spec::registers::{RootTable, TableMode};
use rustc_hash::FxHashMap;

/// PASID of a request that has none.
pub(crate) const NO_PASID: u32 = u32::MAX;

/// Reads root, context and PASID tables.
pub(crate) struct Lookup<'a, N> {
    pub(crate) identity: &'a Identity,
    /// RTADDR as SRTP took it.
    pub(crate) root: RootTable,
    pub(crate) walker: Walker<'a, N>,
}

impl<N: Narrator> Lookup<'_, N> {
    fn words<const W: usize>(&self, address: u64) -> Option<[u64; W]> {
        let mut words = [0; W];
        for (word, offset) in words.iter_mut().zip((0..).step_by(8)) {
            *word = self.walker.word(address.checked_add(offset)?)?;
        }
        Some(words)
    }

    /// The context entry of device `stream`.
    pub(crate) fn context(&mut self, stream: u32) -> Result<ContextEntry, Fault> {
        match TableMode(self.root.mode()) {
            TableMode::LEGACY => {
                let reasons = [FaultReason::ROOT_UNREADABLE, FaultReason::ROOT_NOT_PRESENT, FaultReason::ROOT_RESERVED];
                let table = self.context_table(stream, 0, reasons)?;
                let address = table + LEGACY_CONTEXT_BYTES * u64::from(stream & 0xff);
                let unreadable = Fault::configuration(FaultReason::CONTEXT_UNREADABLE);
                let words @ [w0, w1] = self.words(address).ok_or(unreadable)?;
                self.walker.narrator.tell(format_args!("context {stream:#x} [{address:#x}] = {w0:#x} {w1:#x}"));
                legacy_context(words, self.identity)
            }
            TableMode::SCALABLE if self.identity.ecap.scalable_mode() => {
                let reasons =
                    [FaultReason::SM_ROOT_UNREADABLE, FaultReason::SM_ROOT_NOT_PRESENT, FaultReason::SM_ROOT_RESERVED];
                let table = self.context_table(stream, usize::from(stream & 0x80 != 0), reasons)?;
                let address = table + SCALABLE_CONTEXT_BYTES * u64::from(stream & 0x7f);
                let unreadable = Fault::configuration(FaultReason::SM_CONTEXT_UNREADABLE);
                let words @ [w0, w1, _, _] = self.words(address).ok_or(unreadable)?;
                self.walker.narrator.tell(format_args!("context {stream:#x} [{address:#x}] = {w0:#x} {w1:#x}"));
                scalable_context(words, self.identity)
            }
            _ => Err(Fault::configuration(FaultReason::SM_TTM_INVALID)),
        }
    }

    /// The context table that `half` of the bus's root entry leads to; the reasons are: unreadable, not present,
    /// reserved bits.
    fn context_table(&mut self, stream: u32, half: usize, reasons: [FaultReason; 3]) -> Result<u64, Fault> {
        let [unreadable, absent, reserved] = reasons.map(Fault::configuration);
        if stream >> 16 != 0 {
            self.walker.narrator.tell(format_args!("{stream:#x} is no source-id"));
            return Err(absent);
        }
        let address = self.root.address().wrapping_add(ROOT_BYTES * u64::from(stream >> 8));
        let words: [u64; 2] = self.words(address).ok_or(unreadable)?;
        self.walker.narrator.tell(format_args!("root [{address:#x}] = {:#x} {:#x}", words[0], words[1]));
        let entry = RootEntry::from(words[half]);
        let legacy_high = half == 0 && TableMode(self.root.mode()) == TableMode::LEGACY && words[1] != 0;
        match (entry.present(), entry.reserved() != 0 || legacy_high) {
            (false, _) => Err(absent),
            (true, true) => Err(reserved),
            (true, false) => Ok(entry.address()),
        }
    }

    /// The PASID table entry that a request of a device with context entry `context` uses.
    pub(crate) fn pasid(&mut self, context: &ScalableEntry, pasid: Option<u32>) -> Result<PasidEntry, Fault> {
        let (address, used) = (context.directory_entry(pasid)?, pasid.unwrap_or(context.rid_pasid));
        let fault = |reason| Fault::configuration(reason).unless(context.fault_disable());
        let [word] = self.words(address).ok_or(fault(FaultReason::SM_DIRECTORY_UNREADABLE))?;
        self.walker.narrator.tell(format_args!("PASID directory [{address:#x}] = {word:#x}"));
        let directory = DirectoryEntry::from(word);
        let fault = |reason| fault(reason).unless(directory.fault_disable());
        if !directory.present() {
            return Err(fault(FaultReason::SM_DIRECTORY_NOT_PRESENT));
        }
        if directory.reserved() != 0 {
            return Err(fault(FaultReason::SM_DIRECTORY_RESERVED));
        }
        let index = u64::from(used & ((1 << TABLE_LOG2) - 1));
        let address = directory.address() + ENTRY_BYTES * index;
        let words @ [w0, w1, w2] = self.words(address).ok_or(fault(FaultReason::SM_PASID_UNREADABLE))?;
        self.walker.narrator.tell(format_args!("PASID {used:#x} [{address:#x}] = {w0:#x} {w1:#x} {w2:#x}"));
        PasidEntry::decode(words, directory.fault_disable(), self.identity)
            .map_err(|fault| fault.unless(context.fault_disable()))
    }
}

/// Key of what belongs to a device and a PASID.
#[inline]
fn key(stream: u32, pasid: u32) -> u64 {
    u64::from(stream) << 32 | u64::from(pasid)
}

/// The context cache (§6.2.2) and the PASID cache (§6.2.3): entries that were read and found good, until an
/// invalidation names them. Entries that are not present are not cached, whatever CAP.CM announces.
#[derive(Default)]
pub(crate) struct Configuration {
    /// By source-id.
    contexts: FxHashMap<u32, ContextEntry>,
    /// By source-id and the PASID used.
    pasids: FxHashMap<u64, PasidEntry>,
    /// What both say, by source-id and PASID of the request. Only to look up once; forgotten with either.
    routes: FxHashMap<u64, Route>,
}

impl Configuration {
    /// PASID table entries kept; a guest can have 2^36. With no room all are forgotten.
    const PASIDS: usize = 1 << 16;

    /// The route of a request, if it is known.
    #[inline]
    pub(crate) fn route(&self, stream: u32, pasid: u32) -> Option<&Route> {
        self.routes.get(&key(stream, pasid))
    }

    /// The route of a request, looked up as far as it is not cached.
    pub(crate) fn fetch<N: Narrator>(
        &mut self,
        stream: u32,
        pasid: u32,
        mut lookup: Lookup<'_, N>,
    ) -> Result<&Route, Fault> {
        let context = match self.contexts.get(&stream) {
            Some(context) => context,
            None => {
                let context = lookup.context(stream)?;
                self.contexts.entry(stream).insert_entry(context).into_mut()
            }
        };
        let own = (pasid != NO_PASID).then_some(pasid);
        let route = match (context, own) {
            (ContextEntry::Legacy { .. }, Some(_)) => {
                return Err(Fault::configuration(FaultReason::SM_PASID_IN_LEGACY_MODE));
            }
            (ContextEntry::Legacy { route, .. }, None) => route.clone(),
            (ContextEntry::Scalable(context), own) => {
                let used = own.unwrap_or(context.rid_pasid);
                // Not every device may use the PASID that is cached for it.
                context.directory_entry(own)?;
                let entry = match self.pasids.get(&key(stream, used)) {
                    Some(entry) => *entry,
                    None => {
                        let entry = lookup.pasid(context, own)?;
                        if self.pasids.len() >= Self::PASIDS {
                            self.pasids.clear();
                        }
                        self.pasids.insert(key(stream, used), entry);
                        entry
                    }
                };
                context.route(&entry, used, own.is_none())?
            }
        };
        if self.routes.len() >= Self::PASIDS {
            self.routes.clear();
        }
        Ok(self.routes.entry(key(stream, pasid)).insert_entry(route).into_mut())
    }

    /// Global context-cache invalidation.
    pub(crate) fn forget_contexts(&mut self) {
        self.contexts.clear();
        self.routes.clear();
    }

    /// Domain-selective context-cache invalidation. Scalable-mode context entries have no domain-id: all of them go.
    pub(crate) fn forget_domain(&mut self, domain: u16) {
        self.contexts.retain(|_, context| match context {
            ContextEntry::Legacy { domain: other, .. } => *other != domain,
            ContextEntry::Scalable(_) => false,
        });
        self.routes.clear();
    }

    /// Device-selective context-cache invalidation: the functions of `source` under the function mask, and of legacy
    /// entries those of `domain`.
    pub(crate) fn forget_device(&mut self, domain: u16, source: u16, function_mask: u8) {
        let open = [0, 4, 6, 7][usize::from(function_mask & 3)];
        self.contexts.retain(|&stream, context| {
            let named = stream | open == u32::from(source) | open;
            let tagged = match context {
                ContextEntry::Legacy { domain: other, .. } => *other == domain,
                ContextEntry::Scalable(_) => true,
            };
            !(named && tagged)
        });
        self.routes.clear();
    }

    /// PASID-cache invalidation: entries of `domain` (`None`: of all), or of those only the ones of `pasid`.
    pub(crate) fn forget_pasids(&mut self, domain: Option<u16>, pasid: Option<u32>) {
        self.pasids.retain(|&key, entry| {
            let tagged = domain.is_none_or(|domain| domain == entry.domain);
            let named = pasid.is_none_or(|pasid| pasid == key as u32);
            !(tagged && named)
        });
        self.routes.clear();
    }

    /// Power-on.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}
