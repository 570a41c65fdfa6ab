//! HWPTs of guests' tables: made for a key, attached, and made anew for an entry that is said to have changed.

use super::KernelBackend;
use super::graph::{Device, Graph, Hwpt, Object, Place, Viommu};
use super::handle::Owned;
use super::iommufd::HwptRequest;
use super::viommus::cause_of;
use crate::Cause;
use crate::seams::lock;
use crate::uapi::Errno;
use crate::uapi::flags::HWPT_ALLOC_PASID;
use viommu_plugin::{Classes, EntryKey, KeyKind, NO_DOMAIN, Nesting, Scope};

impl KernelBackend {
    /// The flag of HWPTs that PASIDs can be attached beside.
    pub(super) fn with_pasids(&self) -> u32 {
        if self.settings.pasids { HWPT_ALLOC_PASID } else { 0 }
    }

    /// A nested HWPT of the kernel's with this key; `None` if there is no such HWPT.
    pub(super) fn kernel_hwpt(&self, graph: &Graph, viommu: u32, key: &EntryKey) -> Result<Option<Owned>, Cause> {
        let Viommu { parent, kernel, .. } = graph.viommu(viommu)?;
        let mut data = vec![0; self.facts.hwpt_data_bytes as usize];
        let written = self.abi.hwpt_data(key, &mut data)?;
        if written == 0 {
            return Ok(None);
        }
        let on = match (self.facts.nesting, kernel) {
            (Nesting::VIOMMU, Some(viommu)) => viommu.id(),
            _ => graph.parent(*parent)?.kernel.id(),
        };
        let request = HwptRequest {
            device: graph.any_device()?,
            on,
            data_type: self.facts.hwpt_data_type,
            data: &data[..written],
            fault: graph.fault_queue(),
            flags: self.with_pasids(),
        };
        Ok(Some(Owned::new(&self.iommufd, self.iommufd.hwpt_alloc(request)?)))
    }

    /// Attaches a device, or replaces what it is attached to.
    pub(super) fn attach_device(&self, graph: &mut Graph, device: u32, hwpt: u32) -> Result<(), Cause> {
        if graph.handed_over {
            return Ok(());
        }
        let &Hwpt { viommu, ref place, .. } = graph.hwpt(hwpt)?;
        let &Device { ref vfio, attached, .. } = graph.device(device)?;
        if attached == Some(hwpt) {
            return Ok(());
        }
        match place {
            Place::Object(kernel) => drop(vfio.attach(kernel.id(), None)?),
            Place::Parent => drop(vfio.attach(graph.parent_of(viommu)?.kernel.id(), None)?),
            Place::Shadow(shadow) => drop(vfio.attach(shadow.hwpt.id(), None).map_err(reserved)?),
            Place::Nowhere => vfio.detach(None)?,
        }
        graph.device_mut(device)?.attached = Some(hwpt);
        Ok(())
    }

    /// Makes the hardware forget what it cached of the tables that this device's entry leads to. By a command, where the
    /// vendor has one that a guest's device can be named in; else by a new HWPT object with the same key, which all devices
    /// that share the old one move to: the kernel does nothing when an HWPT is replaced by itself.
    pub(super) fn reload_device(&self, device: u32) -> Result<(), Cause> {
        let mut graph = lock(&self.graph);
        if graph.handed_over {
            return Ok(());
        }
        let Some(hwpt) = graph.device(device)?.attached else { return Ok(()) };
        let &Hwpt { viommu, key, .. } = graph.hwpt(hwpt)?;
        if key.kind != KeyKind::TRANSLATE || graph.shadow(hwpt).is_ok() {
            // A shadow has no tables in the guest's memory that hardware could have cached.
            return Ok(());
        }
        if let Some(virt_id) = graph.name_of(device) {
            let words = self.forgets(Scope::CONFIGURATION, virt_id, NO_DOMAIN)?;
            if !words.is_empty() {
                let sink = graph.viommu(viommu)?.sink.clone();
                drop(graph);
                return sink.run(&words, Classes::CONFIG).map_err(cause_of);
            }
        }
        let Some(new) = self.kernel_hwpt(&graph, viommu, &key)? else { return Ok(()) };
        let targets = graph.viommu(viommu)?.targets.clone();
        // Invalidations wait, so that none reaches only the old or only the new one.
        let mut known = targets.write();
        let moved = graph.attached_to(hwpt);
        for (done, device) in moved.iter().enumerate() {
            if let Err(cause) = graph.device(*device)?.vfio.attach(new.id(), None) {
                for device in &moved[..done] {
                    self.attach_back(&graph, *device, hwpt);
                }
                return Err(cause);
            }
        }
        let Some(Object::Hwpt(Hwpt { place: Place::Object(old), .. })) = graph.objects.get_mut(&hwpt) else {
            return Ok(());
        };
        known.nested.insert(new.id(), key.domain);
        known.nested.remove(&old.id());
        *old = new;
        Ok(())
    }

    fn attach_back(&self, graph: &Graph, device: u32, hwpt: u32) {
        let back = || match &graph.hwpt(hwpt)?.place {
            Place::Object(old) => graph.device(device)?.vfio.attach(old.id(), None).map(drop),
            _ => Ok(()),
        };
        back().unwrap_or_else(|cause| tracing::error!(device, %cause, "a reload that failed cannot be undone"));
    }
}

/// A guest maps what the device keeps for itself (messages of its interrupts): its entry is one that this host cannot carry
/// out.
fn reserved(cause: Cause) -> Cause {
    if cause.errno() == Errno::ADDRINUSE.raw_os_error() { Cause::Invalid(cause.to_string()) } else { cause }
}
