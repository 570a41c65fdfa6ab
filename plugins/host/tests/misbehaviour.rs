//! A plugin that panics or lies: the call fails, that instance is dead or refused, everything else goes on.

#![forbid(unsafe_code)]

use mock_plugin::{LIES, Mock, SLOTS, lie_in, panic_in, spec};
use std::collections::HashMap;
use std::sync::Mutex;
use viommu_plugin::*;
use viommu_plugin_host::{CallError, Plugin, SearchPath};

/// A machine whose registers tell the driver how to behave; memory is a map of bytes.
#[derive(Default)]
struct Machine {
    behaviour: u64,
    memory: Mutex<HashMap<u64, u8>>,
    next: Mutex<u64>,
    panics: bool,
}

impl Hardware for Machine {
    fn mmio_read(&self, offset: u64, _size: u32) -> u64 {
        match offset {
            spec::ID => spec::ID_VALUE,
            spec::BEHAVIOUR => self.behaviour,
            _ => 0,
        }
    }
    fn mmio_write(&self, _offset: u64, _size: u32, _value: u64) {}
    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        let memory = self.memory.lock().unwrap();
        bytes.iter_mut().zip(pa..).for_each(|(byte, at)| *byte = memory.get(&at).copied().unwrap_or(0));
        Ok(())
    }
    fn write(&self, pa: u64, bytes: &[u8]) -> Result<(), Unreadable> {
        self.memory.lock().unwrap().extend((pa..).zip(bytes.iter().copied()));
        Ok(())
    }
    fn alloc(&self, len: u64, align: u64) -> Result<u64, Refusal> {
        let mut next = self.next.lock().unwrap();
        let pa = next.next_multiple_of(align) + 0x10000;
        *next = pa + len;
        Ok(pa)
    }
    fn free(&self, _pa: u64, _len: u64) {}
    fn issue(&self, _commands: &[u64]) -> Result<(), Refusal> {
        assert!(!self.panics, "the machine's own panic");
        Ok(())
    }
}

impl ModelHost for Machine {
    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        assert!(!self.panics, "the machine's own panic");
        Hardware::read(self, pa, bytes)
    }
    fn write(&self, pa: u64, bytes: &[u8]) -> Result<(), Unreadable> {
        Hardware::write(self, pa, bytes)
    }
    fn irq(&self, _line: u32) {}
}

struct Ram;

impl GuestMemory for Ram {
    fn read(&self, _gpa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        bytes.fill(0);
        Ok(())
    }
}

/// Calls `slot` of an instance that behaves as `register` says, twice.
fn twice(plugin: &Plugin, slot: &str, register: &[Register]) -> [Result<(), CallError>; 2] {
    let behaviour = register.first().map_or(0, |register| register.value);
    let machine = || Machine { behaviour, ..Machine::default() };
    let (mut text, request) = (Message::default(), Request::default());
    let saved = plugin.frontend(&[]).and_then(|healthy| healthy.save()).expect("a healthy state");
    let (one, ids) = ([1, 0], HostIds { tag: 1, streams: &[5], domains: &[] });
    macro_rules! twice {
        ($part:expr, |$instance:ident| $call:expr) => {{
            #[allow(unused_mut)]
            match $part {
                Err(error) => [Err(error.clone()), Err(error)],
                Ok(mut $instance) => [$call.map(drop), $call.map(drop)],
            }
        }};
    }
    let (part, call) = slot.split_once('_').expect("part_call");
    match part {
        "frontend" => twice!(plugin.frontend(register), |it| match call {
            "read" => it.read(0, 8).map(drop),
            "write" => it.write(8, 8, 1).map(drop),
            "queue" => it.queue().map(drop),
            "advance" => it.advance(0),
            "fault" => it.fault(GuestFault::ILLEGAL_OPCODE).map(drop),
            "sync_done" => it.sync_done(&[5, 0]).map(drop),
            "event" => it.event(0, &[0, 0]).map(drop),
            "event_lost" => it.event_lost().map(drop),
            "mode" => it.mode().map(drop),
            "entry" => it.entry(&Ram, 0, &mut [0; 4]).map(drop),
            "reset" => it.reset(),
            "register_name" => it.register_name(0).map(drop),
            "trouble" => it.trouble(&mut text),
            "save" => it.save().map(drop),
            "restore" => it.restore(&saved),
            "covers" => plugin.covers(register, &[]),
            _ => Ok(()),
        }),
        "codec" => twice!(plugin.codec(register), |it| match call {
            "rewrite" => it.rewrite(&one, Classes::NONE, ids, &mut [0; 2]).map(drop),
            "configuration" => it.configuration(&[3, 1]).map(drop),
            "entry_key" => it.entry_key(&[0; 4]).map(drop),
            "opcode" => it.opcode(&one).map(drop),
            "opcode_name" => it.opcode_name(1).map(drop),
            "describe" => it.describe(&one, &mut text),
            _ => Ok(()),
        }),
        "driver" => twice!(plugin.driver(Box::new(machine())), |it| match call {
            "info" => it.info().map(drop),
            "guest_registers" => it.guest_registers(TranslationMode::NESTED).map(drop),
            "stage2_create" => it.stage2_create(1).map(drop),
            "stage2_map" => it.stage2_map(1, 0, 0, 0x1000, 3),
            "stage2_unmap" => it.stage2_unmap(1, 0, 0x1000),
            "stage2_destroy" => it.stage2_destroy(1),
            "attach" => it.attach(0, 1, 1, &EntryKey::default()),
            "detach" => it.detach(0),
            "encode" => it.encode(&HostInvalidation::default(), &mut [0; 8]).map(drop),
            "queue_fault" => it.queue_fault().map(drop),
            "queue_resume" => it.queue_resume(),
            "event" => it.event().map(drop),
            _ => Ok(()),
        }),
        _ => {
            twice!(plugin.model(Box::new(machine()), ModelConfig { registers: register, ..Default::default() }), |it| {
                match call {
                    "mmio_read" => it.mmio_read(0, 8).map(drop),
                    "mmio_write" => it.mmio_write(8, 8, 0),
                    "step" => it.step(1).map(drop),
                    "translate" => it.translate(&[request], &mut [Answer::default()]).map(drop),
                    "explain" => it.explain(&request, &mut text),
                    "stats" => it.stats().map(drop),
                    "atc_unresponsive" => it.atc_unresponsive(0, true),
                    "reset" => it.reset(),
                    _ => Ok(()),
                }
            })
        }
    }
}

fn both_ways_in() -> [Plugin; 2] {
    let test = std::env::current_exe().expect("a test has a path");
    let search = SearchPath::new([test.parent().expect("it is in a folder").to_path_buf()]);
    [Plugin::linked::<Mock>(), Plugin::find("mock", &search).expect("cargo built the mock's library")]
}

#[test]
fn a_panic_in_any_slot_kills_its_instance_only() {
    for plugin in both_ways_in() {
        let healthy = plugin.codec(&[]).expect("a healthy codec");
        for slot in SLOTS {
            let register = panic_in(slot).expect("it is one of the slots");
            let [first, second] = twice(&plugin, slot, &[register]);
            if slot == "frontend_destroy" {
                assert_eq!([first, second], [Ok(()), Ok(())], "{slot}: nobody hears of a panic while an instance goes");
                continue;
            }
            assert_eq!(first, Err(CallError::Panicked { slot }));
            // Where there is no instance yet there is none to be dead.
            let uninstantiated =
                slot == "frontend_covers" || slot.ends_with("_create") && slot.matches('_').count() == 1;
            let later = if uninstantiated { CallError::Panicked { slot } } else { CallError::Dead };
            assert_eq!(second, Err(later), "{slot}");
            assert_eq!(healthy.opcode(&[4, 0]), Ok(4), "another instance works after {slot}");
        }
    }
}

#[test]
fn an_answer_out_of_range_is_an_error_and_not_death() {
    for plugin in both_ways_in() {
        for slot in LIES.into_iter().filter(|lie| lie.contains('_') && *lie != "frontend_create") {
            let outcome = twice(&plugin, slot, &[lie_in(slot).expect("it is one of the lies")]);
            for answer in outcome {
                assert!(
                    matches!(&answer, Err(CallError::OutOfRange { slot: named, .. }) if *named == slot),
                    "{slot}: {answer:?}"
                );
            }
        }
    }
}

#[test]
fn a_healthy_mock_answers_every_slot() {
    for plugin in both_ways_in() {
        for slot in SLOTS.into_iter().filter(|slot| !slot.contains("stage2") && *slot != "driver_attach") {
            assert_eq!(twice(&plugin, slot, &[]), [Ok(()), Ok(())], "{slot}");
        }
    }
}

#[test]
fn a_refusal_keeps_errno_and_text() {
    for plugin in both_ways_in() {
        let refused = plugin.frontend(&[lie_in("frontend_create").expect("a lie")]).expect_err("told to refuse");
        assert_eq!(refused.errno(), Refusal::EINVAL);
        assert_eq!(refused.to_string(), "told to refuse frontend_create");
    }
}

#[test]
fn a_panic_of_the_hosts_own_callback_is_an_error() {
    struct Broken;
    impl GuestMemory for Broken {
        fn read(&self, _gpa: u64, _bytes: &mut [u8]) -> Result<(), Unreadable> {
            panic!("the host's own panic")
        }
    }
    for plugin in both_ways_in() {
        let mut driver = plugin.driver(Box::new(Machine { panics: true, ..Machine::default() })).expect("a driver");
        let error = CallError::Callback { slot: "driver_detach", callback: "issue" };
        assert_eq!(driver.detach(0), Err(error));
        assert!(driver.info().is_ok(), "the driver itself did nothing wrong");

        let host = Machine { panics: true, ..Machine::default() };
        let mut model = plugin.model(Box::new(host), ModelConfig::default()).expect("a model");
        model.mmio_write(spec::CONTROL, 8, spec::CONTROL_TRANSLATE).expect("it takes the write");
        let error = CallError::Callback { slot: "model_translate", callback: "read" };
        assert_eq!(model.translate(&[Request::default()], &mut [Answer::default()]), Err(error));
        assert!(model.stats().is_ok());

        let frontend = plugin.frontend(&[]).expect("a frontend");
        let error = CallError::Callback { slot: "frontend_entry", callback: "read" };
        assert_eq!(frontend.entry(&Broken, 0, &mut [0; 4]), Err(error));
        assert_eq!(frontend.entry(&Ram, 0, &mut [0; 4]), Ok(Lookup::FOUND));
    }
}
