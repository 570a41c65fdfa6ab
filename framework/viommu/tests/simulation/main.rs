//! A host on one thread, with a seed.

use arm_smmuv3::ArmSmmuv3;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use viommu::backend::direct::{Direct, DirectOptions, ModelHardware, ModelMode, PhysicalMemory};
use viommu::blocking::Host;
use viommu::objects::ViommuConfig;
use viommu::plugin::ModelConfig;
use viommu::simulation::{self, Simulation};
use viommu::vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use viommu_plugin_host::Plugin;

const RAM: u64 = 0x4000_0000;
const TLBI_NH_ALL: [u64; 2] = [0x10, 0];
const CMD_SYNC: [u64; 2] = [0x46, 0];

/// Two guests with a device each send an invalidation and a SYNC three times and go; a device of its own speed.
fn story(seed: u64) -> (Vec<String>, u64) {
    let simulation = Simulation::enter(seed).unwrap();
    simulation.keep_log();
    let plugin = Plugin::linked::<ArmSmmuv3>();
    let physical = PhysicalMemory::new();
    physical.add_dma(0x1_0000_0000, 1 << 28).unwrap();
    let hardware = ModelHardware::new(&plugin, physical, ModelConfig::default(), ModelMode::ByHand).unwrap();
    let options =
        DirectOptions { clock: simulation.clock(), threads: simulation.threads(), ..DirectOptions::default() };
    let model = hardware.clone();
    let guests_left = Arc::new(AtomicU32::new(2));
    let left = guests_left.clone();
    simulation.spawn("device", move || {
        while left.load(Ordering::SeqCst) > 0 {
            model.step(1);
            simulation::sleep(Duration::from_micros(3));
        }
    });
    let backend = Direct::new(&plugin, hardware, options).unwrap();
    let host: Host = viommu::Host::builder().backend(backend).plugin(plugin).simulated(seed).build().unwrap().into();
    let host = Arc::new(host);
    for guest in 0..2 {
        let (host, left) = (host.clone(), guests_left.clone());
        simulation.spawn(format!("guest {guest}"), move || {
            let ram = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(RAM), 1 << 20)]).unwrap();
            let memory = Arc::new(ram);
            let config = ViommuConfig::new(Vec::new(), memory.clone());
            let viommu = host.ioas().unwrap().nest_parent().unwrap().viommu(config).unwrap();
            let vdevice = viommu.vdevice(&host.device(0x40 + guest).unwrap(), 3).unwrap();
            viommu.mmio_write(0x90, 8, RAM | 8).unwrap();
            viommu.mmio_write(0x20, 4, 1 << 3).unwrap();
            for round in 0..3 {
                for (at, word) in (0..).step_by(8).zip([TLBI_NH_ALL, CMD_SYNC].concat()) {
                    memory.write_obj(word.to_le(), GuestAddress(RAM + 32 * round + at)).unwrap();
                }
                viommu.mmio_write(0x98, 4, 2 * (round + 1)).unwrap();
                assert_eq!(viommu.mmio_read(0x9c, 4).unwrap(), 2 * (round + 1), "complete when the write returns");
                simulation::note(|| format!("guest {guest} saw SYNC {round}"));
            }
            drop((vdevice, viommu));
            host.settle().unwrap();
            left.fetch_sub(1, Ordering::SeqCst);
        });
    }
    simulation.run_until(Duration::from_secs(10), || guests_left.load(Ordering::SeqCst) == 0).unwrap();
    let host = Arc::into_inner(host).unwrap();
    assert!(host.shutdown().unwrap().is_empty());
    let log = (simulation.log(), simulation.fingerprint());
    simulation.leave();
    log
}

#[test]
fn the_same_seed_tells_the_same_story_and_others_tell_others() {
    let first = story(7);
    assert_eq!(first, story(7));
    let others: std::collections::BTreeSet<_> = (0..16).map(|seed| story(seed).1).collect();
    assert_eq!(others.len(), 16, "every seed draws another order");
}
