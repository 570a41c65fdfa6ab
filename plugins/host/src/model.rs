//! The model part, called through the table.
//!
//! UNSAFETY: `call!`.
#![expect(unsafe_code)]

use crate::CallError::{self, OutOfRange};
use crate::answers;
use crate::callbacks::Loan;
use crate::instance::{Instance, call, lend};
use viommu_plugin::{Answer, CacheStats, Message, ModelHost, Request};

/// The software IOMMU of a vendor: [`viommu_plugin::Model`] in a plugin. Every method fails with a [`CallError`] if
/// the plugin panics, panicked before, or answers what cannot be, or if the host handed in panicked.
#[derive(Debug)]
pub struct Model {
    // Before the loan: the instance knows the loan's address until it is destroyed.
    instance: Instance,
    host: Loan<Box<dyn ModelHost>>,
}

impl Model {
    pub(crate) fn new(instance: Instance, host: Loan<Box<dyn ModelHost>>) -> Self {
        Self { instance, host }
    }

    /// See [`viommu_plugin::Model::mmio_read`].
    ///
    /// # Errors
    /// See [`Model`].
    pub fn mmio_read(&mut self, offset: u64, size: u32) -> Result<u64, CallError> {
        let mut value = 0;
        lend!(self.host: model_mmio_read(offset, size, &mut value))?;
        Ok(value)
    }

    /// See [`viommu_plugin::Model::mmio_write`].
    ///
    /// # Errors
    /// See [`Model`].
    pub fn mmio_write(&mut self, offset: u64, size: u32, value: u64) -> Result<(), CallError> {
        lend!(self.host: model_mmio_write(offset, size, value))?;
        Ok(())
    }

    /// See [`viommu_plugin::Model::step`].
    ///
    /// # Errors
    /// See [`Model`].
    pub fn step(&mut self, budget: u32) -> Result<u32, CallError> {
        let consumed = lend!(self.host: model_step(budget))?;
        let within = u32::try_from(consumed).ok().filter(|consumed| *consumed <= budget);
        within.ok_or(OutOfRange { slot: "model_step", what: "more commands consumed than the budget" })
    }

    /// See [`viommu_plugin::Model::translate`].
    ///
    /// # Errors
    /// See [`Model`].
    #[inline]
    pub fn translate(&mut self, requests: &[Request], answers: &mut [Answer]) -> Result<usize, CallError> {
        const SLOT: &str = "model_translate";
        let room = answers.len();
        let answered =
            lend!(self.host: model_translate(requests.as_ptr(), requests.len(), answers.as_mut_ptr(), room))?;
        let count = usize::try_from(answered).ok().filter(|count| *count <= requests.len().min(room));
        let count = count.ok_or(OutOfRange { slot: SLOT, what: "more answers than requests or room" })?;
        answers::answers(&answers[..count]).map_err(|what| OutOfRange { slot: SLOT, what })?;
        Ok(count)
    }

    /// See [`viommu_plugin::Model::explain`].
    ///
    /// # Errors
    /// See [`Model`].
    pub fn explain(&mut self, request: &Request, text: &mut Message) -> Result<(), CallError> {
        lend!(self.host: model_explain(request, text))?;
        Ok(())
    }

    /// See [`viommu_plugin::Model::stats`].
    ///
    /// # Errors
    /// See [`Model`].
    pub fn stats(&self) -> Result<CacheStats, CallError> {
        let mut stats = CacheStats::default();
        lend!(self.host: model_stats(&mut stats))?;
        Ok(stats)
    }

    /// See [`viommu_plugin::Model::atc_unresponsive`].
    ///
    /// # Errors
    /// See [`Model`].
    pub fn atc_unresponsive(&mut self, stream: u32, unresponsive: bool) -> Result<(), CallError> {
        lend!(self.host: model_atc_unresponsive(stream, unresponsive.into()))?;
        Ok(())
    }

    /// See [`viommu_plugin::Model::reset`].
    ///
    /// # Errors
    /// See [`Model`].
    pub fn reset(&mut self) -> Result<(), CallError> {
        lend!(self.host: model_reset())?;
        Ok(())
    }
}
