//! Recorded guests through frontend, codec and driver onto the software IOMMU, with their v1 tables shadowed and their
//! memory moved elsewhere: the vendor's parts together, with nothing of the framework between them.
//!
//! The shadow here is the simplest there can be: what a command names is taken out whole and walked anew.

use crate::machine::{self, Machine};
use amd_vi::codec::AmdCodec;
use amd_vi::driver::AmdDriver;
use amd_vi::frontend::AmdFrontend;
use amd_vi::model::Iommu;
use amd_vi::spec::registers::{CAPABILITY_HEADER, offset};
use std::collections::BTreeMap;
use std::path::PathBuf;
use viommu_plugin::{
    Actions, Classes, Codec, Driver, EntryKey, Frontend, GuestFault, GuestMapping, Hardware, HostIds, HostInvalidation,
    KeyKind, Lookup, Mode, NO_STREAM, QueueState, Register, Scope, ShadowRange, Status, Stop, TranslationMode,
    Unreadable,
};
use viommu_plugin_check::bench::Ram;
use viommu_trace::{Header, Outcome, Record, Scan, Trace, Translation};

/// Host devices are the guest's plus this.
const DEVICE_OFFSET: u32 = 0x4000;
const PARENT: u32 = 0x123;
const ABORT: EntryKey = EntryKey { kind: KeyKind::ABORT, event: 0, domain: u32::MAX, reserved: 0, words: [0; 4] };
const BYPASS: EntryKey = EntryKey { kind: KeyKind::BYPASS, ..ABORT };

/// The copy of one of the guest's tables.
struct Shadow {
    key: EntryKey,
    stage2: u32,
    tag: u32,
    leaves: BTreeMap<u64, GuestMapping>,
}

struct Vm<'a> {
    ram: Ram<'a, Iommu>,
    frontend: AmdFrontend,
    codec: AmdCodec,
    driver: AmdDriver,
    parent: u32,
    shadows: Vec<Shadow>,
    /// Host device by guest device.
    devices: Vec<u32>,
    /// Guest commands at which a shadow was looked at.
    refreshed: u64,
    guest_events: u64,
}

impl<'a> Vm<'a> {
    fn new(machine: &'a Machine, header: &Header, registers: &[Register]) -> Self {
        let mut driver = AmdDriver::new(machine.boxed()).unwrap();
        let ram = Ram::new(machine, header.ram_base, header.ram_size);
        let pa = ram.host(header.ram_base, 0).unwrap();
        let parent = driver.stage2_create(PARENT).unwrap();
        driver.stage2_map(parent, header.ram_base, pa, header.ram_size, 3).unwrap();
        let codec = AmdCodec::new(registers).unwrap();
        assert_eq!(codec.mode(), TranslationMode::SHADOW);
        let mut vm = Self {
            ram,
            frontend: AmdFrontend::new(registers).unwrap(),
            codec,
            driver,
            parent,
            shadows: Vec::new(),
            devices: Vec::new(),
            refreshed: 0,
            guest_events: 0,
        };
        header.devices.iter().for_each(|device| vm.plug(device.sid));
        vm
    }

    fn plug(&mut self, device: u32) {
        let known = self.devices.len().max(device as usize + 1);
        self.devices.resize(known, NO_STREAM);
        if self.devices[device as usize] == NO_STREAM {
            self.devices[device as usize] = device + DEVICE_OFFSET;
            self.configure(device, device);
        }
    }

    /// Attaches what the guest's registers and table ask for.
    fn configure(&mut self, first: u32, last: u32) {
        let known: Vec<_> = self.devices.iter().copied().enumerate().filter(|&(_, host)| host != NO_STREAM).collect();
        for (guest, host) in known.into_iter().filter(|&(guest, _)| (first..=last).contains(&(guest as u32))) {
            let mut entry = [0; 4];
            let key = match self.frontend.mode() {
                Mode::BYPASS => BYPASS,
                Mode::TRANSLATE => match self.frontend.entry(&self.ram, guest as u32, &mut entry) {
                    Lookup::FOUND => self.codec.entry_key(&entry),
                    _ => ABORT,
                },
                _ => ABORT,
            };
            if key.kind != KeyKind::TRANSLATE {
                self.driver.attach(host, self.parent, PARENT, &key).unwrap();
                continue;
            }
            let index = self.shadow(key);
            let Shadow { stage2, tag, .. } = self.shadows[index];
            self.driver.attach(host, stage2, tag, &key).unwrap();
        }
    }

    fn shadow(&mut self, key: EntryKey) -> usize {
        if let Some(index) = self.shadows.iter().position(|shadow| shadow.key == key) {
            return index;
        }
        let tag = PARENT + 1 + self.shadows.len() as u32;
        let stage2 = self.driver.stage2_create(tag).unwrap();
        self.shadows.push(Shadow { key, stage2, tag, leaves: BTreeMap::new() });
        self.refresh(self.shadows.len() - 1, 0, u64::MAX);
        self.shadows.len() - 1
    }

    /// Makes a shadow in `first..=last` what the guest's table is.
    fn refresh(&mut self, index: usize, first: u64, last: u64) {
        let shadow = &mut self.shadows[index];
        let overlaps = |leaf: &GuestMapping| leaf.iova <= last && leaf.iova + (leaf.length - 1) >= first;
        let gone: Vec<GuestMapping> = shadow.leaves.values().copied().filter(overlaps).collect();
        let (mut new, mut at) = (Vec::new(), first);
        loop {
            let mut out = [GuestMapping::default(); 7];
            let walked = self.codec.walk(&shadow.key, &self.ram, at, last, &mut out);
            new.extend_from_slice(&out[..walked.written as usize]);
            if walked.done == 1 {
                break;
            }
            assert!(walked.next > at || walked.written > 0, "it goes on");
            at = walked.next;
        }
        if gone == new {
            return;
        }
        for leaf in gone {
            shadow.leaves.remove(&leaf.iova);
            if self.ram.host(leaf.gpa, leaf.length as usize).is_ok() {
                self.driver.stage2_unmap(shadow.stage2, leaf.iova, leaf.length).unwrap();
            }
        }
        for leaf in new {
            shadow.leaves.insert(leaf.iova, leaf);
            if let Ok(pa) = self.ram.host(leaf.gpa, leaf.length as usize) {
                self.driver.stage2_map(shadow.stage2, leaf.iova, pa, leaf.length, leaf.permissions).unwrap();
            }
        }
        let what = HostInvalidation { scope: Scope::TAG, tag: shadow.tag, ..HostInvalidation::default() };
        let mut out = [0; 2];
        self.driver.encode(&what, &mut out);
        self.ram.bench().issue(&out).unwrap();
    }

    fn refresh_all(&mut self, range: ShadowRange) {
        for index in 0..self.shadows.len() {
            if range.all_domains == 1 || self.shadows[index].key.domain == range.domain {
                self.refreshed += 1;
                self.refresh(index, range.first, range.last);
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
            if queue.state != QueueState::RUNNING || queue.pending == 0 {
                return;
            }
            assert_eq!(queue.fault, GuestFault::NONE);
            let guest = self.ram.commands(&queue).unwrap();
            let mut host = vec![0; guest.len()];
            let ids = HostIds { tag: PARENT, streams: &self.devices, domains: &[] };
            let done = self.codec.rewrite(&guest, Classes::NONE, ids, &mut host);
            assert_eq!(done.written, 0, "nothing of a shadowed guest without device caches reaches the hardware");
            self.frontend.advance(done.taken);
            let next = guest.get(2 * done.taken as usize..).unwrap_or(&[]);
            match done.stop {
                Stop::END => {}
                Stop::SYNC => {
                    let effects = self.frontend.sync_done(&next[..2]);
                    assert_eq!((effects.store_count, effects.lines), (1, 0), "these guests poll a word in memory");
                }
                Stop::CONFIGURATION => {
                    let scope = self.codec.configuration(next);
                    self.configure(scope.first, scope.last);
                    if scope.flush == 1 {
                        self.refresh_all(ShadowRange { domain: 0, all_domains: 1, first: 0, last: u64::MAX });
                    }
                    self.frontend.advance(1);
                }
                Stop::SHADOW => {
                    self.refresh_all(self.codec.shadow_range(next));
                    self.frontend.advance(1);
                }
                stop => panic!("a real guest's command {next:#x?} is refused: {stop:?} {}", done.fault.name()),
            }
        }
    }

    fn events(&mut self) {
        while let Some(event) = self.driver.event() {
            if event.owner == viommu_plugin::EventOwner::GUEST {
                let effects = self.frontend.event(event.stream - DEVICE_OFFSET, &event.record[..2]);
                self.guest_events += u64::from(effects.store_count);
            }
        }
    }

    /// Whether the device's DMA ends as recorded; outside RAM that is a fault.
    fn check(&mut self, recorded: &Translation) -> Result<(), String> {
        self.plug(recorded.stream);
        let answer = self.ram.bench().dma(recorded.stream + DEVICE_OFFSET, recorded.iova, recorded.access.into());
        self.events();
        let right = match recorded.outcome {
            Outcome::Fault => answer.status == Status::FAULT,
            Outcome::Abort => answer.status == Status::ABORT,
            // The output recorded is the start of the page, of whatever size.
            _ => match self.ram.host(recorded.output, 1) {
                Ok(_) => {
                    let at = recorded.iova;
                    let shadow = self.shadows.iter().flat_map(|shadow| shadow.leaves.values());
                    let size = shadow.filter(|leaf| leaf.iova <= at && at - leaf.iova < leaf.length);
                    let mut starts = size.map(|leaf| (leaf.gpa, leaf.gpa + (at - leaf.iova)));
                    let gpa = starts.find(|&(start, _)| start == recorded.output).map_or(at, |(_, gpa)| gpa);
                    answer.status == Status::OK && Ok(answer.output) == self.ram.host(gpa, 1)
                }
                Err(Unreadable) => answer.status == Status::FAULT,
            },
        };
        right.then_some(()).ok_or_else(|| format!("{recorded:#x?}\n got {answer:#x?}"))
    }
}

fn registers(scan: &Scan, header: u64) -> Vec<Register> {
    let ids = scan.first_reads.iter().filter(|read| matches!(read.offset, offset::EFR | offset::EFR2));
    let mut registers: Vec<Register> = ids.map(|read| Register { offset: read.offset, value: read.value }).collect();
    registers.push(Register { offset: CAPABILITY_HEADER, value: header });
    registers
}

/// EFRSup and, with it, NpCache.
const NP_CACHE: u64 = 0x0c0b_000f;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../traces").join(format!("{name}.gtrace.zst"))
}

fn replay(name: &str, translations: u64, faults: u64) {
    let scan = Scan::open(path(name)).unwrap();
    let mut trace = Trace::open(path(name)).unwrap();
    let machine = machine::plain();
    let mut vm = Vm::new(&machine, trace.header(), &registers(&scan, NP_CACHE));
    let mut checked = 0;
    while let Some(entry) = trace.next().unwrap() {
        let number = entry.number;
        match entry.record {
            Record::Mem { gpa, bytes, .. } => vm.ram.write(gpa, bytes).unwrap(),
            Record::MmioWrite { offset, value, size } => vm.write(offset, size, value),
            Record::MmioRead { offset: at, value, size }
                if matches!(at, offset::CONTROL | offset::EFR | offset::EFR2 | offset::STATUS | offset::EVENT_TAIL) =>
            {
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
    assert_eq!(checked, translations);
    assert_eq!(vm.refreshed > 0, translations > 0);
    assert_eq!(vm.guest_events, faults, "{name}: events in the guest's log");
}

#[test]
fn boot() {
    replay("amd73-boot", 501, 14);
}
#[test]
fn churn() {
    replay("amd73-churn", 18_789, 206);
}
#[test]
fn huge_pages() {
    replay("amd73-huge-strict", 38_711, 14);
}
#[test]
fn passthrough() {
    replay("amd73-passthrough", 0, 0);
}
#[test]
fn strict() {
    replay("amd73-strict", 158_199, 266);
}

#[test]
fn a_guest_that_was_shown_no_np_cache_is_refused_by_name() {
    let scan = Scan::open(path("amd73-lazy")).unwrap();
    let refusal = AmdCodec::new(&registers(&scan, NP_CACHE & !(1 << 26))).unwrap_err();
    assert!(refusal.text.contains("NpCache"), "{refusal}");
}
