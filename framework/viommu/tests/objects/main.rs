//! The rules of the objects: lifetimes, assignment, supervision, failures; on a backend that writes everything down, and
//! on the direct backend.

mod direct;
mod guest;
mod lifetimes;
mod own_frontend;
mod panics;
mod proposal;
mod recorder;
mod saved;
mod supervision;
mod sweep;
mod vdevices;

use arm_smmuv3::ArmSmmuv3;
use recorder::Recorder;
use std::sync::Arc;
use viommu::Host as AsyncHost;
use viommu::HostBuilder;
use viommu::blocking::{Device, Host, Viommu};
use viommu::vm_memory::GuestMemoryMmap;
use viommu_plugin_host::Plugin;

fn builder(backend: &Arc<Recorder>) -> HostBuilder {
    AsyncHost::builder().backend(backend.clone()).plugin(Plugin::linked::<ArmSmmuv3>())
}

fn host() -> (Arc<Recorder>, Host) {
    let backend = Recorder::new();
    let host = builder(&backend).build().unwrap().into();
    (backend, host)
}

/// A vIOMMU with two bound devices, streams 0x40 and 0x41.
fn machine(host: &Host) -> (Viommu, Arc<GuestMemoryMmap>, [Device; 2]) {
    let memory = guest::memory();
    let viommu = host.ioas().unwrap().nest_parent().unwrap().viommu(guest::config(&memory)).unwrap();
    let devices = [0x40, 0x41].map(|stream| host.device(stream).unwrap());
    (viommu, memory, devices)
}

/// Waits for what another thread will do; the reaper and the event router have no one to answer to.
fn eventually(what: &str, done: impl Fn() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !done() {
        assert!(std::time::Instant::now() < end, "never happened: {what}");
        std::thread::yield_now();
    }
}
