//! Which IOVAs of an IOAS can be used, and where automatic ones may come from.

use super::{Call, framing::Answer, objects::Kind, state::State};
use crate::uapi::{Errno, layout};
use std::collections::BTreeMap;
use zerocopy::IntoBytes;

impl State {
    pub(super) fn ioas_iova_ranges(&mut self, command: &mut layout::IoasIovaRanges, call: Call<'_>) -> Answer {
        let refused = |errno| Answer { result: Err(errno), reply: false };
        if command.__reserved != 0 {
            return refused(Errno::OPNOTSUPP);
        }
        if let Err(errno) = self.seek(command.ioas_id, Kind::Ioas) {
            return refused(errno);
        }
        let Ok(ioas) = self.table.ioas(command.ioas_id) else { return refused(Errno::NOENT) };
        let usable = ioas.space.usable();
        let room = command.num_iovas as usize;
        for (index, (start, last)) in usable.iter().take(room).enumerate() {
            let range = layout::IovaRange { start: *start, last: *last };
            let address = command.allowed_iovas.wrapping_add((index * size_of::<layout::IovaRange>()) as u64);
            if let Err(errno) = call.memory.write(address, range.as_bytes()) {
                return refused(errno);
            }
        }
        command.num_iovas = usable.len() as u32;
        command.out_iova_alignment = ioas.space.alignment;
        let result = if usable.len() > room { Err(Errno::MSGSIZE) } else { Ok(()) };
        Answer { result, reply: true }
    }

    pub(super) fn ioas_allow_iovas(
        &mut self,
        command: &mut layout::IoasAllowIovas,
        call: Call<'_>,
    ) -> Result<(), Errno> {
        if command.__reserved != 0 {
            return Err(Errno::OPNOTSUPP);
        }
        self.seek(command.ioas_id, Kind::Ioas)?;
        let mut allowed: BTreeMap<u64, u64> = BTreeMap::new();
        for index in 0..u64::from(command.num_iovas) {
            let mut range = layout::IovaRange::default();
            let address = command.allowed_iovas.wrapping_add(index * size_of::<layout::IovaRange>() as u64);
            call.memory.read(address, range.as_mut_bytes())?;
            let overlaps = allowed.range(..=range.last).next_back().is_some_and(|(_, last)| *last >= range.start);
            if range.start >= range.last || overlaps {
                return Err(Errno::INVAL);
            }
            self.inject.allocation()?;
            if allowed.len() >= self.limits.areas {
                return Err(Errno::NOMEM);
            }
            allowed.insert(range.start, range.last);
        }
        self.table.ioas_mut(command.ioas_id)?.space.allow(allowed)
    }
}
