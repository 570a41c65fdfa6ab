//! Nothing that a caller passes may panic, loop or allocate without bound.

use crate::caller::Caller;
use std::cell::Cell;
use std::time::{Duration, Instant};
use viommu::uapi::{
    Command, Errno, UserMemory,
    dispatcher::{Dispatcher, Options},
    flags,
    selftest::op,
};

/// Memory in which every address is there and reads as some pattern: no pointer ever stops a loop.
struct Everywhere(Cell<u64>);

impl UserMemory for Everywhere {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        self.0.set(self.0.get() + 1);
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = (address.wrapping_add(index as u64) >> 3) as u8;
        }
        Ok(())
    }

    fn write(&self, _: u64, _: &[u8]) -> Result<(), Errno> {
        self.0.set(self.0.get() + 1);
        Ok(())
    }
}

/// SplitMix64.
fn draw(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A word as a caller with bad manners chooses it: a small number (an ID), one near a limit, or anything.
fn word(seed: &mut u64) -> u32 {
    const LIMITS: [u32; 12] = [
        0,
        u32::MAX,
        0x8000_0000,
        0x8_0000,
        0x8_0001,
        4096,
        0xdead_beef,
        0xbeef_beef,
        0xdead,
        0x0100_0000,
        0x7fff_ffff,
        flags::IOAS_MAP_READABLE | flags::IOAS_MAP_WRITEABLE,
    ];
    match draw(seed) % 8 {
        0..4 => (draw(seed) % 12) as u32,
        4..6 => LIMITS[draw(seed) as usize % LIMITS.len()],
        6 => 1 << (draw(seed) % 32),
        _ => draw(seed) as u32,
    }
}

#[test]
fn random_commands_neither_panic_nor_hang_nor_leak() {
    for seed in 0..40u64 {
        let mut state = seed;
        let fd = Dispatcher::new(Options::selftest());
        let memory = Everywhere(Cell::new(0));
        let begun = Instant::now();
        for _ in 0..400 {
            let command = Command::ALL[draw(&mut state) as usize % Command::ALL.len()];
            let mut bytes: Vec<u8> = (0..command.size() / 4).flat_map(|_| word(&mut state).to_ne_bytes()).collect();
            bytes[..4].copy_from_slice(&(command.size() as u32).to_ne_bytes());
            // Most commands' second word is flags, which would stop most of them.
            if !draw(&mut state).is_multiple_of(4) && command != Command::Test {
                bytes[4..8].copy_from_slice(&(draw(&mut state) as u32 % 8).to_ne_bytes());
            }
            if command == Command::Test {
                bytes[4..8].copy_from_slice(&(draw(&mut state) as u32 % 24).to_ne_bytes());
                bytes[12..16].fill(0);
            }
            let _ = fd.ioctl(command.code(), &mut bytes, &memory);
            let number = word(&mut state) as i32;
            let _ = fd.read(number, &mut [0; 80]);
            let _ = fd.write(number, &[0; 16]);
            if draw(&mut state).is_multiple_of(16) {
                let _ = fd.close(number);
            }
        }
        let end = fd.shutdown();
        assert!(end.left.is_empty() && end.stray_pins == 0, "seed {seed}: {end:?}");
        // Generous: what is bounded takes milliseconds, what is not never ends.
        assert!(begun.elapsed() < Duration::from_secs(60), "seed {seed}: {} accesses", memory.0.get());
    }
}

#[test]
fn counts_that_are_too_large_are_refused_before_anything_is_done() {
    let caller = Caller::new();
    let ioas = caller.ioas();
    let mock = caller.mock(ioas, 0).unwrap();
    let memory = Everywhere(Cell::new(0));
    // 2^32 - 1 ranges of which the second already overlaps; a mapping of 2^63 bytes; 2^40 pages of bits.
    let allow = [24u32, ioas, u32::MAX, 0, 8, 0].map(u32::to_ne_bytes).concat();
    assert_eq!(caller.fd.ioctl(Command::IoasAllowIovas.code(), &mut allow.clone(), &memory), Err(Errno::INVAL));
    let map = [40u32, 6, ioas, 0, 0x1000, 0, 0, 0x4000_0000, 0, 0].map(u32::to_ne_bytes).concat();
    assert_eq!(caller.fd.ioctl(Command::IoasMap.code(), &mut map.clone(), &memory), Err(Errno::NOSPC));
    assert_eq!(
        caller.test(op::DIRTY, mock.hwpt, &[(132, 1 << 62), (140, 1), (148, 8)]).map(|_| ()),
        Err(Errno::OVERFLOW)
    );
    assert!(memory.0.get() < 1000, "{}", memory.0.get());
    caller.close();
}
