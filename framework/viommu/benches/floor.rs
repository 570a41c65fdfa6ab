//! The floor: what one thread needs for check and rewrite of the same words straight into a ring, and nothing else.
//!
//! No framework, no plugin, no queue registers, no lock, nobody to wait for. Written for Arm SMMUv3 words by hand, and
//! shares no code with the pipeline or the plugin.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A command ring with its doorbell.
pub(crate) struct Ring {
    slots: Vec<AtomicU64>,
    mask: usize,
    producer: usize,
    doorbell: AtomicU32,
}

/// A guest's IDs.
pub(crate) struct Ids {
    pub(crate) vmid: u64,
    pub(crate) streams: Vec<u32>,
}

const NONE: u32 = u32::MAX;

impl Ring {
    pub(crate) fn new(log2: u32) -> Self {
        let slots = (0..2usize << log2).map(|_| AtomicU64::new(0)).collect();
        Self { slots, mask: (1 << log2) - 1, producer: 0, doorbell: AtomicU32::new(0) }
    }

    #[inline]
    fn put(&mut self, low: u64, high: u64) {
        let slot = (self.producer & self.mask) * 2;
        self.slots[slot].store(low, Ordering::Relaxed);
        self.slots[slot + 1].store(high, Ordering::Relaxed);
        self.producer += 1;
    }

    /// Checks and rewrites `commands` into the ring, adds a SYNC, rings the doorbell. How many were good.
    pub(crate) fn submit(&mut self, commands: &[u64], ids: &Ids) -> usize {
        let mut good = 0;
        for command in commands.chunks_exact(2) {
            let (low, high) = (command[0], command[1]);
            match low & 0xff {
                0x12 if low & 0x0000_0000_fc00_0f00 == 0 && high & 0x0000_0000_0000_00fe == 0 => {
                    self.put((low & !0x0000_ffff_0000_0000) | ids.vmid << 32, high);
                }
                0x11 if low & 0x0000_0000_ffff_ff00 == 0 && high == 0 => {
                    self.put((low & !0x0000_ffff_0000_0000) | ids.vmid << 32, 0);
                }
                0x10 | 0x30 if low >> 48 == 0 && high == 0 => self.put(0x10 | ids.vmid << 32, 0),
                0x40 | 0x05 => {
                    let stream = ids.streams.get((low >> 32) as usize).copied().unwrap_or(NONE);
                    if stream == NONE {
                        good += 1;
                        continue;
                    }
                    self.put((low & 0xffff_ffff) | u64::from(stream) << 32, high);
                }
                _ => return good,
            }
            good += 1;
        }
        self.put(0x46, 0);
        self.doorbell.store(self.producer as u32, Ordering::Release);
        good
    }
}
