//! What event queues' files say, in words.

use super::Session;
use crate::iommufd::errno_name;
use viommu::uapi::payload::{HwptPageResponse, HwptPgfault, VeventHeader};
use viommu::uapi::{Errno, flags};
use zerocopy::{FromBytes, IntoBytes};

/// Bytes of a record of the mock's vEVENTQ: header and the device's number.
pub(crate) const VEVENT: usize = 12;

/// How page requests and events are written in a row's words.
fn queue_names(flags: u32) -> &'static str {
    match flags & (flags::PGFAULT_FLAGS_PASID_VALID | flags::PGFAULT_FLAGS_LAST_PAGE) {
        0 => "none",
        1 => "PASID_VALID",
        2 => "LAST_PAGE",
        _ => "PASID_VALID|LAST_PAGE",
    }
}

impl Session<'_> {
    /// Notes what reading that many bytes gives: a count, or the errno.
    pub(crate) fn see_read(&mut self, file: u32, bytes: usize) {
        let result = self.iommufd().read(file, &mut vec![0; bytes]);
        self.note(result.map_or_else(errno_name, |read| format!("{read} bytes")));
    }

    /// Notes what `poll` says.
    pub(crate) fn see_poll(&mut self, file: u32) {
        let result = self.iommufd().poll(file);
        self.note(result.map_or_else(errno_name, |ready| ready.to_string()));
    }

    /// Reads vEVENTQ records with room for that many, in words.
    pub(crate) fn events(&self, file: u32, room: usize) -> Result<Vec<String>, Errno> {
        let mut bytes = vec![0; room * VEVENT];
        let read = self.iommufd().read(file, &mut bytes)?;
        let mut rest = &bytes[..read.min(bytes.len())];
        let mut events = Vec::new();
        while let Ok((header, after)) = VeventHeader::read_from_prefix(rest) {
            rest = after;
            if header.flags & flags::VEVENTQ_FLAG_LOST_EVENTS != 0 {
                events.push(format!("seq {} LOST_EVENTS", header.sequence));
            } else if let Ok((virt_id, after)) = u32::read_from_prefix(rest) {
                rest = after;
                events.push(format!("seq {} virt_id {virt_id:#x}", header.sequence));
            } else {
                break;
            }
        }
        if !rest.is_empty() {
            events.push(format!("{} bytes more", rest.len()));
        }
        Ok(events)
    }

    /// Notes the vEVENTQ records that are there.
    pub(crate) fn see_events(&mut self, file: u32) {
        let events = self.events(file, 16);
        self.note(events.map_or_else(errno_name, |events| match events.is_empty() {
            true => "no event".into(),
            false => events.join(", "),
        }));
    }

    /// The page requests that are there.
    pub(crate) fn faults(&self, file: u32) -> Result<Vec<HwptPgfault>, Errno> {
        let mut faults = [HwptPgfault::default(); 8];
        let read = self.iommufd().read(file, faults.as_mut_bytes())?;
        Ok(faults[..(read / size_of::<HwptPgfault>()).min(8)].to_vec())
    }

    /// Answers a page request: bytes taken.
    pub(crate) fn respond(&self, file: u32, cookie: u32, code: u32) -> Result<usize, Errno> {
        self.iommufd().write(file, HwptPageResponse { cookie, code }.as_bytes())
    }

    /// Notes the one page request that is there, and how its answer was taken.
    pub(crate) fn see_fault(&mut self, file: u32) {
        match self.faults(file).as_deref() {
            Ok([fault]) => {
                let HwptPgfault { flags, pasid, grpid, perm, addr, cookie, .. } = *fault;
                let names = queue_names(flags);
                self.note(format!("fault {names} pasid {pasid} grpid {grpid} perm {perm} addr {addr:#x}"));
                let response = self.respond(file, cookie, flags::PAGE_RESP_SUCCESS);
                self.note(response.map_or_else(errno_name, |taken| format!("response {taken} bytes")));
            }
            Ok(faults) => self.note(format!("{} faults", faults.len())),
            Err(errno) => self.note(errno_name(*errno)),
        }
    }

    /// Closes an event queue's file.
    pub(crate) fn close(&self, file: u32) -> Result<(), super::Failed> {
        self.iommufd().close(file).map_err(|errno| super::Failed { command: "close", errno })
    }
}
