//! The kinds of guests, and what a seed decides about one before it starts.

use crate::draw::Draw;
use crate::guest::amd::Amd;
use crate::guest::arm::Arm;
use crate::guest::space::Limits;
use crate::guest::vtd::Vtd;
use crate::guest::{Attach, Device, Driver, Machine, live};
use crate::memory::Memory;
use crate::recorder::Bus;
use serde_json::json;
use std::fmt;
use std::str::FromStr;
use viommu_trace::{Header, Vendor};

/// Whose IOMMU a guest has, and how its hardware can serve it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// AMD-Vi with guest (GCR3, "v2") tables: nested.
    AmdNested,
    /// AMD-Vi with host ("v1") tables, new mappings announced: shadowed.
    AmdShadow,
    /// VT-d in scalable mode with first-stage tables: nested.
    VtdNested,
    /// VT-d in legacy mode with second-stage tables, new mappings announced: shadowed.
    VtdShadow,
    /// SMMUv3 with stage 1: nested.
    ArmNested,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::AmdNested, Self::AmdShadow, Self::VtdNested, Self::VtdShadow, Self::ArmNested];

    fn name(self) -> &'static str {
        match self {
            Self::AmdNested => "amd-nested",
            Self::AmdShadow => "amd-shadow",
            Self::VtdNested => "vtd-nested",
            Self::VtdShadow => "vtd-shadow",
            Self::ArmNested => "arm-nested",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| format!("one of {}", known()))
    }
}

/// A guest before it starts.
pub(crate) struct Plan {
    pub(crate) header: Header,
    draw: Draw,
    memory: Memory,
    limits: Limits,
    devices: Vec<Device>,
    driver: Box<dyn Driver>,
}

impl Plan {
    /// Lets the guest live.
    pub(crate) fn live(self, bus: &mut dyn Bus, steps: u32) {
        let Self { draw, memory, limits, devices, mut driver, .. } = self;
        let mut machine = Machine { draw, memory, bus, limits, domains: Vec::new(), devices };
        live(&mut machine, driver.as_mut(), steps);
    }
}

/// Requester IDs of the devices: those of the recordings.
const STREAMS: [(u32, &str); 7] = [
    (0x08, "edu"),
    (0x10, "virtio-blk"),
    (0x18, "virtio-net"),
    (0x20, "e1000e"),
    (0x100, "nvme"),
    (0x200, "virtio-blk"),
    (0x300, "igb"),
];

/// RAM of PCs, and of Arm's virtual machines: tables in the first part, what devices use in the rest.
const RAM: u64 = 0x1_0000_0000;
const ARM_RAM_BASE: u64 = 0x4000_0000;
const TABLES: u64 = 0x0100_0000;
const DATA: u64 = 0x4000_0000;

/// What a seed decides.
pub(crate) fn plan(kind: Kind, seed: u64) -> Plan {
    let mut draw = Draw::new(seed);
    let (vendor, base, frame) = match kind {
        Kind::AmdNested | Kind::AmdShadow => (Vendor::AMD_VI, 0, (0xfed8_0000, 0x4000)),
        Kind::VtdNested | Kind::VtdShadow => (Vendor::INTEL_VTD, 0, (0xfed9_0000, 0x1000)),
        Kind::ArmNested => (Vendor::ARM_SMMUV3, ARM_RAM_BASE, (0x0905_0000, 0x2_0000)),
    };
    // What devices use ends below the register frames and interrupt addresses of a PC.
    let data = (base + DATA, base + 0xbfff_ffff);
    let mut header = Header::new(vendor).ram(base, RAM).frame(frame.0, frame.1);
    let mut devices = Vec::new();
    // A host shows no shadowed AMD guest that device caches can be invalidated.
    let caches = if kind != Kind::AmdShadow && draw.chance(70) { 50 } else { 0 };
    for (stream, name) in STREAMS.into_iter().take(4 + draw.index(4)) {
        header = header.device(name, stream);
        devices.push(Device { stream, ats: draw.chance(caches), attach: Attach::Abort, stale: true });
    }
    if devices.iter().any(|device| device.ats) {
        header.json.insert("iotlb_sup".into(), json!(true));
    }
    let mut memory = Memory::new(base + TABLES);
    let mut limits = Limits { iova_bits: 47, data, announces_new: false, in_place: true };
    let driver: Box<dyn Driver> = match kind {
        Kind::AmdNested => {
            limits.announces_new = draw.chance(50);
            if !limits.announces_new {
                header.json.insert("npcache_cleared".into(), json!(true));
            }
            // GTSup 4, IASup 6, HATS 11:10 four levels, GATS 13:12, GLXSup 15:14, PASmax 36:32, GIoSup 48.
            let (gats, glx) = (draw.below(2), draw.below(3));
            let efr = 1 << 4 | 1 << 6 | gats << 12 | glx << 14 | 15 << 32 | 1 << 48;
            let levels: &[u8] = if gats == 0 { &[4] } else { &[4, 5] };
            Box::new(Amd::new(&mut memory, true, efr, 1 << 3, levels))
        }
        Kind::AmdShadow => {
            limits = Limits { iova_bits: 62, announces_new: true, ..limits };
            Box::new(Amd::new(&mut memory, false, 0x29c7, 0, &[3, 4, 5, 6]))
        }
        Kind::VtdNested => Box::new(Vtd::scalable(&mut memory, &mut draw)),
        Kind::VtdShadow => {
            limits = Limits { iova_bits: 48, announces_new: true, ..limits };
            Box::new(Vtd::legacy(&mut memory))
        }
        Kind::ArmNested => {
            limits = Limits { iova_bits: 48, in_place: false, ..limits };
            Box::new(Arm::new(&mut memory, &mut draw))
        }
    };
    Plan { header, draw, memory, limits, devices, driver }
}
