//! What one device, and the IOMMU it is behind, can do.

use super::libvirt::{self, Property};
use super::{Command, arm};
use crate::probe::facts::{DeviceFacts, Outcome};
use serde::Serialize;
use viommu::uapi::{Errno, flags, selftest};

/// A device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct DeviceReport {
    /// Its device node.
    pub(crate) path: String,
    /// Why it could not be asked.
    pub(crate) problem: Option<String>,
    /// The IOMMU it is behind.
    pub(crate) iommu: Option<&'static str>,
    /// Whether and how a guest's tables are nested.
    pub(crate) nesting: Option<Nesting>,
    /// vIOMMU types that can carry a guest.
    pub(crate) viommu_types: Vec<&'static str>,
    /// Bits of its PASIDs; 0 means none.
    pub(crate) pasid_bits: u8,
    /// Queues that a guest can be given; `None` if there are none.
    pub(crate) hw_queues: Option<HwQueues>,
    /// Whether page tables with dirty tracking can be had, and nesting parents with it.
    pub(crate) dirty_tracking: DirtyTracking,
    /// Whether the device, and the IOMMU, can cache translations in the device.
    pub(crate) ats: Ats,
    /// Errata that user space has to work around.
    pub(crate) errata: Vec<Erratum>,
    /// Driver properties of libvirt's `<iommu model='smmuv3'>`; empty for other IOMMUs.
    pub(crate) libvirt: Vec<Property>,
    /// What this kernel lacks for this device, and what to know.
    pub(crate) notes: Vec<String>,
}

/// How a guest's tables are nested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Nesting {
    pub(crate) how: How,
    pub(crate) words: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum How {
    ThroughAViommu,
    OnTheParent,
    ShadowOnly,
    No,
}

/// Command queues of a guest's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct HwQueues {
    /// For one guest.
    pub(crate) queues: u32,
    /// StreamIDs that a guest's commands can name.
    pub(crate) streams: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct DirtyTracking {
    pub(crate) here: bool,
    pub(crate) with_nesting: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ats {
    Yes,
    No,
    Unknown,
}

/// An erratum that user space has to work around.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Erratum {
    pub(crate) name: &'static str,
    pub(crate) words: &'static str,
}

/// CAP and ECAP bits that nesting on VT-d needs, in ECAP.
const VTD_NEEDS: [(u32, &str); 3] = [(26, "ECAP.NEST"), (43, "ECAP.SMTS"), (47, "ECAP.FSTS")];

/// A payload's word of 8 bytes, as the kernel wrote it.
fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map_or(0, u64::from_ne_bytes)
}

/// A payload's word of 4 bytes.
pub(super) fn half(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

impl DeviceFacts {
    /// The payload of GET_HW_INFO of this type, if there is one.
    pub(super) fn payload(&self, kind: u32) -> Option<Vec<u8>> {
        self.hw_info.get(&kind).filter(|info| info.outcome.is_ok()).map(|info| info.bytes())
    }

    pub(super) fn paging(&self, name: &str) -> Option<Outcome> {
        self.hwpt.get(name).copied()
    }

    pub(super) fn nests(&self, on: &str) -> bool {
        self.nested.get(on).is_some_and(|made| made.is_ok())
    }
}

/// What the facts mean; `commands` are the kernel's.
pub(super) fn report(facts: &DeviceFacts, commands: &[Command]) -> DeviceReport {
    let absent = |name: &str| commands.iter().any(|command| command.name == name && command.there == Some(false));
    let mut report = DeviceReport {
        path: facts.path.clone(),
        problem: problem(facts.bind),
        iommu: None,
        nesting: None,
        viommu_types: Vec::new(),
        pasid_bits: facts.max_pasid_log2,
        hw_queues: None,
        dirty_tracking: DirtyTracking {
            here: facts.paging("dirty_tracking").is_some_and(Outcome::is_ok),
            with_nesting: facts.paging("nest_parent+dirty_tracking").is_some_and(Outcome::is_ok),
        },
        ats: Ats::Unknown,
        errata: Vec::new(),
        libvirt: Vec::new(),
        notes: facts.left.iter().map(|left| format!("could not be destroyed again: {left}")).collect(),
    };
    if report.problem.is_some() {
        return report;
    }
    if facts.capabilities & flags::HW_CAP_PCI_ATS_NOT_SUPPORTED != 0 {
        report.ats = Ats::No;
    }
    match facts.default_type {
        Some(flags::HW_INFO_TYPE_ARM_SMMUV3) => arm::fill(&mut report, facts, &absent),
        Some(flags::HW_INFO_TYPE_INTEL_VTD) => vtd(&mut report, facts),
        Some(flags::HW_INFO_TYPE_AMD) => amd(&mut report, facts),
        Some(selftest::HW_INFO_TYPE) => mock(&mut report, facts),
        Some(_) => {
            report.notes.push("an IOMMU whose driver tells nothing of it: no guest can be shown what there is".into())
        }
        None if absent("GET_HW_INFO") => report.notes.push("the kernel has no GET_HW_INFO".into()),
        None => report.notes.push("GET_HW_INFO failed: nothing is known of the IOMMU".into()),
    }
    report.libvirt = libvirt::properties(&report, facts, &absent);
    report
}

/// Why a device could not be bound.
fn problem(bind: Outcome) -> Option<String> {
    let words = match bind {
        Outcome::OK => return None,
        _ if bind.is(Errno::NOENT) => {
            "there is no such device node: bind the PCI function to vfio-pci, in a kernel with CONFIG_VFIO_DEVICE_CDEV"
        }
        _ if bind.is(Errno::ACCESS) => "the device node may not be opened by this user",
        _ if bind.is(Errno::BUSY) => "another process uses the device, or a device of its group",
        _ if bind.is(Errno::PERM) => {
            "its group belongs to another context, or its interrupts are not isolated (no interrupt remapping or ITS)"
        }
        _ if bind.is(Errno::INVAL) => {
            "it is bound already (another process uses it), or its IOMMU does not keep DMA coherent with CPU caches"
        }
        _ if bind.is(Errno::NODEV) || bind.is(Errno::NXIO) => "the device is gone, or no IOMMU is in front of it",
        _ if bind.is(Errno::NOTTY) || bind.is(Errno::BADF) || bind.is(Errno::BADFD) => "it is not a VFIO device",
        _ => "it could not be bound",
    };
    Some(format!("{words} ({})", bind.name()))
}

fn vtd(report: &mut DeviceReport, facts: &DeviceFacts) {
    let info = facts.payload(flags::HW_INFO_TYPE_INTEL_VTD).unwrap_or_default();
    let (errata, ecap) = (half(&info, 0), word(&info, 16));
    report.iommu = Some("Intel VT-d");
    if report.ats == Ats::Unknown {
        report.ats = if ecap >> 2 & 1 == 0 { Ats::No } else { Ats::Yes };
    }
    report.nesting = Some(if facts.nests("parent, data vtd") {
        Nesting {
            how: How::OnTheParent,
            words: "A guest's first-stage tables are nested on the second-stage HWPT of its memory; there are no vIOMMUs on VT-d."
                .into(),
        }
    } else {
        let lacking: Vec<_> = VTD_NEEDS.iter().filter(|(bit, _)| ecap >> bit & 1 == 0).map(|(_, name)| *name).collect();
        let why = match lacking[..] {
            [] => format!("HWPT_ALLOC on a nesting parent answers {}", said(facts, "parent, data vtd")),
            _ => format!("the hardware, or the kernel's use of it (intel_iommu=sm_on), lacks {}", lacking.join(", ")),
        };
        Nesting { how: How::ShadowOnly, words: format!("No nesting: {why}. Guests can be served with shadow tables.") }
    });
    if errata & flags::HW_INFO_VTD_ERRATA_772415_SPR17 != 0 {
        report.errata.push(Erratum {
            name: "772415",
            words: "A nesting parent takes no read-only mapping (EINVAL): map ROMs writable or leave them out. The driver says so \
                    of every unit.",
        });
    }
    report.notes.push("Device caches (ATS) are flushed by the kernel with the IOTLB.".into());
}

fn amd(report: &mut DeviceReport, facts: &DeviceFacts) {
    let info = facts.payload(flags::HW_INFO_TYPE_AMD).unwrap_or_default();
    let (efr, efr2) = (word(&info, 0), word(&info, 8));
    report.iommu = Some("AMD-Vi");
    // GTSup, GIoSup; GCR3TRPMode.
    let hardware = efr >> 4 & 1 != 0 && efr >> 48 & 1 != 0 && efr2 >> 3 & 1 != 0;
    // The driver takes any vIOMMU type; only a nested HWPT shows that there is nesting.
    let nests = facts.nested.iter().any(|(on, made)| on.ends_with("data amd") && made.is_ok());
    report.nesting = Some(if nests {
        Nesting {
            how: How::ThroughAViommu,
            words: "This kernel allocates nested HWPTs for AMD, which Linux 7.3 does not; this viommu does not use them and \
                    serves guests with shadow tables."
                .into(),
        }
    } else {
        let could =
            if hardware { "The hardware could (GTSup, GIoSup, GCR3TRPMode)" } else { "The hardware could not either" };
        Nesting {
            how: How::ShadowOnly,
            words: format!(
                "No nesting: HWPT_ALLOC of an AMD guest's table answers {}. {could}. Guests that were shown NpCache can be \
                 served with shadow tables.",
                said(facts, "parent, data amd")
            ),
        }
    });
    if !nests && facts.viommu.values().any(|made| made.is_ok()) {
        let words =
            "VIOMMU_ALLOC succeeds, and means nothing: the driver takes any type, and nothing can be allocated on it.";
        report.notes.push(words.into());
    }
    report.notes.push("EFR and EFR2 are what all IOMMUs of the machine have in common, not those of one.".into());
}

fn mock(report: &mut DeviceReport, facts: &DeviceFacts) {
    report.iommu = Some("the kernel's mock driver (CONFIG_IOMMUFD_TEST)");
    let nests = facts.nests(&format!("viommu {:#x}, data selftest", selftest::VIOMMU_TYPE));
    report.nesting = Some(if nests {
        Nesting { how: How::ThroughAViommu, words: "Nested, as far as a mock nests anything.".into() }
    } else {
        Nesting { how: How::No, words: format!("HWPT_ALLOC answers {}.", said(facts, "parent, data selftest")) }
    });
    report.viommu_types = if nests { vec!["selftest"] } else { Vec::new() };
}

/// What HWPT_ALLOC of a nested HWPT answered; or what the parent did, if there was none.
pub(super) fn said(facts: &DeviceFacts, on: &str) -> String {
    let parent = facts.paging("nest_parent").filter(|made| !made.is_ok());
    match (facts.nested.get(on), parent) {
        (Some(made), _) => made.name(),
        (None, Some(made)) => format!("{} for the nesting parent already", made.name()),
        (None, None) => "nothing: it was not tried".into(),
    }
}
