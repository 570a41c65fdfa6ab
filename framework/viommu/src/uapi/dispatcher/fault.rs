//! FAULT queues: page requests of devices, and the answers to them.

use super::{
    objects::{Kind, Object},
    state::State,
};
use crate::uapi::{
    Errno,
    flags::{PAGE_RESP_INVALID, PAGE_RESP_SUCCESS, PGFAULT_FLAGS_LAST_PAGE, PGFAULT_FLAGS_PASID_VALID},
    layout,
    payload::{HwptPageResponse, HwptPgfault},
};
use std::collections::{BTreeMap, VecDeque};
use zerocopy::{FromBytes, IntoBytes};

/// Answers that are kept for whoever asks what the devices were told.
const ANSWERS: usize = 4096;
/// Page requests that a device may have waiting in one queue.
const WAITING: usize = 1 << 16;

/// What a device was told about a group of page requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageAnswer {
    /// The device's object.
    pub device: u32,
    /// Its PASID; 0 without.
    pub pasid: u32,
    /// The device's number of the group.
    pub group: u32,
    /// [`PAGE_RESP_SUCCESS`] or [`PAGE_RESP_INVALID`].
    pub code: u32,
}

/// A group of page requests, the last of which closes it.
#[derive(Debug, Clone)]
pub(super) struct Requests {
    /// The attachment that they came through.
    serial: u64,
    pages: Vec<HwptPgfault>,
}

/// A queue of page requests.
#[derive(Debug, Default)]
pub(super) struct Fault {
    deliver: VecDeque<Requests>,
    /// Groups that were read and wait for their answer, by cookie.
    waiting: BTreeMap<u32, Requests>,
}

impl Fault {
    /// Whole groups, as many as fit; EINVAL if not even one does.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        let size = size_of::<HwptPgfault>();
        if !buffer.len().is_multiple_of(size) {
            return Err(Errno::SPIPE);
        }
        let mut done = 0;
        while let Some(group) = self.deliver.front() {
            let Some(room) = buffer[done..].get_mut(..group.pages.len() * size) else {
                return if done == 0 { Err(Errno::INVAL) } else { Ok(done) };
            };
            let Some(mut group) = self.deliver.pop_front() else { break };
            let free = (1..).zip(self.waiting.keys()).find(|(free, taken)| free != *taken).map(|(free, _)| free);
            let cookie = free.unwrap_or(self.waiting.len() as u32 + 1);
            for (page, room) in group.pages.iter_mut().zip(room.chunks_exact_mut(size)) {
                page.cookie = cookie;
                room.copy_from_slice(page.as_bytes());
            }
            done += room.len();
            self.waiting.insert(cookie, group);
        }
        Ok(done)
    }

    pub(super) fn is_readable(&self) -> bool {
        !self.deliver.is_empty()
    }

    /// Every group, read or not.
    pub(super) fn all(self) -> impl Iterator<Item = Requests> {
        self.deliver.into_iter().chain(self.waiting.into_values())
    }
}

impl State {
    pub(super) fn fault_alloc(&mut self, command: &mut layout::FaultAlloc) -> Result<(), Errno> {
        if command.flags != 0 {
            return Err(Errno::OPNOTSUPP);
        }
        (command.out_fault_id, command.out_fault_fd) = self.with_reserved(|state, id| {
            let fd = state.new_fd()?;
            state.table.publish(id, Object::Fault(Fault::default()), &[]);
            state.table.hold(id);
            state.fds.insert(fd, id);
            Ok((id, fd as u32))
        })?;
        Ok(())
    }

    /// A device asks for a page. Where nobody listens, nothing happens and the device is told so.
    pub(super) fn page_request(&mut self, request: HwptPgfault) -> Result<(), Errno> {
        let device = request.dev_id;
        let mut request = HwptPgfault { length: 0, cookie: 0, __reserved: 0, ..request };
        request.flags = PGFAULT_FLAGS_LAST_PAGE | if request.pasid == 0 { 0 } else { PGFAULT_FLAGS_PASID_VALID };
        let there = match self.attachment(device, request.pasid) {
            None if self.table.device(device)?.bound.config.driver.guest_owns_pasids() => {
                self.attachment(device, 0).filter(|there| self.table.kind(there.hwpt) == Some(Kind::Nested))
            }
            there => there,
        };
        let listener = there.map(|there| Ok((self.hwpt_facts(there.hwpt)?.1, there.serial))).transpose()?;
        let requests = |serial| Requests { serial, pages: vec![request] };
        let Some((Some(fault), serial)) = listener else {
            self.answer(requests(0), PAGE_RESP_INVALID);
            return Ok(());
        };
        let full = self.inject.allocation().is_err();
        let queue = self.table.fault_mut(fault)?;
        if full || queue.deliver.len() + queue.waiting.len() >= WAITING {
            self.answer(requests(serial), PAGE_RESP_INVALID);
        } else {
            queue.deliver.push_back(requests(serial));
        }
        Ok(())
    }

    /// Answers from whoever reads a FAULT queue; bytes taken, or the error of the first answer.
    pub(super) fn fault_write(&mut self, fault: u32, bytes: &[u8]) -> Result<usize, Errno> {
        let size = size_of::<HwptPageResponse>();
        if !bytes.len().is_multiple_of(size) {
            return Err(Errno::SPIPE);
        }
        let mut done = 0;
        for response in bytes.chunks_exact(size) {
            let taken = HwptPageResponse::read_from_bytes(response)
                .ok()
                .filter(|response| [PAGE_RESP_SUCCESS, PAGE_RESP_INVALID].contains(&response.code))
                .and_then(|response| {
                    Some((self.table.fault_mut(fault).ok()?.waiting.remove(&response.cookie)?, response))
                });
            let Some((group, response)) = taken else {
                return if done == 0 { Err(Errno::INVAL) } else { Ok(done) };
            };
            self.answer(group, response.code);
            done += size;
        }
        Ok(done)
    }

    /// An attachment ends: its requests are answered for whoever would have.
    pub(super) fn answer_attachment(&mut self, hwpt: u32, serial: u64) {
        let Ok((_, Some(fault))) = self.hwpt_facts(hwpt) else { return };
        let Ok(queue) = self.table.fault_mut(fault) else { return };
        let (gone, stays) = std::mem::take(queue).all_split(serial);
        *queue = stays;
        for group in gone {
            self.answer(group, PAGE_RESP_INVALID);
        }
    }

    pub(super) fn answer(&mut self, group: Requests, code: u32) {
        let Some(page) = group.pages.first() else { return };
        if self.answers.len() == ANSWERS {
            self.answers.pop_front();
        }
        self.answers.push_back(PageAnswer { device: page.dev_id, pasid: page.pasid, group: page.grpid, code });
    }
}

impl Fault {
    /// What came through one attachment, and the queue without it.
    fn all_split(self, serial: u64) -> (Vec<Requests>, Self) {
        let mut gone = Vec::new();
        let mut stays = Self::default();
        for group in self.deliver {
            if group.serial == serial { gone.push(group) } else { stays.deliver.push_back(group) }
        }
        for (cookie, group) in self.waiting {
            if group.serial == serial {
                gone.push(group);
            } else {
                stays.waiting.insert(cookie, group);
            }
        }
        (gone, stays)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(groups: u64) -> Fault {
        let mut queue = Fault::default();
        for serial in 0..groups {
            queue.deliver.push_back(Requests { serial, pages: vec![HwptPgfault::default()] });
        }
        queue
    }

    #[test]
    fn a_read_takes_whole_groups_and_cookies_start_at_one() {
        let mut queue = queue(3);
        assert_eq!([queue.read(&mut [0; 41]), queue.read(&mut [])], [Err(Errno::SPIPE), Err(Errno::INVAL)]);
        let mut bytes = [0; 80];
        assert_eq!(queue.read(&mut bytes), Ok(80));
        assert_eq!((bytes[36], bytes[76]), (1, 2));
        queue.waiting.remove(&1);
        assert_eq!(queue.read(&mut bytes), Ok(40));
        assert_eq!(bytes[36], 1, "the lowest free");
        assert_eq!((queue.read(&mut bytes), queue.is_readable()), (Ok(0), false));
    }

    #[test]
    fn an_attachment_takes_its_requests_along() {
        let mut queue = queue(3);
        queue.read(&mut [0; 40]).unwrap();
        let (gone, stays) = queue.all_split(0);
        assert_eq!((gone.len(), stays.waiting.len(), stays.deliver.len()), (1, 0, 2));
    }
}
