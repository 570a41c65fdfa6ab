//! A vendor plugin as the framework sees it: found, loaded, called, and every answer checked.
mod answers;
mod callbacks;
mod codec;
mod driver;
mod error;
mod frontend;
mod instance;
mod library;
mod model;
mod plugin;
mod search;
mod table;

pub use codec::Codec;
pub use driver::Driver;
pub use error::{CallError, LoadError};
pub use frontend::Frontend;
pub use model::Model;
pub use plugin::{Plugin, PluginInfo};
pub use search::SearchPath;
