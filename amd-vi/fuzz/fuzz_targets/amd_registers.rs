//! Any accesses to the register frame of a guest, with commands, events and faults in between: it never panics, and what
//! it says of its queue, its effects and its registers can be; saved, it is restored as it was or refused.
//!
//! Input: features; then accesses of 12 bytes: what, an argument, offset (2), value (8).

#![no_main]

#[path = "../../tests/proof/shown.rs"]
mod shown;

use amd_vi::frontend::AmdFrontend;
use libfuzzer_sys::fuzz_target;
use shown::Shown;
use std::cell::Cell;
use viommu_plugin::*;

const EVENT_BASE: u64 = 0x10;
const STATUS: u64 = 0x2020;
/// STATUS.CmdBufRun.
const RUN: u64 = 0x10;

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
    assert!(effects.store_count as usize <= effects.stores.len() && effects.msi_count == 0);
    assert!(effects.stores[..effects.store_count as usize].iter().all(|store| store.len as usize <= GuestStore::ROOM));
    assert!(effects.lines < 2 && effects.actions.0 < 4);
}

/// An event record goes into the event log that the guest named, and nowhere else.
fn in_event_log(frontend: &AmdFrontend, effects: &Effects) {
    let base = frontend.read(EVENT_BASE, 8);
    let (start, log2) = (base & 0x000f_ffff_ffff_f000, base >> 56 & 0xf);
    for store in &effects.stores[..effects.store_count as usize] {
        assert!(
            store.len == 16 && (start..start + (16 << log2)).contains(&store.gpa),
            "{store:x?}, EVENT_BASE {base:#x}"
        );
    }
}

fn sane(frontend: &AmdFrontend, ids: &[Register]) {
    let queue = frontend.queue();
    assert!(queue.pending < queue.capacity && queue.head < queue.capacity && queue.capacity <= 1 << 15, "{queue:?}");
    assert_eq!(queue.command_words, 2);
    assert!(queue.fault == GuestFault::NONE || queue.pending == 0, "{queue:?}");
    let runs = frontend.read(STATUS, 8) & RUN != 0;
    assert_eq!(queue.state == QueueState::RUNNING, runs, "{queue:?}");
    assert!(ids.iter().all(|id| frontend.read(id.offset, 8) == id.value), "an ID register changed");
    assert!(matches!(frontend.mode(), Mode::BYPASS | Mode::TRANSLATE));
}

fn frame(frontend: &AmdFrontend) -> Vec<u64> {
    (0..0x200).chain(0x2000..0x2200).step_by(4).map(|at| frontend.read(at, 4)).collect()
}

fuzz_target!(|input: &[u8]| {
    let Some((&set, rest)) = input.split_first() else { return };
    let shown = Shown::of_commands(u32::from(set) % 32);
    let ids = shown.registers();
    let codec = shown.codec();
    let mut frontend = AmdFrontend::new(&ids).expect("a vIOMMU can be this");
    let fresh = frame(&frontend);
    for access in rest.as_chunks::<12>().0 {
        let [what, argument, low, high, value @ ..] = *access;
        let value = u64::from_le_bytes(value);
        // The rings have their own page; most of what is in a page is in its first 512 bytes.
        let at = u64::from(low) | u64::from(high & 0x01) << 8 | u64::from(high >> 4 & 1) << 13;
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
                let effects = frontend.fault(fault);
                possible(&effects);
                in_event_log(&frontend, &effects);
                let stops = !matches!(fault, GuestFault::NONE | GuestFault::EVENT_ABORT);
                assert!(!stops || frontend.queue().state != QueueState::RUNNING, "{fault:?} does not stop the buffer");
            }
            8 => {
                // Only a wait that the codec stops at comes this far.
                let command = [1 << 60 | value & 0x000f_ffff_ffff_ffff, value.rotate_left(20)];
                let ids = HostIds { tag: 1, streams: &[], domains: &[] };
                assert_eq!(codec.rewrite(&command, Classes::NONE, ids, &mut []).stop, Stop::SYNC);
                let effects = frontend.sync_done(&command);
                possible(&effects);
                let stores = &effects.stores[..effects.store_count as usize];
                assert_eq!(stores.len() as u64, value & 1);
                assert!(stores.iter().all(|store| (store.len, store.gpa % 8) == (8, 0)), "{stores:x?}");
            }
            9 => {
                let record = [value, value.rotate_left(7)];
                let effects = frontend.event(u32::from(argument), &record[..usize::from(argument) % 3]);
                possible(&effects);
                in_event_log(&frontend, &effects);
                possible(&frontend.event_lost());
            }
            10 => {
                let ram = Ram { reads: Cell::new(0), xor: value };
                let mut entry = [0; 4];
                let found = frontend.entry(&ram, u32::from(argument) << (value & 15), &mut entry);
                assert!(found.0 <= Lookup::UNREADABLE.0 && ram.reads.get() <= 1, "{} reads", ram.reads.get());
                let mut text = Message::default();
                frontend.trouble(&mut text);
            }
            11 if argument & 1 != 0 => {
                // A frontend that was moved is the same; what is not a saved state changes nothing.
                let saved = frontend.save();
                let mut moved = AmdFrontend::new(&ids).expect("it was made before");
                moved.restore(&saved).expect("what was saved can be restored");
                assert!(moved.save() == saved && frame(&moved) == frame(&frontend), "moving changed it");
                let mut wrong = saved.clone();
                let bit = (usize::from(low) | usize::from(high) << 8) % (8 * wrong.len());
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
