//! A vendor plugin as the framework sees it: found, loaded, called, and every answer checked.
//!
//! ```text
//!   SearchPath ─► Plugin::find ─► library (dlopen) ─┐
//!   Vendor type ─► Plugin::linked ──────────────────┴─► table (copied, checked) ─► Plugin
//!                                                                                  │ create
//!   framework ◄─ Result<_, CallError> ◄─ answers ◄─ slot(instance, lent buffers) ◄─ Frontend Codec Driver Model KernelAbi
//!                                                     └─► callbacks (panics caught) ─► Hardware, ModelHost, GuestMemory
//! ```
//!
//! ```
//! use viommu_plugin::{Classes, HostIds, Stop};
//! use viommu_plugin_host::Plugin;
//!
//! let plugin = Plugin::linked::<mock_plugin::Mock>();
//! let codec = plugin.codec(&[])?;
//! // Guest 0 has host stream 7 and tag 3: one cache invalidation, then a SYNC.
//! let (guest, ids) = ([2, 0, 5, 0], HostIds { tag: 3, streams: &[7], domains: &[] });
//! let mut out = [0; 4];
//! let done = codec.rewrite(&guest, Classes::NONE, ids, &mut out)?;
//! assert_eq!((done.taken, done.stop), (1, Stop::SYNC));
//! assert_eq!(out[..2], [2, 7]);
//! # Ok::<(), viommu_plugin_host::CallError>(())
//! ```
//!
//! A plugin is trusted code: its panics are contained, what it returns is checked, a crash ends the process. Loading one
//! runs its code. A library is never unmapped.

// UNSAFETY: the outside of the C boundary. Each module that calls through the table says so at its head.
#![deny(unsafe_code)]

mod answers;
mod callbacks;
mod codec;
mod driver;
mod error;
mod frontend;
mod instance;
mod kernel;
mod library;
mod model;
mod plugin;
mod search;
mod table;

pub use codec::Codec;
pub use driver::Driver;
pub use error::{CallError, LoadError};
pub use frontend::Frontend;
pub use kernel::KernelAbi;
pub use model::Model;
pub use plugin::{Plugin, PluginInfo};
pub use search::SearchPath;
