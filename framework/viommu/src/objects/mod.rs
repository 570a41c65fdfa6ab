//! The objects of iommufd as supervised actors: one file an object, with its handle, its state and its messages.
//!
//! ```text
//!   handle ──Arc──► parent's handle           (a child owns its parent: teardown order is a consequence)
//!     │ send(message)
//!     ▼
//!   Served<State> (actix actor) ──► blocking pool: check, act (Change), record ──► backend
//!     ▲                                                  │ error or panic: undone in reverse
//!   registry (weak addresses), supervisor, reaper ◄──────┘
//! ```
//! An operation is a value with a name and a function over the object's state, see `served::Operation`. Operations of
//! one object run one after the other; those of different objects side by side.

pub(crate) mod change;
mod device;
mod event_queue;
mod fault_queue;
mod hw_queue;
mod ioas;
mod link;
mod mapped_page;
mod nest_parent;
mod nested_hwpt;
mod node;
pub(crate) mod served;
mod vdevice;
mod viommu;

pub(crate) use change::Change;
pub(crate) use link::Link;
pub(crate) use node::Node;

pub use device::Device;
pub use event_queue::EventQueue;
pub use fault_queue::FaultQueue;
pub use hw_queue::HwQueue;
pub use ioas::Ioas;
pub use mapped_page::MappedPage;
pub use nest_parent::NestParent;
pub use nested_hwpt::NestedHwpt;
pub use node::{ObjectInfo, ObjectState};
pub use vdevice::Vdevice;
pub use viommu::{NestedCounters, RestoreConfig, RestoredViommu, VIRT_ID_LIMIT, Viommu, ViommuConfig, ViommuInfo};

pub(crate) use device::{BindDevice, DeviceState};
pub(crate) use fault_queue::AllocFaultQueue;
pub(crate) use ioas::{AllocIoas, IoasState};
pub(crate) use nest_parent::NestParentState;
pub(crate) use nested_hwpt::NestedHwptState;
pub(crate) use viommu::{Quarantine, ViommuState};
