//! What a vIOMMU's actor remembers: vdevices, the nested HWPT of each key, who is attached to what.

use super::ViommuInfo;
use super::queues::OwnQueue;
use crate::Cause;
use crate::backend::{GuestPage, NestedAlloc, ObjectKind, SinkError};
use crate::objects::device::DeviceFacts;
use crate::objects::nested_hwpt::{NestedHwptFacts, NestedHwptState};
use crate::objects::served::State;
use crate::objects::{Change, Link, NestParent, Node};
use crate::pipeline::{GuestIds, Pipeline, Shadow};
use crate::save::GuestEntry;
use crate::seams::wait;
use arc_swap::ArcSwap;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use viommu_plugin::{
    EntryKey, GuestFault, KeyKind, NO_DOMAIN, NO_STREAM, NO_TAG, Refusal, Register, ShadowRange, TranslationMode,
};

/// Nested HWPTs of one vIOMMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NestedCounters {
    /// Created so far.
    pub created: u64,
    /// Attachments that found theirs existing.
    pub reused: u64,
    /// Alive now.
    pub live: u64,
}

/// What handles know of a vIOMMU.
pub(crate) struct ViommuFacts {
    pub(crate) info: ViommuInfo,
    pub(crate) command_words: usize,
    /// ID registers that the guest is shown.
    pub(crate) shown: Vec<Register>,
    pub(crate) pipeline: Arc<Pipeline>,
    /// Registers of the hardware that are the guest's own.
    pub(crate) page: Option<Arc<dyn GuestPage>>,
    pub(crate) view: ArcSwap<View>,
}

/// What handles read without asking the actor; replaced after each operation.
#[derive(Default)]
pub(crate) struct View {
    pub(crate) nested: Vec<(Arc<Link<NestedHwptState>>, u32)>,
    pub(crate) counters: NestedCounters,
    pub(crate) keys: BTreeMap<u32, EntryKey>,
}

/// One vdevice.
#[derive(Clone)]
pub(super) struct Slot {
    pub(super) vdevice: Arc<Node>,
    pub(super) device: Arc<Node>,
    pub(super) device_facts: Arc<DeviceFacts>,
    /// What the guest's entry said when it was last read.
    pub(super) entry: GuestEntry,
    /// What it comes to.
    pub(super) key: EntryKey,
    /// What the VMM installed, where it emulates the registers itself.
    pub(super) installed: GuestEntry,
    /// The HWPT the device is attached to.
    pub(super) hwpt: Option<u32>,
    /// The key of the nested HWPT it uses.
    pub(super) nested: Option<EntryKey>,
}

#[derive(Clone)]
struct Nested {
    link: Arc<Link<NestedHwptState>>,
    users: u32,
    /// Of the key's domain.
    tag: Option<u32>,
    /// If the hardware walks a copy of the guest's table.
    shadow: Option<Arc<Shadow>>,
}

/// The actor's state.
#[derive(Clone)]
pub(crate) struct ViommuState {
    pub(super) facts: Arc<ViommuFacts>,
    pub(super) slots: BTreeMap<u32, Slot>,
    nested: HashMap<EntryKey, Nested>,
    counters: NestedCounters,
    pub(super) fault: GuestFault,
    /// Queues that the guest drives itself, in the order in which they were made.
    pub(super) queues: Vec<OwnQueue>,
}

impl ViommuState {
    pub(super) fn new(facts: Arc<ViommuFacts>) -> Self {
        let (slots, nested) = (BTreeMap::new(), HashMap::new());
        let (counters, queues) = Default::default();
        Self { facts, slots, nested, counters, fault: GuestFault::HOST_ERROR, queues }
    }

    /// The host's numbers by the guest's.
    pub(super) fn ids(&self) -> GuestIds {
        let length = self.slots.last_key_value().map_or(0, |(last, _)| *last as usize + 1);
        let mut streams = vec![NO_STREAM; length];
        for (virt_id, slot) in &self.slots {
            streams[*virt_id as usize] = slot.device_facts.stream;
        }
        let numbered = || self.nested.iter().filter_map(|(key, nested)| Some((key.domain as usize, nested.tag?)));
        let mut domains = vec![NO_TAG; numbered().map(|(domain, _)| domain + 1).max().unwrap_or(0)];
        numbered().for_each(|(domain, tag)| domains[domain] = tag);
        GuestIds { streams, domains }
    }

    fn shadows(&self) -> Vec<Arc<Shadow>> {
        self.nested.values().filter_map(|nested| nested.shadow.clone()).collect()
    }

    /// Makes the data path use this state's map; undone by `before`.
    pub(super) fn publish(&self, before: GuestIds, change: &mut Change) {
        let pipeline = self.facts.pipeline.clone();
        pipeline.publish(self.ids());
        change.undo_by(move |_| {
            pipeline.publish(before);
            drained(&pipeline)
        });
    }

    /// Makes the data path keep this state's shadows; undone by `before`.
    fn publish_shadows(&self, before: Vec<Arc<Shadow>>, change: &mut Change) {
        let pipeline = self.facts.pipeline.clone();
        pipeline.publish_shadows(self.shadows());
        change.undo_by(move |_| {
            pipeline.publish_shadows(before);
            Ok(())
        });
    }

    /// Guest IDs whose devices go through no HWPT of the guest's.
    pub(super) fn unattached(&self) -> impl Iterator<Item = u32> {
        let abort = Some(self.facts.info.abort);
        self.slots.iter().filter(move |(_, slot)| slot.hwpt == abort).map(|(virt_id, _)| *virt_id)
    }

    /// The guest invalidated all there is: the hardware forgets it, and what it has copies of is read again.
    pub(super) fn forget_translations(&self, change: &mut Change) -> Result<(), Cause> {
        let all = ShadowRange { domain: 0, all_domains: 1, first: 0, last: u64::MAX };
        self.facts.pipeline.shadow_range(all)?;
        wait(change.backend().flush(self.facts.info.id))
    }

    /// What `virt_id`'s device is to do now.
    pub(super) fn desired(&self, virt_id: u32) -> Result<GuestEntry, Cause> {
        if self.facts.info.frontend {
            return self.facts.pipeline.desired_entry(virt_id);
        }
        Ok(self.slots.get(&virt_id).map_or_else(GuestEntry::default, |slot| slot.installed.clone()))
    }

    /// What each vdevice's entry said when it was last read.
    pub(super) fn entries(&self) -> impl Iterator<Item = (u32, GuestEntry)> {
        self.slots.iter().map(|(virt_id, slot)| (*virt_id, slot.entry.clone()))
    }

    /// Brings `virt_id`'s device to what it is to do now.
    pub(super) fn refresh(&mut self, virt_id: u32, change: &mut Change) -> Result<(), Cause> {
        let entry = self.desired(virt_id)?;
        self.assign(virt_id, entry, change)
    }

    /// Attaches `virt_id`'s device to the HWPT of `entry`'s key, creating it on first use and freeing the old one after
    /// its last. An equal key is an equal configuration: nothing to attach.
    pub(super) fn assign(&mut self, virt_id: u32, entry: GuestEntry, change: &mut Change) -> Result<(), Cause> {
        let key = self.facts.pipeline.key_of(&entry)?;
        let Some(slot) = self.slots.get(&virt_id) else { return Err(Cause::NotFound(ObjectKind::Vdevice)) };
        let (device, hwpt, nested) = (slot.device.id, slot.hwpt, slot.nested);
        let abort = self.facts.info.abort;
        let wanted = (key.kind == KeyKind::TRANSLATE).then_some(key);
        let (mut target, mut now) = match wanted {
            Some(key) if nested == wanted && hwpt == self.nested.get(&key).map(|nested| nested.link.node.id) => {
                (hwpt.unwrap_or(abort), nested)
            }
            Some(key) => match self.take(key, change) {
                Ok(id) => (id, wanted),
                Err(cause) if is_illegal(&cause) => (abort, None),
                Err(cause) => return Err(cause),
            },
            None if key.kind == KeyKind::BYPASS => (self.facts.info.bypass, None),
            None => (abort, None),
        };
        if hwpt != Some(target) {
            match change.attach(device, target, hwpt) {
                // Some hosts look at a guest's configuration only now.
                Err(cause) if is_illegal(&cause) && now.is_some() => {
                    self.give_back(now, change)?;
                    (target, now) = (abort, None);
                    if hwpt != Some(abort) {
                        change.attach(device, abort, hwpt)?;
                    }
                }
                attached => attached?,
            }
        } else if now.is_some() {
            // An entry that is said to have changed and has not: what it leads to may have.
            wait(change.backend().reload(device))?;
        }
        if nested != now {
            self.give_back(nested, change)?;
        }
        if let Some(slot) = self.slots.get_mut(&virt_id) {
            (slot.entry, slot.key, slot.hwpt, slot.nested) = (entry, key, Some(target), now);
        }
        Ok(())
    }

    /// The nested HWPT of `key`, with one more user.
    fn take(&mut self, key: EntryKey, change: &mut Change) -> Result<u32, Cause> {
        if let Some(nested) = self.nested.get_mut(&key) {
            nested.users += 1;
            self.counters.reused += 1;
            return Ok(nested.link.node.id);
        }
        let viommu = change.node().clone();
        change.acquire(&viommu, ObjectKind::NestedHwpt)?;
        let backend = change.backend();
        let (before, shadows) = (self.ids(), self.shadows());
        let (id, tag, shadow) = if self.facts.info.mode == TranslationMode::SHADOW {
            let id = change.create(backend.shadow_hwpt_alloc(viommu.id, &key))?;
            (id, None, Some(Shadow::new(key, id)))
        } else {
            let NestedAlloc { id, tag } = wait(backend.nested_hwpt_alloc(viommu.id, &key))?;
            change.undo_by_destroy(id);
            (id, tag, None)
        };
        let facts = Arc::new(NestedHwptFacts { viommu: viommu.id, key });
        let link = Link::start(change, id, vec![viommu], facts, (), NestedHwptState);
        self.nested.insert(key, Nested { link, users: 1, tag, shadow: shadow.clone() });
        self.counters.created += 1;
        // Before anything goes through it: from here on the guest's commands are about it.
        if tag.is_some() {
            self.publish(before, change);
        }
        if let Some(shadow) = shadow {
            self.publish_shadows(shadows, change);
            self.facts.pipeline.refresh_shadow(&shadow, 0, u64::MAX).inspect_err(|_| drop(self.nested.remove(&key)))?;
        }
        Ok(id)
    }

    /// One user less; the last frees it.
    pub(super) fn give_back(&mut self, key: Option<EntryKey>, change: &mut Change) -> Result<(), Cause> {
        let Some(key) = key else { return Ok(()) };
        let before = if key.domain == NO_DOMAIN { GuestIds::default() } else { self.ids() };
        let shadows = self.shadows();
        let Some(nested) = self.nested.get_mut(&key) else { return Ok(()) };
        nested.users -= 1;
        if nested.users > 0 {
            return Ok(());
        }
        let Some(nested) = self.nested.remove(&key) else { return Ok(()) };
        // No command of the guest is about it any more, and those that were are finished.
        if nested.shadow.is_some() {
            self.publish_shadows(shadows, change);
        }
        if nested.tag.is_some() {
            self.publish(before, change);
            drained(&self.facts.pipeline)?;
        }
        change.destroy_after(nested.link.node.clone(), nested.link.addr.clone().recipient());
        Ok(())
    }
}

impl State for ViommuState {
    const KIND: ObjectKind = ObjectKind::Viommu;
    const GUARDS_DMA: bool = true;
    type Facts = ViommuFacts;
    type Keeps = NestParent;

    fn destroy(&mut self, change: &mut Change) -> Result<(), Cause> {
        drained(&self.facts.pipeline)?;
        self.free_queues(0, change)?;
        change.destroy(self.facts.info.id)?;
        change.shared().forget(&self.facts.pipeline);
        Ok(())
    }

    fn block(&mut self, change: &mut Change) -> Result<(), Cause> {
        let virt_ids: Vec<_> = self.slots.keys().copied().collect();
        let tried: Vec<_> = virt_ids.into_iter().map(|id| self.assign(id, GuestEntry::Abort, change)).collect();
        tried.into_iter().collect()
    }

    fn quarantined(&mut self) {
        self.facts.pipeline.quarantine(self.fault);
    }

    fn adopt(&mut self, change: &mut Change) -> Result<(), Cause> {
        // 1. What the backend no longer has is forgotten; the rest is taken over by its ID.
        let live: HashSet<u32> = change.backend().live().into_iter().map(|(id, _)| id).collect();
        self.nested.retain(|_, nested| live.contains(&nested.link.node.id));
        self.forget_queues(|id| live.contains(&id));
        for slot in self.slots.values_mut() {
            slot.nested = slot.nested.filter(|key| self.nested.contains_key(key));
        }
        // 2. The data path's map is what the vdevices say.
        self.publish(self.ids(), change);
        self.publish_shadows(self.shadows(), change);
        // 3. Every device does what its guest says now.
        let virt_ids: Vec<_> = self.slots.keys().copied().collect();
        virt_ids.into_iter().try_for_each(|virt_id| self.refresh(virt_id, change))?;
        self.follow_queues(change)
    }

    fn committed(&self) {
        let mut nested: Vec<_> = self.nested.values().map(|nested| (nested.link.clone(), nested.users)).collect();
        nested.sort_by_key(|(link, _)| link.node.id);
        let counters = NestedCounters { live: nested.len() as u64, ..self.counters };
        let keys = self.slots.iter().map(|(virt_id, slot)| (*virt_id, slot.key)).collect();
        self.facts.view.store(Arc::new(View { nested, counters, keys }));
    }
}

/// The host finds the guest's entry illegal: what hardware does with such an entry is to abort.
fn is_illegal(cause: &Cause) -> bool {
    matches!(cause.errno(), Refusal::EINVAL)
}

/// Returns when nothing of this guest is unfinished in hardware. A guest that is out of service has nothing there.
pub(super) fn drained(pipeline: &Pipeline) -> Result<(), Cause> {
    match pipeline.drain() {
        Err(SinkError::TimedOut(limit)) => Err(Cause::TimedOut(limit)),
        _ => Ok(()),
    }
}
