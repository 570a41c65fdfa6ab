//! A vendor plugin as the framework sees it: found, loaded, called, and every answer checked.
mod codec;
mod driver;
mod error;
mod frontend;
mod model;
mod plugin;
mod search;

pub use codec::Codec;
pub use driver::Driver;
pub use error::{CallError, LoadError};
pub use frontend::Frontend;
pub use model::Model;
pub use plugin::{Plugin, PluginInfo};
pub use search::SearchPath;
