//! Asks an iommufd. Whatever is allocated here is destroyed here, and no device is attached.

use super::facts::{DeviceFacts, Facts, HwInfo, Outcome};
use std::collections::BTreeMap;
use std::sync::Arc;
use viommu::Cause;
use viommu::backend::kernel::{Calls, DeviceCalls, HwptRequest, Iommufd, Owned, VfioDevice};
use viommu::uapi::{Command, flags, selftest};

/// GET_HW_INFO types; the last is the kernel's mock driver's.
const HW_INFO_TYPES: [u32; 5] = [
    flags::HW_INFO_TYPE_INTEL_VTD,
    flags::HW_INFO_TYPE_ARM_SMMUV3,
    flags::HW_INFO_TYPE_TEGRA241_CMDQV,
    flags::HW_INFO_TYPE_AMD,
    selftest::HW_INFO_TYPE,
];
/// VIOMMU_ALLOC types, with the bytes of their data.
const VIOMMU_TYPES: [(u32, usize); 3] =
    [(flags::VIOMMU_TYPE_ARM_SMMUV3, 0), (flags::VIOMMU_TYPE_TEGRA241_CMDQV, 16), (selftest::VIOMMU_TYPE, 0)];
/// Flags of paging HWPTs that are tried, by name.
const PAGING: [(&str, u32); 7] = [
    ("plain", 0),
    ("nest_parent", flags::HWPT_ALLOC_NEST_PARENT),
    ("dirty_tracking", flags::HWPT_ALLOC_DIRTY_TRACKING),
    ("pasid", flags::HWPT_ALLOC_PASID),
    ("nest_parent+dirty_tracking", flags::HWPT_ALLOC_NEST_PARENT | flags::HWPT_ALLOC_DIRTY_TRACKING),
    ("nest_parent+pasid", flags::HWPT_ALLOC_NEST_PARENT | flags::HWPT_ALLOC_PASID),
    ("dirty_tracking+pasid", flags::HWPT_ALLOC_DIRTY_TRACKING | flags::HWPT_ALLOC_PASID),
];
/// Name, data type and payload of a nested HWPT that every driver with this data type takes: tables at address 0, or none.
type Nested = (&'static str, u32, Vec<u8>);
/// Records that an event queue is asked to hold.
const DEPTH: u32 = 1;

fn nested_payloads() -> [Nested; 4] {
    // STE with V and Config = abort; first-stage table of four levels at 0; a DTE without V; {iotlb, pagetable_type}.
    let ste = [1_u64.to_le_bytes(), [0; 8]].concat();
    let vtd = [[0; 16].as_slice(), &48_u32.to_ne_bytes(), &[0; 4]].concat();
    [
        ("arm", flags::HWPT_DATA_ARM_SMMUV3, ste),
        ("vtd", flags::HWPT_DATA_VTD_S1, vtd),
        ("amd", flags::HWPT_DATA_AMD_GUEST, vec![0; 32]),
        ("selftest", selftest::HWPT_DATA, vec![0; 8]),
    ]
}

fn outcome<T>(result: &Result<T, Cause>) -> Outcome {
    Outcome(result.as_ref().err().map_or(0, Cause::errno))
}

/// Which commands there are, by an argument of 4 bytes: too short for any of them, so that none does anything.
fn commands(calls: &dyn Calls) -> BTreeMap<String, Outcome> {
    let ask = |command: Command| {
        let mut argument = 4_u32.to_ne_bytes();
        Outcome::from(&calls.ioctl(command.code(), &mut argument, &mut []))
    };
    let known = Command::ALL.into_iter().filter(|command| *command != Command::Test);
    known.map(|command| (command.name().to_owned(), ask(command))).collect()
}

/// Fills in what can be said of an open iommufd without a device.
pub(super) fn iommufd(facts: &mut Facts, calls: &Arc<dyn Calls>) {
    let iommufd = Iommufd::new(calls.clone());
    facts.commands = commands(&**calls);
    facts.rlimit_mode = iommufd.option(flags::OPTION_RLIMIT_MODE, 0).ok();
    let queue = iommufd.fault_queue_alloc();
    facts.fault_queue = Some(outcome(&queue));
    if let Ok(queue) = queue {
        // Best effort: closing the iommufd destroys it too.
        let _ = Owned::with_fd(&iommufd, queue).destroy();
    }
}

impl DeviceFacts {
    /// A device that could not be bound, or has not been asked yet.
    pub(super) fn unasked(path: String, bind: Outcome) -> Self {
        Self {
            path,
            bind,
            default_type: None,
            max_pasid_log2: 0,
            capabilities: 0,
            hw_info: BTreeMap::new(),
            hwpt: BTreeMap::new(),
            viommu: BTreeMap::new(),
            nested: BTreeMap::new(),
            veventq: BTreeMap::new(),
            vdevice: BTreeMap::new(),
            left: Vec::new(),
        }
    }
}

/// Binds a device, asks, and unbinds it.
pub(super) fn device(path: String, calls: &Arc<dyn Calls>, device: Arc<dyn DeviceCalls>) -> DeviceFacts {
    let device = match VfioDevice::bind(device, calls, None) {
        Ok(device) => device,
        Err(cause) => return DeviceFacts::unasked(path, Outcome(cause.errno())),
    };
    let mut asked = Asked {
        facts: DeviceFacts::unasked(path, Outcome::OK),
        iommufd: Iommufd::new(calls.clone()),
        device: device.id(),
    };
    asked.hw_info();
    asked.objects();
    asked.facts
}

/// A bound device while it is asked.
struct Asked {
    facts: DeviceFacts,
    iommufd: Iommufd,
    device: u32,
}

impl Asked {
    fn hw_info(&mut self) {
        if let Ok(info) = self.iommufd.hardware_info(self.device, None) {
            self.facts.default_type = Some(info.data_type);
            self.facts.max_pasid_log2 = info.max_pasid_log2;
            self.facts.capabilities = info.capabilities;
            self.facts.hw_info.insert(info.data_type, HwInfo::of(&info.data));
        }
        for kind in HW_INFO_TYPES {
            if self.facts.hw_info.contains_key(&kind) {
                continue;
            }
            let answer = match self.iommufd.hardware_info(self.device, Some(kind)) {
                Ok(info) => HwInfo::of(&info.data),
                Err(cause) => HwInfo { outcome: Outcome(cause.errno()), data: String::new() },
            };
            self.facts.hw_info.insert(kind, answer);
        }
    }

    /// Destroys what was allocated, and notes what stays.
    fn destroy(&mut self, what: &str, mut object: Owned) {
        if let Err(cause) = object.destroy() {
            self.facts.left.push(format!("{what}: {cause}"));
        }
    }

    /// Objects on an IOAS without a mapping: nothing is attached, so none of them is ever used.
    fn objects(&mut self) {
        let Ok(ioas) = self.iommufd.ioas_alloc().map(|id| Owned::new(&self.iommufd, id)) else { return };
        for (name, flags) in PAGING {
            let made = self.hwpt(ioas.id(), flags, 0, &[]);
            self.facts.hwpt.insert(name.to_owned(), outcome(&made));
            if let Ok(hwpt) = made {
                if flags == flags::HWPT_ALLOC_NEST_PARENT {
                    self.on_parent(hwpt.id());
                }
                self.destroy(&format!("HWPT {name}"), hwpt);
            }
        }
        self.destroy("IOAS", ioas);
    }

    fn hwpt(&self, on: u32, flags: u32, data_type: u32, data: &[u8]) -> Result<Owned, Cause> {
        let request = HwptRequest { flags, device: self.device, on, data_type, data, fault: None };
        self.iommufd.hwpt_alloc(request).map(|id| Owned::new(&self.iommufd, id))
    }

    fn nested(&mut self, on: &str, id: u32) {
        for (name, data_type, data) in nested_payloads() {
            let made = self.hwpt(id, 0, data_type, &data);
            self.facts.nested.insert(format!("{on}, data {name}"), outcome(&made));
            if let Ok(hwpt) = made {
                self.destroy(&format!("nested HWPT of {name} on {on}"), hwpt);
            }
        }
    }

    fn on_parent(&mut self, parent: u32) {
        self.nested("parent", parent);
        for (kind, bytes) in VIOMMU_TYPES {
            let made = self.iommufd.viommu_alloc(kind, self.device, parent, &mut vec![0; bytes]);
            self.facts.viommu.insert(kind, outcome(&made));
            if let Ok(id) = made {
                let viommu = Owned::new(&self.iommufd, id);
                self.on_viommu(kind, id);
                self.destroy(&format!("vIOMMU of type {kind:#x}"), viommu);
            }
        }
    }

    fn on_viommu(&mut self, kind: u32, viommu: u32) {
        let vdevice = self.iommufd.vdevice_alloc(viommu, self.device, 0);
        self.facts.vdevice.insert(kind, outcome(&vdevice));
        if let Ok(id) = vdevice {
            self.destroy(&format!("vDEVICE on vIOMMU of type {kind:#x}"), Owned::new(&self.iommufd, id));
        }
        self.nested(&format!("viommu {kind:#x}"), viommu);
        for queue in [flags::VEVENTQ_TYPE_ARM_SMMUV3, flags::VEVENTQ_TYPE_TEGRA241_CMDQV] {
            let made = self.iommufd.veventq_alloc(viommu, queue, DEPTH);
            self.facts.veventq.insert(format!("viommu {kind:#x}, type {queue}"), outcome(&made));
            if let Ok(made) = made {
                self.destroy(
                    &format!("VEVENTQ {queue} on vIOMMU of type {kind:#x}"),
                    Owned::with_fd(&self.iommufd, made),
                );
            }
        }
    }
}
