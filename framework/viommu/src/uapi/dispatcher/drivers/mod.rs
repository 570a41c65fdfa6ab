//! Vendors' kernel drivers, as far as their rules reach a caller of the iommufd.

mod mock;

pub use mock::Mock;
pub(super) use mock::{MockDevice, MockNested};
