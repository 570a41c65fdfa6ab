//! What the control plane counts, as a recorder sees it. A test program of its own: a process has one recorder.

#[allow(dead_code, reason = "the tests of the objects, whose it is, use all of it")]
#[path = "objects/recorder.rs"]
mod recorder;
mod seen;

use arm_smmuv3::ArmSmmuv3;
use seen::Seen;
use std::sync::Arc;
use std::time::Duration;
use viommu::backend::{BackendEvent, ObjectKind, Owner};
use viommu::blocking::Host;
use viommu::objects::ViommuConfig;
use viommu::plugin::GuestFault;
use viommu::seams::FaultPlan;
use viommu::vm_memory::{GuestAddress, GuestMemoryMmap};
use viommu::{HostEvent, metrics as names};
use viommu_plugin_host::Plugin;

#[test]
fn objects_restarts_quarantines_and_host_faults_are_counted() {
    let seen = Seen::default();
    metrics::set_global_recorder(seen.clone()).unwrap();
    let backend = recorder::Recorder::new();
    let host = viommu::Host::builder()
        .backend(backend.clone())
        .plugin(Plugin::linked::<ArmSmmuv3>())
        .faults(FaultPlan::none().panic(ObjectKind::Ioas, "unmap", 1))
        .build()
        .unwrap();
    let host = Host::from(host);
    let events = host.events();
    let ioas = host.ioas().unwrap();
    assert_eq!(seen.level(&format!("{} kind=IOAS", names::OBJECTS)), 1.0);
    ioas.unmap(0, 4096).unwrap_err();
    let memory = Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 4096)]).unwrap());
    let viommu = ioas.nest_parent().unwrap().viommu(ViommuConfig::new(Vec::new(), memory)).unwrap();
    backend.report(BackendEvent::Host { stream: 1, code: 0x10 });
    let owner = Owner(viommu.handle().info().owner);
    backend.report(BackendEvent::QueueError { owner, fault: GuestFault::ILLEGAL_OPCODE });
    // Told in this order: degraded, restarted; then, side by side with them, the fault and the quarantine.
    let last = |event: &HostEvent| matches!(event, HostEvent::Quarantined { .. });
    let mut told: Vec<HostEvent> = Vec::new();
    while !(told.iter().any(last) && told.iter().any(|event| matches!(event, HostEvent::Restarted { .. }))) {
        told.push(events.recv_timeout(Duration::from_secs(20)).unwrap());
    }
    assert_eq!(seen.count(&format!("{} kind=IOAS", names::ACTOR_RESTARTS)), 1);
    assert_eq!(seen.count(names::HOST_FAULTS), 1);
    assert_eq!(seen.count(&format!("{} kind=VIOMMU", names::QUARANTINES)), 1);
    drop((viommu, ioas));
    host.settle().unwrap();
    for kind in ["IOAS", "HWPT_PAGING", "VIOMMU"] {
        assert_eq!(seen.level(&format!("{} kind={kind}", names::OBJECTS)), 0.0, "{kind}");
    }
    host.shutdown().unwrap();
}
