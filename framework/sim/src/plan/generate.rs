//! From a seed to a plan.

use super::{
    Action, Attack, By, Call, ContextScope, DevicePlan, Errno, Fault, HostPlan, Part, Plan, STREAMS, Scope, Signal,
    Target, Vendor, VmPlan,
};
use crate::draw::Draw;
use std::time::Duration;
use viommu::backend::ObjectKind;

/// What a guest does, by weight.
const ACTIONS: [(u32, Kind); 22] = [
    (16, Kind::Map),
    (4, Kind::MapBlock),
    (14, Kind::Unmap),
    (6, Kind::Remap),
    (3, Kind::Protect),
    (3, Kind::ReplaceTable),
    (2, Kind::ReplaceTree),
    (6, Kind::Assign),
    (4, Kind::ChangeContext),
    (3, Kind::Needless),
    (3, Kind::Sync),
    (2, Kind::Strangers),
    (2, Kind::TwoDoorbells),
    (2, Kind::Illegal),
    (2, Kind::Switch),
    (1, Kind::Reset),
    (2, Kind::Remove),
    (2, Kind::Add),
    (2, Kind::TakeMemory),
    (2, Kind::GiveMemory),
    (1, Kind::ReadEvents),
    (12, Kind::Idle),
];

#[derive(Clone, Copy)]
enum Kind {
    Map,
    MapBlock,
    Unmap,
    Remap,
    Protect,
    ReplaceTable,
    ReplaceTree,
    Assign,
    ChangeContext,
    Needless,
    Sync,
    Strangers,
    TwoDoorbells,
    Illegal,
    Switch,
    Reset,
    Remove,
    Add,
    TakeMemory,
    GiveMemory,
    ReadEvents,
    Idle,
}

const ATTACKS: [Attack; 12] = [
    Attack::Foreign,
    Attack::Foreign,
    Attack::Absurd,
    Attack::Noise,
    Attack::QueueNowhere,
    Attack::BeyondQueue,
    Attack::TablesNowhere,
    Attack::EntryNoise,
    Attack::EntryNoise,
    Attack::RegisterNoise,
    Attack::NeverAcknowledge,
    Attack::MessageAnywhere,
];

/// Calls of the backend that fail, with the highest number of the one that does.
const CALLS: [(Call, u32); 17] = [
    (Call::Reload, 6),
    (Call::IoasAlloc, 4),
    (Call::Map, 4),
    (Call::Unmap, 4),
    (Call::ParentAlloc, 4),
    (Call::ViommuAlloc, 4),
    (Call::Bind, 4),
    (Call::VdeviceAlloc, 6),
    (Call::NestedAlloc, 12),
    (Call::NestedAlloc, 30),
    (Call::Attach, 12),
    (Call::Attach, 30),
    (Call::Attach, 60),
    (Call::Detach, 6),
    (Call::Flush, 2),
    (Call::Destroy, 30),
    // Last, and only where there are shadows.
    (Call::ShadowChange, 20),
];

const HANDLERS: [(ObjectKind, &str); 16] = [
    (ObjectKind::Viommu, "reconfigure"),
    (ObjectKind::Viommu, "reconfigure"),
    (ObjectKind::Viommu, "alloc"),
    (ObjectKind::Viommu, "unbind"),
    (ObjectKind::Viommu, "destroy"),
    (ObjectKind::Viommu, "restart"),
    (ObjectKind::Ioas, "alloc"),
    (ObjectKind::Ioas, "map"),
    (ObjectKind::Ioas, "unmap"),
    (ObjectKind::Ioas, "destroy"),
    (ObjectKind::NestParent, "alloc"),
    (ObjectKind::NestParent, "destroy"),
    (ObjectKind::NestedHwpt, "destroy"),
    (ObjectKind::Device, "destroy"),
    (ObjectKind::Host, "alloc"),
    (ObjectKind::Host, "bind"),
];

impl Plan {
    /// The plan of a seed.
    pub fn of(vendor: Vendor, seed: u64) -> Self {
        let mut draw = Draw::new(seed, 1);
        let vms = draw.weighted(&[(2, 1), (4, 2), (3, 3), (1, 4)]);
        let malicious = draw.chance(50).then(|| draw.below(vms));
        let vms: Vec<_> = (0..vms).map(|number| vm(vendor, seed, number, malicious != Some(number))).collect();
        let (host, faults) = (host(vendor, seed, &vms), faults(vendor, seed, vms.len() as u32));
        Self { vendor, seed, host, faults, vms }
    }
}

fn host(vendor: Vendor, seed: u64, vms: &[VmPlan]) -> HostPlan {
    let mut draw = Draw::new(seed, 2);
    // For each machine: its stage 2, and where domains have tags, each device's and one more while it moves.
    let domains = |vm: &VmPlan| if vendor == Vendor::ArmSmmuv3 { 0 } else { vm.devices.len() as u32 + 1 };
    let least: u32 = vms.iter().map(|vm| 1 + domains(vm)).sum();
    HostPlan {
        shards: draw.pick(&[1, 1, 2, 3]),
        mailbox: draw.chance(25),
        sync_limit: Duration::from_millis(draw.pick(&[4, 10])),
        ring_log2: draw.pick(&[4, 5, 6, 8]),
        tags: least + draw.below(3),
        pace: draw.pick(&[1, 5, 25]),
        speculation: draw.pick(&[0, 10, 40]),
    }
}

fn vm(vendor: Vendor, seed: u64, number: u32, correct: bool) -> VmPlan {
    let mut draw = Draw::new(seed, 0x100 + u64::from(number));
    let count = draw.pick(&[1, 1, 2, 2, 3]);
    let first = draw.below(0x60);
    let mut devices = Vec::new();
    for device in 0..count {
        // Another machine's host stream may well have the number that is this guest's name for a device.
        let (stream, virt_id) = (number * STREAMS + device, first + device * 7);
        let present = device == 0 || draw.chance(70);
        devices.push(DevicePlan { number: device, stream, virt_id, seed: draw.word(), present });
    }
    let mut actions: Vec<_> = (0..count).map(|device| assign(&mut draw, device as u8, Signal::Poll)).collect();
    if draw.chance(60) {
        actions.push(Action::GiveMemory);
    }
    for _ in 0..draw.range(8, 36) {
        actions.push(if correct || draw.chance(45) { action(&mut draw) } else { attack(&mut draw) });
    }
    let (messages, ranges) = (draw.chance(50), draw.chance(60));
    let shadowed = vendor != Vendor::ArmSmmuv3 && Draw::new(seed, 0x200 + u64::from(number)).chance(45);
    VmPlan { number, correct, shadowed, messages, ranges, queue_log2: draw.pick(&[2, 3, 4, 6]), devices, actions }
}

/// Mostly one: what happens in a space that no device uses, nobody sees.
fn space(draw: &mut Draw) -> u8 {
    draw.weighted(&[(6, 0), (2, 1), (1, 2)])
}

fn by(draw: &mut Draw) -> By {
    draw.pick(&[By::Address, By::Address, By::AnySpace, By::Range, By::Range, By::Space, By::All])
}

fn signal(draw: &mut Draw) -> Signal {
    draw.pick(&[Signal::Poll, Signal::Interrupt, Signal::Later])
}

fn scope(draw: &mut Draw) -> Scope {
    draw.pick(&[Scope::One, Scope::One, Scope::Range, Scope::All])
}

fn assign(draw: &mut Draw, device: u8, sync: Signal) -> Action {
    let space = Target::Space { space: space(draw), shared: draw.chance(50) };
    let to = draw.weighted(&[(10, space), (1, Target::Bypass), (1, Target::Abort), (1, Target::Invalid)]);
    Action::Assign { device, to, scope: scope(draw), sync }
}

fn attack(draw: &mut Draw) -> Action {
    Action::Attack { what: draw.pick(&ATTACKS), word: draw.word() }
}

fn action(draw: &mut Draw) -> Action {
    let (space, slot, device) = (space(draw), draw.below(32) as u8, draw.below(3) as u8);
    let (frame, group, writable) = (draw.below(2500) as u16, slot / 8, draw.chance(75));
    match draw.weighted(&ACTIONS) {
        Kind::Map => Action::Map { space, slot, count: draw.range(1, 8) as u8, frame, writable },
        Kind::MapBlock => Action::MapBlock { space, group, block: draw.below(3) as u8, writable },
        Kind::Unmap => Action::Unmap { space, slot, count: draw.range(1, 8) as u8, by: by(draw), sync: signal(draw) },
        Kind::Remap => Action::Remap { space, slot, frame, by: by(draw) },
        Kind::Protect => Action::Protect { space, slot, by: by(draw), sync: signal(draw) },
        Kind::ReplaceTable => Action::ReplaceTable { space, group, by: by(draw) },
        Kind::ReplaceTree => Action::ReplaceTree { space, by: draw.pick(&[By::Space, By::All]), scope: scope(draw) },
        Kind::Assign => {
            let sync = signal(draw);
            assign(draw, device, sync)
        }
        Kind::ChangeContext => {
            let announce = draw.pick(&[ContextScope::One, ContextScope::Device, ContextScope::Entry]);
            Action::ChangeContext { device, space, announce }
        }
        Kind::Needless => Action::Needless { space, count: draw.range(1, 40) as u8, by: by(draw) },
        Kind::Sync => Action::Sync { signal: signal(draw) },
        Kind::Strangers => Action::Strangers { stream: draw.below(0x200) as u16 },
        Kind::TwoDoorbells => Action::TwoDoorbells { space, count: draw.range(1, 12) as u8 },
        Kind::Illegal => Action::Illegal { kind: draw.below(6) as u8 },
        Kind::Switch => Action::Switch { abort: draw.chance(50), pause: draw.below(60) as u16 },
        Kind::Reset => Action::Reset,
        Kind::Remove => Action::Remove { device },
        Kind::Add => Action::Add { device },
        Kind::TakeMemory => Action::TakeMemory,
        Kind::GiveMemory => Action::GiveMemory,
        Kind::ReadEvents => Action::ReadEvents,
        Kind::Idle => Action::Idle { micros: draw.below(120) as u16 },
    }
}

fn faults(vendor: Vendor, seed: u64, vms: u32) -> Vec<Fault> {
    let calls = if vendor == Vendor::ArmSmmuv3 { &CALLS[..CALLS.len() - 1] } else { &CALLS };
    let mut draw = Draw::new(seed, 3);
    let mut faults = Vec::new();
    for _ in 0..draw.weighted(&[(3, 0), (3, 1), (3, 3), (1, 6)]) {
        let (call, last) = draw.pick(calls);
        let errno = draw.pick(&[Errno::NoMemory, Errno::Busy, Errno::TimedOut]);
        let nth = draw.range(1, last);
        faults.push(Fault::Backend { call, nth, errno });
        // What fails once may fail again at once: when the first failure is undone.
        if draw.chance(30) {
            faults.push(Fault::Backend { call, nth: nth + 1, errno });
        }
    }
    for _ in 0..draw.weighted(&[(6, 0), (3, 1), (1, 4)]) {
        let (kind, operation) = draw.pick(&HANDLERS);
        faults.push(Fault::Actor { kind, operation, nth: draw.range(1, 6).into() });
    }
    if draw.chance(12) {
        let (vm, part) = (draw.below(vms), draw.pick(&[Part::Frontend, Part::Codec]));
        faults.push(Fault::Plugin { vm, part, nth: draw.range(1, 120) });
    }
    for _ in 0..draw.weighted(&[(5, 0), (3, 1), (1, 3)]) {
        let time = Duration::from_micros(draw.pick(&[300, 2000, 6000, 15_000]));
        faults.push(Fault::Stall { after: draw.range(1, 300), time });
    }
    faults
}
