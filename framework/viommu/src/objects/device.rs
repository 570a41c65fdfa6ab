//! Device: a physical device that viommu may attach, known by its host stream.

use super::served::{Operation, State};
use super::{Change, Link, ViommuState};
use crate::backend::ObjectKind;
use crate::host::HostState;
use crate::pipeline::Invalidated;
use crate::{Cause, Error};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A bound device. Without a vdevice its DMA aborts.
#[derive(Debug, Clone)]
pub struct Device(pub(crate) Arc<Link<DeviceState>>);

impl Device {
    /// Its ID.
    pub fn id(&self) -> u32 {
        self.0.node.id
    }

    /// Its stream (StreamID, DeviceID, RID) on the host.
    pub fn stream(&self) -> u32 {
        self.0.facts.stream
    }

    /// The guest ID it has now, if it has a vdevice.
    pub fn virt_id(&self) -> Option<u32> {
        self.0.facts.bound().map(|(_, virt_id)| virt_id)
    }

    /// Invalidates in this device's name: whatever stream the commands name, they reach this device only (the
    /// proposal's IOMMUFD_DEV_INVALIDATE).
    ///
    /// # Errors
    /// If the device has no vdevice (ENOENT), or as [`super::Viommu::invalidate`].
    #[doc(alias = "IOMMUFD_DEV_INVALIDATE")]
    pub async fn invalidate(&self, words: &[u64]) -> Result<Invalidated, Error> {
        let bound = self.0.facts.bound();
        let (viommu, virt_id) =
            bound.ok_or_else(|| self.0.error("invalidate", Cause::NotFound(ObjectKind::Vdevice)))?;
        super::Viommu(viommu).invalidate_as(virt_id, words).await
    }

    /// Destroys it.
    ///
    /// # Errors
    /// EBUSY while a vdevice uses it.
    pub async fn destroy(self) -> Result<(), Error> {
        self.0.destroy().await
    }
}

/// What handles know of a device.
pub(crate) struct DeviceFacts {
    pub(crate) stream: u32,
    bound: Mutex<Option<(Weak<Link<ViommuState>>, u32)>>,
}

impl DeviceFacts {
    fn bound(&self) -> Option<(Arc<Link<ViommuState>>, u32)> {
        let bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        bound.as_ref().and_then(|(viommu, virt_id)| Some((viommu.upgrade()?, *virt_id)))
    }

    /// Which vIOMMU knows the device, under which guest ID.
    pub(crate) fn set_bound(&self, bound: Option<(Weak<Link<ViommuState>>, u32)>) {
        *self.bound.lock().unwrap_or_else(PoisonError::into_inner) = bound;
    }
}

/// What the actor remembers.
#[derive(Clone)]
pub(crate) struct DeviceState {
    stream: u32,
}

impl State for DeviceState {
    const KIND: ObjectKind = ObjectKind::Device;
    type Facts = DeviceFacts;
    type Keeps = ();

    fn destroy(&mut self, change: &mut Change) -> Result<(), Cause> {
        let id = change.node().id;
        change.destroy(id)?;
        change.shared().streams.remove(&self.stream);
        Ok(())
    }
}

/// Binds the device with this host stream.
pub(crate) struct BindDevice {
    pub(crate) stream: u32,
}

impl Operation for BindDevice {
    type State = HostState;
    type Output = Arc<Link<DeviceState>>;
    const NAME: &'static str = "bind";
    const CREATES: Option<ObjectKind> = Some(ObjectKind::Device);

    fn run(self, _: &mut HostState, change: &mut Change) -> Result<Self::Output, Cause> {
        let stream = self.stream;
        if !change.shared().streams.insert(stream) {
            return Err(Cause::Exists(format!("stream {stream} is bound already")));
        }
        let shared = change.shared().clone();
        change.undo_by(move |_| {
            shared.streams.remove(&stream);
            Ok(())
        });
        let backend = change.backend();
        let id = change.create(backend.device_bind(stream))?;
        let facts = Arc::new(DeviceFacts { stream, bound: Mutex::default() });
        Ok(Link::start(change, id, Vec::new(), facts, (), DeviceState { stream }))
    }
}
