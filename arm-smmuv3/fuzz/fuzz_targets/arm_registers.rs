//! Any accesses to the register frame of a guest, with commands, events and faults in between: it never panics, and what
//! it says of its queue, its effects and its registers can be.
//!
//! Input: features; then accesses of 12 bytes: what, an argument, offset (2), value (8).

#![no_main]

#[path = "../../tests/proof/shown.rs"]
mod shown;

use arm_smmuv3::frontend::ArmFrontend;
use libfuzzer_sys::fuzz_target;
use shown::Shown;
use std::cell::Cell;
use viommu_plugin::*;

const EVENTQ_BASE: u64 = 0xa0;
const GERROR: u64 = 0x60;
const GERRORN: u64 = 0x64;

/// Guest memory of which one half is there; every word says where it is.
struct Ram {
    reads: Cell<u32>,
    xor: u64,
}

impl GuestMemory for Ram {
    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        self.reads.set(self.reads.get() + 1);
        if gpa >> 40 & 1 != 0 || gpa.checked_add(bytes.len() as u64).is_none() {
            return Err(Unreadable);
        }
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = (gpa.wrapping_add(at as u64) ^ self.xor).to_le_bytes()[at % 8];
        }
        Ok(())
    }
}

fn possible(effects: &Effects) {
    assert!(effects.store_count as usize <= effects.stores.len() && effects.msi_count as usize <= effects.msis.len());
    assert!(effects.stores[..effects.store_count as usize].iter().all(|store| store.len as usize <= GuestStore::ROOM));
    assert!(effects.lines < 16 && effects.actions.0 < 4);
}

/// An event record goes into the event queue that the guest named, and nowhere else.
fn in_event_queue(frontend: &ArmFrontend, effects: &Effects) {
    let base = frontend.read(EVENTQ_BASE, 8);
    let (start, log2) = (base & 0x000f_ffff_ffff_ffe0, (base & 31).min(19));
    for store in &effects.stores[..effects.store_count as usize] {
        let bytes = 32u64 << log2;
        let start = start & !(bytes - 1);
        assert!(
            store.len == 32 && (start..start + bytes).contains(&store.gpa),
            "{store:x?} with EVENTQ_BASE {base:#x}"
        );
    }
}

fn sane(frontend: &ArmFrontend, ids: &[Register]) {
    let queue = frontend.queue();
    assert!(queue.pending <= queue.capacity && (queue.capacity == 0 || queue.head < queue.capacity), "{queue:?}");
    assert_eq!(queue.command_words, 2);
    assert!(queue.state.0 <= QueueState::STOPPED.0);
    assert!(queue.fault == GuestFault::NONE || queue.pending == 0, "{queue:?}");
    let stopped = (frontend.read(GERROR, 4) ^ frontend.read(GERRORN, 4)) & 1 != 0;
    assert!(queue.state != QueueState::RUNNING || !stopped, "a queue runs over an error");
    assert!(ids.iter().all(|id| frontend.read(id.offset, 4) == id.value), "an ID register changed");
    assert!(frontend.mode().0 <= Mode::TRANSLATE.0);
}

fn frame(frontend: &ArmFrontend) -> Vec<u64> {
    (0..0x100).chain(0x1_0000..0x1_0100).step_by(4).map(|at| frontend.read(at, 4)).collect()
}

fuzz_target!(|input: &[u8]| {
    let Some((&set, rest)) = input.split_first() else { return };
    let shown = Shown::of_commands(set.into());
    let ids = shown.registers();
    let codec = shown.codec();
    let mut frontend = ArmFrontend::new(&ids).expect("a vIOMMU can be this");
    let fresh = frame(&frontend);
    for access in rest.as_chunks::<12>().0 {
        let [what, argument, low, high, value @ ..] = *access;
        let value = u64::from_le_bytes(value);
        // Page 1 has its own bit; most of what is in a page is in its first 256 bytes.
        let at = u64::from(low) | u64::from(high & 0x0f) << 8 | u64::from(high >> 4 & 1) << 16;
        match what % 12 {
            0..=2 => possible(&frontend.write(at & !3, 4, value)),
            3 => possible(&frontend.write(at & !7, 8, value)),
            4 => possible(&frontend.write(value, argument.into(), at)),
            5 => {
                let (low, high) = (frontend.read(at & !7, 4), frontend.read((at & !7) + 4, 4));
                assert_eq!(frontend.read(at & !7, 8), low | high << 32);
                if !(argument == 4 || argument == 8) {
                    assert_eq!(frontend.read(value, argument.into()), 0, "an access of {argument} bytes");
                }
                let _ = (frontend.read(value, 4), frontend.read(value, 8), frontend.register_name(value));
            }
            6 => {
                let before = frontend.queue();
                frontend.advance(u32::from(argument).min(before.pending));
                let left = before.pending - u32::from(argument).min(before.pending);
                assert_eq!(frontend.queue().pending, left, "{before:?} advanced by {argument}");
            }
            7 => {
                let fault = GuestFault(u32::from(argument) % 10);
                possible(&frontend.fault(fault));
                let stops = !matches!(fault, GuestFault::NONE | GuestFault::EVENT_ABORT);
                assert!(!stops || frontend.queue().state != QueueState::RUNNING, "{fault:?} does not stop the queue");
            }
            8 => {
                // Only a SYNC that the codec stops at comes this far.
                let command = [0x46 | value & 0xffff_ffff_0fc0_3000, value.rotate_left(20)];
                let ids = HostIds { tag: 1, streams: &[], domains: &[] };
                if codec.rewrite(&command, Classes::NONE, ids, &mut []).stop == Stop::SYNC {
                    let effects = frontend.sync_done(&command);
                    possible(&effects);
                    let stores = &effects.stores[..effects.store_count as usize];
                    assert!(stores.iter().all(|store| store.len == 4), "{stores:x?}");
                }
            }
            9 => {
                let record = [value, value.rotate_left(7), !value, at];
                let effects = frontend.event(u32::from(argument), &record[..usize::from(argument) % 5]);
                possible(&effects);
                in_event_queue(&frontend, &effects);
                possible(&frontend.event_lost());
            }
            10 => {
                let ram = Ram { reads: Cell::new(0), xor: value };
                let mut entry = [0; 8];
                let found = frontend.entry(&ram, u32::from(argument) << (value & 15), &mut entry);
                assert!(found.0 <= Lookup::UNREADABLE.0 && ram.reads.get() <= 2, "{} reads", ram.reads.get());
                let mut text = Message::default();
                frontend.trouble(&mut text);
            }
            11 if argument & 1 != 0 => {
                // A frontend that was moved is the same; what is not a saved state changes nothing.
                let saved = frontend.save();
                let mut moved = ArmFrontend::new(&ids).expect("it was made before");
                moved.restore(&saved).expect("what was saved can be restored");
                assert!(moved.save() == saved && frame(&moved) == frame(&frontend), "moving changed it");
                let mut wrong = saved.clone();
                let bit = at as usize % (8 * wrong.len());
                wrong[bit / 8] ^= 1 << (bit % 8);
                wrong.truncate(wrong.len() - usize::from(argument >> 1) % 4);
                match moved.restore(&wrong) {
                    Ok(()) => assert_eq!(moved.save(), wrong, "a state that was taken is what was given"),
                    Err(refusal) => assert!(!refusal.text.is_empty() && moved.save() == saved, "{refusal}"),
                }
            }
            _ => {
                frontend.reset();
                assert_eq!(frame(&frontend), fresh, "a reset left something");
            }
        }
        sane(&frontend, &ids);
    }
});
