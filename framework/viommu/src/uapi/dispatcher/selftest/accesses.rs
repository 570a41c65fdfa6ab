//! Accesses of the mock driver: pages pinned and bytes copied through an IOAS.

use crate::uapi::{
    Errno,
    dispatcher::{
        Call,
        access::{Access, Pin},
        driver::PAGE_SIZE,
        ioas::last,
        objects::{Kind, Object},
        space::Source,
        state::State,
    },
    selftest::TestCommand,
};

/// CREATE_ACCESS: pins pages.
const NEEDS_PIN_PAGES: u32 = 1;
/// ACCESS_PAGES and ACCESS_RW: writes.
const WRITE: u32 = 1;
/// ACCESS_RW: copies the slow way.
const SLOW_PATH: u32 = 4;
/// Bytes of one call.
const LONGEST: u64 = 16 << 20;

impl State {
    pub(super) fn create_access(&mut self, command: &mut TestCommand) -> Result<(), Errno> {
        let flags = command.u32_at(20);
        if flags & !NEEDS_PIN_PAGES != 0 {
            return Err(Errno::OPNOTSUPP);
        }
        let ioas = command.id;
        let pins_pages = flags & NEEDS_PIN_PAGES != 0;
        let fd = self.with_reserved(|state, id| {
            let fd = state.new_fd()?;
            state.seek(ioas, Kind::Ioas)?;
            state.align_for_access(ioas, id, pins_pages)?;
            state.table.publish(id, Object::Access(Access::new(ioas, pins_pages)), &[ioas]);
            state.table.hold(id);
            state.fds.insert(fd, id);
            Ok(fd)
        })?;
        command.set_u32_at(16, fd as u32);
        Ok(())
    }

    fn align_for_access(&mut self, ioas: u32, access: u32, pins_pages: bool) -> Result<(), Errno> {
        let space = &mut self.table.ioas_mut(ioas)?.space;
        space.accesses.insert(access, if pins_pages { PAGE_SIZE } else { 1 });
        space.realign().inspect_err(|_| {
            space.accesses.remove(&access);
        })
    }

    /// The access behind a number, and its IOAS.
    fn access_behind(&self, fd: u32) -> Result<(u32, Option<u32>), Errno> {
        let id = *self.fds.get(&(fd as i32)).ok_or(Errno::BADFD)?;
        Ok((id, self.table.access(id).map_err(|_| Errno::BADFD)?.ioas))
    }

    pub(super) fn access_replace_ioas(&mut self, command: &TestCommand) -> Result<(), Errno> {
        let (access, old) = self.access_behind(command.id)?;
        let new = command.u32_at(16);
        self.seek(new, Kind::Ioas)?;
        if old == Some(new) {
            return Ok(());
        }
        let pins_pages = self.table.access(access)?.pins_pages;
        self.align_for_access(new, access, pins_pages)?;
        if let Some(old) = old {
            self.unpin_all(access);
            let space = &mut self.table.ioas_mut(old)?.space;
            space.accesses.remove(&access);
            // With one access less the alignment can only become smaller.
            let _ = space.realign();
            self.table.stop_holding(access, old);
        }
        self.table.also_hold(access, new);
        self.table.access_mut(access)?.ioas = Some(new);
        Ok(())
    }

    fn unpin_all(&mut self, access: u32) {
        let pins: Vec<u32> =
            self.table.access(access).map(|own| own.pins.keys().copied().collect()).unwrap_or_default();
        for pin in pins {
            // It is there: it was just listed.
            let _ = self.unpin(access, pin);
        }
    }

    pub(super) fn access_pages(&mut self, command: &mut TestCommand, call: Call<'_>) -> Result<(), Errno> {
        let (flags, iova, length, uptr) =
            (command.u32_at(16), command.u64_at(24), command.u64_at(32), command.u64_at(40));
        if length > LONGEST {
            return Err(Errno::NOMEM);
        }
        if flags & !WRITE != 0 {
            return Err(Errno::OPNOTSUPP);
        }
        let (access, ioas) = self.access_behind(command.id)?;
        if !self.table.access(access)?.pins_pages {
            return Err(Errno::OPNOTSUPP);
        }
        self.inject.allocation()?;
        let last = last(iova, length)?;
        let ioas = ioas.ok_or(Errno::NOENT)?;
        let mut first = None;
        for piece in self.table.ioas(ioas)?.space.pieces(iova, last) {
            let piece = piece.ok_or(Errno::NOENT)?;
            let start = piece.pages.source.start();
            let end = start.wrapping_add(piece.last - piece.iova + 1);
            if !start.is_multiple_of(PAGE_SIZE) || (piece.more && !end.is_multiple_of(PAGE_SIZE)) {
                return Err(Errno::INVAL);
            }
            if !(if flags & WRITE != 0 { piece.write } else { piece.read }) {
                return Err(Errno::PERM);
            }
            self.pin(piece.pages.source, piece.last - piece.iova + 1, call.memory)?;
            first = first.or(Some(piece.pages.source));
        }
        if uptr != 0 && first != Some(Source::User(uptr & !(PAGE_SIZE - 1))) {
            return Err(Errno::BADE);
        }
        self.count_pins(ioas, Pin { iova, last }, |pins| pins.saturating_add(1))?;
        let own = self.table.access_mut(access)?;
        let number = own.next_pin;
        own.next_pin = own.next_pin.wrapping_add(1);
        own.pins.insert(number, Pin { iova, last });
        command.set_u32_at(20, number);
        Ok(())
    }

    pub(super) fn destroy_access_pages(&mut self, command: &TestCommand) -> Result<(), Errno> {
        let (access, _) = self.access_behind(command.id)?;
        self.unpin(access, command.u32_at(16))
    }

    pub(super) fn access_rw(&mut self, command: &TestCommand, call: Call<'_>) -> Result<(), Errno> {
        let (flags, iova, length, uptr) =
            (command.u32_at(40), command.u64_at(16), command.u64_at(24), command.u64_at(32));
        if length > LONGEST {
            return Err(Errno::NOMEM);
        }
        if flags & !(WRITE | SLOW_PATH) != 0 {
            return Err(Errno::OPNOTSUPP);
        }
        let (_, ioas) = self.access_behind(command.id)?;
        self.inject.allocation()?;
        let writes = flags & WRITE != 0;
        let mut bytes = vec![0; length as usize];
        if writes {
            call.memory.read(uptr, &mut bytes)?;
        }
        let last = last(iova, length)?;
        for piece in self.table.ioas(ioas.ok_or(Errno::NOENT)?)?.space.pieces(iova, last) {
            let piece = piece.ok_or(Errno::NOENT)?;
            if !(if writes { piece.write } else { piece.read }) {
                return Err(Errno::PERM);
            }
            // Memory files have no bytes here.
            let Source::User(address) = piece.pages.source else { continue };
            let at = (piece.iova - iova) as usize;
            let piece = &mut bytes[at..=at + (piece.last - piece.iova) as usize];
            if writes { call.memory.write(address, piece)? } else { call.memory.read(address, piece)? }
        }
        if !writes {
            call.memory.write(uptr, &bytes)?;
        }
        Ok(())
    }
}
