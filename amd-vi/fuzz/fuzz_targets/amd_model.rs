//! Any memory, commands, registers and requests of a machine with the software IOMMU: it never panics, takes no more
//! commands than it may, reads no more than the longest walk, and stores only what a command or an event asked for.
//!
//! Input: features; then steps of 12 bytes: what, an argument, a place (2), value (8).

#![no_main]

use amd_vi::model::Iommu;
use amd_vi::spec::registers::{FRAME_BYTES, RingBase, offset};
use libfuzzer_sys::fuzz_target;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use viommu_plugin::*;

/// Pages of memory, at 0: device table, commands, events, and tables.
const PAGES: u64 = 16;
/// Reads of the longest look-up: an entry of 4 words, GCR3 walk of 3 and guest walk of 5 with a host walk of 6 before
/// each, and the page's own.
const READS_MOST: u64 = 4 + 8 * 7 + 6;

#[derive(Default)]
struct Ram {
    words: HashMap<u64, u64>,
    reads: u64,
    stored: Vec<(u64, usize)>,
}

#[derive(Clone, Default)]
struct Host(Arc<Mutex<Ram>>);

impl ModelHost for Host {
    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        let mut ram = self.0.lock().unwrap();
        ram.reads += 1;
        // Addresses wrap inside the little memory, so that most pointers lead somewhere; one in 16 does not.
        if pa >> 48 & 0xf == 0xf {
            return Err(Unreadable);
        }
        for (at, out) in (pa..).step_by(8).zip(bytes.chunks_mut(8)) {
            let word = ram.words.get(&(at % (PAGES << 12))).copied().unwrap_or(0);
            out.copy_from_slice(&word.to_le_bytes()[..out.len()]);
        }
        Ok(())
    }
    fn write(&self, pa: u64, bytes: &[u8]) -> Result<(), Unreadable> {
        self.0.lock().unwrap().stored.push((pa, bytes.len()));
        Ok(())
    }
    fn irq(&self, line: u32) {
        assert_eq!(line, 0);
    }
}

/// The event log as the registers say.
fn event_log(iommu: &mut Iommu) -> std::ops::Range<u64> {
    let base = RingBase::from(iommu.mmio_read(offset::EVENT_BASE, 8));
    base.address()..base.address() + (16 << base.length().max(RingBase::LENGTH_LEAST))
}

fuzz_target!(|input: &[u8]| {
    let Some((&features, rest)) = input.split_first() else { return };
    let shown = Register { offset: offset::EFR, value: u64::from(features).wrapping_mul(0x0101_0101_0101_0101) };
    let registers = if features & 1 == 0 { &[][..] } else { std::slice::from_ref(&shown) };
    let config = ModelConfig { registers, atc: features & 2 != 0, tlb_capacity: u32::from(features >> 2 & 7) };
    let host = Host::default();
    let mut iommu = Iommu::new(Box::new(host.clone()), config).expect("any features");
    for (at, value) in [
        (offset::DEVICE_TABLE_BASE, 0),
        (offset::COMMAND_BASE, 8 << 56 | 0x1000),
        (offset::EVENT_BASE, 8 << 56 | 0x2000),
        (offset::CONTROL, 0x0400_0000_0001_108f),
    ] {
        iommu.mmio_write(at, 8, value);
    }
    for step in rest.as_chunks::<12>().0 {
        let [what, argument, low, high, value @ ..] = *step;
        let value = u64::from_le_bytes(value);
        let place = u64::from(low) | u64::from(high) << 8;
        match what % 8 {
            0..=2 => drop(host.0.lock().unwrap().words.insert(place & 0xfff8, value)),
            3 => iommu.mmio_write(place % (2 * FRAME_BYTES), 4 << (argument & 1), value),
            4 => {
                iommu.mmio_write(offset::COMMAND_TAIL, 4, value);
                let budget = u32::from(argument);
                assert!(iommu.step(budget) <= budget);
                // Completion words are 8 bytes, events 16 and in their ring.
                let log = event_log(&mut iommu);
                for (pa, bytes) in host.0.lock().unwrap().stored.drain(..) {
                    assert!(bytes == 8 || bytes == 16 && log.contains(&pa), "{bytes} bytes at {pa:#x}");
                }
            }
            5 => iommu.atc_unresponsive(place as u32, argument & 1 != 0),
            6 if argument == 0xff => iommu.reset(),
            _ => {
                let pasid = if argument & 4 == 0 { u32::MAX } else { place as u32 >> 7 };
                let stream = place as u32 & 0x7f;
                let request = Request {
                    stream,
                    pasid,
                    iova: value,
                    access: u32::from(argument & 3),
                    flags: u32::from(argument >> 3 & 1),
                };
                host.0.lock().unwrap().reads = 0;
                let mut answers = [Answer::default()];
                assert_eq!(iommu.translate(&[request], &mut answers), 1);
                assert!(host.0.lock().unwrap().reads <= READS_MOST);
                let log = event_log(&mut iommu);
                let stored: Vec<_> = host.0.lock().unwrap().stored.drain(..).collect();
                let speculative = request.flags & Request::SPECULATIVE != 0;
                assert!(stored.len() <= usize::from(!speculative), "{stored:?}");
                assert!(stored.iter().all(|(pa, bytes)| *bytes == 16 && log.contains(pa)), "{stored:?}");
                let [answer] = answers;
                assert!(answer.status != Status::OK || u64::from(request.access) & !u64::from(answer.permissions) == 0);
                let mut text = Message::default();
                iommu.explain(&request, &mut text);
            }
        }
    }
});
