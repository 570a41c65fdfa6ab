//! VDEVICE_ALLOC and its reverse: assign and resign a guest's ID.

use super::state::{Slot, ViommuState, drained};
use super::{VIRT_ID_LIMIT, Viommu};
use crate::Cause;
use crate::backend::ObjectKind;
use crate::host::{Reap, Route};
use crate::objects::served::Operation;
use crate::objects::vdevice::VdeviceState;
use crate::objects::{Change, Device, Link};
use crate::save::GuestEntry;
use crate::seams::wait;
use std::sync::Arc;
use viommu_plugin::EntryKey;

/// Names a device to the guest. Fails if the guest uses `virt_id`, or the device has a name.
pub(super) struct BindVdevice {
    pub(super) viommu: Viommu,
    pub(super) device: Device,
    pub(super) virt_id: u32,
    /// What the guest's entry says, if its memory is not to be asked: as it was saved.
    pub(super) entry: Option<GuestEntry>,
}

impl Operation for BindVdevice {
    type State = ViommuState;
    type Output = Arc<Link<VdeviceState>>;
    const NAME: &'static str = "alloc";
    const CREATES: Option<ObjectKind> = Some(ObjectKind::Vdevice);

    fn run(self, state: &mut ViommuState, change: &mut Change) -> Result<Self::Output, Cause> {
        let Self { viommu, device, virt_id, entry } = self;
        let (node, device_node) = (change.node().clone(), device.0.node.clone());
        // 1. Check and reserve.
        if virt_id >= VIRT_ID_LIMIT {
            return Err(Cause::Invalid(format!("guest ID {virt_id} is beyond the limit of {VIRT_ID_LIMIT}")));
        }
        if let Some(slot) = state.slots.get(&virt_id) {
            return Err(Cause::Exists(format!("guest ID {virt_id} names device {} already", slot.device.id)));
        }
        change.acquire(&node, ObjectKind::Vdevice)?;
        change.acquire_only(&device_node, ObjectKind::Vdevice, || {
            format!("device {} has a vdevice already", device.id())
        })?;
        // 2. The backend's object.
        let backend = change.backend();
        let id = change.create(backend.vdevice_alloc(node.id, device_node.id, virt_id))?;
        // 3. From here on the guest's commands reach the device, and a change of its entry reaches us.
        let before = state.ids();
        let parents = vec![node, device_node.clone()];
        let facts = device.0.facts.clone();
        let vdevice = VdeviceState { viommu: viommu.0.addr.clone(), viommu_id: viommu.id(), virt_id };
        let link = Link::start(change, id, parents, Arc::new(virt_id), (viommu.clone(), device), vdevice);
        let slot = Slot {
            vdevice: link.node.clone(),
            device: device_node,
            device_facts: facts.clone(),
            key: EntryKey::default(),
            entry: GuestEntry::Abort,
            installed: entry.clone().unwrap_or_default(),
            hwpt: None,
            nested: None,
        };
        state.slots.insert(virt_id, slot);
        state.publish(before, change);
        let shared = change.shared().clone();
        let stream = facts.stream;
        shared.routes.insert(stream, Route { pipeline: state.facts.pipeline.clone(), virt_id });
        facts.set_bound(Some((Arc::downgrade(&viommu.0), virt_id)));
        change.undo_by(move |_| {
            shared.routes.remove(&stream);
            facts.set_bound(None);
            Ok(())
        });
        // 4. What the guest's entry says now: its configuration command may have passed before the device was there.
        match entry {
            Some(entry) => state.assign(virt_id, entry, change)?,
            None => state.refresh(virt_id, change)?,
        }
        Ok(link)
    }
}

/// Takes the guest's name from a device. The device aborts all DMA afterwards.
pub(crate) struct Unbind {
    pub(crate) virt_id: u32,
    pub(crate) vdevice: u32,
}

impl Operation for Unbind {
    type State = ViommuState;
    type Output = ();
    const NAME: &'static str = "unbind";
    const ALWAYS: bool = true;

    fn run(self, state: &mut ViommuState, change: &mut Change) -> Result<(), Cause> {
        // 1. Check.
        let before = state.ids();
        let slot = state.slots.remove(&self.virt_id).filter(|slot| slot.vdevice.id == self.vdevice);
        let slot = slot.ok_or(Cause::NotFound(ObjectKind::Vdevice))?;
        change.retire(&slot.vdevice)?;
        // 2. No new command names the device, and those that did are finished.
        state.publish(before, change);
        drained(&state.facts.pipeline)?;
        // 3. No DMA passes.
        let (device, abort) = (slot.device.id, state.facts.info.abort);
        if slot.hwpt != Some(abort) {
            change.attach(device, abort, slot.hwpt)?;
        }
        // 4. The point of no return.
        change.destroy(self.vdevice)?;
        let shared = change.shared().clone();
        if let Err(error) = wait(change.backend().detach(device)) {
            tracing::warn!(device, %error, "detach failed; the device stays on the abort HWPT until it is tried again");
            shared.reap(Reap::Detach(device));
        }
        shared.routes.remove(&slot.device_facts.stream);
        slot.device_facts.set_bound(None);
        state.give_back(slot.nested, change)
    }
}
