//! A guest with two domains and three devices, and a VMM as small as can be: registers trapped by the frontend, rings and
//! domains handed to the driver in the order in which the framework does.

use crate::machine::Machine;
use amd_vi::codec::AmdCodec;
use amd_vi::driver::AmdDriver;
use amd_vi::frontend::AmdFrontend;
use amd_vi::spec::commands::{CompletionWait, InvalidateIommuPages, InvalidateIotlbPages, Opcode, encode_span};
use amd_vi::spec::dte::{DteWord0, DteWord1, with_gcr3_table};
use amd_vi::spec::pte::{Gcr3Entry, GuestPte};
use amd_vi::spec::registers::{Control, DeviceTableBase, Efr, Efr2, RingBase, RingPointer, Status, offset};
use amd_vi::spec::size::ALL_LOG2;
use amd_vi::spec::viommu::{GUEST_PAGE, PAGE};
use viommu_plugin::{
    Actions, Answer, Codec, Driver, EntryKey, Frontend, GuestMemory, Hardware, HostInvalidation, HwQueueRequest,
    KeyKind, Lookup, NO_STREAM, Register, Scope, TranslationMode, Unreadable, VirtualInterface,
};

/// Guest RAM, from guest physical 0 on.
pub(crate) const RAM: u64 = 0x20_0000;
pub(crate) const COMMANDS: u64 = 0x8000;
pub(crate) const EVENTS: u64 = 0x9000;
pub(crate) const STORE: u64 = 0xa000;
const DEVICE_TABLE: u64 = 0xb000;
/// Tables of domain n: GCR3, levels 4 to 1, 4 KiB each.
const TABLES: u64 = 0x1_0000;
/// Commands and events of a ring.
pub(crate) const ENTRIES: u16 = 256;
/// The guest's numbers of its domains. All guests use the same.
pub(crate) const DOMAINS: [u16; 2] = [5, 9];
/// The guest's numbers of its devices; device n is in domain n % 2.
pub(crate) const DEVICES: [u16; 3] = [0, 1, 2];

/// What a machine with the hardware vIOMMU says of itself.
pub(crate) fn identity() -> [Register; 2] {
    let efr = Efr::new().with_gt_sup(true).with_ia_sup(true).with_gio_sup(true).with_pas_max(15).with_hats(1);
    let efr = efr.with_pref_sup(true).with_viommu_sup(true);
    let efr2 = Efr2::new().with_gcr3_trp_mode(true);
    [(offset::EFR, efr.into_bits()), (offset::EFR2, efr2.into_bits())].map(|(offset, value)| Register { offset, value })
}

pub(crate) struct Guest {
    pub(crate) machine: Machine,
    pub(crate) frontend: AmdFrontend,
    codec: AmdCodec,
    pub(crate) interface: VirtualInterface,
    pub(crate) stage2: u32,
    pub(crate) parent: u32,
    /// Where the guest's RAM is.
    pub(crate) ram: u64,
    /// Tag of each domain that lives.
    pub(crate) tags: [Option<u32>; 2],
    rings: Vec<(HwQueueRequest, u32)>,
    tail: u16,
    waits: u64,
}

struct View<'a>(&'a Guest);

impl GuestMemory for View<'_> {
    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        if gpa + bytes.len() as u64 > RAM {
            return Err(Unreadable);
        }
        Hardware::read(&self.0.machine, self.0.ram + gpa, bytes)
    }
}

impl Guest {
    /// A guest whose parent has tag `parent`, with its interface, devices named, and rings on.
    pub(crate) fn new(machine: &Machine, driver: &mut AmdDriver, parent: u32) -> Self {
        let ram = machine.alloc(RAM, RAM).unwrap();
        let stage2 = driver.stage2_create(parent).unwrap();
        driver.stage2_map(stage2, 0, ram, RAM, 3).unwrap();
        let shown = driver.guest_registers(TranslationMode::NESTED);
        let interface = driver.interface_create(stage2).unwrap();
        let mut guest = Self {
            machine: machine.clone(),
            frontend: AmdFrontend::new(&shown).unwrap(),
            codec: AmdCodec::new(&shown).unwrap(),
            interface,
            stage2,
            parent,
            ram,
            tags: [None; 2],
            rings: Vec::new(),
            tail: 0,
            waits: 0,
        };
        for device in DEVICES {
            driver.interface_stream_set(interface.handle, device.into(), guest.stream(device)).unwrap();
        }
        let ring = |at: u64| RingBase::new().with_base(at >> 12).with_length(8).into_bits();
        let table = DeviceTableBase::new().with_base(DEVICE_TABLE >> 12).into_bits();
        let control = Control::new().with_iommu_en(true).with_event_log_en(true).with_event_int_en(true);
        for (at, value) in [
            (offset::DEVICE_TABLE_BASE, table),
            (offset::COMMAND_BASE, ring(COMMANDS)),
            (offset::EVENT_BASE, ring(EVENTS)),
            (offset::CONTROL, control.with_cmd_buf_en(true).with_com_wait_int_en(true).into_bits()),
        ] {
            guest.write(driver, at, value);
        }
        guest
    }

    /// The host's number of a device.
    pub(crate) fn stream(&self, device: u16) -> u32 {
        0x100 * self.parent + 0x10 + u32::from(device)
    }

    pub(crate) fn put(&self, gpa: u64, words: &[u64]) {
        for (at, word) in (self.ram + gpa..).step_by(8).zip(words) {
            self.machine.set_word(at, *word);
        }
    }

    /// A guest's register write: its own page directly, all else through the VMM.
    pub(crate) fn write(&mut self, driver: &mut AmdDriver, at: u64, value: u64) {
        if (GUEST_PAGE..GUEST_PAGE + PAGE).contains(&at) {
            self.machine.mmio_write(self.interface.page + at - GUEST_PAGE, 8, value);
            return;
        }
        let effects = self.frontend.write(at, 8, value);
        assert!(!effects.actions.any(Actions::KICK) || self.frontend.queue().pending == 0, "nobody fetches");
        if effects.actions.any(Actions::HW_QUEUES) {
            let mut wanted = [HwQueueRequest::default(); 4];
            let count = self.frontend.hw_queues(&mut wanted);
            let same = self.rings.iter().zip(&wanted[..count]).take_while(|(ring, wanted)| ring.0 == **wanted).count();
            for (_, handle) in self.rings.drain(same..).rev() {
                driver.hw_queue_destroy(handle).unwrap();
            }
            for request in &wanted[same..count] {
                let handle = driver.hw_queue_create(self.interface.handle, request, 0).unwrap();
                self.rings.push((*request, handle));
            }
        }
    }

    pub(crate) fn read(&self, at: u64) -> u64 {
        match at.checked_sub(GUEST_PAGE).filter(|at| *at < PAGE) {
            Some(at) => self.machine.mmio_read(self.interface.page + at, 8),
            None => self.frontend.read(at, 8),
        }
    }

    pub(crate) fn status(&self) -> Status {
        self.read(offset::STATUS).into()
    }

    /// Maps `page` of a domain (by its place in [`DOMAINS`]) to the guest's `gpa`: in its tables, and nothing else.
    pub(crate) fn map(&self, domain: usize, page: u64, gpa: u64) {
        let pte = GuestPte::new().with_p(true).with_rw(true).with_us(true);
        let tables = tables(domain);
        let root = Gcr3Entry::new().with_v(true).with_address((tables + 0x1000) >> 12);
        self.put(tables, &[root.into()]);
        for level in 1..4 {
            self.put(tables + 0x1000 * level, &[pte.with_address((tables + 0x1000 * (level + 1)) >> 12).into()]);
        }
        self.put(tables + 0x4000 + 8 * page, &[pte.with_address(gpa >> 12).into()]);
    }

    /// The guest writes a device's entry: its domain's tables, or nothing.
    pub(crate) fn write_entry(&self, device: u16, on: bool, ats: bool) {
        let domain = usize::from(device % 2);
        let word0 = DteWord0::new().with_v(true).with_tv(on).with_gv(on).with_giov(on).with_ir(on).with_iw(on);
        let word1 = DteWord1::new().with_domain_id(DOMAINS[domain]).with_i(ats);
        let (word0, word1) = with_gcr3_table(word0, word1, if on { tables(domain) } else { 0 });
        self.put(DEVICE_TABLE + 32 * u64::from(device), &[word0.into(), word1.into(), 0, 0]);
    }

    pub(crate) fn key(&self, device: u16) -> EntryKey {
        let mut entry = [0; 4];
        assert_eq!(self.frontend.entry(&View(self), device.into(), &mut entry), Lookup::FOUND);
        self.codec.entry_key(&entry)
    }

    /// The VMM finds a domain's devices' entries written: domain first, entries then.
    pub(crate) fn attach(&mut self, driver: &mut AmdDriver, domain: usize, tag: u32) {
        self.attach_devices(driver, domain, tag, false);
    }

    /// [`Guest::attach`] of devices that may cache.
    pub(crate) fn attach_with_cache(&mut self, driver: &mut AmdDriver, domain: usize, tag: u32) {
        self.attach_devices(driver, domain, tag, true);
    }

    fn attach_devices(&mut self, driver: &mut AmdDriver, domain: usize, tag: u32, ats: bool) {
        self.tags[domain] = Some(tag);
        driver.interface_domain_set(self.interface.handle, DOMAINS[domain].into(), tag).unwrap();
        for device in DEVICES.into_iter().filter(|device| usize::from(device % 2) == domain) {
            self.write_entry(device, true, ats);
            let key = self.key(device);
            assert_eq!((key.kind, key.domain), (KeyKind::TRANSLATE, DOMAINS[domain].into()));
            driver.attach(self.stream(device), self.stage2, tag, &key).unwrap();
        }
    }

    /// The other way round: entries, flush, domain.
    pub(crate) fn release(&mut self, driver: &mut AmdDriver, domain: usize) {
        let Some(tag) = self.tags[domain].take() else { return };
        for device in DEVICES.into_iter().filter(|device| usize::from(device % 2) == domain) {
            self.write_entry(device, false, false);
            let key = self.key(device);
            assert_eq!(key.kind, KeyKind::ABORT);
            driver.attach(self.stream(device), self.stage2, self.parent, &key).unwrap();
        }
        let mut words = [0; 2];
        driver.encode(&HostInvalidation { scope: Scope::TAG, tag, ..HostInvalidation::default() }, &mut words);
        self.machine.issue(&words).unwrap();
        driver.interface_domain_clear(self.interface.handle, DOMAINS[domain].into()).unwrap();
    }

    /// Puts commands on the guest's own ring and rings the doorbell.
    pub(crate) fn say(&mut self, commands: &[[u64; 2]]) {
        for command in commands {
            self.put(COMMANDS + 16 * u64::from(self.tail), command);
            self.tail = (self.tail + 1) % ENTRIES;
        }
        let tail = RingPointer::new().with_index(self.tail).into_bits();
        self.machine.mmio_write(self.interface.page + offset::COMMAND_TAIL - GUEST_PAGE, 8, tail);
    }

    /// [`Guest::say`] and a COMPLETION_WAIT; whether its store came.
    pub(crate) fn sync(&mut self, commands: &[[u64; 2]]) -> bool {
        self.waits += 1;
        self.say(commands);
        self.say(&[wait(STORE, self.waits)]);
        self.machine.word(self.ram + STORE) == self.waits
    }

    pub(crate) fn dma(&self, device: u16, page: u64) -> Answer {
        self.machine.dma(self.stream(device), page << 12, 1)
    }

    /// Where a device's access to `page` goes, as the guest's address; `None` if nowhere.
    pub(crate) fn reaches(&self, device: u16, page: u64) -> Option<u64> {
        let answer = self.dma(device, page);
        (answer.status.0 == 0).then(|| answer.output - self.ram)
    }

    /// Entries of the guest's log that it has not read, and its interrupt lines as the VMM pulses them.
    pub(crate) fn events(&mut self, driver: &mut AmdDriver) -> (Vec<[u64; 2]>, u32) {
        let mut lines = 0;
        driver.interrupt(1);
        while let Some(event) = driver.event() {
            if event.stream == self.interface.handle {
                lines |= self.frontend.event(NO_STREAM, &event.record[..event.words as usize]).lines;
            }
        }
        let index = |at| RingPointer::from(self.read(at)).index();
        let (mut head, tail) = (index(offset::EVENT_HEAD), index(offset::EVENT_TAIL));
        let mut events = Vec::new();
        while head != tail {
            let at = self.ram + EVENTS + 16 * u64::from(head);
            events.push([self.machine.word(at), self.machine.word(at + 8)]);
            head = (head + 1) % ENTRIES;
        }
        self.write(driver, offset::EVENT_HEAD, RingPointer::new().with_index(head).into());
        self.write(driver, offset::STATUS, Status::WRITE_1_TO_CLEAR);
        (events, lines)
    }

    /// Gives everything back, as the framework does.
    pub(crate) fn destroy(mut self, driver: &mut AmdDriver) {
        for (_, handle) in self.rings.drain(..).rev() {
            driver.hw_queue_destroy(handle).unwrap();
        }
        (0..2).for_each(|domain| self.release(driver, domain));
        for device in DEVICES {
            driver.detach(self.stream(device)).unwrap();
            driver.interface_stream_clear(self.interface.handle, device.into()).unwrap();
        }
        driver.interface_destroy(self.interface.handle).unwrap();
        let mut words = [0; 2];
        let parent = HostInvalidation { scope: Scope::TAG, tag: self.parent, ..HostInvalidation::default() };
        driver.encode(&parent, &mut words);
        self.machine.issue(&words).unwrap();
        driver.stage2_destroy(self.stage2);
        Hardware::free(&self.machine, self.ram, RAM);
    }
}

fn tables(domain: usize) -> u64 {
    TABLES + 0x8000 * domain as u64
}

pub(crate) fn wait(store: u64, data: u64) -> [u64; 2] {
    let wait = CompletionWait::new().with_opcode(Opcode::COMPLETION_WAIT.0).with_s(true).with_data(data);
    wait.with_store_address(store).words()
}

/// INVALIDATE_IOMMU_PAGES of PASID 0.
pub(crate) fn pages(domain: u16, gn: bool, address: u64, log2: u8) -> [u64; 2] {
    let (s, address) = encode_span(address, log2);
    let command = InvalidateIommuPages::new().with_opcode(Opcode::INVALIDATE_IOMMU_PAGES.0).with_domain_id(domain);
    command.with_gn(gn).with_s(s).with_address(address).words()
}

/// INVALIDATE_IOTLB_PAGES of all that a device holds.
pub(crate) fn iotlb(device: u16) -> [u64; 2] {
    let (s, address) = encode_span(0, ALL_LOG2);
    let command = InvalidateIotlbPages::new().with_opcode(Opcode::INVALIDATE_IOTLB_PAGES.0).with_device_id(device);
    command.with_queue_id(device).with_s(s).with_address(address).words()
}

/// A command with nothing but an opcode and its first word's low half.
pub(crate) fn plain(opcode: Opcode, low: u32) -> [u64; 2] {
    [u64::from(opcode.0) << 60 | u64::from(low), 0]
}
