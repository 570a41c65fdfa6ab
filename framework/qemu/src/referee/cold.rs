//! A model that has nothing cached: made anew for each request, over the same memory and with the same registers.

use super::EVENTS_LOG2;
use crate::hardware::SCRATCH;
use std::sync::Arc;
use viommu::backend::direct::{Hardware, ModelHardware};
use viommu_plugin::{Answer, ModelConfig, ModelHost, Register, Request, Unreadable};
use viommu_plugin_host::Plugin;

/// Its event queue: where QEMU's memory has nothing of this story, kept here.
const EVENTS: u64 = SCRATCH + 0x3000;

const CR0: u64 = 0x20;
const CR2: u64 = 0x2c;
const GBPA: u64 = 0x44;
const GBPA_UPDATE: u64 = 1 << 31;
const STRTAB_BASE: u64 = 0x80;
const STRTAB_BASE_CFG: u64 = 0x88;
const EVENTQ_BASE: u64 = 0xa0;
const SMMUEN: u64 = 1;
const EVENTQEN: u64 = 1 << 2;

pub(super) struct Cold {
    plugin: Plugin,
    identity: Vec<Register>,
}

/// The story's memory, and what the model reported.
struct Memory {
    model: Arc<ModelHardware>,
    reported: flume::Sender<[u64; 4]>,
}

impl ModelHost for Memory {
    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        self.model.memory().read(pa, bytes)
    }

    fn write(&self, _pa: u64, bytes: &[u8]) -> Result<(), Unreadable> {
        let mut words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
        let record = [0; 4].map(|_: u64| words.next().unwrap_or(0));
        self.reported.send(record).map_err(|_| Unreadable)
    }

    fn irq(&self, _line: u32) {}
}

impl Cold {
    pub(super) fn new(plugin: Plugin, identity: Vec<Register>) -> Self {
        Self { plugin, identity }
    }

    /// The answer that follows from memory and registers alone, and its event record.
    pub(super) fn ask(&self, warm: &Arc<ModelHardware>, request: &Request) -> (Answer, Option<[u64; 4]>) {
        let (reported, records) = flume::unbounded();
        let memory = Box::new(Memory { model: warm.clone(), reported });
        let config = ModelConfig { registers: &self.identity, ..ModelConfig::default() };
        let mut cold = self.plugin.model(memory, config).unwrap_or_else(|error| panic!("{error}"));
        let mut write = |at, size, value| cold.mmio_write(at, size, value).unwrap_or_else(|error| panic!("{error}"));
        for (at, size) in [(CR2, 4), (STRTAB_BASE, 8), (STRTAB_BASE_CFG, 4)] {
            write(at, size, warm.mmio_read(at, size));
        }
        write(GBPA, 4, warm.mmio_read(GBPA, 4) | GBPA_UPDATE);
        write(EVENTQ_BASE, 8, EVENTS | u64::from(EVENTS_LOG2));
        write(CR0, 4, EVENTQEN | warm.mmio_read(CR0, 4) & SMMUEN);
        let mut answers = [Answer::default()];
        let answered = cold.translate(&[Request { flags: 0, ..*request }], &mut answers);
        assert_eq!(answered.unwrap_or_else(|error| panic!("{error}")), 1);
        (answers[0], records.try_iter().next())
    }
}
