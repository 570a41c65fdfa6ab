//! Stories that once went wrong, told again with whatever was a matter of luck in every way there is.

use std::time::Duration;
use viommu_sim::plan::{Action, DevicePlan, Fault, HostPlan, Scope, Signal, Target, VmPlan};
use viommu_sim::{Options, Plan, Vendor, run};

fn vm(number: u32, shadowed: bool) -> VmPlan {
    let device = DevicePlan { number: 0, stream: 0x60 * number, virt_id: 0x19, seed: number.into(), present: true };
    let to = Target::Space { space: 0, shared: false };
    let assign = Action::Assign { device: 0, to, scope: Scope::One, sync: Signal::Poll };
    let actions = vec![
        assign,
        Action::Map { space: 0, slot: 0, count: 8, frame: 1, writable: true },
        Action::Assign { device: 0, to: Target::Abort, scope: Scope::One, sync: Signal::Poll },
        assign,
    ];
    VmPlan {
        number,
        correct: true,
        shadowed,
        messages: false,
        ranges: true,
        queue_log2: 4,
        devices: vec![device],
        actions,
    }
}

/// The hardware stands still while a device is attached, for so long that the attach fails, and that undoing it fails too:
/// the device goes on through tables that nobody counts as its own. They were freed, and their tag given to the next guest.
#[test]
fn tables_that_a_device_may_still_go_through_are_not_freed() {
    for vendor in Vendor::ALL {
        for after in 1..48 {
            let host = HostPlan {
                shards: 2,
                mailbox: false,
                sync_limit: Duration::from_millis(4),
                ring_log2: 8,
                tags: 6,
                pace: 5,
                speculation: 10,
            };
            let vms = (0..2).map(|number| vm(number, vendor != Vendor::ArmSmmuv3)).collect();
            let faults = vec![Fault::Stall { after, time: Duration::from_millis(15) }];
            let outcome = run(&Plan { vendor, seed: 110, host, vms, faults }, Options::default());
            assert_eq!(outcome.violation, None, "{} that stands still after {after} commands", vendor.name());
        }
    }
}
