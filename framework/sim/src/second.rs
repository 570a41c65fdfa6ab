//! A second IOMMU beside the model: driven by the same driver, used by the same devices, judged by the same oracle.

use std::sync::Arc;
use viommu::backend::direct::{Hardware, ModelHardware};
use viommu::vm_memory::FileOffset;
use viommu_plugin::{Answer, Register, Request};
use viommu_plugin_host::Plugin;

/// What a second IOMMU answered to a DMA that the model answered.
#[derive(Debug, Clone, Default)]
pub struct Opinion {
    /// Its own answer. An output address, or how it refused.
    pub answer: Answer,
    /// It must have answered otherwise, whatever it had cached: why.
    pub wrong: Option<String>,
    /// It answered other than the model, and the oracle knows nothing of why it may.
    pub differs: bool,
}

/// A second IOMMU. It executes each command when the model has, on the same memory; so it may differ from the model by
/// what it keeps in its caches, and by nothing else.
pub trait Second: Send + Sync {
    /// What its ID registers say: the model is made after it.
    fn registers(&self) -> Vec<Register>;
    /// The part of a file that is the memory at this host physical address, for it and for the model.
    fn file(&self, pa: u64) -> FileOffset;
    /// A world begins: all memory is there, `data` (address and length) is what guests do not keep tables in. The
    /// hardware that the driver gets.
    fn begin(&self, plugin: &Plugin, model: Arc<ModelHardware>, data: &[(u64, u64)]) -> Arc<dyn Hardware>;
    /// The model may have executed commands.
    fn keep_up(&self);
    /// Whether the next DMA is to be done by its device too; `aimed`: it is the first since something changed there.
    fn wants(&self, aimed: bool) -> bool;
    /// Its device does what the model answered; `None` if it does not do this one.
    fn dma(&self, request: &Request, answer: &Answer, aimed: bool) -> Option<Opinion>;
    /// What went wrong beside the answers to DMA since the last time.
    fn complaint(&self) -> Option<String>;
    /// The world is over. What is wrong that no DMA showed.
    fn end(&self) -> Option<String>;
    /// What happened how often since the world began.
    fn counted(&self) -> Vec<(&'static str, u64)>;
}
