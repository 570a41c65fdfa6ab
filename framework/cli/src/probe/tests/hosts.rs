//! Facts of hosts. Those of Arm are `viommu probe --json` of the kernel lab (`lab.json`, its `facts`), and what follows for a
//! machine without CANWBS; the others are what Linux 7.3.4's drivers answer by their source.

use crate::probe::facts::{DeviceFacts, Facts, HwInfo, Outcome};
use std::collections::BTreeMap;
use viommu::uapi::{Command, Errno};

const OK: Outcome = Outcome::OK;

fn errno(errno: Errno) -> Outcome {
    Outcome(errno.raw_os_error())
}

fn unsupported() -> Outcome {
    errno(Errno::OPNOTSUPP)
}

fn host(devices: Vec<DeviceFacts>) -> Facts {
    let commands = Command::ALL.into_iter().filter(|command| *command != Command::Test);
    Facts {
        iommufd: "/dev/iommu".into(),
        open: OK,
        kernel: "7.3.4".into(),
        machine: "aarch64".into(),
        commands: commands.map(|command| (command.name().to_owned(), errno(Errno::INVAL))).collect(),
        rlimit_mode: Some(0),
        fault_queue: Some(OK),
        iommus: vec!["smmu3.0x0000000009050000".into()],
        candidates: vec!["/dev/vfio/devices/vfio0".into(), "/dev/vfio/devices/vfio1".into()],
        devices,
    }
}

fn device(kind: u32, payload: &[u8]) -> DeviceFacts {
    let mut device = DeviceFacts::unasked("/dev/vfio/devices/vfio0".into(), OK);
    device.default_type = Some(kind);
    device.hw_info = (1..=4).map(|kind| (kind, HwInfo { outcome: unsupported(), data: String::new() })).collect();
    device.hw_info.insert(kind, HwInfo::of(payload));
    device
}

fn answers<const N: usize>(all: [(&str, Outcome); N]) -> BTreeMap<String, Outcome> {
    all.into_iter().map(|(name, outcome)| (name.to_owned(), outcome)).collect()
}

fn smmu(flags: u32, idr: [u32; 6]) -> Vec<u8> {
    let words = [&[flags, 0][..], &idr, &[0, 1]].concat();
    words.into_iter().flat_map(u32::to_ne_bytes).collect()
}

/// QEMU 10.0.2's SMMUv3 with both stages, as the lab's kernel told it. `viommu` is what VIOMMU_ALLOC answers: without CANWBS
/// it is EOPNOTSUPP, and what needs a vIOMMU cannot be asked.
pub(super) fn arm(viommu: Outcome) -> Facts {
    let mut facts: Facts = serde_json::from_str(include_str!("lab.json")).expect("the kept facts");
    facts.devices.truncate(1);
    if !viommu.is_ok() {
        let device = &mut facts.devices[0];
        device.viommu.insert(1, viommu);
        device.nested.retain(|how, _| !how.starts_with("viommu"));
        (device.veventq, device.vdevice) = Default::default();
    }
    facts
}

/// A Tegra with CMDQV, and with the erratum of T264-SMMU-3.
pub(super) fn tegra() -> Facts {
    let mut facts = arm(OK);
    let device = &mut facts.devices[0];
    device.hw_info.insert(2, HwInfo::of(&smmu(1, [0x0d44_141b, 0x0273_0510, 0, 0x1d14, 0, 0x75])));
    device.hw_info.insert(3, HwInfo::of(&[0, 0, 0, 0, 1, 1, 4, 0]));
    (device.capabilities, device.max_pasid_log2) = (0, 16);
    device.viommu.insert(2, OK);
    device.nested.insert("viommu 0x2, data arm".into(), OK);
    device.vdevice.insert(2, OK);
    facts
}

/// A VT-d in scalable mode.
pub(super) fn vtd() -> Facts {
    let mut device = device(1, &[0; 24]);
    set_ecap(&mut device, 1 << 1 | 1 << 2 | 1 << 26 | 1 << 40 | 1 << 43 | 1 << 46 | 1 << 47);
    (device.capabilities, device.max_pasid_log2) = (1 | 2, 20);
    device.hwpt = answers([
        ("plain", OK),
        ("nest_parent", OK),
        ("dirty_tracking", OK),
        ("pasid", OK),
        ("nest_parent+dirty_tracking", OK),
        ("nest_parent+pasid", OK),
    ]);
    device.viommu = [(1, unsupported()), (2, unsupported())].into();
    device.nested = answers([("parent, data vtd", OK), ("parent, data arm", unsupported())]);
    Facts { machine: "x86_64".into(), iommus: vec!["dmar0".into()], ..host(vec![device]) }
}

/// A machine of AMD's whose IOMMU could nest.
pub(super) fn amd() -> Facts {
    let (efr, efr2): (u64, u64) = (1 << 4 | 1 << 48, 1 << 3);
    let mut device = device(4, &[efr, efr2].map(u64::to_ne_bytes).concat());
    (device.capabilities, device.max_pasid_log2) = (1, 16);
    device.hwpt =
        answers([("plain", OK), ("nest_parent", OK), ("dirty_tracking", OK), ("nest_parent+dirty_tracking", OK)]);
    device.viommu = [(1, OK), (2, OK), (0xdead_beef, OK)].into();
    device.nested = answers([("parent, data amd", unsupported()), ("viommu 0x1, data amd", unsupported())]);
    device.vdevice = [(1, OK), (2, OK)].into();
    Facts { machine: "x86_64".into(), iommus: vec!["ivhd0".into()], ..host(vec![device]) }
}

/// A kernel before vIOMMUs, with an SMMUv3.
pub(super) fn old() -> Facts {
    let mut facts = arm(OK);
    facts.kernel = "6.8.12".into();
    for name in [
        "FAULT_QUEUE_ALLOC",
        "IOAS_MAP_FILE",
        "VIOMMU_ALLOC",
        "VDEVICE_ALLOC",
        "IOAS_CHANGE_PROCESS",
        "VEVENTQ_ALLOC",
        "HW_QUEUE_ALLOC",
        "IOAS_NOIOMMU_GET_PA",
    ] {
        facts.commands.insert(name.into(), errno(Errno::NOTTY));
    }
    facts.fault_queue = Some(errno(Errno::NOTTY));
    let device = &mut facts.devices[0];
    device.viommu = [(1, errno(Errno::NOTTY)), (2, errno(Errno::NOTTY))].into();
    device.nested = answers([("parent, data arm", unsupported())]);
    (device.veventq, device.vdevice) = Default::default();
    facts
}

/// A host whose /dev/iommu cannot be opened.
pub(super) fn unopened(why: Errno) -> Facts {
    let (commands, rlimit_mode, fault_queue) = Default::default();
    Facts { open: errno(why), commands, rlimit_mode, fault_queue, ..host(Vec::new()) }
}

/// A host whose device cannot be bound.
pub(super) fn unbound(why: Errno) -> Facts {
    host(vec![DeviceFacts::unasked("/dev/vfio/devices/vfio0".into(), errno(why))])
}

/// Replaces an ID register of an SMMU.
pub(super) fn set_idr(device: &mut DeviceFacts, index: usize, value: u32) {
    let mut payload = device.hw_info[&2].bytes();
    payload[8 + 4 * index..][..4].copy_from_slice(&value.to_ne_bytes());
    device.hw_info.insert(2, HwInfo::of(&payload));
}

/// Replaces ECAP of a VT-d that has the erratum.
pub(super) fn set_ecap(device: &mut DeviceFacts, ecap: u64) {
    let cap: u64 = 0x80d2_008c_222f_0606;
    device.hw_info.insert(1, HwInfo::of(&[1, cap, ecap].map(u64::to_ne_bytes).concat()));
}
