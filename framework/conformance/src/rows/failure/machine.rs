//! A nested set-up in steps, and its way back.

use crate::iommufd::errno_name;
use crate::session::{Device, Failed, Paging, Session};
use viommu::uapi::Errno;
use viommu::uapi::flags::{HWPT_ALLOC_DIRTY_TRACKING, HWPT_ALLOC_NEST_PARENT, HWPT_ALLOC_PASID, HWPT_FAULT_ID_VALID};
use viommu::uapi::layout::{HwInfo, HwptGetDirtyBitmap, ViommuAlloc};
use viommu::uapi::selftest::{self, DEVICE_PASID, HwptInvalidateSelftest, ViommuInvalidateSelftest};

const PAGE: u64 = 4096;
const IOVA: u64 = selftest::APERTURE_START;
const VSID: u32 = 0x99;
const PASID: u32 = 200;
/// Where in the session's memory the bitmap is.
const BITMAP: u64 = 1 << 20;

/// What the steps made so far; 0 for what is not there.
#[derive(Default)]
pub(super) struct Machine {
    ioas: u32,
    mapped: bool,
    device: Option<Device>,
    parent: u32,
    viommu: u32,
    vdevice: u32,
    /// vEVENTQ and fault queue, each with its file.
    veventq: Option<(u32, u32)>,
    fault: Option<(u32, u32)>,
    nested: u32,
    with_faults: u32,
    queue: u32,
    tracking: u32,
    pasid: bool,
}

/// A step that makes something.
macro_rules! made {
    ($machine:ident.$what:ident = $made:expr) => {{
        $machine.$what = $made?;
        Ok(())
    }};
}

type Act = fn(&mut Machine, &Session<'_>) -> Result<(), Failed>;

/// The steps, in order. A step's name is its command's.
const STEPS: &[(&str, Act)] = &[
    ("IOAS_ALLOC", |m, s| made!(m.ioas = s.ioas())),
    ("IOAS_MAP", |m, s| {
        s.map(m.ioas, 0, PAGE, IOVA)?;
        m.mapped = true;
        Ok(())
    }),
    ("a device's attach to the IOAS", |m, s| made!(m.device = s.device_of(m.ioas, DEVICE_PASID).map(Some))),
    ("GET_HW_INFO", |m, s| {
        s.hw_info(HwInfo { dev_id: m.idev(), data_len: 8, ..Default::default() }, &mut [0; 8]).map(drop)
    }),
    ("HWPT_ALLOC, a nesting parent", |m, s| {
        made!(m.parent = s.hwpt(m.idev(), m.ioas, HWPT_ALLOC_NEST_PARENT | HWPT_ALLOC_PASID))
    }),
    ("VIOMMU_ALLOC with data", |m, s| {
        let (r#type, dev_id, hwpt_id) = (selftest::VIOMMU_TYPE, m.idev(), m.parent);
        let argument = ViommuAlloc { r#type, dev_id, hwpt_id, data_len: 24, ..Default::default() };
        made!(m.viommu = s.viommu_raw(argument, Some(&mut [0; 24])))
    }),
    ("VDEVICE_ALLOC", |m, s| made!(m.vdevice = s.vdevice(m.viommu, m.idev(), VSID.into()))),
    ("VEVENTQ_ALLOC", |m, s| made!(m.veventq = s.veventq(m.viommu, 2).map(Some))),
    ("FAULT_QUEUE_ALLOC", |m, s| made!(m.fault = s.fault_queue().map(Some))),
    ("HWPT_ALLOC, nested on the vIOMMU", |m, s| made!(m.nested = s.nested(m.idev(), m.viommu, HWPT_ALLOC_PASID))),
    ("HWPT_ALLOC, nested with the fault queue", |m, s| {
        let flags = HWPT_FAULT_ID_VALID | HWPT_ALLOC_PASID;
        let fault_id = m.fault.map_or(0, |(id, _)| id);
        made!(m.with_faults = s.nested_of(Paging { dev_id: m.idev(), pt_id: m.viommu, flags, fault_id }))
    }),
    ("HW_QUEUE_ALLOC", |m, s| made!(m.queue = s.hw_queue(m.viommu, 0, IOVA, PAGE))),
    ("a replace to the nested", |m, s| m.attach(s, m.nested)),
    ("a replace to the nested with faults", |m, s| m.attach(s, m.with_faults)),
    ("HWPT_INVALIDATE on the vIOMMU", |m, s| {
        let entry = |cache_id| ViommuInvalidateSelftest { flags: 0, vdev_id: VSID, cache_id };
        s.invalidate(m.viommu, selftest::VIOMMU_INVALIDATE_DATA, &[entry(0), entry(1)]).result
    }),
    ("HWPT_INVALIDATE on the nested", |m, s| {
        let entry = |iotlb_id| HwptInvalidateSelftest { flags: 0, iotlb_id };
        s.invalidate(m.nested, selftest::HWPT_INVALIDATE_DATA, &[entry(0), entry(1)]).result
    }),
    ("a PASID's attach to the nested", |m, s| {
        // Both it and the RID's HWPT have the flag.
        s.pasid_attach(m.mock(), PASID, m.nested)?;
        m.pasid = true;
        Ok(())
    }),
    ("a PASID's replace", |m, s| s.pasid_replace(m.mock(), PASID, m.parent)),
    ("a PASID's detach", |m, s| {
        s.pasid_detach(m.mock(), PASID)?;
        m.pasid = false;
        Ok(())
    }),
    ("HWPT_ALLOC with dirty tracking", |m, s| made!(m.tracking = s.hwpt(m.idev(), m.ioas, HWPT_ALLOC_DIRTY_TRACKING))),
    ("SET_DIRTY_TRACKING", |m, s| s.set_dirty(m.tracking, true)),
    ("GET_DIRTY_BITMAP", |m, s| {
        let (hwpt_id, iova, length, page_size) = (m.tracking, IOVA, PAGE, 2048);
        let asked = HwptGetDirtyBitmap { hwpt_id, iova, length, page_size, ..Default::default() };
        s.get_dirty(asked, s.memory().address(BITMAP))
    }),
    ("DESTROY of the vdevice", |m, s| gone(&mut m.vdevice, s)),
    ("DESTROY of the HW queue", |m, s| gone(&mut m.queue, s)),
    ("IOAS_UNMAP", |m, s| {
        s.unmap(m.ioas, IOVA, PAGE)?;
        m.mapped = false;
        Ok(())
    }),
];

fn gone(id: &mut u32, s: &Session<'_>) -> Result<(), Failed> {
    s.destroy(*id)?;
    *id = 0;
    Ok(())
}

impl Machine {
    /// All steps before this one, done.
    pub(super) fn before(s: &Session<'_>, step: &str) -> Result<Self, Failed> {
        let mut machine = Self::default();
        s.memory().store(0, &[1]);
        for (_, act) in STEPS.iter().take_while(|(name, _)| *name != step) {
            act(&mut machine, s)?;
        }
        Ok(machine)
    }

    /// One step; one that there is not is refused like a command that there is not.
    pub(super) fn step(&mut self, s: &Session<'_>, step: &str) -> Result<(), Failed> {
        let known = STEPS.iter().find(|(name, _)| *name == step);
        let unknown = Failed { command: "?", errno: Errno::NOTTY };
        known.ok_or(unknown).and_then(|(_, act)| act(self, s))
    }

    /// The lowest ID that nothing has.
    pub(super) fn next_id(&self, s: &Session<'_>) -> Result<u32, Failed> {
        let id = s.ioas()?;
        s.destroy(id)?;
        Ok(id)
    }

    /// Destroys everything in the order of uAPI's users; what of it did not go.
    pub(super) fn take_down(mut self, s: &Session<'_>) -> Vec<String> {
        let mut left = Vec::new();
        let mut done = |what: &str, result: Result<(), Failed>| {
            if let Err(failed) = result {
                left.push(format!("{what} ({failed})"));
            }
        };
        if let (Some(device), true) = (self.device, self.pasid) {
            done("PASID", s.pasid_detach(device, PASID));
        }
        if let Some(device) = self.device {
            done("attachment", s.replace(device, self.ioas).map(drop));
        }
        let mut destroy = |what: &str, id: &mut u32| {
            if *id != 0 {
                done(what, gone(id, s));
            }
        };
        destroy("HW queue", &mut self.queue);
        destroy("vdevice", &mut self.vdevice);
        destroy("nested", &mut self.nested);
        destroy("nested with faults", &mut self.with_faults);
        destroy("tracking HWPT", &mut self.tracking);
        for (mut id, file) in self.veventq.into_iter().chain(self.fault) {
            s.close(file).ok();
            destroy("event queue", &mut id);
        }
        destroy("vIOMMU", &mut self.viommu);
        destroy("parent", &mut self.parent);
        destroy("device", &mut self.device.map_or(0, |device| device.stdev));
        if self.mapped {
            done("mapping", s.unmap(self.ioas, IOVA, PAGE).map(drop));
        }
        done("pins", s.pins(0));
        if self.ioas != 0 {
            done("IOAS", gone(&mut self.ioas, s));
        }
        left
    }

    /// The device has an event for its guest.
    pub(super) fn event(&self, s: &Session<'_>) -> Result<(), Failed> {
        s.trigger_vevent(self.mock())
    }

    /// What the vEVENTQ has.
    pub(super) fn events(&self, s: &Session<'_>) -> String {
        let events = s.events(self.veventq.map_or(0, |(_, file)| file), 16);
        events.map_or_else(errno_name, |events| if events.is_empty() { "no event".into() } else { events.join(", ") })
    }

    fn mock(&self) -> Device {
        self.device.unwrap_or(Device { stdev: 0, hwpt: 0, idev: 0 })
    }

    fn idev(&self) -> u32 {
        self.mock().idev
    }

    fn attach(&self, s: &Session<'_>, to: u32) -> Result<(), Failed> {
        s.replace(self.mock(), to).map(drop)
    }
}
