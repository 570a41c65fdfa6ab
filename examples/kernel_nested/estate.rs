//! What a VMM leaves to the next one: files over a socket (SCM_RIGHTS), and the bytes that say what they are.

use crate::bench::Bench;
use crate::kernel::Kernel;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;
use viommu_examples::Story;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

/// Bytes of one message at most.
const ROOM: usize = 64 << 10;
/// How long the next VMM waits for a message.
const PATIENCE: Duration = Duration::from_secs(60);

/// Kinds of messages; a number behind it says whose file it is.
const MEMORY: u8 = b'M';
const IOMMUFD: u8 = b'I';
const DEVICE: u8 = b'D';
const EVENTS: u8 = b'E';
const GRAPH: u8 = b'G';
const VIOMMU: u8 = b'V';
const GUEST: u8 = b'W';
const END: u8 = b'.';

/// What was received.
#[derive(Default)]
pub(crate) struct Estate {
    /// The guest's memory.
    pub(crate) memory: Option<File>,
    pub(crate) iommufd: Option<OwnedFd>,
    /// By host stream.
    pub(crate) devices: BTreeMap<u32, OwnedFd>,
    /// Of the event queues, by the framework's ID.
    pub(crate) events: BTreeMap<u32, Vec<OwnedFd>>,
    /// The kernel's objects.
    pub(crate) graph: Vec<u8>,
    /// The guest's IOMMU.
    pub(crate) viommu: Vec<u8>,
    /// What the guest's driver knows.
    pub(crate) guest: Vec<u64>,
}

/// Sends all there is. The objects stay whoever's process lives.
pub(crate) fn leave(to: &UnixDatagram, machine: &Kernel, bench: &Bench) -> Story {
    let file = |kind: u8, of: u32, fd: RawFd| -> Story {
        to.send_with_fd([&[kind][..], &of.to_le_bytes()].concat().as_slice(), fd)?;
        Ok(())
    };
    let bytes = |kind: u8, bytes: &[u8]| -> Story {
        to.send(&[&[kind], bytes].concat())?;
        Ok(())
    };
    let (backend, files) = machine.files()?;
    file(MEMORY, 0, bench.guest.memory.file().ok_or("no file")?.as_raw_fd())?;
    file(IOMMUFD, 0, backend.iommufd().calls().number())?;
    for (stream, device) in files {
        file(DEVICE, stream, device.fd().as_raw_fd())?;
    }
    for (queue, fds) in backend.event_fds() {
        fds.into_iter().try_for_each(|fd| file(EVENTS, queue, fd))?;
    }
    bytes(GRAPH, &backend.save_graph())?;
    bytes(VIOMMU, &bench.viommu.save()?.to_bytes())?;
    bytes(GUEST, &bench.knows().into_iter().flat_map(u64::to_le_bytes).collect::<Vec<_>>())?;
    bytes(END, &[])
}

impl Estate {
    /// Receives all of it.
    pub(crate) fn receive(from: &UnixDatagram) -> Story<Self> {
        from.set_read_timeout(Some(PATIENCE))?;
        let mut estate = Self::default();
        let mut room = vec![0; ROOM];
        loop {
            let (length, file) = from.recv_with_fd(&mut room)?;
            let (kind, rest) = room[..length].split_first().ok_or("an empty message")?;
            let of = rest.first_chunk().map_or(0, |of| u32::from_le_bytes(*of));
            match (*kind, file) {
                (MEMORY, Some(file)) => estate.memory = Some(file),
                (IOMMUFD, Some(file)) => estate.iommufd = Some(file.into()),
                (DEVICE, Some(file)) => _ = estate.devices.insert(of, file.into()),
                (EVENTS, Some(file)) => estate.events.entry(of).or_default().push(file.into()),
                (GRAPH, None) => estate.graph = rest.to_vec(),
                (VIOMMU, None) => estate.viommu = rest.to_vec(),
                (GUEST, None) => {
                    estate.guest = rest.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
                }
                (END, None) => return Ok(estate),
                (kind, _) => return Err(format!("message {kind:#x}: what is that?").into()),
            }
        }
    }
}
