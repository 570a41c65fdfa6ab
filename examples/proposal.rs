//! The founding proposal (December 2023) step by step: its words on the left, what becomes of them on the right.
//!
//! Two devices of one guest on a software SMMUv3. Prints the objects after each step, and every command that reaches the
//! physical queue. `cargo run -p viommu-examples --example proposal`

use arm_smmuv3::ArmSmmuv3;
use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, OnceLock};
use viommu::backend::direct::{
    Direct, DirectOptions, Hardware, InterruptHandler, ModelHardware, ModelMode, PhysicalMemory,
};
use viommu::backend::{Backing, Mapping};
use viommu::objects::ViommuConfig;
use viommu::plugin::{Answer, Message, ModelConfig, Register, Request, RingGeometry, Status};
use viommu::proposal::{
    DevAssignVirtualId, DevInvalidate, DevResignVirtualId, HwptCacheConfigTegra241Vcmdq, HwptInvalidate, IdType,
    IdevData, SetIdevData, UnsetIdevData, VirtualFunction,
};
use viommu::vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use viommu::{Cause, Host};
use viommu_plugin_host::{Codec, Plugin};

/// The guest's RAM, where the guest sees it and where it really is.
const RAM: u64 = 0x4000_0000;
const RAM_SIZE: u64 = 0x20_0000;
const HOST_RAM: u64 = 0x8_0000_0000;
/// A context descriptor of the guest with ASID 1, and the one table of its stage 1.
const CD: u64 = RAM + 0x2000;
const STAGE_1: u64 = RAM + 0x3000;
/// STE: valid, stage 1 translates; valid, bypass.
const STE_STAGE_1: u64 = 1 | 5 << 1;
const STE_BYPASS: u64 = 1 | 4 << 1;
/// The guest's commands, with the IDs that a guest writes: TLBI_NH_ASID of ASID 1, CFGI_CD and ATC_INV of stream 0x77.
const TLBI_ASID_1: [u64; 2] = [0x11 | 1 << 48, 0];
const CFGI_CD: [u64; 2] = [0x05 | 0x77 << 32, 1];
const ATC_INV: [u64; 2] = [0x40 | 0x77 << 32, 52];
/// Host streams of the two devices.
const STREAMS: [u32; 2] = [0x40, 0x41];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut text = String::new();
    let told = tokio::runtime::Builder::new_current_thread().build()?.block_on(walk(&mut text));
    print!("{text}");
    told
}

/// The whole story. One step a paragraph of the proposal.
async fn walk(out: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let plugin = Plugin::linked::<ArmSmmuv3>();
    let machine = Machine::new(&plugin)?;
    let backend = Direct::new(&plugin, machine.clone(), DirectOptions::default())?;
    let host = Host::builder().backend(backend).plugin(plugin.clone()).build()?;
    let mut story = Story { out, host: &host, machine: &machine, codec: plugin.codec(&[])? };

    story.step("\"The vCMDQ is bound to a VM_ID, so to the Nesting Parent\": stage 2 over the guest's RAM")?;
    let memory = guest_memory()?;
    let region = memory.find_region(GuestAddress(RAM)).ok_or("no RAM")?;
    machine.memory().add_region(HOST_RAM, region.get_mmap())?;
    let ioas = host.ioas().await?;
    let backing = Backing::Physical(HOST_RAM);
    ioas.map(Mapping { iova: RAM, length: RAM_SIZE, backing, writable: true }).await?;
    let parent = ioas.nest_parent().await?;
    story.tell()?;

    story.step("\"ARM should also create a virtual function object which is just welded to the nesting parent\"")?;
    let idr0 = arm_smmuv3::features::Features::default().idr0.with_ats(true).into_bits();
    let registers = vec![Register { offset: 0, value: idr0.into() }];
    // The VMM of the proposal traps the guest's registers itself.
    let config = ViommuConfig { frontend: false, ..ViommuConfig::new(registers, memory) };
    let function: VirtualFunction = parent.viommu(config).await?;
    story.tell()?;

    story.step(
        "IOMMUFD_DEV_ASSIGN_VIRTUAL_ID: the vRID -> pRID table. AMD passes the virtual function, ARM the parent",
    )?;
    let devices = [host.device(STREAMS[0]).await?, host.device(STREAMS[1]).await?];
    let assign = |at: usize, id| DevAssignVirtualId::new(devices[at].id(), IdType::StreamId, id);
    let first = assign(0, 0x10).assign(&host, &parent).await?;
    let second = assign(1, 0x11).assign(&host, &function).await?;
    story.tell()?;

    story.step("\"Nesting domains are created for every unique CD table top pointer\": two devices, one CD table")?;
    for virt_id in [0x10, 0x11] {
        function.install_entry(virt_id, &[STE_STAGE_1 | CD, 2, 0, 0, 0, 0, 0, 0]).await?;
    }
    story.dma(0x1234)?;
    story.tell()?;

    story.step("HWPT invalidate: \"the target domain object can be any HWPT\": nested HWPT, then nesting parent")?;
    for hwpt_id in [function.nested_hwpts()[0].id(), parent.id()] {
        HwptInvalidate { hwpt_id, commands: &TLBI_ASID_1 }.invalidate(&host).await?;
    }
    story.tell()?;

    story.step("IOMMUFD_DEV_INVALIDATE: \"just force the stream ID\"; the commands say 0x77")?;
    let commands = [CFGI_CD, ATC_INV].concat();
    DevInvalidate { dev_id: devices[0].id(), commands: &commands }.invalidate(&host).await?;
    story.tell()?;

    story.step("\"A nested domain is freed when vSTE.Config=BYPASS even if a CD table pointer is present\"")?;
    for virt_id in [0x10, 0x11] {
        function.install_entry(virt_id, &[STE_BYPASS | CD, 2, 0, 0, 0, 0, 0, 0]).await?;
    }
    story.dma(RAM + 0x1234)?;
    story.tell()?;

    story.step("iommu_hwpt_cache_config_tegra241_vcmdq: a mmapable queue, where the hardware has one")?;
    let queue = HwptCacheConfigTegra241Vcmdq { vcmdq_id: 0, vcmdq_log2size: 8, vcmdq_base: RAM };
    match queue.configure(&function).await {
        Ok(queue) => writeln!(story.out, "  HW queue {}", queue.id())?,
        Err(error) => writeln!(story.out, "  {error}")?,
    }
    story.tell()?;

    story.step("\"IOMMUFD_DEV_RESIGN_VIRTUAL_ID (or better word than resign)\", and SET/UNSET_IDEV_DATA before it")?;
    DevResignVirtualId { vdevice: first }.resign().await?;
    let data = IdevData { id_type: IdType::StreamId, id: 0x12 };
    let again = SetIdevData { dev_id: devices[0].id(), data }.set(&host, &function).await?;
    UnsetIdevData { vdevice: again }.unset().await?;
    story.dma(RAM + 0x1234)?;
    story.tell()?;

    story.step("The rest goes in the order of ownership")?;
    drop((second, devices, function, parent, ioas));
    host.settle().await;
    story.tell()?;
    let left = host.shutdown().await;
    writeln!(out, "  left over: {}", if left.is_empty() { "nothing" } else { "something" })?;
    Ok(())
}

/// RAM with a context descriptor and a stage 1 that maps 1 GiB from IOVA 0 to [`RAM`].
fn guest_memory() -> Result<Arc<GuestMemoryMmap>, Box<dyn std::error::Error>> {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(RAM), RAM_SIZE as usize)])?;
    // CD: T0SZ 25, EPD1, V, IPS 44 bits, AA64, R, A, ASID 1. Table: a level-1 block, read and write, accessed.
    let cd = 25u64 | 1 << 30 | 1 << 31 | 4 << 32 | 1 << 41 | 1 << 45 | 1 << 46 | 1 << 48;
    for (gpa, word) in [(CD, cd), (CD + 8, STAGE_1), (STAGE_1, RAM | 1 << 10 | 1 << 6 | 1)] {
        memory.write_obj(word.to_le(), GuestAddress(gpa))?;
    }
    Ok(Arc::new(memory))
}

/// Prints steps, objects, commands and DMA.
struct Story<'a> {
    out: &'a mut String,
    host: &'a Host,
    machine: &'a Machine,
    codec: Codec,
}

impl Story<'_> {
    fn step(&mut self, title: &str) -> fmt::Result {
        if !self.out.is_empty() {
            writeln!(self.out)?;
        }
        writeln!(self.out, "{title}")
    }

    /// What each device's DMA to `iova` does now.
    fn dma(&mut self, iova: u64) -> fmt::Result {
        self.commands()?;
        for stream in STREAMS {
            let answer = self.machine.dma(stream, iova);
            match answer.status {
                Status::OK | Status::BYPASS => {
                    writeln!(self.out, "  DMA of stream {stream:#x} to {iova:#x} goes to {:#x}", answer.output)?;
                }
                _ => writeln!(self.out, "  DMA of stream {stream:#x} to {iova:#x} does not pass")?,
            }
        }
        Ok(())
    }

    /// What was put on the physical queue since the last look.
    fn commands(&mut self) -> fmt::Result {
        for words in self.machine.take_commands() {
            let mut text = Message::default();
            match self.codec.describe(&words, &mut text) {
                Ok(()) => writeln!(self.out, "  physical: {}", text.text())?,
                Err(error) => writeln!(self.out, "  physical: {error}")?,
            }
        }
        Ok(())
    }

    fn tell(&mut self) -> fmt::Result {
        self.commands()?;
        let objects = self.host.objects();
        writeln!(self.out, "  objects:{}", if objects.is_empty() { " none" } else { "" })?;
        self.children(&objects, None, 2)
    }

    fn children(&mut self, objects: &[viommu::objects::ObjectInfo], parent: Option<u32>, depth: usize) -> fmt::Result {
        for object in objects.iter().filter(|object| object.parent == parent) {
            writeln!(self.out, "{:1$}{2} {3}", "", 2 * depth, object.kind, object.id)?;
            self.children(objects, Some(object.id), depth + 1)?;
        }
        Ok(())
    }
}

/// The software SMMUv3, with an eye on its command ring.
struct Machine {
    model: Arc<ModelHardware>,
    ring: OnceLock<RingGeometry>,
    seen: Mutex<Seen>,
}

/// Commands that were put on the ring, and up to which index.
#[derive(Default)]
struct Seen {
    index: u64,
    commands: Vec<Vec<u64>>,
}

impl Machine {
    fn new(plugin: &Plugin) -> Result<Arc<Self>, Cause> {
        let memory = PhysicalMemory::new();
        memory.add_dma(0x1_0000_0000, 1 << 28)?;
        let model = ModelHardware::new(plugin, memory, ModelConfig::default(), ModelMode::Inline)?;
        Ok(Arc::new(Self { model, ring: OnceLock::new(), seen: Mutex::default() }))
    }

    fn dma(&self, stream: u32, iova: u64) -> Answer {
        let mut answers = [Answer::default()];
        let request = Request { stream, pasid: u32::MAX, iova, access: 1, flags: 0 };
        match self.model.translate(&[request], &mut answers) {
            Ok(1) => answers[0],
            _ => Answer { status: Status::FAULT, ..Answer::default() },
        }
    }

    fn take_commands(&self) -> Vec<Vec<u64>> {
        std::mem::take(&mut self.seen.lock().expect("no panic under it").commands)
    }

    /// Reads what lies on the ring before the doorbell rings.
    fn look(&self, ring: &RingGeometry, producer: u64) {
        let mut seen = self.seen.lock().expect("no panic under it");
        let indices = (1 << (ring.log2_commands + ring.wrap_bit)) - 1;
        let slots = (1 << ring.log2_commands) - 1;
        let words = u64::from(ring.command_words);
        while seen.index != producer & indices {
            let at = ring.base + (seen.index & slots) * words * 8;
            let command = (0..words).map(|word| self.memory().load(at + word * 8).unwrap_or_default()).collect();
            seen.commands.push(command);
            seen.index = (seen.index + 1) & indices;
        }
    }
}

impl Hardware for Machine {
    fn mmio_read(&self, offset: u64, size: u32) -> u64 {
        self.model.mmio_read(offset, size)
    }
    fn mmio_write(&self, offset: u64, size: u32, value: u64) {
        if let Some(ring) = self.ring.get().filter(|ring| ring.producer == offset) {
            self.look(ring, value >> ring.index_shift);
        }
        self.model.mmio_write(offset, size, value);
    }
    fn memory(&self) -> &PhysicalMemory {
        self.model.memory()
    }
    fn relax(&self) {
        self.model.relax();
    }
    fn on_interrupt(&self, handler: InterruptHandler) {
        self.model.on_interrupt(handler);
    }
    fn ring_ready(&self, ring: &RingGeometry) {
        self.seen.lock().expect("no panic under it").index = self.mmio_read(ring.producer, 4) >> ring.index_shift;
        let _ = self.ring.set(*ring);
        self.model.ring_ready(ring);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_story_is_the_committed_text() {
        let mut text = String::new();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(super::walk(&mut text)).unwrap();
        let expected = include_str!("proposal.txt");
        assert!(text == expected, "examples/proposal.txt says otherwise; it is now:\n{text}");
    }
}
