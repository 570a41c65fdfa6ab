//! Changes of what a guest's table entries say, and the end of service.

use super::WATCHED_LIMIT;
use super::state::ViommuState;
use crate::Cause;
use crate::backend::ObjectKind;
use crate::objects::ObjectState;
use crate::objects::served::{Operation, quarantine};
use crate::pipeline::ConfigRequest;
use crate::save::GuestEntry;
use crate::seams::wait;
use crate::{objects::Change, pipeline::Pipeline};
use std::ops::RangeInclusive;
use std::sync::Arc;
use viommu_plugin::{Configuration, GuestFault, GuestTraits, KeyKind};

/// Bytes of a watched page.
const PAGE: u64 = 0x1000;

/// The guest changed its table entries or its mode: every device in range is brought to what it says now.
pub(super) struct Reconfigure(pub(super) ConfigRequest);

impl Reconfigure {
    fn range(&self) -> RangeInclusive<u32> {
        match self.0 {
            ConfigRequest::Entries(entries) => entries.first..=entries.last,
            _ => 0..=u32::MAX,
        }
    }
}

impl Operation for Reconfigure {
    type State = ViommuState;
    type Output = ();
    const NAME: &'static str = "reconfigure";
    const CONFIGURES: bool = true;

    /// A command that fails shows the guest an error. A register write cannot: its guest takes it as done.
    fn fails_closed(&self) -> bool {
        !matches!(self.0, ConfigRequest::Entries(_) | ConfigRequest::HwQueues)
    }

    fn run(self, state: &mut ViommuState, change: &mut Change) -> Result<(), Cause> {
        if matches!(self.0, ConfigRequest::HwQueues | ConfigRequest::Reset) {
            state.follow_queues(change)?;
        }
        if self.0 == ConfigRequest::HwQueues {
            return Ok(());
        }
        let range = self.range();
        // An inverted range is a guest's to send, and not ours to panic on.
        let in_range = |virt_id: &u32| range.contains(virt_id);
        let virt_ids: Vec<_> = state.slots.keys().copied().filter(in_range).collect();
        for virt_id in virt_ids {
            state.refresh(virt_id, change)?;
        }
        match self.0 {
            ConfigRequest::Entries(Configuration { flush: 1, .. }) => state.forget_translations(change),
            ConfigRequest::Reset => wait(change.backend().flush(state.facts.info.id)),
            _ => Ok(()),
        }
    }

    fn finally(&self, state: &ViommuState) -> Option<Box<dyn FnOnce(bool) + Send>> {
        let (request, pipeline) = (self.0, state.facts.pipeline.clone());
        Some(Box::new(move |safe| answer(request, &pipeline, safe)))
    }
}

/// Lets the guest go on, however it ended.
fn answer(request: ConfigRequest, pipeline: &Arc<Pipeline>, safe: bool) {
    match request {
        ConfigRequest::Entries(_) => {
            pipeline.configuration_done(if safe { Ok(()) } else { Err(GuestFault::HOST_ERROR) });
        }
        _ => pipeline.mode_done(),
    }
}

/// The guest wrote to memory that is watched for entries becoming valid. Fails if there is no frontend.
pub(super) struct AttachLate {
    pub(super) gpa: u64,
    pub(super) length: u64,
}

impl Operation for AttachLate {
    type State = ViommuState;
    type Output = u32;
    const NAME: &'static str = "attach_late";
    const CONFIGURES: bool = true;

    fn run(self, state: &mut ViommuState, change: &mut Change) -> Result<u32, Cause> {
        if !state.facts.info.frontend {
            return Err(Cause::Invalid("this vIOMMU has no frontend: the VMM knows the entries".into()));
        }
        tracing::debug!(gpa = self.gpa, length = self.length, "the guest wrote to watched memory");
        if state.facts.pipeline.codec().traits()?.any(GuestTraits::WRITES_CONFIGURE) {
            return self.announce(state, change);
        }
        let unattached: Vec<_> = state.unattached().collect();
        let mut attached = 0;
        for virt_id in unattached {
            let entry = state.desired(virt_id)?;
            if state.facts.pipeline.key_of(&entry)?.kind != KeyKind::ABORT {
                state.assign(virt_id, entry, change)?;
                attached += u32::from(!state.unattached().any(|other| other == virt_id));
            }
        }
        Ok(attached)
    }
}

impl AttachLate {
    /// For a guest whose commands nobody here sees: every device with an entry in the pages written is brought to what the
    /// entry says now. How many of them were not attached before and are now.
    fn announce(self, state: &mut ViommuState, change: &mut Change) -> Result<u32, Cause> {
        let before = state.unattached().count();
        for virt_id in state.slots.keys().copied().collect::<Vec<_>>() {
            let pages = state.facts.pipeline.watched_pages(&[virt_id], WATCHED_LIMIT)?;
            let last = self.gpa.saturating_add(self.length.saturating_sub(1));
            if pages.iter().any(|&page| page <= last && self.gpa <= page.saturating_add(PAGE - 1)) {
                state.refresh(virt_id, change)?;
            }
        }
        Ok(before.saturating_sub(state.unattached().count()) as u32)
    }
}

/// A VMM with registers of its own changed a guest's table entry. Fails if there is a frontend, or no such vdevice.
pub(super) struct InstallEntry {
    pub(super) virt_id: u32,
    pub(super) entry: GuestEntry,
}

impl Operation for InstallEntry {
    type State = ViommuState;
    type Output = ();
    const NAME: &'static str = "install";
    const CONFIGURES: bool = true;

    fn run(self, state: &mut ViommuState, change: &mut Change) -> Result<(), Cause> {
        if state.facts.info.frontend {
            return Err(Cause::Invalid("this vIOMMU has a frontend: the guest's own table decides".into()));
        }
        // A wrong number of words is refused before anything else is said.
        state.facts.pipeline.key_of(&self.entry)?;
        let slot = state.slots.get_mut(&self.virt_id).ok_or(Cause::NotFound(ObjectKind::Vdevice))?;
        slot.installed = self.entry.clone();
        state.assign(self.virt_id, self.entry, change)
    }
}

/// The guest broke the hardware queue, or its data path gave up: out of service, every device on the abort HWPT.
pub(crate) struct Quarantine(pub(crate) GuestFault);

impl Operation for Quarantine {
    type State = ViommuState;
    type Output = ();
    const NAME: &'static str = "quarantine";
    const ALWAYS: bool = true;

    fn run(self, state: &mut ViommuState, change: &mut Change) -> Result<(), Cause> {
        let (node, shared) = (change.node().clone(), change.shared().clone());
        if node.state() != ObjectState::Quarantined {
            state.fault = self.0;
            quarantine(state, self.0.name(), &node, &shared);
        }
        Ok(())
    }
}
