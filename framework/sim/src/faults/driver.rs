//! The vendor's driver, watched: what has which tag is told to the oracle, and broken on purpose.

use crate::inject::Injection;
use crate::oracle::{Clause, Oracle, Owned, Violation};
use crate::plan::STREAMS;
use std::cell::{Cell, RefCell};
use viommu_plugin::{
    Driver, DriverInfo, EntryKey, HostEvent, HostInvalidation, KeyKind, NO_DOMAIN, QueueFault, Refusal, Register,
    Scope, TranslationMode,
};

thread_local! {
    /// A world is one thread, and a vendor's driver is made without a word about whose it is.
    static WORLD: RefCell<Option<(Oracle, Option<Injection>)>> = const { RefCell::new(None) };
    /// The host takes memory from a machine.
    static TAKING: Cell<bool> = const { Cell::new(false) };
}

/// The world that drivers made from now on are in.
pub(crate) fn enter_world(world: Option<(Oracle, Option<Injection>)>) {
    WORLD.set(world);
}

/// Whether the host is taking memory from a machine.
pub(crate) fn taking_memory(taking: bool) {
    TAKING.set(taking);
}

/// A driver around another.
pub(crate) struct Watching<D> {
    inner: D,
    world: Option<(Oracle, Option<Injection>)>,
    /// The first tag of a guest's domain, for [`Injection::ShareTag`].
    shared: Option<u32>,
}

impl<D> Watching<D> {
    pub(crate) fn new(inner: D) -> Self {
        Self { inner, world: WORLD.with_borrow(Clone::clone), shared: None }
    }

    fn breaks(&self, injection: Injection) -> bool {
        self.world.as_ref().is_some_and(|(_, broken)| *broken == Some(injection))
    }
}

impl<D: Driver> Driver for Watching<D> {
    fn info(&self) -> DriverInfo {
        self.inner.info()
    }
    fn guest_registers(&self, mode: TranslationMode) -> Vec<Register> {
        self.inner.guest_registers(mode)
    }
    fn stage2_create(&mut self, tag: u32) -> Result<u32, Refusal> {
        self.inner.stage2_create(tag)
    }
    fn stage2_map(&mut self, stage2: u32, ipa: u64, pa: u64, len: u64, access: u32) -> Result<(), Refusal> {
        self.inner.stage2_map(stage2, ipa, pa, len, access)
    }
    fn stage2_unmap(&mut self, stage2: u32, ipa: u64, len: u64) -> Result<(), Refusal> {
        // What is lent is lent in one piece: smaller ones are leaves of a shadow.
        if TAKING.get() && len < crate::guest::LOAN_SIZE && self.breaks(Injection::KeepShadowMemory) {
            return Ok(());
        }
        self.inner.stage2_unmap(stage2, ipa, len)
    }
    fn stage2_destroy(&mut self, stage2: u32) {
        self.inner.stage2_destroy(stage2);
    }
    fn attach(&mut self, stream: u32, stage2: u32, tag: u32, key: &EntryKey) -> Result<(), Refusal> {
        let domain = Some(key.domain).filter(|domain| key.kind == KeyKind::TRANSLATE && *domain != NO_DOMAIN);
        let tag = match domain {
            Some(_) if self.breaks(Injection::ShareTag) => *self.shared.get_or_insert(tag),
            _ => tag,
        };
        let done = self.inner.attach(stream, stage2, tag, key);
        let Some((oracle, _)) = &self.world else { return done };
        let vm = stream / STREAMS;
        let mut oracle = oracle.lock();
        // What an attach that failed (the hardware did not answer in time) left behind, nobody knows; what DMA gets is judged
        // in any case.
        if done.is_err() || key.kind == KeyKind::ABORT {
            oracle.domains.detached(stream);
            return done;
        }
        let owned = Owned { vm, table: stage2, domain };
        if let Some(what) = oracle.domains.attached(stream, tag, owned) {
            oracle.violated(Violation::of_vm(Clause::Domains, vm, what));
        }
        Ok(())
    }
    fn detach(&mut self, stream: u32) -> Result<(), Refusal> {
        if let Some((oracle, _)) = &self.world {
            oracle.lock().domains.detached(stream);
        }
        self.inner.detach(stream)
    }
    fn encode(&self, what: &HostInvalidation, out: &mut [u64]) -> usize {
        if what.scope == Scope::TAG {
            if self.breaks(Injection::KeepTag) {
                return 0;
            }
            if let Some((oracle, _)) = &self.world {
                oracle.lock().domains.flushed(what.tag);
            }
        }
        self.inner.encode(what, out)
    }
    fn queue_fault(&mut self) -> Option<QueueFault> {
        self.inner.queue_fault()
    }
    fn queue_resume(&mut self) {
        self.inner.queue_resume();
    }
    fn event(&mut self) -> Option<HostEvent> {
        self.inner.event()
    }
    fn interrupt(&mut self, line: u32) {
        self.inner.interrupt(line);
    }
}
