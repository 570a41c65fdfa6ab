//! The guest's driver: registers, stream table, command queue and event queue of the SMMUv3 that it sees (Arm IHI 0070,
//! chapters 3 to 7).

use crate::tables::{Entry, Memory, RAM};
use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};
use viommu::blocking::Viommu;
use viommu::vm_memory::GuestMemoryMmap;
use viommu_examples::Story;

const QUEUE: u64 = RAM;
const QUEUE_LOG2: u32 = 13;
const EVENTS: u64 = RAM + 0x4_0000;
const TABLE: u64 = RAM + 0x8_0000;
const TABLE_LOG2: u64 = 8;

const IDR3: u64 = 0x0c;
const CR0: u64 = 0x20;
const GBPA: u64 = 0x44;
const GERROR: u64 = 0x60;
const GERRORN: u64 = 0x64;
const STRTAB_BASE: u64 = 0x80;
const STRTAB_BASE_CFG: u64 = 0x88;
const CMDQ_BASE: u64 = 0x90;
const CMDQ_PROD: u64 = 0x98;
const CMDQ_CONS: u64 = 0x9c;
const EVENTQ_BASE: u64 = 0xa0;
const EVENTQ_PROD: u64 = 0x1_00a8;
const EVENTQ_CONS: u64 = 0x1_00ac;
const SMMUEN: u64 = 1;
const EVENTQEN: u64 = 4;
const CMDQEN: u64 = 8;

/// How long a guest of ours waits for its IOMMU.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long nothing comes when no more is to come.
pub(crate) const QUIET: Duration = Duration::from_millis(150);

/// A command, two words.
pub(crate) type Command = [u64; 2];
/// CMD_SYNC, CS = SEV.
pub(crate) const SYNC: Command = [0x46 | 2 << 12, 0];
pub(crate) const TLBI_NH_ALL: Command = [0x10, 0];
pub(crate) const TLBI_NSNH_ALL: Command = [0x30, 0];
/// No command of the architecture.
pub(crate) const ILLEGAL: Command = [0xff, 0];

pub(crate) fn tlbi_nh_asid(asid: u16) -> Command {
    [0x11 | u64::from(asid) << 48, 0]
}
/// Leaf entries only.
pub(crate) fn tlbi_nh_va(asid: u16, iova: u64) -> Command {
    [0x12 | u64::from(asid) << 48, iova | 1]
}
pub(crate) fn tlbi_nh_vaa(iova: u64) -> Command {
    [0x13, iova | 1]
}
/// `pages` (1 to 32) from `iova` on: TG 4 KiB, TTL 3, leaf.
pub(crate) fn tlbi_nh_va_range(asid: u16, iova: u64, pages: u64) -> Command {
    [0x12 | u64::from(asid) << 48 | (pages - 1) << 12, iova | 1 | 3 << 8 | 1 << 10]
}
pub(crate) fn cfgi_ste(stream: u32) -> Command {
    [3 | u64::from(stream) << 32, 1]
}
/// CMD_CFGI_ALL.
pub(crate) const CFGI_ALL: Command = [4, 31];
pub(crate) fn cfgi_cd(stream: u32) -> Command {
    [5 | u64::from(stream) << 32, 1]
}
/// Of one substream.
pub(crate) fn cfgi_cd_substream(stream: u32, substream: u32) -> Command {
    [5 | u64::from(substream) << 12 | u64::from(stream) << 32, 1]
}
pub(crate) fn cfgi_cd_all(stream: u32) -> Command {
    [6 | u64::from(stream) << 32, 0]
}

/// What became of commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// The queue is empty and shows no error.
    Taken,
    /// The queue stopped so many commands behind the first that was sent, with this CMDQ_CONS.ERR.
    Stopped { at: u32, error: u64 },
}

/// The driver of a guest whose IOMMU is on.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) memory: Memory,
    viommu: Viommu,
    producer: Cell<u32>,
    events_log2: Cell<u32>,
    consumed: Cell<u32>,
}

impl Guest {
    /// Brings up the queues; translation stays off.
    pub(crate) fn new(viommu: &Viommu, memory: Memory) -> Story<Self> {
        let guest = Self {
            memory,
            viommu: viommu.clone(),
            producer: Cell::new(0),
            events_log2: Cell::new(0),
            consumed: Cell::new(0),
        };
        guest.write(CR0, 4, 0)?;
        guest.write(STRTAB_BASE, 8, TABLE)?;
        guest.write(STRTAB_BASE_CFG, 4, TABLE_LOG2)?;
        guest.write(CMDQ_BASE, 8, QUEUE | u64::from(QUEUE_LOG2))?;
        guest.write(CMDQ_PROD, 4, 0)?;
        guest.write(CMDQ_CONS, 4, 0)?;
        guest.write(CR0, 4, CMDQEN)?;
        guest.event_queue(7)?;
        Ok(guest)
    }

    /// What its driver knows, for another process.
    pub(crate) fn knows(&self) -> [u64; 4] {
        let (producer, consumed) = (self.producer.get(), self.consumed.get());
        [self.memory.next(), producer.into(), self.events_log2.get().into(), consumed.into()]
    }

    /// The same driver, that in another process knew this.
    pub(crate) fn recalled(viommu: &Viommu, memory: Arc<GuestMemoryMmap>, knew: [u64; 4]) -> Self {
        let [next, rest @ ..] = knew;
        let [producer, events_log2, consumed] = rest.map(|word| Cell::new(word as u32));
        Self { memory: Memory::recalled(memory, next), viommu: viommu.clone(), producer, events_log2, consumed }
    }

    /// What its driver remembers of its command queue.
    pub(crate) fn producer(&self) -> u32 {
        self.producer.get()
    }

    /// Gives the event queue room for 2^`log2` records.
    pub(crate) fn event_queue(&self, log2: u32) -> Story {
        let control = self.read(CR0, 4)?;
        self.write(CR0, 4, control & !EVENTQEN)?;
        self.write(EVENTQ_BASE, 8, EVENTS | u64::from(log2))?;
        self.write(EVENTQ_PROD, 4, 0)?;
        self.write(EVENTQ_CONS, 4, 0)?;
        self.events_log2.set(log2);
        self.consumed.set(0);
        self.write(CR0, 4, control | EVENTQEN)
    }

    /// Turns translation on.
    pub(crate) fn enable(&self) -> Story {
        self.write(CR0, 4, self.read(CR0, 4)? | SMMUEN)?;
        self.settled()
    }

    /// Turns translation off; `abort` says what DMA does then (GBPA.ABORT).
    pub(crate) fn disable(&self, abort: bool) -> Story {
        self.write(GBPA, 4, 1 << 31 | u64::from(abort) << 20)?;
        self.write(CR0, 4, self.read(CR0, 4)? & !SMMUEN)?;
        self.settled()
    }

    /// Whether the guest was shown range invalidation (IDR3.RIL).
    pub(crate) fn has_ranges(&self) -> Story<bool> {
        Ok(self.read(IDR3, 4)? >> 10 & 1 != 0)
    }

    /// Writes an STE and tells nobody.
    pub(crate) fn store_entry(&self, stream: u32, entry: Entry) -> Story {
        let at = TABLE + 64 * u64::from(stream);
        self.memory.store(at + 8, entry[1])?;
        Ok(self.memory.store(at, entry[0])?)
    }

    /// Writes an STE, announces it, and waits for it.
    pub(crate) fn set_entry(&self, stream: u32, entry: Entry) -> Story {
        self.store_entry(stream, entry)?;
        self.finish(&[cfgi_ste(stream)])
    }

    /// Sends these and a SYNC, and is done when the SYNC is.
    pub(crate) fn finish(&self, commands: &[Command]) -> Story {
        let sent = self.send(&[commands, &[SYNC]].concat())?;
        if sent == Sent::Taken { Ok(()) } else { Err(format!("the guest's queue: {sent:?}").into()) }
    }

    /// Puts commands in the queue, rings the doorbell once, and waits until they are taken or the queue stops.
    pub(crate) fn send(&self, commands: &[Command]) -> Story<Sent> {
        let first = self.producer.get();
        for (n, command) in (0..).zip(commands) {
            self.put(first.wrapping_add(n), *command)?;
        }
        let producer = first.wrapping_add(u32::try_from(commands.len())?) & ((2 << QUEUE_LOG2) - 1);
        self.producer.set(producer);
        self.write(CMDQ_PROD, 4, producer.into())?;
        self.sent(first)
    }

    /// After a stop `at` commands behind `first`: puts `instead` in the place of the bad command and goes on.
    pub(crate) fn repair(&self, first: u32, at: u32, instead: Command) -> Story<Sent> {
        self.put(first.wrapping_add(at), instead)?;
        self.write(GERRORN, 4, self.read(GERROR, 4)?)?;
        self.sent(first)
    }

    fn put(&self, index: u32, command: Command) -> Story {
        let slot = QUEUE + 16 * u64::from(index & ((1 << QUEUE_LOG2) - 1));
        self.memory.store(slot, command[0])?;
        Ok(self.memory.store(slot + 8, command[1])?)
    }

    fn sent(&self, first: u32) -> Story<Sent> {
        self.settled()?;
        let consumer = self.read(CMDQ_CONS, 4)?;
        let at = (consumer as u32 & 0xf_ffff).wrapping_sub(first) & ((2 << QUEUE_LOG2) - 1);
        if (self.read(GERROR, 4)? ^ self.read(GERRORN, 4)?) & 1 != 0 {
            return Ok(Sent::Stopped { at, error: consumer >> 24 & 0x7f });
        }
        let all = self.producer.get().wrapping_sub(first) & ((2 << QUEUE_LOG2) - 1);
        if at == all { Ok(Sent::Taken) } else { Err(format!("{at} of {all} commands taken, and no error").into()) }
    }

    /// The records in its event queue, oldest first; takes them.
    pub(crate) fn events(&self) -> Story<Vec<[u64; 4]>> {
        let producer = self.read(EVENTQ_PROD, 4)? as u32;
        let mask = (2 << self.events_log2.get()) - 1;
        let mut records = Vec::new();
        while self.consumed.get() != producer & mask {
            let at = EVENTS + 32 * u64::from(self.consumed.get() & mask >> 1);
            let mut record = [0; 4];
            for (word, offset) in record.iter_mut().zip((0..).step_by(8)) {
                *word = self.memory.load(at + offset)?;
            }
            records.push(record);
            self.consumed.set((self.consumed.get() + 1) & mask);
        }
        // The overflow flag is acknowledged by copying it.
        let seen = self.consumed.get() | producer & 1 << 31;
        self.write(EVENTQ_CONS, 4, seen.into())?;
        Ok(records)
    }

    /// Waits for at least one record, and then until no more come: hardware may make several of one DMA.
    pub(crate) fn await_events(&self) -> Story<Vec<[u64; 4]>> {
        let deadline = Instant::now() + Duration::from_secs(2);
        let mut records = self.events()?;
        while records.is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
            records = self.events()?;
        }
        loop {
            std::thread::sleep(QUIET);
            let more = self.events()?;
            if more.is_empty() {
                return Ok(records);
            }
            records.extend(more);
        }
    }

    /// Whether its event queue says that records were lost (EVENTQ_PROD.OVFLG and CONS.OVACKFLG differ).
    pub(crate) fn events_lost(&self) -> Story<bool> {
        Ok((self.read(EVENTQ_PROD, 4)? ^ self.read(EVENTQ_CONS, 4)?) >> 31 & 1 != 0)
    }

    fn read(&self, offset: u64, size: u32) -> Story<u64> {
        Ok(self.viommu.mmio_read(offset, size)?)
    }

    fn write(&self, offset: u64, size: u32, value: u64) -> Story {
        Ok(self.viommu.mmio_write(offset, size, value)?)
    }

    fn settled(&self) -> Story {
        if self.viommu.pipeline().wait_settled(PATIENCE) { Ok(()) } else { Err("the guest's queue is stuck".into()) }
    }
}
