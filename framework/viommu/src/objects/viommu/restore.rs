//! A guest's IOMMU on a new host, as it was on the old one.

use super::bind::BindVdevice;
use super::{AllocViommu, Viommu, ViommuConfig, ViommuState};
use crate::backend::ObjectKind;
use crate::objects::served::{Operation, State};
use crate::objects::{Change, Device, EventQueue, HwQueue, NestParent, ObjectState, Vdevice};
use crate::pipeline::{CommandTap, Interrupts, NoInterrupts};
use crate::save::{SavedVdevice, SavedViommu};
use crate::{Cause, Error};
use std::collections::BTreeMap;
use std::sync::Arc;
use vm_memory::GuestMemoryMmap;

/// What a restored vIOMMU is made of beside its saved state.
pub struct RestoreConfig {
    /// The guest's memory, by guest physical address: moved already.
    pub memory: Arc<GuestMemoryMmap>,
    /// The guest's interrupts.
    pub interrupts: Arc<dyn Interrupts>,
    /// Sees the guest's commands as they are fetched.
    pub tap: Option<Arc<dyn CommandTap>>,
    /// Which device of this host each guest ID of the state is.
    pub devices: BTreeMap<u32, Device>,
}

impl RestoreConfig {
    /// No interrupts and no tap.
    pub fn new(memory: Arc<GuestMemoryMmap>, devices: BTreeMap<u32, Device>) -> Self {
        Self { memory, interrupts: Arc::new(NoInterrupts), tap: None, devices }
    }
}

impl std::fmt::Debug for RestoreConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RestoreConfig").field("devices", &self.devices).finish()
    }
}

/// A restored vIOMMU with what was on it. Handles: what is dropped is destroyed.
#[derive(Debug)]
pub struct RestoredViommu {
    /// The vIOMMU.
    pub viommu: Viommu,
    /// Its vdevices, by ascending guest ID.
    pub vdevices: Vec<Vdevice>,
    /// Its event queue, if it had one.
    pub event_queue: Option<EventQueue>,
    /// Its HW queues, by index.
    pub hw_queues: Vec<HwQueue>,
}

impl NestParent {
    /// VIOMMU_ALLOC with the state of a vIOMMU of another host, and everything that was on it. When this returns, every
    /// device does what the guest's entry said when it was saved, whatever the guest's memory says now; from there on the
    /// guest's commands decide. Commands that the old host had not consumed are consumed.
    ///
    /// # Errors
    /// Everything or nothing: after an error nothing is attached and nothing allocated. If the plugin is another, or an
    /// unknown device is named (EINVAL). If this host lacks what the guest was shown: register, field and both values, in the
    /// manual's words (EOPNOTSUPP). If the state is none of this plugin's (EINVAL). As [`NestParent::viommu`],
    /// [`Viommu::vdevice`] and the others that make objects.
    pub async fn restore_viommu(&self, config: RestoreConfig, saved: &SavedViommu) -> Result<RestoredViommu, Error> {
        let failed = |cause: Cause| cause.of(ObjectKind::Viommu, None, "restore");
        self.compatible(&config, saved).map_err(failed)?;
        let RestoreConfig { memory, interrupts, tap, devices } = config;
        let frontend = saved.frontend.is_some();
        let config = ViommuConfig { registers: saved.shown.clone(), memory, interrupts, frontend, tap };
        let alloc = AllocViommu { parent: self.clone(), config, state: saved.frontend.clone() };
        let viommu = Viommu(self.0.ask(alloc).await?);
        let mut restored = RestoredViommu { viommu, vdevices: Vec::new(), event_queue: None, hw_queues: Vec::new() };
        match restored.fill(saved, &devices).await {
            Ok(()) => Ok(restored),
            Err(error) => {
                restored.abandon().await;
                Err(error)
            }
        }
    }

    /// Everything that can be refused before anything is made.
    fn compatible(&self, config: &RestoreConfig, saved: &SavedViommu) -> Result<(), Cause> {
        let shared = &self.0.shared;
        let own = &shared.plugin.info().name;
        if *own != saved.vendor {
            return Err(Cause::Invalid(format!("the state is of plugin {}, this host's is {own}", saved.vendor)));
        }
        let named = |virt_id: &u32| saved.vdevices.iter().any(|vdevice| vdevice.virt_id == *virt_id);
        if let Some(missing) = saved.vdevices.iter().find(|vdevice| !config.devices.contains_key(&vdevice.virt_id)) {
            return Err(Cause::Invalid(format!("no device was given for guest ID {}", missing.virt_id)));
        }
        if let Some(unknown) = config.devices.keys().find(|virt_id| !named(virt_id)) {
            return Err(Cause::Invalid(format!("the state has no vdevice with guest ID {unknown}")));
        }
        let mode = shared.plugin.codec(&saved.shown)?.mode()?;
        let offered = shared.backend.guest_registers(mode);
        let offered = offered.ok_or_else(|| Cause::Unsupported("this backend does not say what it offers".into()))?;
        Ok(shared.plugin.covers(&offered, &saved.shown)?)
    }
}

impl RestoredViommu {
    /// Makes what was on the vIOMMU: queues before devices, so that no event has nowhere to go.
    async fn fill(&mut self, saved: &SavedViommu, devices: &BTreeMap<u32, Device>) -> Result<(), Error> {
        let viommu = self.viommu.clone();
        for (index, queue) in (0..).zip(&saved.hw_queues) {
            self.hw_queues.push(viommu.hw_queue(index, queue.iova, queue.length).await?);
        }
        if saved.event_queue {
            self.event_queue = Some(viommu.event_queue().await?);
        }
        for SavedVdevice { virt_id, entry } in &saved.vdevices {
            let Some(device) = devices.get(virt_id).cloned() else { continue };
            let bind = BindVdevice { viommu: viommu.clone(), device, virt_id: *virt_id, entry: Some(entry.clone()) };
            self.vdevices.push(Vdevice(viommu.0.ask(bind).await?));
        }
        viommu.0.ask(Resume { quarantined: saved.quarantined.clone() }).await
    }

    /// Takes everything back, last first. What refuses to go is left to the reaper.
    async fn abandon(mut self) {
        while let Some(vdevice) = self.vdevices.pop() {
            drop(vdevice.destroy().await);
        }
        if let Some(queue) = self.event_queue.take() {
            drop(queue.destroy().await);
        }
        while let Some(queue) = self.hw_queues.pop() {
            drop(queue.destroy().await);
        }
        drop(self.viommu.destroy().await);
    }
}

/// The last step: the guest's queue goes on, or stays out of service.
struct Resume {
    quarantined: Option<String>,
}

impl Operation for Resume {
    type State = ViommuState;
    type Output = ();
    const NAME: &'static str = "restore";

    fn run(self, state: &mut ViommuState, change: &mut Change) -> Result<(), Cause> {
        let Some(reason) = self.quarantined else {
            state.facts.pipeline.resume();
            return Ok(());
        };
        // The guest has seen the error when it happened; it does not see it twice.
        state.block(change)?;
        state.facts.pipeline.out_of_service();
        change.node().set(ObjectState::Quarantined, &reason);
        Ok(())
    }
}
