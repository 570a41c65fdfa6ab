//! Recorded guests through frontend, codec and driver onto the software SMMU, nested in a stage 2 that moves their
//! memory elsewhere: the vendor's parts together, with nothing of the framework between them.

use crate::machine::{self, Machine};
use arm_smmuv3::codec::ArmCodec;
use arm_smmuv3::driver::ArmDriver;
use arm_smmuv3::frontend::ArmFrontend;
use arm_smmuv3::model::Smmu;
use arm_smmuv3::spec::registers::offset;
use std::collections::BTreeMap;
use std::path::PathBuf;
use viommu_plugin::NO_DOMAIN;
use viommu_plugin::{
    Actions, Classes, Codec, Driver, Effects, EntryKey, EventOwner, Frontend, GuestFault, Hardware, HostIds,
    HostInvalidation, KeyKind, Lookup, Mode, NO_STREAM, QueueState, Register, Scope, Status, Stop, Unreadable,
};
use viommu_plugin_check::bench::Ram;
use viommu_trace::{Header, Outcome, Record, Scan, Trace, Translation};

/// Host streams are the guest's plus this.
const STREAM_OFFSET: u32 = 0x4000;
const TAG: u32 = 0x123;
const ABORT: EntryKey = EntryKey { kind: KeyKind::ABORT, event: 0, domain: NO_DOMAIN, reserved: 0, words: [0; 4] };
const BYPASS: EntryKey = EntryKey { kind: KeyKind::BYPASS, ..ABORT };

struct Vm<'a> {
    ram: Ram<'a, Smmu>,
    frontend: ArmFrontend,
    codec: ArmCodec,
    driver: ArmDriver,
    stage2: u32,
    /// Host stream by guest stream.
    streams: Vec<u32>,
    /// Commands by opcode that reached the hardware.
    issued: BTreeMap<u8, u64>,
    guest_events: u64,
}

impl<'a> Vm<'a> {
    fn new(machine: &'a Machine, header: &Header, registers: &[Register]) -> Self {
        let mut driver = ArmDriver::new(machine.boxed()).unwrap();
        let ram = Ram::new(machine, header.ram_base, header.ram_size);
        let pa = ram.host(header.ram_base, 0).unwrap();
        let stage2 = driver.stage2_create(TAG).unwrap();
        driver.stage2_map(stage2, header.ram_base, pa, header.ram_size, 3).unwrap();
        let mut vm = Self {
            ram,
            frontend: ArmFrontend::new(registers).unwrap(),
            codec: ArmCodec::new(registers).unwrap(),
            driver,
            stage2,
            streams: Vec::new(),
            issued: BTreeMap::new(),
            guest_events: 0,
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

    /// Attaches what the guest's registers and table ask for.
    fn configure(&mut self, first: u32, last: u32) {
        let known = self.streams.iter().enumerate().filter(|&(_, &host)| host != NO_STREAM);
        for (guest, &host) in known.filter(|&(guest, _)| (first..=last).contains(&(guest as u32))) {
            let mut entry = [0; 8];
            let key = match self.frontend.mode() {
                Mode::BYPASS => BYPASS,
                Mode::TRANSLATE => match self.frontend.entry(&self.ram, guest as u32, &mut entry) {
                    Lookup::FOUND => self.codec.entry_key(&entry),
                    _ => ABORT,
                },
                _ => ABORT,
            };
            self.driver.attach(host, self.stage2, TAG, &key).unwrap();
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
            let guest = self.ram.commands(&queue).unwrap();
            let mut host = vec![0; guest.len()];
            let ids = HostIds { tag: TAG, streams: &self.streams, domains: &[] };
            let done = self.codec.rewrite(&guest, Classes::NONE, ids, &mut host);
            let host = &host[..2 * done.written as usize];
            host.as_chunks::<2>().0.iter().for_each(|words| *self.issued.entry(words[0] as u8).or_default() += 1);
            self.ram.bench().issue(host).unwrap();
            self.frontend.advance(done.taken);
            let next = guest.get(2 * done.taken as usize..).unwrap_or(&[]);
            match done.stop {
                Stop::END => {}
                Stop::SYNC => self.apply_sync(next),
                Stop::CONFIGURATION => {
                    let scope = self.codec.configuration(next);
                    self.configure(scope.first, scope.last);
                    self.frontend.advance(1);
                }
                // Everything before is synced already.
                Stop::ORDER => {}
                stop => panic!("a real guest's command {next:#x?} is refused: {stop:?} {}", done.fault.name()),
            }
        }
    }

    fn apply_sync(&mut self, command: &[u64]) {
        let effects = self.frontend.sync_done(&command[..2]);
        assert_eq!(effects, Effects::default(), "these guests ask for SEV");
    }

    fn events(&mut self) {
        while let Some(event) = self.driver.event() {
            if event.owner == EventOwner::GUEST {
                let effects = self.frontend.event(event.stream - STREAM_OFFSET, &event.record[..4]);
                self.guest_events += u64::from(effects.store_count);
            }
        }
    }

    fn reset(&mut self) {
        self.frontend.reset();
        self.configure(0, u32::MAX);
        let mut out = [0; 2];
        self.driver.encode(&HostInvalidation { scope: Scope::TAG, tag: TAG, ..HostInvalidation::default() }, &mut out);
        self.ram.bench().issue(&out).unwrap();
    }

    /// Whether the device's DMA ends as recorded; outside RAM that is a stage-2 fault at the recorded output.
    fn check(&mut self, recorded: &Translation) -> Result<(), String> {
        self.plug(recorded.stream);
        let answer = self.ram.bench().dma(recorded.stream + STREAM_OFFSET, recorded.iova, recorded.access.into());
        self.events();
        let right = match recorded.outcome {
            Outcome::Fault => answer.status == Status::FAULT && answer.stage < 2 && answer.fault == recorded.fault,
            Outcome::Abort => answer.status == Status::ABORT,
            _ => match self.ram.host(recorded.output, 1) {
                Ok(pa) => answer.status == Status::OK && answer.output == pa,
                Err(Unreadable) => {
                    answer.status == Status::FAULT && answer.stage == 2 && answer.ipa >> 12 == recorded.output >> 12
                }
            },
        };
        right.then_some(()).ok_or_else(|| format!("{recorded:#x?}\n got {answer:#x?}"))
    }
}

fn replay(name: &str, expected: u64, through: &[u8]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../traces").join(format!("{name}.gtrace.zst"));
    let scan = Scan::open(&path).unwrap();
    let ids = scan.first_reads.iter().filter(|read| read.offset <= offset::AIDR);
    let registers: Vec<Register> = ids.map(|read| Register { offset: read.offset, value: read.value }).collect();
    let mut trace = Trace::open(&path).unwrap();
    let machine = machine::plain();
    let mut vm = Vm::new(&machine, trace.header(), &registers);
    let mut checked = 0;
    while let Some(entry) = trace.next().unwrap() {
        let number = entry.number;
        match entry.record {
            Record::Mem { gpa, bytes, .. } => vm.ram.write(gpa, bytes).unwrap(),
            Record::Reset => vm.reset(),
            Record::MmioWrite { offset, value, size } => vm.write(offset, size, value),
            Record::MmioRead { offset: at, value, size }
                if at <= offset::AIDR || at == offset::CR0ACK || at == offset::IRQ_CTRLACK =>
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
    assert_eq!(checked, expected);
    for opcode in through {
        assert!(vm.issued.contains_key(opcode), "{name}: no command {opcode:#x} reached the hardware");
    }
    assert_eq!(vm.guest_events > 0, name != "arm73-boot", "{name}: {} events", vm.guest_events);
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
    boot = "arm73-boot", 317, [0x05, 0x10, 0x12];
    churn = "arm73-churn", 23_597, [0x05, 0x10, 0x11, 0x12];
    passthrough = "arm73-passthrough", 56_342, [0x05, 0x10, 0x11, 0x12];
    reboot = "arm73-reboot", 53_272, [0x05, 0x10, 0x12];
    pages_of_16k = "arm73-16k-strict", 37_441, [0x05, 0x10, 0x11, 0x12];
    ats = "arm73-ats-strict", 193_274, [0x05, 0x10, 0x11, 0x12, 0x40];
    no_range_invalidation_and_small_queues = "arm73-smallq-noril", 137_470, [0x05, 0x10, 0x12];
}
