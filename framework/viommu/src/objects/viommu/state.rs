//! What a vIOMMU's actor remembers: vdevices, the nested HWPT of each key, who is attached to what.

use super::ViommuInfo;
use crate::Cause;
use crate::backend::{ObjectKind, SinkError};
use crate::objects::device::DeviceFacts;
use crate::objects::nested_hwpt::{NestedHwptFacts, NestedHwptState};
use crate::objects::served::State;
use crate::objects::{Change, Link, NestParent, Node};
use crate::pipeline::Pipeline;
use crate::save::GuestEntry;
use crate::seams::wait;
use arc_swap::ArcSwap;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use viommu_plugin::{EntryKey, GuestFault, KeyKind, NO_STREAM, Refusal, Register};

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
}

/// The actor's state.
#[derive(Clone)]
pub(crate) struct ViommuState {
    pub(super) facts: Arc<ViommuFacts>,
    pub(super) slots: BTreeMap<u32, Slot>,
    nested: HashMap<EntryKey, Nested>,
    counters: NestedCounters,
    pub(super) fault: GuestFault,
}

impl ViommuState {
    pub(super) fn new(facts: Arc<ViommuFacts>) -> Self {
        let (slots, nested) = (BTreeMap::new(), HashMap::new());
        Self { facts, slots, nested, counters: NestedCounters::default(), fault: GuestFault::HOST_ERROR }
    }

    /// Host stream by guest ID.
    pub(super) fn streams(&self) -> Vec<u32> {
        let length = self.slots.last_key_value().map_or(0, |(last, _)| *last as usize + 1);
        let mut streams = vec![NO_STREAM; length];
        for (virt_id, slot) in &self.slots {
            streams[*virt_id as usize] = slot.device_facts.stream;
        }
        streams
    }

    /// Makes the data path use this state's map; undone by `before`.
    pub(super) fn publish(&self, before: Vec<u32>, change: &mut Change) {
        let pipeline = self.facts.pipeline.clone();
        pipeline.publish(self.streams());
        change.undo_by(move |_| {
            pipeline.publish(before);
            drained(&pipeline)
        });
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
        let wanted = (key.kind == KeyKind::TRANSLATE).then_some(key);
        let (target, now) = match wanted {
            Some(key) if nested == wanted && hwpt == self.nested.get(&key).map(|nested| nested.link.node.id) => {
                (hwpt.unwrap_or(self.facts.info.abort), nested)
            }
            Some(key) => match self.take(key, change) {
                Ok(id) => (id, wanted),
                // The host finds the guest's entry illegal: what hardware does with such an entry is to abort.
                Err(cause) if cause.errno() == Refusal::EINVAL => (self.facts.info.abort, None),
                Err(cause) => return Err(cause),
            },
            None if key.kind == KeyKind::BYPASS => (self.facts.info.bypass, None),
            None => (self.facts.info.abort, None),
        };
        if hwpt != Some(target) {
            change.attach(device, target, hwpt)?;
        } else if now.is_some() {
            // An entry that is said to have changed and has not: what it leads to may have.
            wait(change.backend().reload(device))?;
        }
        if nested != now {
            self.give_back(nested, change);
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
        let id = change.create(backend.nested_hwpt_alloc(viommu.id, &key))?;
        let facts = Arc::new(NestedHwptFacts { viommu: viommu.id, key });
        let link = Link::start(change, id, vec![viommu], facts, (), NestedHwptState);
        self.nested.insert(key, Nested { link, users: 1 });
        self.counters.created += 1;
        Ok(id)
    }

    /// One user less; the last frees it.
    pub(super) fn give_back(&mut self, key: Option<EntryKey>, change: &mut Change) {
        let Some(key) = key else { return };
        let Some(nested) = self.nested.get_mut(&key) else { return };
        nested.users -= 1;
        if nested.users == 0
            && let Some(nested) = self.nested.remove(&key)
        {
            change.destroy_after(nested.link.node.clone(), nested.link.addr.clone().recipient());
        }
    }
}

impl State for ViommuState {
    const KIND: ObjectKind = ObjectKind::Viommu;
    const GUARDS_DMA: bool = true;
    type Facts = ViommuFacts;
    type Keeps = NestParent;

    fn destroy(&mut self, change: &mut Change) -> Result<(), Cause> {
        drained(&self.facts.pipeline)?;
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
        for slot in self.slots.values_mut() {
            slot.nested = slot.nested.filter(|key| self.nested.contains_key(key));
        }
        // 2. The data path's map is what the vdevices say.
        self.publish(self.streams(), change);
        // 3. Every device does what its guest says now.
        let virt_ids: Vec<_> = self.slots.keys().copied().collect();
        virt_ids.into_iter().try_for_each(|virt_id| self.refresh(virt_id, change))
    }

    fn committed(&self) {
        let mut nested: Vec<_> = self.nested.values().map(|nested| (nested.link.clone(), nested.users)).collect();
        nested.sort_by_key(|(link, _)| link.node.id);
        let counters = NestedCounters { live: nested.len() as u64, ..self.counters };
        let keys = self.slots.iter().map(|(virt_id, slot)| (*virt_id, slot.key)).collect();
        self.facts.view.store(Arc::new(View { nested, counters, keys }));
    }
}

/// Returns when nothing of this guest is unfinished in hardware. A guest that is out of service has nothing there.
pub(super) fn drained(pipeline: &Pipeline) -> Result<(), Cause> {
    match pipeline.drain() {
        Err(SinkError::TimedOut(limit)) => Err(Cause::TimedOut(limit)),
        _ => Ok(()),
    }
}
