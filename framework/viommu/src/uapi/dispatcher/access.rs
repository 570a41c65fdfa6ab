//! Accesses: users of an IOAS that are no device, as a driver in the kernel is one.

use super::state::State;
use crate::uapi::Errno;
use std::collections::BTreeMap;

/// What an access pinned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pin {
    pub iova: u64,
    pub last: u64,
}

/// An access.
#[derive(Debug)]
pub(super) struct Access {
    pub ioas: Option<u32>,
    /// Whether it may pin pages; others copy bytes.
    pub pins_pages: bool,
    /// By the number that its owner knows.
    pub pins: BTreeMap<u32, Pin>,
    pub next_pin: u32,
}

impl Access {
    /// That of a hardware queue, whose pins never give way.
    pub(super) fn internal(ioas: u32) -> Self {
        Self::new(ioas, true)
    }

    pub(super) fn new(ioas: u32, pins_pages: bool) -> Self {
        Self { ioas: Some(ioas), pins_pages, pins: BTreeMap::new(), next_pin: 0 }
    }
}

impl State {
    /// A mapping goes: every access lets go of what it pinned of it.
    pub(super) fn unpin_accesses(&mut self, ioas: u32, first: u64, last: u64) {
        let Ok(accesses) = self.table.ioas(ioas).map(|ioas| ioas.space.accesses.keys().copied().collect::<Vec<_>>())
        else {
            return;
        };
        for access in accesses {
            let Ok(object) = self.table.access(access) else { continue };
            let touched = |pin: &Pin| pin.iova <= last && pin.last >= first;
            let gone: Vec<u32> =
                object.pins.iter().filter(|(_, pin)| touched(pin)).map(|(number, _)| *number).collect();
            for number in gone {
                // It is there: it was just listed.
                let _ = self.unpin(access, number);
            }
        }
    }

    /// Lets go of one pin; ENOENT if there is none with this number.
    pub(super) fn unpin(&mut self, access: u32, number: u32) -> Result<(), Errno> {
        let object = self.table.access_mut(access)?;
        let pin = object.pins.remove(&number).ok_or(Errno::NOENT)?;
        if let Some(ioas) = object.ioas {
            self.count_pins(ioas, pin, |pins| pins.saturating_sub(1))?;
        }
        Ok(())
    }

    pub(super) fn count_pins(&mut self, ioas: u32, pin: Pin, change: impl Fn(u32) -> u32) -> Result<(), Errno> {
        let space = &mut self.table.ioas_mut(ioas)?.space;
        let mut at = pin.iova;
        while let Some((start, area)) = space.first_area(at, pin.last) {
            let end = area.last;
            if let Some(area) = space.area_mut(start) {
                area.pins = change(area.pins);
            }
            if end >= pin.last {
                break;
            }
            at = end + 1;
        }
        Ok(())
    }
}
