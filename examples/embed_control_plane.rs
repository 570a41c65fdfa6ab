//! viommu in a control plane: an async program that owns the host's IOMMU and gives slices of it to two VMs.
//!
//! The control plane runs on its own tokio runtime; the VMs' vCPUs run on threads of their own and use the same objects
//! through the blocking API. Two recorded Linux guests are the guests; their devices are plugged in while they run.
//! Afterwards a device and memory are taken from a VM, and the host is shut down.
//! `cargo run -p viommu-examples --example embed_control_plane [TRACE TRACE]`

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use viommu::objects::{Device, Ioas, Vdevice, Viommu, ViommuConfig};
use viommu::plugin::Status;
use viommu::vm_memory::{GuestAddress, GuestMemoryBackend};
use viommu::{Error, Host, HostEvent, blocking};
use viommu_examples::{GuestRam, PhysicalMachine, RecordedGuest, Score, Step, Story};
use viommu_plugin_host::{Plugin, SearchPath};
use viommu_trace::{Outcome, Translation};

/// Physical streams of the first VM's devices and of the second's; a real control plane reads them from sysfs.
const FIRST_STREAMS: [u32; 2] = [0x400, 0x800];
/// How long a guest may wait for its IOMMU.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> Story {
    let recordings =
        [RecordedGuest::argument_or(1, "arm73-churn")?, RecordedGuest::argument_or(2, "arm73-passthrough")?];
    let told = run(&recordings).await?;
    print!("{}", told.text);
    if told.scores.iter().all(Score::is_right) { Ok(()) } else { Err("not every DMA was right".into()) }
}

/// What is told at the end.
#[derive(Debug, Default)]
struct Told {
    text: String,
    scores: Vec<Score>,
    hot_added: usize,
    /// DMAs that reached its memory before it was taken from their devices.
    alive: usize,
    /// DMAs that reached it afterwards.
    leaks: usize,
    host_faults: usize,
    remaining: usize,
}

async fn run(recordings: &[RecordedGuest; 2]) -> Story<Told> {
    let mut told = Told::default();

    // One host. It has threads of its own for its actors, and asks nothing of the runtime that calls it.
    let plugin = Plugin::find(recordings[0].plugin_name()?, &SearchPath::standard())?;
    let machine = Arc::new(PhysicalMachine::new(&plugin)?);
    let host = Host::builder().backend(machine.backend()).plugin(plugin).build()?;

    // Whatever happens to the host is told to whoever subscribed: faults of its own, quarantined guests, restarts.
    let events = host.events();
    let watch = tokio::spawn(async move {
        let mut seen: Vec<HostEvent> = Vec::new();
        while let Ok(event) = events.recv_async().await {
            seen.push(event);
        }
        seen
    });

    // Two VMs with ID registers of their own. Each boots with one device; the others are plugged in when it is up.
    let mut vms = Vec::new();
    for (index, recorded) in (0..).zip(recordings) {
        let mut vm = Vm::new(&host, &machine, recorded, index).await?;
        if let Some(device) = recorded.header().devices.first() {
            vm.plug(&host, device.sid).await?;
        }
        vms.push(vm);
    }
    told.text += "two VMs:\n";
    list(&host, &mut told.text)?;

    // Both run. The first DMA of a function asks for its device: the control plane hot-adds it, and only then does the
    // guest go on. The device does from its first DMA on what the guest's table says.
    let booted: usize = vms.iter().map(|vm| vm.devices.len()).sum();
    let (asks, mut asked) = mpsc::channel(1);
    let mut running = Vec::new();
    for (vm, recorded) in vms.iter().zip(recordings) {
        let vcpu = Vcpu {
            vm: vm.index,
            viommu: vm.viommu.clone().into(),
            streams: vm.streams(),
            ram: vm.ram.clone(),
            machine: machine.clone(),
            asks: asks.clone(),
        };
        let recorded = recorded.clone();
        running.push(tokio::task::spawn_blocking(move || vcpu.run(&recorded)));
    }
    drop(asks);
    while let Some(HotPlug { vm, guest_stream, answer }) = asked.recv().await {
        let stream = vms[vm].plug(&host, guest_stream).await?;
        // A guest that has ended in the meantime wants no answer.
        let _ = answer.send(stream);
    }
    let mut last = Vec::new();
    for (vm, running) in vms.iter().zip(running) {
        let (score, dma) = running.await??;
        writeln!(told.text, "VM {}: {score}", vm.index)?;
        told.scores.push(score);
        last.push(dma);
    }
    told.hot_added = vms.iter().map(|vm| vm.devices.len()).sum::<usize>() - booted;
    writeln!(told.text, "{} devices hot-added; now:", told.hot_added)?;
    list(&host, &mut told.text)?;

    // What the second VM's devices could still do when their guest ended: one that was given its devices untranslated
    // leaves them so.
    let mut alive = Vec::new();
    for (guest_stream, dma) in &last[1] {
        if vms[1].reaches(&machine, *guest_stream, dma, &vms[1].ram)? {
            alive.push((*guest_stream, *dma));
        }
    }

    // One of its devices moves to the first VM. Resigning the number it had makes it abort; it gets a new number, and
    // does what the other guest says of that number. Whatever that is, it happens in the other guest's memory.
    let (old, dma) = alive.first().copied().ok_or("no device of VM 1 reaches memory at its end")?;
    let (vdevice, device) = vms[1].devices.remove(&old).ok_or("it has no such device")?;
    vdevice.destroy().await?;
    let new = (1..).find(|number| !vms[0].devices.contains_key(number)).ok_or("no number is left")?;
    let vdevice = vms[0].viommu.vdevice(&device, new).await?;
    vms[0].devices.insert(new, (vdevice, device));
    writeln!(told.text, "a device moved: {old:#x} of VM 1 is {new:#x} of VM 0")?;
    told.leaks += usize::from(vms[0].reaches(&machine, new, &dma, &vms[1].ram)?);

    // Its memory is taken away. When `unmap` returns no device reaches it, whatever the guest's own tables say and the
    // hardware's caches held: what got through before is stopped by stage 2, which is an event of the host.
    let ram = vms[1].ram.mappings()[0];
    let unmapped = vms[1].ioas.unmap(ram.iova, ram.length).await?;
    for (guest_stream, dma) in &alive[1..] {
        told.leaks += usize::from(vms[1].reaches(&machine, *guest_stream, dma, &vms[1].ram)?);
    }
    told.alive = alive.len();
    writeln!(told.text, "{} MiB taken from VM 1", unmapped >> 20)?;
    writeln!(told.text, "DMAs that reached its memory before: {}, after: {}", told.alive, told.leaks)?;

    // The end. Objects go with their last handle, children first; what somebody still holds is destroyed and named.
    // Here it is the moved device, with a handle that the control plane forgot about.
    let forgotten = vms[0].devices.get(&new).map(|(_, device)| device.clone());
    drop(vms);
    let left = host.shutdown().await;
    writeln!(told.text, "still held at shutdown: {:?}; left in hardware: {:?}", left.held, left.remaining)?;
    told.remaining = left.remaining.len();
    drop(forgotten);

    // The last subscription ends with the host.
    let seen = watch.await?;
    told.host_faults = seen.iter().filter(|event| matches!(event, HostEvent::HostFault { .. })).count();
    writeln!(
        told.text,
        "host events: {} faults of stage 2, {} others",
        told.host_faults,
        seen.len() - told.host_faults
    )?;
    Ok(told)
}

/// One VM, as the control plane knows it.
struct Vm {
    index: usize,
    ram: GuestRam,
    ioas: Ioas,
    viommu: Viommu,
    devices: BTreeMap<u32, (Vdevice, Device)>,
}

impl Vm {
    /// IOAS, stage-2 tables from it, the vIOMMU. Each child owns its parent, so only what is used again is kept.
    async fn new(host: &Host, machine: &PhysicalMachine, recorded: &RecordedGuest, index: u32) -> Story<Self> {
        let ram = machine.guest_ram(recorded, index)?;
        let ioas = host.ioas().await?;
        for mapping in ram.mappings() {
            ioas.map(mapping).await?;
        }
        let config = ViommuConfig::new(recorded.id_registers(), ram.memory().clone());
        let viommu = ioas.nest_parent().await?.viommu(config).await?;
        Ok(Self { index: index as usize, ram, ioas, viommu, devices: BTreeMap::new() })
    }

    /// Hot-adds the device that the guest knows as `guest_stream`, if it has not got it; its physical stream.
    async fn plug(&mut self, host: &Host, guest_stream: u32) -> Result<u32, Error> {
        if let Some((_, device)) = self.devices.get(&guest_stream) {
            return Ok(device.stream());
        }
        let stream = FIRST_STREAMS[self.index] + self.devices.len() as u32;
        let device = host.device(stream).await?;
        let vdevice = self.viommu.vdevice(&device, guest_stream).await?;
        self.devices.insert(guest_stream, (vdevice, device));
        Ok(stream)
    }

    fn streams(&self) -> BTreeMap<u32, u32> {
        self.devices.iter().map(|(guest_stream, (_, device))| (*guest_stream, device.stream())).collect()
    }

    /// Makes a DMA of this VM's device again; whether it gets to `ram`, which may be another's.
    fn reaches(&self, machine: &PhysicalMachine, guest_stream: u32, dma: &Translation, ram: &GuestRam) -> Story<bool> {
        let (_, device) = self.devices.get(&guest_stream).ok_or("no such device")?;
        let answer = machine.dma(device.stream(), dma)?;
        Ok(answer.status == Status::OK && ram.is_at(answer.output))
    }
}

/// A guest asks for a device. The answer is its physical stream.
struct HotPlug {
    vm: usize,
    guest_stream: u32,
    answer: oneshot::Sender<u32>,
}

/// A VM's vCPU, on a thread that may block. See `embed_vmm` for what a VMM does there.
struct Vcpu {
    vm: usize,
    viommu: blocking::Viommu,
    streams: BTreeMap<u32, u32>,
    ram: GuestRam,
    machine: Arc<PhysicalMachine>,
    asks: mpsc::Sender<HotPlug>,
}

impl Vcpu {
    /// The guest from end to end. Gives back the last DMA of each device that reached its RAM.
    fn run(mut self, recorded: &RecordedGuest) -> Story<(Score, BTreeMap<u32, Translation>)> {
        let (mut score, mut last) = (Score::default(), BTreeMap::new());
        let mut guest = recorded.play(self.ram.memory())?;
        while let Some(step) = guest.step()? {
            match step {
                Step::Write { offset, size, value } => {
                    self.viommu.mmio_write(offset, size, value)?;
                    if !self.viommu.pipeline().wait_settled(PATIENCE) {
                        return Err("the guest's queue is stuck".into());
                    }
                }
                Step::Read { offset, size, value } => {
                    score.register(offset, value, self.viommu.mmio_read(offset, size)?);
                }
                Step::Dma(dma) => {
                    let stream = self.stream(dma.stream)?;
                    score.dma(&dma, &self.ram, &self.machine.dma(stream, &dma)?);
                    let in_ram = self.ram.memory().address_in_range(GuestAddress(dma.output));
                    if matches!(dma.outcome, Outcome::Ok | Outcome::Bypass) && in_ram {
                        last.insert(dma.stream, dma);
                    }
                }
                Step::Reset => self.viommu.reset()?,
            }
        }
        Ok((score, last))
    }

    /// The physical stream of a guest's device; a device that is not there is asked for.
    fn stream(&mut self, guest_stream: u32) -> Story<u32> {
        if let Some(stream) = self.streams.get(&guest_stream) {
            return Ok(*stream);
        }
        let (answer, answered) = oneshot::channel();
        self.asks.blocking_send(HotPlug { vm: self.vm, guest_stream, answer })?;
        let stream = answered.blocking_recv()?;
        self.streams.insert(guest_stream, stream);
        Ok(stream)
    }
}

/// Objects alive, by kind.
fn list(host: &Host, text: &mut String) -> std::fmt::Result {
    let mut kinds: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for object in host.objects() {
        kinds.entry(object.kind.to_string()).or_default().push(object.id);
    }
    kinds.iter().try_for_each(|(kind, ids)| writeln!(text, "  {kind}: {ids:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_recorded_guests_do_what_they_did_and_keep_nothing() {
        let recordings = ["arm73-churn", "arm73-passthrough"].map(|name| RecordedGuest::named(name).unwrap());
        let told = run(&recordings).await.unwrap();
        assert!(told.scores.len() == 2 && told.scores.iter().all(Score::is_right), "{}", told.text);
        assert!(told.hot_added > 0 && told.host_faults > 0, "{}", told.text);
        assert!(told.alive > 0, "{}", told.text);
        assert_eq!((told.leaks, told.remaining), (0, 0), "{}", told.text);
    }
}
