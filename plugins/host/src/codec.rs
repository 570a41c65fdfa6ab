//! The codec part, called through the table.
//!
//! UNSAFETY: `call!`.
#![expect(unsafe_code)]

use crate::CallError::{self, OutOfRange};
use crate::answers;
use crate::instance::{Instance, call};
use crate::table::text;
use viommu_plugin::abi::{HostIdTable, Text};
use viommu_plugin::{Classes, Configuration, EntryKey, HostIds, Message, Rewritten};

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
        let HostIds { tag, streams } = ids;
        let ids = HostIdTable { streams: streams.as_ptr(), stream_count: streams.len(), tag, reserved: 0 };
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
}
