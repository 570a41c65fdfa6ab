//! viommu in a VMM, with viommu's register frame: the VMM traps the guest's accesses and hands them on.
//!
//! A recorded Linux guest is the guest. Its CPU's register accesses trap into [`Vmm`] below, its devices' DMA goes to the
//! physical IOMMU, and each piece of DMA is compared with what it did when it was recorded.
//! `cargo run -p viommu-examples --example embed_vmm [TRACE]`

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;
use viommu::blocking::{Device, Host, Vdevice, Viommu};
use viommu::objects::ViommuConfig;
use viommu::pipeline::{Interrupts, mark_vcpu_thread};
use viommu_examples::{PhysicalMachine, RecordedGuest, Score, Step, Story};
use viommu_plugin_host::{Plugin, SearchPath};

/// Physical stream of the first device; a real VMM gets it from the device it was given.
const FIRST_STREAM: u32 = 0x400;
/// How long a guest of ours may wait for its IOMMU.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> Story {
    let outcome = run(&RecordedGuest::argument_or(1, "arm73-churn")?)?;
    println!("{outcome}");
    if outcome.score.is_right() { Ok(()) } else { Err("not every DMA was right".into()) }
}

/// What is told at the end.
#[derive(Debug)]
struct Outcome {
    score: Score,
    doorbells: u64,
    commands: u64,
    interrupts: u64,
    left_over: bool,
}

fn run(recorded: &RecordedGuest) -> Story<Outcome> {
    // The vendor's part is a shared library, found beside this program.
    let plugin = Plugin::find(recorded.plugin_name()?, &SearchPath::standard())?;

    // One host for the machine's IOMMU, whatever the number of VMs. A VMM that runs no tokio takes the blocking API.
    let machine = PhysicalMachine::new(&plugin)?;
    let host: Host = viommu::Host::builder().backend(machine.backend()).plugin(plugin).build()?.into();

    // The VM: where its RAM is, the stage-2 tables made from that, and its IOMMU. What the guest reads in the ID
    // registers is ours to choose; this guest was shown something when it was recorded, and is shown the same now.
    let ram = machine.guest_ram(recorded, 0)?;
    let ioas = host.ioas()?;
    for mapping in ram.mappings() {
        ioas.map(mapping)?;
    }
    let interrupts = Arc::new(InterruptController::default());
    let config = ViommuConfig::new(recorded.id_registers(), ram.memory().clone());
    let viommu = ioas.nest_parent()?.viommu(ViommuConfig { interrupts: interrupts.clone(), ..config })?;
    // Faults of its devices go to the guest's own event queue.
    let events = viommu.event_queue()?;

    // The devices it boots with.
    let mut vmm = Vmm { host: &host, viommu, devices: BTreeMap::new() };
    for device in &recorded.header().devices {
        vmm.plug(device.sid)?;
    }

    // The guest runs, on a thread that is a vCPU's: it must not be kept busy with other VMs' work.
    let score = thread::scope(|threads| {
        let vcpu = threads.spawn(|| -> Story<Score> {
            mark_vcpu_thread();
            let mut score = Score::default();
            let mut guest = recorded.play(ram.memory())?;
            while let Some(step) = guest.step()? {
                match step {
                    Step::Write { offset, size, value } => vmm.trap_write(offset, size, value)?,
                    Step::Read { offset, size, value } => score.register(offset, value, vmm.trap_read(offset, size)?),
                    Step::Dma(dma) => {
                        let stream = vmm.plug(dma.stream)?;
                        score.dma(&dma, &ram, &machine.dma(stream, &dma)?);
                    }
                    Step::Reset => vmm.viommu.reset()?,
                }
            }
            Ok(score)
        });
        vcpu.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;

    // The VM ends. A child owns its parent, so the order in which handles go does not matter.
    let counters = vmm.viommu.pipeline().clone();
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (doorbells, commands) = (count(&counters.counters().doorbells), count(&counters.counters().commands));
    drop((vmm, events, ioas));
    let left_over = !host.shutdown()?.is_empty();
    Ok(Outcome { score, doorbells, commands, interrupts: count(&interrupts.raised), left_over })
}

/// What a VMM adds to viommu: where the accesses come from, and which devices there are.
struct Vmm<'a> {
    host: &'a Host,
    viommu: Viommu,
    devices: BTreeMap<u32, (Vdevice, Device)>,
}

impl Vmm<'_> {
    /// Gives the guest a device under the guest's number for it, if it has not got it; its physical stream. From here
    /// on the device does what the guest's table entry says.
    fn plug(&mut self, guest_stream: u32) -> Story<u32> {
        if let Some((_, device)) = self.devices.get(&guest_stream) {
            return Ok(device.handle().stream());
        }
        let stream = FIRST_STREAM + self.devices.len() as u32;
        let device = self.host.device(stream)?;
        let vdevice = self.viommu.vdevice(&device, guest_stream)?;
        self.devices.insert(guest_stream, (vdevice, device));
        Ok(stream)
    }

    /// A vCPU left the guest at a read of the register frame.
    fn trap_read(&self, offset: u64, size: u32) -> Story<u64> {
        Ok(self.viommu.mmio_read(offset, size)?)
    }

    /// A vCPU left the guest at a write. A doorbell is one of them: when the call returns, the commands are where the
    /// hardware fetches them, and what the guest waited for with a SYNC is complete.
    fn trap_write(&self, offset: u64, size: u32, value: u64) -> Story {
        self.viommu.mmio_write(offset, size, value)?;
        // A change of a device's configuration may take longer than the trap: a running guest polls CONS for it. This
        // one was recorded and does not wait for us, so we wait in its place.
        if self.viommu.pipeline().wait_settled(PATIENCE) { Ok(()) } else { Err("the guest's queue is stuck".into()) }
    }
}

/// The guest's interrupt controller, as far as its IOMMU is concerned. A VMM raises a GIC line or writes an eventfd
/// here ([`viommu::pipeline::EventFdInterrupts`] does that); this one counts.
#[derive(Debug, Default)]
struct InterruptController {
    raised: AtomicU64,
}

impl Interrupts for InterruptController {
    fn msi(&self, _address: u64, _data: u32) {
        self.raised.fetch_add(1, Ordering::Relaxed);
    }
    fn line(&self, _line: u32) {
        self.raised.fetch_add(1, Ordering::Relaxed);
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "guest: {} doorbells, {} commands, {} interrupts", self.doorbells, self.commands, self.interrupts)?;
        writeln!(f, "score: {}", self.score)?;
        write!(f, "left over: {}", if self.left_over { "something" } else { "nothing" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_guests_do_what_they_did() {
        for name in ["arm73-reboot", "arm73-churn", "arm73-passthrough"] {
            let outcome = run(&RecordedGuest::named(name).unwrap()).unwrap();
            assert!(outcome.score.is_right() && outcome.doorbells > 0 && !outcome.left_over, "{name}: {outcome}");
        }
    }
}
