//! Driver properties of libvirt's `<iommu model='smmuv3'>` (since libvirt 12.2), by libvirt's names: which of them this host
//! can honour.

use super::arm::Identity;
use super::device::{Ats, DeviceReport};
use crate::probe::facts::DeviceFacts;
use serde::Serialize;
use viommu::uapi::flags;

/// A property.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Property {
    pub(crate) name: &'static str,
    pub(crate) can: Can,
    /// What it can be set to: "on", or the largest number.
    pub(crate) value: Option<String>,
    /// Why not, or what to know.
    pub(crate) words: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Can {
    Yes,
    No,
}

fn yes(name: &'static str, value: impl ToString, words: impl Into<String>) -> Property {
    Property { name, can: Can::Yes, value: Some(value.to_string()), words: words.into() }
}

fn no(name: &'static str, words: impl Into<String>) -> Property {
    Property { name, can: Can::No, value: None, words: words.into() }
}

/// The six properties, for a device behind an SMMUv3; none for another.
pub(super) fn properties(report: &DeviceReport, facts: &DeviceFacts, absent: &dyn Fn(&str) -> bool) -> Vec<Property> {
    if facts.default_type != Some(flags::HW_INFO_TYPE_ARM_SMMUV3) {
        return Vec::new();
    }
    if report.viommu_types.is_empty() {
        let why = report.nesting.as_ref().map(|nesting| nesting.words.clone()).unwrap_or_default();
        let rest = ["cmdqv", "ats", "ril", "ssidSize", "oas"];
        return std::iter::once(no("accel", why)).chain(rest.map(|name| no(name, "it needs accel"))).collect();
    }
    let identity = Identity::of(facts);
    vec![
        yes("accel", "on", "the hardware walks the guest's tables"),
        cmdqv(report, facts, absent),
        match report.ats {
            Ats::Yes => yes("ats", "on", "if the device has ATS too, which kernels before 7 do not say"),
            _ if !identity.ats() => no("ats", "the SMMU has none (IDR0.ATS = 0)"),
            _ => no("ats", "the device, or a bridge in front of it, has none"),
        },
        if identity.range_invalidation() {
            yes("ril", "on", "IDR3.RIL")
        } else {
            no("ril", "the SMMU has no range invalidation (IDR3.RIL = 0): set it off, which is not the default")
        },
        substreams(&identity, facts.max_pasid_log2),
        yes("oas", identity.output_bits(), "at most, in bits (IDR5.OAS)"),
    ]
}

fn cmdqv(report: &DeviceReport, facts: &DeviceFacts, absent: &dyn Fn(&str) -> bool) -> Property {
    let kind = flags::VIOMMU_TYPE_TEGRA241_CMDQV;
    match &report.hw_queues {
        Some(own) => yes("cmdqv", "on", format!("{} queues and {} StreamIDs a guest", own.queues, own.streams)),
        None if facts.payload(flags::HW_INFO_TYPE_TEGRA241_CMDQV).is_none() => {
            no("cmdqv", "the SMMU has no CMDQV, or its driver did not find one")
        }
        None if absent("HW_QUEUE_ALLOC") => no("cmdqv", "the running kernel has no HW_QUEUE_ALLOC"),
        None => {
            let said = facts.viommu.get(&kind).map_or_else(|| "nothing".into(), |made| made.name());
            no("cmdqv", format!("VIOMMU_ALLOC of its type answers {said}"))
        }
    }
}

fn substreams(identity: &Identity, pasid_bits: u8) -> Property {
    match (identity.substream_bits(), pasid_bits) {
        (0, _) => no("ssidSize", "the SMMU has no substreams (IDR1.SSIDSIZE = 0)"),
        (_, 0) => no("ssidSize", "the device has no PASIDs"),
        (smmu, device) => {
            yes("ssidSize", smmu.min(device), format!("at most: {smmu} bits in the SMMU, {device} in the device"))
        }
    }
}
