//! Vdevice: a device's name in a guest. It lives in its vIOMMU's tables, so its vIOMMU does the work.

use super::served::{BoxedAnswer, Do, Served, State};
use super::viommu::Unbind;
use super::{Device, Link, Viommu, ViommuState};
use crate::backend::ObjectKind;
use crate::{Cause, Error, simulation};
use actix::Addr;
use std::sync::Arc;
use viommu_plugin::EntryKey;

/// A device as a guest knows it. Owns its device: the device cannot go first.
#[doc(alias = "IOMMUFD_DEV_ASSIGN_VIRTUAL_ID")]
#[derive(Debug, Clone)]
pub struct Vdevice(pub(crate) Arc<Link<VdeviceState>>);

impl Vdevice {
    /// Its ID.
    pub fn id(&self) -> u32 {
        self.0.node.id
    }

    /// The guest's ID for the device.
    pub fn virt_id(&self) -> u32 {
        *self.0.facts
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.0.keeps.1
    }

    /// The vIOMMU that knows it.
    pub fn viommu(&self) -> &Viommu {
        &self.0.keeps.0
    }

    /// What the guest's table entry asked for when it was last read.
    pub fn key(&self) -> Option<EntryKey> {
        self.viommu().key_of(self.virt_id())
    }

    /// Resigns the guest's ID: no command of the guest reaches the device from here on, and its DMA aborts.
    ///
    /// # Errors
    /// If the backend refuses; the device is attached as before then.
    #[doc(alias = "IOMMUFD_DEV_RESIGN_VIRTUAL_ID")]
    pub async fn destroy(self) -> Result<(), Error> {
        self.0.destroy().await
    }
}

/// What the actor remembers: whose tables the vdevice is in.
#[derive(Clone)]
pub(crate) struct VdeviceState {
    pub(crate) viommu: Addr<Served<ViommuState>>,
    pub(crate) viommu_id: u32,
    pub(crate) virt_id: u32,
}

impl State for VdeviceState {
    const KIND: ObjectKind = ObjectKind::Vdevice;
    /// The guest's ID.
    type Facts = u32;
    type Keeps = (Viommu, Device);

    fn destroyed_by(&self, id: u32) -> Option<BoxedAnswer> {
        let (viommu, owner, virt_id) = (self.viommu.clone(), self.viommu_id, self.virt_id);
        Some(Box::pin(async move {
            simulation::pass(owner, "unbind").await;
            let cause = match viommu.send(Do(Unbind { virt_id, vdevice: id })).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => error.cause,
                Err(_) => Cause::Closed,
            };
            Err(cause.of(ObjectKind::Vdevice, id, "destroy"))
        }))
    }
}
