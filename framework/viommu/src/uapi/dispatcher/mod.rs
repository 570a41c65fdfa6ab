//! A software iommufd: command number and bytes in, errno and bytes out, by the rules of Linux 7.3.4.
//!
//! ```text
//!   ioctl ─► framing ─► object rules (objects, ioas, hwpt, devices, viommu, ...) ─► driver: what a vendor decides
//!                          one namespace of IDs, users, tombstones                    drivers/{mock, arm_smmuv3, ...}
//!   read, write, poll, close ─► veventq, fault        mmap ─► mmap        VFIO devices ─► cdev
//! ```
//!
//! A VMM's own tests run on it without hardware, root, or a special kernel: whatever it hands to ioctl goes to
//! [`Dispatcher::ioctl`] with [`crate::uapi::ProcessMemory`] for the pointers. It walks no guest's tables: it answers what
//! the kernel would answer, and keeps the objects the kernel would keep.
//!
//! ```
//! use viommu::uapi::{Command, Errno, ProcessMemory, dispatcher::{Dispatcher, Options}};
//!
//! let iommufd = Dispatcher::new(Options::selftest());
//! let mut ioas_alloc = [12u32.to_ne_bytes(), [0; 4], [0; 4]].concat();
//! iommufd.ioctl(Command::IoasAlloc.code(), &mut ioas_alloc, &ProcessMemory)?;
//! assert_eq!(ioas_alloc[8..], 1u32.to_ne_bytes(), "out_ioas_id");
//!
//! let mut destroy = [8u32.to_ne_bytes(), 7u32.to_ne_bytes()].concat();
//! assert_eq!(iommufd.ioctl(Command::Destroy.code(), &mut destroy, &ProcessMemory), Err(Errno::NOENT));
//! # Ok::<(), Errno>(())
//! ```
//!
//! What a caller passes cannot make it panic, loop or allocate without bound: [`Limits`] say how far it goes. The
//! differences from a kernel are in `docs/software-iommufd.md`.

mod access;
mod cdev;
mod devices;
mod dirty;
pub mod driver;
pub mod drivers;
mod events;
mod fault;
mod framing;
mod hw_info;
mod hw_queue;
mod hwpt;
mod inject;
mod invalidate;
mod ioas;
mod mmap;
mod objects;
mod option;
mod ranges;
mod selftest;
mod space;
mod state;
mod teardown;
mod vdevice;
mod veventq;
mod viommu;

pub use cdev::Cdev;
pub use events::{Mapping, Poll, Reached};
pub use fault::PageAnswer;
pub use mmap::MapFlags;
pub use state::Limits;
pub use teardown::Teardown;

use super::{Command, Errno, UserMemory};
use framing::{Answer, framed};
use state::State;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a software iommufd is made with.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether it takes the commands of the kernel's mock driver ([`Command::Test`]).
    pub selftest: bool,
    /// Whether the caller has CAP_SYS_RESOURCE and CAP_SYS_RAWIO.
    pub privileged: bool,
    /// The number that VFIO devices know the iommufd by; those of event queues come after it.
    pub fd: i32,
    /// What nobody may ask more of.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self { selftest: false, privileged: true, fd: 3, limits: Limits::default() }
    }
}

impl Options {
    /// With the mock driver, as a kernel with CONFIG_IOMMUFD_TEST.
    pub fn selftest() -> Self {
        Self { selftest: true, ..Self::default() }
    }
}

/// A software iommufd. Clones are the same one, as duplicates of a file descriptor are.
///
/// Calls of several threads take turns. [`UserMemory`] is called with the turn taken and must not call back.
#[derive(Debug, Clone)]
pub struct Dispatcher {
    state: Arc<Mutex<State>>,
    fd: i32,
}

/// What a command is carried out with.
#[derive(Clone, Copy)]
struct Call<'a> {
    memory: &'a dyn UserMemory,
}

impl Dispatcher {
    /// An iommufd without objects.
    pub fn new(options: Options) -> Self {
        Self { fd: options.fd, state: Arc::new(Mutex::new(State::new(&options))) }
    }

    /// Carries out the ioctl `code`. `argument` is what is behind the pointer, as many bytes as its `size` says; pointers
    /// in it lead to `memory`.
    ///
    /// # Errors
    /// What the kernel answers. ENOTTY: no such command. The VFIO container's commands are not here.
    pub fn ioctl(&self, code: u32, argument: &mut [u8], memory: &dyn UserMemory) -> Result<(), Errno> {
        let mut state = self.lock();
        let state = &mut *state;
        if !(Command::FIRST & 0xff..=last(state).code() & 0xff).contains(&(code & 0xff)) {
            return Err(Errno::NOTTY);
        }
        framing::size(argument)?;
        let command = Command::from_code(code).ok_or(Errno::NOTTY)?;
        if command == Command::Test && state.mock.is_none() {
            return Err(Errno::NOTTY);
        }
        execute(state, command, argument, Call { memory })
    }

    /// Carries out the ioctl `code` with a NULL pointer, which no command takes.
    ///
    /// # Errors
    /// Always: EFAULT, or ENOTTY for a number that is none of an iommufd's.
    pub fn null_ioctl(&self, code: u32) -> Result<(), Errno> {
        Err(framing::null(code, last(&self.lock())))
    }

    /// Lets the `nth` (from 1) internal allocation or lookup from now on fail, with ENOMEM or ENOENT; 0 lets none.
    pub fn fail_nth(&self, nth: u64) {
        self.lock().inject.arm(nth);
    }

    /// Whether the failure that [`Dispatcher::fail_nth`] asked for happened.
    pub fn failed(&self) -> bool {
        self.lock().inject.fired()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last command there is.
fn last(state: &State) -> Command {
    if state.mock.is_some() { Command::Test } else { Command::IoasNoiommuGetPa }
}

fn execute(state: &mut State, command: Command, argument: &mut [u8], call: Call<'_>) -> Result<(), Errno> {
    let minimum = command.minimum();
    macro_rules! carry_out {
        ($own:ident => $answer:expr) => {
            framed(minimum, argument, |$own| Answer::from($answer))
        };
    }
    match command {
        Command::Destroy => carry_out!(own => { let own: &mut super::layout::Destroy = own; state.destroy(own.id) }),
        Command::IoasAlloc => carry_out!(own => state.ioas_alloc(own)),
        Command::IoasAllowIovas => carry_out!(own => state.ioas_allow_iovas(own, call)),
        Command::IoasCopy => carry_out!(own => state.ioas_copy(own, call)),
        Command::IoasIovaRanges => carry_out!(own => state.ioas_iova_ranges(own, call)),
        Command::IoasMap => carry_out!(own => state.ioas_map(own, call)),
        Command::IoasUnmap => carry_out!(own => state.ioas_unmap(own)),
        Command::Option => carry_out!(own => state.option(own)),
        Command::VfioIoas => carry_out!(own => state.vfio_ioas(own)),
        Command::HwptAlloc => carry_out!(own => state.hwpt_alloc(own, call)),
        Command::GetHwInfo => carry_out!(own => state.get_hw_info(own, call)),
        Command::HwptSetDirtyTracking => carry_out!(own => state.set_dirty_tracking(own)),
        Command::HwptGetDirtyBitmap => carry_out!(own => state.get_dirty_bitmap(own, call)),
        Command::HwptInvalidate => carry_out!(own => state.hwpt_invalidate(own, call)),
        Command::FaultQueueAlloc => carry_out!(own => state.fault_alloc(own)),
        Command::IoasMapFile => carry_out!(own => state.ioas_map_file(own, call)),
        Command::ViommuAlloc => carry_out!(own => state.viommu_alloc(own, call)),
        Command::VdeviceAlloc => carry_out!(own => state.vdevice_alloc(own)),
        Command::IoasChangeProcess => carry_out!(own => state.ioas_change_process(own)),
        Command::VeventqAlloc => carry_out!(own => state.veventq_alloc(own)),
        Command::HwQueueAlloc => carry_out!(own => state.hw_queue_alloc(own, call)),
        Command::IoasNoiommuGetPa => carry_out!(own => state.ioas_noiommu_get_pa(own)),
        Command::Test => carry_out!(own => state.test(own, call)),
    }
}
