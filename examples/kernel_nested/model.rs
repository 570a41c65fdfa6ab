//! The same checks on a software IOMMU with caches, in `cargo test`: they must hold there too, and the guest's side of
//! them works before a kernel sees it.

use crate::bench::{DEVICES, Direction, Engine, Machine};
use crate::tables::{PAGE, RAM};
use std::cell::RefCell;
use std::sync::Arc;
use viommu::backend::direct::{Direct, DirectOptions, ModelHardware, ModelMode, PhysicalMemory};
use viommu::backend::{Backing, Mapping};
use viommu::blocking::{Host, Ioas};
use viommu::plugin::{Answer, ModelConfig, Register, Request, Status};
use viommu::vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use viommu_examples::Story;
use viommu_plugin_host::{Plugin, SearchPath};

const HOST_RAM: u64 = 0x100_0000_0000;

pub(crate) struct Model {
    plugin: Plugin,
    current: RefCell<Option<Parts>>,
}

#[derive(Clone)]
struct Parts {
    memory: Arc<PhysicalMemory>,
    iommu: Arc<ModelHardware>,
    backend: Arc<Direct>,
}

impl Model {
    pub(crate) fn new() -> Story<Self> {
        Ok(Self { plugin: Plugin::find("arm-smmuv3", &SearchPath::standard())?, current: RefCell::default() })
    }

    fn parts(&self) -> Story<Parts> {
        Ok(self.current.borrow().clone().ok_or("no host yet")?)
    }
}

impl Machine for Model {
    fn host(&self) -> Story<Host> {
        let memory = PhysicalMemory::new();
        memory.add_dma(0x1_0000_0000, 1 << 30)?;
        let iommu = ModelHardware::new(&self.plugin, memory.clone(), ModelConfig::default(), ModelMode::Thread)?;
        let backend = Direct::new(&self.plugin, iommu.clone(), DirectOptions::default())?;
        self.current.replace(Some(Parts { memory, iommu, backend: backend.clone() }));
        Ok(viommu::Host::builder().backend(backend).plugin(self.plugin.clone()).build()?.into())
    }

    fn registers(&self) -> Story<Vec<Register>> {
        Ok(self.parts()?.backend.guest_registers().to_vec())
    }

    fn map(&self, ioas: &Ioas, memory: &Arc<GuestMemoryMmap>, gpa: u64, bytes: u64) -> Story {
        let physical = self.parts()?.memory;
        if gpa == RAM {
            let region = memory.find_region(GuestAddress(RAM)).ok_or("no RAM")?;
            physical.add_region(HOST_RAM, region.get_mmap())?;
        }
        let backing = Backing::Physical(HOST_RAM + gpa - RAM);
        Ok(ioas.map(Mapping { iova: gpa, length: bytes, backing, writable: true })?)
    }

    fn stream(&self, device: usize) -> u32 {
        [0x10, 0x18][device]
    }

    fn engine(&self, device: usize) -> Story<Box<dyn Engine>> {
        assert!(device < DEVICES);
        Ok(Box::new(ModelEngine { parts: self.parts()?, stream: self.stream(device), buffer: RefCell::default() }))
    }
}

struct ModelEngine {
    parts: Parts,
    stream: u32,
    buffer: RefCell<[u8; 16]>,
}

impl Engine for ModelEngine {
    fn start(&self, bus: u64, bytes: u32, direction: Direction) -> Story {
        let access = if direction == Direction::Write { 2 } else { 1 };
        let (end, mut at) = (bus + u64::from(bytes), bus);
        while at < end {
            let next = end.min((at | (PAGE - 1)) + 1);
            let request = Request { stream: self.stream, pasid: u32::MAX, iova: at, access, flags: 0 };
            let mut answers = [Answer::default()];
            self.parts.iommu.translate(&[request], &mut answers)?;
            let bytes = &mut self.buffer.borrow_mut()[(at - bus) as usize..(next - bus) as usize];
            match direction {
                _ if answers[0].status != Status::OK => Ok(()),
                Direction::Read => self.parts.memory.read(answers[0].output, bytes),
                Direction::ReadAway => Ok(()),
                Direction::Write => self.parts.memory.write(answers[0].output, bytes),
            }
            .map_err(|unreadable| format!("{unreadable:?}"))?;
            at = next;
        }
        Ok(())
    }

    fn finish(&self) -> Story {
        self.parts.backend.pump_events();
        Ok(())
    }

    fn interrupt(&self) -> Story {
        Err("this machine has no interrupt controller".into())
    }
}
