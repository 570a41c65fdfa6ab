//! What a [`super::KernelBackend`] is made of.

use super::bucket::Rate;
use super::calls::{Calls, DeviceCalls};
use super::errors::cause;
use super::sys::{RawDevice, RawIommufd};
use crate::Cause;
use crate::seams::{Clock, MonotonicClock, OsThreads, Threads};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use vm_memory::GuestMemoryMmap;

/// Where the iommufd comes from.
pub enum IommuSource {
    /// Opened here: `/dev/iommu`.
    Path(PathBuf),
    /// Opened by somebody else, and received.
    Fd(OwnedFd),
    /// A software iommufd.
    Calls(Arc<dyn Calls>),
}

/// Where a VFIO device comes from.
pub enum DeviceSource {
    /// Opened here: `/dev/vfio/devices/vfioN`.
    Path(PathBuf),
    /// Opened by somebody else, and received.
    Fd(OwnedFd),
    /// Opened and bound by an earlier process, and received: for adoption.
    Bound(OwnedFd),
    /// A software device.
    Calls(Arc<dyn DeviceCalls>),
}

impl IommuSource {
    pub(super) fn open(self) -> Result<Arc<dyn Calls>, Cause> {
        let raw = match self {
            Self::Calls(calls) => return Ok(calls),
            Self::Path(path) => {
                RawIommufd::open(&path).map_err(|errno| cause("open", &path.display().to_string(), errno))?
            }
            Self::Fd(fd) => RawIommufd::from_fd(fd).map_err(|errno| cause("eventfd", "the iommufd", errno))?,
        };
        Ok(Arc::new(raw))
    }
}

impl DeviceSource {
    pub(super) fn open(self) -> Result<Arc<dyn DeviceCalls>, Cause> {
        let raw = match self {
            Self::Calls(calls) => return Ok(calls),
            Self::Path(path) => {
                RawDevice::open(&path).map_err(|errno| cause("open", &path.display().to_string(), errno))?
            }
            Self::Fd(fd) | Self::Bound(fd) => RawDevice::from_fd(fd),
        };
        Ok(Arc::new(raw))
    }
}

/// Settings of a [`super::KernelBackend`].
pub struct KernelOptions {
    /// The iommufd.
    pub iommu: IommuSource,
    /// The devices, by the host stream under which the framework knows them: any numbers, each once. All of them behind the
    /// same physical IOMMU.
    pub devices: BTreeMap<u32, DeviceSource>,
    /// Memory that IOAS_MAP may map from ([`crate::backend::Backing::UserVa`]).
    pub memory: Vec<Arc<GuestMemoryMmap>>,
    /// Whether commands are checked before the kernel sees them. `false` is for tests: the sink then has to find what the
    /// kernel refuses.
    pub precheck: bool,
    /// Goes on behind the kernel's count of handled commands after an error, and so loses some. For tests that show it.
    pub trust_entry_num: bool,
    /// How fast each guest may invalidate: all share the host's command queue. `None` sets no limit.
    pub rate: Option<Rate>,
    /// Records that the kernel keeps for each event queue.
    pub event_depth: u32,
    /// Events kept for a reader in this process that is late.
    pub event_capacity: usize,
    /// Makes nesting parents that can track dirty pages. Arm's cannot.
    pub dirty_tracking: bool,
    /// Makes HWPTs that PASIDs of their devices can be attached beside ([`super::KernelBackend::vfio_device`]). Arm's kernel
    /// driver refuses such: there PASIDs are in the guest's own tables.
    pub pasids: bool,
    /// How long an attachment is tried again while a device is being reset.
    pub reset_limit: Duration,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where the thread comes from that reads event queues.
    pub threads: Arc<dyn Threads>,
    /// How a thread lets time pass.
    pub pause: Arc<dyn Fn(Duration) + Send + Sync>,
}

impl KernelOptions {
    /// `/dev/iommu`, checked commands, no limit, 4096 records for each event queue, 2 s for a reset.
    pub fn new(devices: BTreeMap<u32, DeviceSource>) -> Self {
        Self {
            iommu: IommuSource::Path("/dev/iommu".into()),
            devices,
            memory: Vec::new(),
            precheck: true,
            trust_entry_num: false,
            rate: None,
            event_depth: 4096,
            event_capacity: 4096,
            dirty_tracking: false,
            pasids: false,
            reset_limit: Duration::from_secs(2),
            clock: Arc::new(MonotonicClock::default()),
            threads: Arc::new(OsThreads),
            pause: Arc::new(std::thread::sleep),
        }
    }
}
