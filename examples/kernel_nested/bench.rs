//! A guest with two devices on a machine, and what their DMA reaches.

use crate::guest::Guest;
use crate::tables::{Access, Descriptor, Memory, PAGE, RAM, RAM_BYTES, TAIL, TAIL_BYTES, Tables, translate};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::sync::Arc;
use viommu::blocking::{Device, EventQueue, Host, Ioas, NestParent, RestoredViommu, Vdevice, Viommu};
use viommu::objects::ViommuConfig;
use viommu::pipeline::{Interrupts, NoInterrupts};
use viommu::plugin::Register;
use viommu::vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};
use viommu_examples::Story;

/// Devices there are.
pub(crate) const DEVICES: usize = 2;
/// The guest's numbers of them.
pub(crate) const STREAMS: [u32; DEVICES] = [0x34, 0x55];
/// A stage-1 input address, like no guest physical address.
pub(crate) const IOVA: u64 = 0x123_4567_8000;
/// ASID of the first address space.
pub(crate) const ASID: u16 = 7;
/// What the devices write.
const MARK: u64 = 0x5a5a_c3c3_9696_0f0f;
/// Where in a page they write it.
const MARK_OFFSET: u64 = 0x100;

/// Which way a DMA goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// The device reads memory.
    Read,
    /// The device reads memory, and puts it where it is not written from.
    ReadAway,
    /// The device writes memory.
    Write,
}

/// A device that does DMA from and to a buffer of its own.
pub(crate) trait Engine {
    /// Begins a DMA of the first `bytes` of its buffer.
    fn start(&self, bus: u64, bytes: u32, direction: Direction) -> Story;
    /// Waits for its end, whatever that is: a device does not learn what its IOMMU did.
    fn finish(&self) -> Story;
    /// Makes it send its MSI.
    fn interrupt(&self) -> Story;
}

/// A machine with an IOMMU and devices behind it.
pub(crate) trait Machine {
    /// A host of its own. One at a time.
    fn host(&self) -> Story<Host>;
    /// What guests are shown.
    fn registers(&self) -> Story<Vec<Register>>;
    /// Puts a part of the guest's RAM into its IOAS.
    fn map(&self, ioas: &Ioas, memory: &Arc<GuestMemoryMmap>, gpa: u64, bytes: u64) -> Story;
    /// Host's number of a device.
    fn stream(&self, device: usize) -> u32;
    /// The DMA of a device that is bound.
    fn engine(&self, device: usize) -> Story<Box<dyn Engine>>;
}

/// A page that DMA may land in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Page {
    A,
    B,
    C,
    /// As [`Page::A`] and [`Page::B`], for the second device where both work at once.
    SecondA,
    SecondB,
}

const PAGES: [Page; 5] = [Page::A, Page::B, Page::C, Page::SecondA, Page::SecondB];

/// A running guest.
pub(crate) struct Bench {
    pub(crate) guest: Guest,
    pub(crate) tables: Tables,
    pub(crate) descriptor: Descriptor,
    pub(crate) engines: Vec<Box<dyn Engine>>,
    pub(crate) events: Option<EventQueue>,
    pub(crate) vdevices: Vec<Vdevice>,
    pub(crate) devices: Vec<Device>,
    pub(crate) viommu: Viommu,
    pub(crate) parent: NestParent,
    pub(crate) ioas: Ioas,
    pub(crate) host: Host,
    pages: [u64; PAGES.len()],
}

/// Guest RAM, with nothing in it: a file without a name, as VMMs have it that hand it on.
pub(crate) fn guest_memory() -> Story<Arc<GuestMemoryMmap>> {
    let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC)?);
    file.set_len(RAM_BYTES)?;
    memory_of(file)
}

/// Guest RAM of a file that was received.
pub(crate) fn memory_of(file: File) -> Story<Arc<GuestMemoryMmap>> {
    let place = (GuestAddress(RAM), usize::try_from(RAM_BYTES)?, Some(FileOffset::new(file, 0)));
    Ok(Arc::new(GuestMemoryMmap::from_ranges_with_files([place])?))
}

/// All of it, in two parts.
pub(crate) fn map_all(machine: &dyn Machine, ioas: &Ioas, memory: &Arc<GuestMemoryMmap>) -> Story {
    machine.map(ioas, memory, RAM, TAIL - RAM)?;
    machine.map(ioas, memory, TAIL, TAIL_BYTES)
}

/// A guest whose devices go through its tables, by equal entries.
pub(crate) fn nested(machine: &dyn Machine) -> Story<Bench> {
    let bench = Bench::new(machine)?;
    for stream in STREAMS {
        bench.guest.store_entry(stream, translate(bench.descriptor.gpa))?;
    }
    bench.guest.enable()?;
    Ok(bench)
}

impl Bench {
    /// A guest with both devices and an event queue. Its queues are on, its IOMMU is off and lets DMA pass to stage 2; the
    /// devices' buffers hold what they will write. Its tables lead [`IOVA`] to page A.
    pub(crate) fn new(machine: &dyn Machine) -> Story<Self> {
        Self::with(machine, Arc::new(NoInterrupts))
    }

    /// With an interrupt controller.
    pub(crate) fn with(machine: &dyn Machine, interrupts: Arc<dyn Interrupts>) -> Story<Self> {
        let memory = guest_memory()?;
        let host = machine.host()?;
        let ioas = host.ioas()?;
        map_all(machine, &ioas, &memory)?;
        let parent = ioas.nest_parent()?;
        let devices = (0..DEVICES).map(|n| host.device(machine.stream(n))).collect::<Result<Vec<_>, _>>()?;
        let config = ViommuConfig::new(machine.registers()?, memory.clone());
        let viommu = parent.viommu(ViommuConfig { interrupts, ..config })?;
        let events = Some(viommu.event_queue()?);
        let guest = Guest::new(&viommu, Memory::new(memory))?;
        let vdevices = devices.iter().zip(STREAMS).map(|(device, stream)| viommu.vdevice(device, stream));
        let vdevices = vdevices.collect::<Result<Vec<_>, _>>()?;
        let engines = (0..DEVICES).map(|n| machine.engine(n)).collect::<Story<Vec<_>>>()?;

        let memory = &guest.memory;
        let pages = PAGES.map(|_| memory.page());
        let (tables, descriptor) = (Tables::new(memory), Descriptor::new(memory));
        tables.map(memory, IOVA, pages[0], Access::Write)?;
        descriptor.write(memory, &tables, ASID)?;
        let source = memory.page();
        for at in [0, 8] {
            memory.store(source + at, MARK)?;
        }
        for engine in &engines {
            engine.start(source, 16, Direction::Read)?;
        }
        for engine in &engines {
            engine.finish()?;
        }
        Ok(Self { guest, tables, descriptor, engines, events, vdevices, devices, viommu, parent, ioas, host, pages })
    }

    /// What the guest's side knows, for another process.
    pub(crate) fn knows(&self) -> Vec<u64> {
        [&self.guest.knows()[..], &[self.tables.root, self.descriptor.gpa], &self.pages].concat()
    }

    /// The same guest, on what another process left: `knew` is what it knew there.
    pub(crate) fn recalled(
        (host, ioas, parent): (Host, Ioas, NestParent),
        devices: Vec<Device>,
        restored: RestoredViommu,
        engines: Vec<Box<dyn Engine>>,
        (memory, knew): (Arc<GuestMemoryMmap>, &[u64]),
    ) -> Story<Self> {
        let (driver, rest) = knew.split_first_chunk().ok_or("the guest knew more")?;
        let &[root, gpa, ref pages @ ..] = rest else { return Err("the guest knew more".into()) };
        let RestoredViommu { viommu, vdevices, event_queue: events, .. } = restored;
        let guest = Guest::recalled(&viommu, memory, *driver);
        let (tables, descriptor, pages) = (Tables { root }, Descriptor { gpa }, pages.try_into()?);
        Ok(Self { guest, tables, descriptor, engines, events, vdevices, devices, viommu, parent, ioas, host, pages })
    }

    /// Guest physical address of a page.
    pub(crate) fn page(&self, page: Page) -> u64 {
        self.pages[page as usize]
    }

    /// Makes the guest's tables lead `iova` to `page`, and tells nobody.
    pub(crate) fn map(&self, iova: u64, page: Page) -> Story {
        Ok(self.tables.map(&self.guest.memory, iova, self.page(page), Access::Write)?)
    }

    /// What page a write of `device` to `iova` lands in, if any. Translations that the IOMMU keeps are used, and made.
    pub(crate) fn lands(&self, device: usize, iova: u64) -> Story<Option<Page>> {
        self.clear(MARK_OFFSET)?;
        self.write(device, iova)?;
        self.marked(&PAGES, MARK_OFFSET)
    }

    /// Whether a write of `device` to `iova` reaches the page at `gpa`.
    pub(crate) fn reaches(&self, device: usize, iova: u64, gpa: u64) -> Story<bool> {
        self.guest.memory.store(gpa + MARK_OFFSET, 0)?;
        self.write(device, iova)?;
        Ok(self.guest.memory.load(gpa + MARK_OFFSET)? == MARK)
    }

    /// The write alone.
    pub(crate) fn write(&self, device: usize, iova: u64) -> Story {
        self.engines[device].start(iova + MARK_OFFSET, 8, Direction::Write)?;
        self.engines[device].finish()
    }

    /// A read of `iova`, into the device's second half: what it writes stays what it is.
    pub(crate) fn read(&self, device: usize, iova: u64) -> Story {
        self.engines[device].start(iova, 8, Direction::ReadAway)?;
        self.engines[device].finish()
    }

    /// Both devices write at once, each over the end of the page at its address (if it has one) and the beginning of the
    /// next; what pages those are. The first device's are looked for among A, B and C, the other's among the second ones.
    pub(crate) fn pairs_land(&self, at: [Option<u64>; DEVICES]) -> Story<[[Option<Page>; 2]; DEVICES]> {
        self.clear(PAGE - 8)?;
        self.clear(0)?;
        for (engine, at) in self.engines.iter().zip(at) {
            if let Some(iova) = at {
                engine.start(iova + PAGE - 8, 16, Direction::Write)?;
            }
        }
        for (engine, _) in self.engines.iter().zip(at).filter(|(_, at)| at.is_some()) {
            engine.finish()?;
        }
        let found = |among| -> Story<_> { Ok([self.marked(among, PAGE - 8)?, self.marked(among, 0)?]) };
        Ok([found(&PAGES[..3])?, found(&PAGES[3..])?])
    }

    /// Ends the guest and the host; what was left over, in words.
    pub(crate) fn close(self) -> Story<String> {
        let Self { guest, engines, events, vdevices, devices, viommu, parent, ioas, host, .. } = self;
        drop((guest, engines, events, vdevices, devices, viommu, parent, ioas));
        let left = host.shutdown()?;
        Ok(if left.is_empty() { "nothing".into() } else { format!("{left:?}") })
    }

    fn clear(&self, offset: u64) -> Story {
        for page in self.pages {
            self.guest.memory.store(page + offset, 0)?;
        }
        Ok(())
    }

    fn marked(&self, among: &[Page], offset: u64) -> Story<Option<Page>> {
        let mut found = None;
        for page in among {
            if self.guest.memory.load(self.page(*page) + offset)? == MARK && found.replace(*page).is_some() {
                return Err("a DMA landed in two pages".into());
            }
        }
        Ok(found)
    }
}
