//! One machine, two IOMMUs of different vendors, a VM behind each: an Arm guest and an Intel guest, recorded on two
//! machines, run at the same time in one process.
//!
//! Each IOMMU has a host of its own: its plugin, its command queue, its objects. The second is built beside the first, on
//! the same threads. Neither's guest can name anything of the other's.
//! `cargo run -p viommu-examples --example two_vendors [TRACE TRACE]`

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;
use viommu::blocking::{Device, Host, Vdevice, Viommu};
use viommu::objects::ViommuConfig;
use viommu::pipeline::mark_vcpu_thread;
use viommu_examples::{PhysicalMachine, RecordedGuest, Score, Step, Story};
use viommu_plugin_host::{Plugin, SearchPath};

/// Physical stream of the first device behind each IOMMU: the same number is another device there.
const FIRST_STREAM: u32 = 0x400;
/// How long a guest of ours may wait for its IOMMU.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> Story {
    let recorded = [RecordedGuest::argument_or(1, "arm73-churn")?, RecordedGuest::argument_or(2, "vtd73-churn")?];
    let outcomes = run(&recorded)?;
    for Outcome { vendor, score, late, commands } in &outcomes {
        println!("{vendor}: {score}; {commands} commands, {late} devices attached by a write to watched memory");
    }
    if outcomes.iter().all(|outcome| outcome.score.is_right()) { Ok(()) } else { Err("not every DMA was right".into()) }
}

/// What came of one guest.
#[derive(Debug)]
struct Outcome {
    vendor: String,
    score: Score,
    late: u32,
    commands: u64,
}

fn run(recorded: &[RecordedGuest; 2]) -> Story<Vec<Outcome>> {
    // 1. Two IOMMUs, each with the plugin of its vendor, loaded side by side; two hosts on the same threads.
    let mut hosts: Vec<(PhysicalMachine, Host)> = Vec::new();
    for guest in recorded {
        let plugin = Plugin::find(guest.plugin_name()?, &SearchPath::standard())?;
        let machine = PhysicalMachine::new(&plugin)?;
        let builder = viommu::Host::builder().backend(machine.backend()).plugin(plugin);
        let builder = if let Some((_, first)) = hosts.first() { builder.beside(first.handle()) } else { builder };
        hosts.push((machine, builder.build()?.into()));
    }

    // 2. Both guests at once.
    let outcomes = thread::scope(|threads| {
        let vcpus: Vec<_> = recorded
            .iter()
            .zip(&hosts)
            .map(|(guest, (machine, host))| threads.spawn(|| boot(guest, machine, host)))
            .collect();
        let join = |vcpu: thread::ScopedJoinHandle<'_, Story<Outcome>>| {
            vcpu.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        vcpus.into_iter().map(join).collect::<Story<Vec<_>>>()
    })?;

    // 3. One host goes, and the other has lost nothing; then it goes as well.
    for (_, host) in hosts {
        let left = host.shutdown()?;
        if !left.is_empty() {
            return Err(format!("left over: {left:?}").into());
        }
    }
    Ok(outcomes)
}

/// One VM from power-on to its end.
fn boot(recorded: &RecordedGuest, machine: &PhysicalMachine, host: &Host) -> Story<Outcome> {
    mark_vcpu_thread();
    let ram = machine.guest_ram(recorded, 0)?;
    let ioas = host.ioas()?;
    for mapping in ram.mappings() {
        ioas.map(mapping)?;
    }
    let config = ViommuConfig::new(recorded.id_registers(), ram.memory().clone());
    let viommu = ioas.nest_parent()?.viommu(config)?;
    let mut devices: BTreeMap<u32, (Vdevice, Device)> = BTreeMap::new();
    for device in &recorded.header().devices {
        plug(host, &viommu, &mut devices, device.sid)?;
    }
    let (mut score, mut late) = (Score::default(), 0);
    let mut guest = recorded.play(ram.memory())?;
    while let Some(step) = guest.step()? {
        late += watch(&viommu, &guest.take_written())?;
        match step {
            Step::Write { offset, size, value } => {
                viommu.mmio_write(offset, size, value)?;
                if !viommu.pipeline().wait_settled(PATIENCE) {
                    return Err("the guest's queue is stuck".into());
                }
            }
            Step::Read { offset, size, value } => score.register(offset, value, viommu.mmio_read(offset, size)?),
            Step::Dma(dma) => {
                let stream = plug(host, &viommu, &mut devices, dma.stream)?;
                score.dma(&dma, &ram, &machine.dma(stream, &dma)?);
            }
            Step::Reset => viommu.reset()?,
        }
    }
    let commands = viommu.pipeline().counters().commands.load(std::sync::atomic::Ordering::Relaxed);
    Ok(Outcome { vendor: recorded.plugin_name()?.to_owned(), score, late, commands })
}

/// Tells of writes to pages that the vIOMMU wants watched: a real VMM has them write-protected, and learns of each write
/// as it happens. An Arm guest announces everything, and no page of it is watched.
fn watch(viommu: &Viommu, written: &[(u64, u64)]) -> Story<u32> {
    let mut late = 0;
    if written.is_empty() {
        return Ok(late);
    }
    let pages = viommu.watched_pages()?;
    let touches = |&(gpa, bytes): &(u64, u64)| pages.iter().any(|page| gpa < page + 0x1000 && *page < gpa + bytes);
    for &(gpa, bytes) in written.iter().filter(|write| touches(write)) {
        late += viommu.memory_written(gpa, bytes)?;
    }
    Ok(late)
}

/// Gives the guest a device under the guest's number for it, if it has not got it; its physical stream.
fn plug(host: &Host, viommu: &Viommu, devices: &mut BTreeMap<u32, (Vdevice, Device)>, guest_stream: u32) -> Story<u32> {
    if let Some((_, device)) = devices.get(&guest_stream) {
        return Ok(device.handle().stream());
    }
    let device = host.device(FIRST_STREAM + devices.len() as u32)?;
    let (stream, vdevice) = (device.handle().stream(), viommu.vdevice(&device, guest_stream)?);
    devices.insert(guest_stream, (vdevice, device));
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arm_guest_and_an_intel_guest_run_side_by_side() {
        let recorded = ["arm73-churn", "vtd73-churn"].map(|name| RecordedGuest::named(name).unwrap());
        let outcomes = run(&recorded).unwrap();
        let names: Vec<_> = outcomes.iter().map(|outcome| outcome.vendor.as_str()).collect();
        assert_eq!(names, ["arm-smmuv3", "intel-vtd"]);
        for outcome in &outcomes {
            assert!(outcome.score.is_right() && outcome.commands > 0, "{outcome:?}");
        }
        assert!(outcomes[1].late > 0, "no device was attached by a write to watched memory: {:?}", outcomes[1]);
    }
}
