//! Any accesses to the register frame of a guest, with commands, events and faults in between, and moves to another host:
//! it never panics, and what it says of its queue, its effects and its registers can be.
//!
//! Input: features; then accesses of 12 bytes: what, an argument, offset (2), value (8).

#![no_main]

// The sets of entries are another target's.
#[allow(dead_code)]
#[path = "../../tests/proof/shown.rs"]
mod shown;

use intel_vtd::codec::ENTRY_WORDS;
use intel_vtd::frontend::VtdFrontend;
use libfuzzer_sys::fuzz_target;
use shown::Shown;
use std::cell::Cell;
use viommu_plugin::*;

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
    assert!(effects.stores[..effects.store_count as usize].iter().all(|store| store.len == 4));
    assert!(effects.lines == 0 && effects.actions.0 < 4);
}

fn sane(frontend: &VtdFrontend, ids: &[Register]) {
    let queue = frontend.queue();
    assert!(queue.pending < queue.capacity && queue.head < queue.capacity, "{queue:?}");
    assert!(queue.command_words == 2 || queue.command_words == 4);
    assert!(queue.fault == GuestFault::NONE || queue.pending == 0, "{queue:?}");
    let stopped = frontend.read(0x34, 4) & 0x70 != 0;
    assert!(queue.state != QueueState::RUNNING || !stopped, "a queue runs over an error");
    assert!(ids.iter().all(|id| frontend.read(id.offset, 8) == id.value), "an ID register changed");
    assert!(frontend.mode().0 <= Mode::TRANSLATE.0);
}

fn frame(frontend: &VtdFrontend) -> Vec<u64> {
    (0..0x300).step_by(4).map(|at| frontend.read(at, 4)).collect()
}

fuzz_target!(|input: &[u8]| {
    let Some((&set, rest)) = input.split_first() else { return };
    let ids = Shown::of_commands(u32::from(set) % 48).registers();
    let new = || VtdFrontend::new(&ids).expect("a vIOMMU can be this");
    let mut frontend = new();
    let fresh = frame(&frontend);
    for access in rest.as_chunks::<12>().0 {
        let [what, argument, low, high, value @ ..] = *access;
        let value = u64::from_le_bytes(value);
        let at = u64::from(low) | u64::from(high & 3) << 8;
        match what % 11 {
            0..=2 => possible(&frontend.write(at & !3, 4, value)),
            3 => possible(&frontend.write(at & !7, 8, value)),
            4 => possible(&frontend.write(value, argument.into(), at)),
            5 => {
                let (low, high) = (frontend.read(at & !7, 4), frontend.read((at & !7) + 4, 4));
                assert_eq!(frontend.read(at & !7, 8), low | high << 32);
                let _ = (frontend.read(value, 4), frontend.read(value, 8), frontend.register_name(value));
            }
            6 => {
                let before = frontend.queue();
                frontend.advance(u32::from(argument));
                let done = if before.state == QueueState::DISABLED { 0 } else { argument };
                let left = before.pending.saturating_sub(u32::from(done));
                assert_eq!(frontend.queue().pending, left, "{before:?} advanced by {argument}");
            }
            7 => {
                let fault = GuestFault(u32::from(argument) % 10);
                possible(&frontend.fault(fault));
                let stops = !matches!(fault, GuestFault::NONE | GuestFault::EVENT_ABORT);
                assert!(!stops || frontend.queue().state != QueueState::RUNNING, "{fault:?} does not stop the queue");
                possible(&frontend.sync_done(&[5 | value & 0xffff_ffff_0000_0070, value, 0, 0]));
            }
            8 => {
                let record = [value, value.rotate_left(7), !value];
                possible(&frontend.event(u32::from(argument), &record[..usize::from(argument) % 4]));
                possible(&frontend.event_lost());
            }
            9 => {
                let ram = Ram { reads: Cell::new(0), xor: value };
                let found = frontend.entry(&ram, u32::from(argument) << (value & 15), &mut [0; ENTRY_WORDS]);
                assert!(found.0 <= Lookup::UNREADABLE.0 && ram.reads.get() <= 4, "{} reads", ram.reads.get());
                let mut pages = [0; 5];
                let count = frontend.watched(&ram, &[u32::from(argument), at as u32], 0, &mut pages) as usize;
                assert!(pages[..count].is_sorted_by(|one, next| one < next && next & 0xfff == 0), "{pages:x?}");
                frontend.trouble(&mut Message::default());
            }
            _ if argument & 1 != 0 => {
                // A frontend that was moved is the same; what is not a saved state changes nothing.
                let saved = frontend.save();
                let mut moved = new();
                moved.restore(&saved).expect("what was saved can be restored");
                assert!(moved.save() == saved && frame(&moved) == frame(&frontend), "moving changed it");
                let mut wrong = saved.clone();
                let bit = (at as usize | usize::from(argument) << 10) % (8 * wrong.len());
                wrong[bit / 8] ^= 1 << (bit % 8);
                wrong.truncate(wrong.len() - usize::from(argument >> 1) % 4);
                match moved.restore(&wrong) {
                    Ok(()) => assert_eq!(moved.save(), wrong, "a state that was taken is what was given"),
                    Err(refusal) => assert!(!refusal.text.is_empty() && moved.save() == saved, "{refusal}"),
                }
                sane(&moved, &ids);
            }
            _ => {
                frontend.reset();
                assert_eq!(frame(&frontend), fresh, "a reset left something");
            }
        }
        sane(&frontend, &ids);
    }
});
