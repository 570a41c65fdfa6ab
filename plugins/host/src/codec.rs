//! The codec part, called through the table.
//!
//! UNSAFETY: `call!`.
#![expect(unsafe_code)]

use crate::CallError::{self, OutOfRange};
use crate::answers;
use crate::callbacks::with_memory;
use crate::instance::{Instance, call};
use crate::table::text;
use viommu_plugin::abi::{HostIdTable, Text};
use viommu_plugin::{Classes, Configuration, EntryKey, GuestMapping, GuestMemory, HostIds, Message, Rewritten};
use viommu_plugin::{GuestTraits, ShadowRange, TranslationMode, Walked};

/// Check and rewrite of command words: [`viommu_plugin::Codec`] in a plugin. Every method fails with a [`CallError`]
/// if the plugin panics, panicked before, or answers what cannot be.
#[derive(Debug)]
pub struct Codec {
    instance: Instance,
}

// SAFETY: every slot of a codec but create and destroy is `[any-thread]`: several threads may be in one instance.
unsafe impl Sync for Codec {}

impl Codec {
    pub(crate) fn new(instance: Instance) -> Self {
        Self { instance }
    }

    /// See [`viommu_plugin::Codec::rewrite`]. Words of `guest` and `out` beyond the last whole command are not used.
    /// A stop this host does not know is [`viommu_plugin::Stop::FAULT`].
    ///
    /// # Errors
    /// See [`Codec`]. What is in `out` then must not reach hardware.
    #[inline]
    pub fn rewrite(
        &self,
        guest: &[u64],
        before: Classes,
        ids: HostIds<'_>,
        out: &mut [u64],
    ) -> Result<Rewritten, CallError> {
        let words = self.instance.table().info.command_words;
        let (given, room) = (guest.len() / words, out.len() / words);
        let HostIds { tag, streams, domains } = ids;
        let (stream_count, domain_count) = (streams.len(), domains.len());
        let (streams, domains) = (streams.as_ptr(), domains.as_ptr());
        let ids = HostIdTable { streams, stream_count, domains, domain_count, tag, reserved: 0 };
        let mut answer = Rewritten::default();
        call!(self.instance.codec_rewrite(
            guest.as_ptr(),
            given * words,
            before,
            &ids,
            out.as_mut_ptr(),
            room * words,
            &mut answer
        ))?;
        answers::rewritten(answer, given, room, before).map_err(|what| OutOfRange { slot: "codec_rewrite", what })
    }

    /// See [`viommu_plugin::Codec::configuration`].
    ///
    /// # Errors
    /// See [`Codec`].
    pub fn configuration(&self, command: &[u64]) -> Result<Configuration, CallError> {
        let mut scope = Configuration::default();
        call!(self.instance.codec_configuration(command.as_ptr(), command.len(), &mut scope))?;
        answers::configuration(scope).map_err(|what| OutOfRange { slot: "codec_configuration", what })
    }

    /// See [`viommu_plugin::Codec::entry_key`]. A kind this host does not know is [`viommu_plugin::KeyKind::ABORT`].
    ///
    /// # Errors
    /// See [`Codec`].
    pub fn entry_key(&self, entry: &[u64]) -> Result<EntryKey, CallError> {
        let mut key = EntryKey::default();
        call!(self.instance.codec_entry_key(entry.as_ptr(), entry.len(), &mut key))?;
        answers::entry_key(key).map_err(|what| OutOfRange { slot: "codec_entry_key", what })
    }

    /// See [`viommu_plugin::Codec::opcode`].
    ///
    /// # Errors
    /// See [`Codec`].
    pub fn opcode(&self, command: &[u64]) -> Result<u8, CallError> {
        let opcode = call!(self.instance.codec_opcode(command.as_ptr(), command.len()))?;
        u8::try_from(opcode).map_err(|_| OutOfRange { slot: "codec_opcode", what: "an opcode above 255" })
    }

    /// See [`viommu_plugin::Codec::opcode_name`].
    ///
    /// # Errors
    /// See [`Codec`].
    pub fn opcode_name(&self, opcode: u8) -> Result<Option<&'static str>, CallError> {
        let mut name = Text::NONE;
        call!(self.instance.codec_opcode_name(opcode, &mut name))?;
        text(name).map_err(|what| OutOfRange { slot: "codec_opcode_name", what })
    }

    /// See [`viommu_plugin::Codec::describe`].
    ///
    /// # Errors
    /// See [`Codec`].
    pub fn describe(&self, command: &[u64], text: &mut Message) -> Result<(), CallError> {
        call!(self.instance.codec_describe(command.as_ptr(), command.len(), text))?;
        Ok(())
    }

    /// See [`viommu_plugin::Codec::mode`].
    ///
    /// # Errors
    /// See [`Codec`]; a mode this host does not know is out of range.
    pub fn mode(&self) -> Result<TranslationMode, CallError> {
        if self.instance.table().entry.codec_mode.is_none() {
            return Ok(TranslationMode::NESTED);
        }
        let mode = call!(self.instance.codec_mode())?;
        answers::translation_mode(mode).map_err(|what| OutOfRange { slot: "codec_mode", what })
    }

    /// See [`viommu_plugin::Codec::traits`]. Bits that this host does not know are left out.
    ///
    /// # Errors
    /// See [`Codec`].
    pub fn traits(&self) -> Result<GuestTraits, CallError> {
        if self.instance.table().entry.codec_traits.is_none() {
            return Ok(GuestTraits(GuestTraits::INTERFACE));
        }
        let traits = call!(self.instance.codec_traits())? as u32;
        Ok(GuestTraits(traits & (GuestTraits::INTERFACE | GuestTraits::WRITES_CONFIGURE)))
    }

    /// See [`viommu_plugin::Codec::shadow_range`].
    ///
    /// # Errors
    /// See [`Codec`].
    pub fn shadow_range(&self, command: &[u64]) -> Result<ShadowRange, CallError> {
        let mut range = ShadowRange::default();
        call!(self.instance.codec_shadow_range(command.as_ptr(), command.len(), &mut range))?;
        answers::shadow_range(range).map_err(|what| OutOfRange { slot: "codec_shadow_range", what })
    }

    /// See [`viommu_plugin::Codec::walk`].
    ///
    /// # Errors
    /// See [`Codec`].
    pub fn walk(
        &self,
        key: &EntryKey,
        memory: &dyn GuestMemory,
        first: u64,
        last: u64,
        out: &mut [GuestMapping],
    ) -> Result<Walked, CallError> {
        let mut walked = Walked::default();
        with_memory(memory, "codec_walk", |memory| {
            let (leaves, room) = (out.as_mut_ptr(), out.len());
            call!(self.instance.codec_walk(key, memory, first, last, leaves, room, &mut walked))
        })?;
        answers::walked(walked, first, last, out).map_err(|what| OutOfRange { slot: "codec_walk", what })
    }
}
