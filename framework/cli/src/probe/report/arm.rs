//! The Arm SMMUv3, with and without Tegra's CMDQV.

use super::device::{Ats, DeviceReport, Erratum, How, HwQueues, Nesting, half, said};
use crate::probe::facts::DeviceFacts;
use viommu::uapi::{Errno, flags};

/// The ID registers of the payload.
pub(super) struct Identity {
    pub(super) flags: u32,
    idr: [u32; 6],
}

impl Identity {
    pub(super) fn of(facts: &DeviceFacts) -> Self {
        let info = facts.payload(flags::HW_INFO_TYPE_ARM_SMMUV3).unwrap_or_default();
        Self { flags: half(&info, 0), idr: std::array::from_fn(|index| half(&info, 8 + 4 * index)) }
    }
    fn bit(&self, register: usize, bit: u32) -> bool {
        self.idr[register] >> bit & 1 != 0
    }
    /// IDR0.S1P and S2P.
    fn both_stages(&self) -> bool {
        self.bit(0, 1) && self.bit(0, 0)
    }
    /// IDR0.ATS.
    pub(super) fn ats(&self) -> bool {
        self.bit(0, 10)
    }
    /// IDR1.SSIDSIZE.
    pub(super) fn substream_bits(&self) -> u8 {
        (self.idr[1] >> 6 & 0x1f) as u8
    }
    /// IDR3.FWB.
    fn forced_write_back(&self) -> bool {
        self.bit(3, 8)
    }
    /// IDR3.RIL.
    pub(super) fn range_invalidation(&self) -> bool {
        self.bit(3, 10)
    }
    /// IDR5.OAS in bits.
    pub(super) fn output_bits(&self) -> u32 {
        [32, 36, 40, 42, 44, 48, 52].get((self.idr[5] & 7) as usize).copied().unwrap_or(52)
    }
}

/// Whether vIOMMUs of this type were made, and carry a nested HWPT.
fn carries(facts: &DeviceFacts, kind: u32) -> bool {
    let made = facts.viommu.get(&kind).is_some_and(|made| made.is_ok());
    made && facts.nests(&format!("viommu {kind:#x}, data arm"))
}

pub(super) fn fill(report: &mut DeviceReport, facts: &DeviceFacts, absent: &dyn Fn(&str) -> bool) {
    let identity = Identity::of(facts);
    let (smmu, cmdqv) = (flags::VIOMMU_TYPE_ARM_SMMUV3, flags::VIOMMU_TYPE_TEGRA241_CMDQV);
    let unit = facts.payload(flags::HW_INFO_TYPE_TEGRA241_CMDQV);
    report.iommu = Some(if unit.is_some() { "Arm SMMUv3 with Tegra241 CMDQV" } else { "Arm SMMUv3" });
    if report.ats == Ats::Unknown {
        report.ats = if identity.ats() { Ats::Yes } else { Ats::No };
    }
    for (kind, name) in [(smmu, "arm_smmuv3"), (cmdqv, "tegra241_cmdqv")] {
        if carries(facts, kind) {
            report.viommu_types.push(name);
        }
    }
    if let Some(&[_, _, _, _, version, queues, streams, ..]) = unit.as_deref() {
        let usable = version != 0 && queues < 16 && streams < 16 && carries(facts, cmdqv) && !absent("HW_QUEUE_ALLOC");
        report.hw_queues = usable.then(|| HwQueues { queues: 1 << queues, streams: 1 << streams });
    }
    report.nesting = Some(match why_not(facts, &identity, absent) {
        _ if !report.viommu_types.is_empty() => {
            Nesting { how: How::ThroughAViommu, words: "A guest's stage 1 is nested on stage 2, on a vIOMMU.".into() }
        }
        why => Nesting { how: How::No, words: format!("No nesting: {why}.") },
    });
    if identity.flags & flags::HW_INFO_ARM_SMMUV3_ERRATA_REPEAT_TLBI_CFGI != 0 {
        report.errata.push(Erratum {
            name: "REPEAT_TLBI_CFGI",
            words: "Every TLBI and CFGI, with its SYNC, has to be issued twice, and the kernel does not do it for guests \
                    (T264-SMMU-3). ATC_INV is issued once.",
        });
    }
    if report.ats == Ats::Yes && facts.capabilities & flags::HW_CAP_PCI_ATS_NOT_SUPPORTED == 0 {
        report.notes.push("ATS: the SMMU has it. Kernels before 7 do not say if the device has.".into());
    }
    if !report.viommu_types.is_empty() && absent("VEVENTQ_ALLOC") {
        report
            .notes
            .push("Faults of the guest's tables do not reach the guest: the kernel has no VEVENTQ_ALLOC.".into());
    }
}

/// Why there is no vIOMMU that carries a guest.
fn why_not(facts: &DeviceFacts, identity: &Identity, absent: &dyn Fn(&str) -> bool) -> String {
    for command in ["HWPT_ALLOC", "VIOMMU_ALLOC", "HWPT_INVALIDATE"] {
        if absent(command) {
            return format!("the running kernel has no {command}");
        }
    }
    let kind = flags::VIOMMU_TYPE_ARM_SMMUV3;
    match (facts.paging("nest_parent"), facts.viommu.get(&kind)) {
        (Some(parent), _) if !parent.is_ok() && !identity.both_stages() => {
            format!("the SMMU has only one stage (IDR0.S1P, S2P); HWPT_ALLOC of a nesting parent answers {}", parent.name())
        }
        (Some(parent), _) if !parent.is_ok() => {
            let name = parent.name();
            format!("HWPT_ALLOC of a nesting parent answers {name}: an erratum of this SMMU, or the driver, forbids it")
        }
        (_, Some(made)) if made.is(Errno::OPNOTSUPP) && !identity.forced_write_back() => {
            "VIOMMU_ALLOC answers EOPNOTSUPP: a guest could make DMA incoherent. The SMMU cannot force write-back (S2FWB, \
             IDR3.FWB = 0), and firmware does not say that the root complex is coherent even for No-Snoop accesses (CANWBS in \
             IORT; a device tree cannot say it)"
                .into()
        }
        (_, Some(made)) if !made.is_ok() => format!("VIOMMU_ALLOC answers {}", made.name()),
        _ => format!("HWPT_ALLOC of a nested HWPT answers {}", said(facts, &format!("viommu {kind:#x}, data arm"))),
    }
}
