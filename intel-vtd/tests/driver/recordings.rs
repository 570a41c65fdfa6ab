//! Recorded guests through frontend, codec and driver onto the software VT-d, nested in a second stage that moves their
//! memory elsewhere: the vendor's parts together, with nothing of the framework between them.

use crate::machine::{Machine, with};
use intel_vtd::codec::{ENTRY_WORDS, VtdCodec};
use intel_vtd::driver::VtdDriver;
use intel_vtd::frontend::VtdFrontend;
use intel_vtd::model::RemappingUnit;
use intel_vtd::spec::registers::offset;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use viommu_plugin::{
    Actions, Classes, Codec, Driver, Effects, EntryKey, EventOwner, Frontend, GuestFault, Hardware, HostIds,
    HostInvalidation, KeyKind, Lookup, Mode, NO_STREAM, NO_TAG, QueueState, Register, Scope, Status, Stop, Unreadable,
};
use viommu_plugin_check::bench::Ram;
use viommu_trace::{Header, Outcome, Record, Role, Scan, Trace, Translation};

/// Host source-ids are the guest's plus this.
const STREAM_OFFSET: u32 = 0x4000;
/// The nesting parent's tag; each of the guest's domains has one of its own behind it.
const TAG: u32 = 0x123;
const BYPASS: EntryKey = EntryKey { kind: KeyKind::BYPASS, event: 0, domain: u32::MAX, reserved: 0, words: [0; 4] };

struct Vm<'a> {
    ram: Ram<'a, RemappingUnit>,
    frontend: VtdFrontend,
    codec: VtdCodec,
    driver: VtdDriver,
    stage2: u32,
    /// Host stream by guest source-id.
    streams: Vec<u32>,
    /// What each is attached to.
    keys: BTreeMap<u32, EntryKey>,
    /// Host tag by guest domain.
    domains: Vec<u32>,
    /// Descriptors by type that reached the hardware.
    issued: BTreeMap<u8, u64>,
    guest_events: u64,
    late_attaches: u64,
}

impl<'a> Vm<'a> {
    fn new(machine: &'a Machine, header: &Header, registers: &[Register]) -> Self {
        let mut driver = VtdDriver::new(machine.boxed()).unwrap();
        let ram = Ram::new(machine, header.ram_base, header.ram_size);
        let pa = ram.host(header.ram_base, 0).unwrap();
        let stage2 = driver.stage2_create(TAG).unwrap();
        driver.stage2_map(stage2, header.ram_base, pa, header.ram_size, 3).unwrap();
        let mut vm = Self {
            ram,
            frontend: VtdFrontend::new(registers).unwrap(),
            codec: VtdCodec::new(registers).unwrap(),
            driver,
            stage2,
            streams: Vec::new(),
            keys: BTreeMap::new(),
            domains: vec![NO_TAG; 1 << 16],
            issued: BTreeMap::new(),
            guest_events: 0,
            late_attaches: 0,
        };
        header.devices.iter().for_each(|device| vm.plug(device.sid));
        vm
    }

    fn plug(&mut self, stream: u32) {
        let known = self.streams.len().max(stream as usize + 1);
        self.streams.resize(known, NO_STREAM);
        if self.streams[stream as usize] == NO_STREAM {
            self.streams[stream as usize] = stream + STREAM_OFFSET;
            self.configure(stream, stream);
        }
    }

    /// What the guest's registers and tables ask for.
    fn key(&self, guest: u32) -> EntryKey {
        let mut entry = [0; ENTRY_WORDS];
        match self.frontend.mode() {
            Mode::BYPASS => BYPASS,
            Mode::TRANSLATE => match self.frontend.entry(&self.ram, guest, &mut entry) {
                Lookup::FOUND => self.codec.entry_key(&entry),
                _ => EntryKey::default(),
            },
            _ => EntryKey::default(),
        }
    }

    fn guests(&self) -> Vec<u32> {
        (0..).zip(&self.streams).filter(|(_, host)| **host != NO_STREAM).map(|(guest, _)| guest).collect()
    }

    fn configure(&mut self, first: u32, last: u32) {
        for guest in self.guests().into_iter().filter(|guest| (first..=last).contains(guest)) {
            self.attach(guest, self.key(guest));
        }
    }

    fn attach(&mut self, guest: u32, key: EntryKey) {
        let tag = match key.kind {
            KeyKind::TRANSLATE => {
                let tag = TAG + 1 + key.domain;
                self.domains[key.domain as usize] = tag;
                tag
            }
            _ => TAG,
        };
        self.driver.attach(self.streams[guest as usize], self.stage2, tag, &key).unwrap();
        self.keys.insert(guest, key);
    }

    /// Pages that were written may hold an entry that was not there: nothing else says so.
    fn written(&mut self, pages: &BTreeSet<u64>) {
        let unattached = |guest: &u32| self.keys.get(guest).is_none_or(|key| key.kind == KeyKind::ABORT);
        let guests: Vec<u32> = self.guests().into_iter().filter(unattached).collect();
        let mut watched = [0; 64];
        let count = self.frontend.watched(&self.ram, &guests, 0, &mut watched) as usize;
        if !watched[..count].iter().any(|page| pages.contains(page)) {
            return;
        }
        for guest in guests {
            let key = self.key(guest);
            if key.kind != KeyKind::ABORT {
                self.late_attaches += 1;
                self.attach(guest, key);
            }
        }
    }

    fn write(&mut self, at: u64, size: u8, value: u64) {
        let effects = self.frontend.write(at, size.into(), value);
        if effects.actions.any(Actions::RECONFIGURE) {
            self.configure(0, u32::MAX);
        }
        if effects.actions.any(Actions::KICK) {
            self.consume();
        }
    }

    fn consume(&mut self) {
        loop {
            let queue = self.frontend.queue();
            assert_eq!(queue.fault, GuestFault::NONE);
            if queue.state != QueueState::RUNNING || queue.pending == 0 {
                return;
            }
            assert_eq!(queue.command_words, 4, "guests in scalable mode have wide descriptors");
            let guest = self.ram.commands(&queue).unwrap();
            let mut host = vec![0; guest.len()];
            let ids = HostIds { tag: TAG, streams: &self.streams, domains: &self.domains };
            let done = self.codec.rewrite(&guest, Classes::NONE, ids, &mut host);
            let host = &host[..4 * done.written as usize];
            for words in host.as_chunks::<4>().0 {
                *self.issued.entry(self.codec.opcode(words)).or_default() += 1;
            }
            self.ram.bench().issue(host).unwrap();
            self.frontend.advance(done.taken);
            let next = guest.get(4 * done.taken as usize..).unwrap_or(&[]);
            match done.stop {
                // Everything before is synced already.
                Stop::END | Stop::ORDER => {}
                Stop::SYNC => {
                    let Effects { store_count, msi_count, stores, .. } = self.frontend.sync_done(&next[..4]);
                    assert_eq!((store_count, msi_count, stores[0].len), (1, 0, 4), "these guests ask for a status");
                    self.ram.write(stores[0].gpa, &stores[0].bytes[..4]).unwrap();
                }
                Stop::CONFIGURATION => {
                    let scope = self.codec.configuration(next);
                    self.configure(scope.first, scope.last);
                    self.frontend.advance(1);
                }
                stop => panic!("a real guest's command {next:#x?} is refused: {stop:?} {}", done.fault.name()),
            }
        }
    }

    fn events(&mut self) {
        while let Some(event) = self.driver.event() {
            if event.owner == EventOwner::GUEST {
                self.frontend.event(event.stream - STREAM_OFFSET, &event.record[..2]);
                self.guest_events += 1;
            }
        }
    }

    fn reset(&mut self) {
        self.frontend.reset();
        self.configure(0, u32::MAX);
        for tag in self.domains.iter_mut().filter(|tag| **tag != NO_TAG) {
            let mut out = [0; 8];
            let what = HostInvalidation { scope: Scope::TAG, tag: *tag, ..HostInvalidation::default() };
            let words = self.driver.encode(&what, &mut out);
            self.ram.bench().issue(&out[..words]).unwrap();
            *tag = NO_TAG;
        }
    }

    /// Whether the device's DMA ends as recorded; outside RAM that is a second-stage fault at the recorded output.
    fn check(&mut self, recorded: &Translation) -> Result<(), String> {
        self.plug(recorded.stream);
        let answer = self.ram.bench().dma(recorded.stream + STREAM_OFFSET, recorded.iova, recorded.access.into());
        self.events();
        let right = match recorded.outcome {
            Outcome::Fault => answer.status == Status::FAULT && answer.stage == 1 && answer.fault == recorded.fault,
            Outcome::Abort => answer.status == Status::ABORT,
            _ => match self.ram.host(recorded.output, 1) {
                Ok(pa) => {
                    let within = if recorded.page_start { (1 << answer.leaf_log2) - 1 } else { 0 };
                    answer.status == Status::OK && answer.output & !within == pa & !within
                }
                Err(Unreadable) => {
                    answer.status == Status::FAULT && answer.stage == 2 && answer.ipa >> 12 == recorded.output >> 12
                }
            },
        };
        right.then_some(()).ok_or_else(|| format!("{recorded:#x?}\n got {answer:#x?}"))
    }
}

fn open(name: &str) -> (PathBuf, Vec<Register>) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../traces").join(format!("{name}.gtrace.zst"));
    let scan = Scan::open(&path).unwrap();
    let ids = scan.first_reads.iter().filter(|read| read.offset <= offset::ECAP);
    let registers = ids.map(|read| Register { offset: read.offset, value: read.value }).collect();
    (path, registers)
}

fn replay(name: &str, expected: u64, through: &[u8]) {
    let (path, registers) = open(name);
    let mut trace = Trace::open(&path).unwrap();
    // Devices have caches: what is not invalidated there shows.
    let machine = with(&[], true);
    let mut vm = Vm::new(&machine, trace.header(), &registers);
    let (mut checked, mut written) = (0, BTreeSet::new());
    while let Some(entry) = trace.next().unwrap() {
        let number = entry.number;
        if !matches!(entry.record, Record::Mem { .. }) && !written.is_empty() {
            // Once all that the guest wrote is in memory.
            vm.written(&std::mem::take(&mut written));
        }
        match entry.record {
            Record::Mem { gpa, bytes, role } => {
                vm.ram.write(gpa, bytes).unwrap();
                if role == Role::STREAM_TABLE || role == Role::CONTEXT {
                    written.insert(gpa & !0xfff);
                }
            }
            Record::Reset => vm.reset(),
            Record::MmioWrite { offset, value, size } => vm.write(offset, size, value),
            Record::MmioRead { offset: at, value, size } if at <= offset::GSTS => {
                assert_eq!(vm.frontend.read(at, size.into()), value, "{name} record {number}: {at:#x}");
            }
            Record::Translation(recorded) => {
                checked += 1;
                if let Err(mismatch) = vm.check(&recorded) {
                    panic!("{name} record {number}: {mismatch}");
                }
            }
            _ => {}
        }
    }
    assert_eq!(checked, expected);
    for opcode in through {
        assert!(vm.issued.contains_key(opcode), "{name}: no command {opcode:#x} reached the hardware");
    }
    println!("{name}: {checked} matched, {} events, {} late attaches", vm.guest_events, vm.late_attaches);
}

/// Its tables are second-stage tables, and nobody would hear of what it maps.
#[test]
fn a_legacy_guest_without_caching_mode_is_refused() {
    let (_, registers) = open("vtd73-legacy-strict");
    for refusal in [VtdFrontend::new(&registers).err(), VtdCodec::new(&registers).err()] {
        let text = refusal.unwrap().text;
        assert!(text.contains("ECAP.SMTS") && text.contains("CAP.CM"), "{text}");
    }
}

macro_rules! recordings {
    ($($test:ident = $name:literal, $translations:literal, $through:expr;)*) => {$(
        #[test]
        fn $test() {
            replay($name, $translations, &$through);
        }
    )*};
}

recordings! {
    boot = "vtd73-boot", 366, [6];
    churn = "vtd73-churn", 19_688, [6];
    passthrough = "vtd73-passthrough", 0, [];
    ats = "vtd73-ats-strict", 115_498, [3, 6];
    lazy = "vtd73-fs-lazy", 294_078, [6];
    strict = "vtd73-fs-strict", 168_056, [6];
    huge = "vtd73-huge-strict", 84_055, [6];
}
