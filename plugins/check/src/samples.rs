//! What the checks feed a plugin.

use crate::Verdict;
use crate::machine::Machine;
use crate::random::Random;
use std::collections::BTreeSet;
use viommu_plugin::{Register, Stop, TranslationMode};
use viommu_plugin_host::{Codec, Plugin};

/// Registers, commands and entries to feed a plugin.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    /// ID registers a guest is shown.
    pub registers: Vec<Register>,
    /// ID registers of the hardware that the model is to be.
    pub hardware: Vec<Register>,
    /// Commands, legal and not.
    pub commands: Vec<Vec<u64>>,
    /// Table entries, legal and not.
    pub entries: Vec<Vec<u64>>,
    /// Seed of everything random.
    pub seed: u64,
}

impl Samples {
    /// Samples made from nothing but what the plugin says of itself.
    ///
    /// # Errors
    /// If the plugin fails in what every check needs.
    pub fn generic(plugin: &Plugin, seed: u64) -> Result<Self, Verdict> {
        Self::with_registers(plugin, seed, &[])
    }

    /// As [`Samples::generic`], with more registers for every part.
    ///
    /// # Errors
    /// As [`Samples::generic`].
    pub fn with_registers(plugin: &Plugin, seed: u64, more: &[Register]) -> Result<Self, Verdict> {
        let parts = &plugin.info().parts;
        let mut samples = Self { hardware: more.to_vec(), seed, ..Self::default() };
        if parts.contains(&"driver") && parts.contains(&"model") {
            let driver = Machine::new(plugin, &[])?.driver;
            let nested = driver.info()?.modes & TranslationMode::NESTED.bit() != 0;
            let mode = if nested { TranslationMode::NESTED } else { TranslationMode::SHADOW };
            samples.registers = driver.guest_registers(mode)?;
        }
        samples.registers.extend(more);
        if parts.contains(&"codec") {
            // What is sampled depends on the codec as it should be, not on what `more` makes of it.
            let plain = &samples.registers[..samples.registers.len() - more.len()];
            samples.commands = commands(plugin, &plugin.codec(plain)?, seed)?;
        }
        let mut random = Random::new(seed ^ 0xe27);
        let words = plugin.info().entry_words;
        samples.entries = (0..512).map(|_| (0..words).map(|_| random.word()).collect()).collect();
        // Valid bits and types are low bits of the first word.
        samples.entries.extend((0..256).map(|low| {
            let mut entry = vec![0; words];
            entry[0] = low % 64;
            entry[(low / 64) as usize % words] |= random.sparse();
            entry
        }));
        Ok(samples)
    }

    /// With these commands as well, for example those of a recorded guest.
    #[must_use]
    pub fn and_commands(mut self, commands: impl IntoIterator<Item = Vec<u64>>) -> Self {
        self.commands.extend(commands);
        self
    }
}

/// For each opcode, found where formats have it (low byte, top byte, top four bits of word 0), the bare command and
/// variations with few bits set; and some words that are no command.
fn commands(plugin: &Plugin, codec: &Codec, seed: u64) -> Result<Vec<Vec<u64>>, Verdict> {
    let words = plugin.info().command_words;
    let bare = |word: u64| {
        let mut command = vec![0; words];
        command[0] = word;
        command
    };
    let mut random = Random::new(seed);
    let (mut opcodes, mut commands) = (BTreeSet::new(), Vec::new());
    for place in [0, 56, 60] {
        for value in 0..if place == 60 { 16 } else { 256 } {
            let base = bare(value << place);
            let opcode = codec.opcode(&base)?;
            if codec.opcode_name(opcode)?.is_none() || !opcodes.insert(opcode) {
                continue;
            }
            commands.push(base.clone());
            let mut kept = 0;
            for _ in 0..256 {
                let mut command = base.clone();
                for _ in 0..=random.index(2) {
                    command[random.index(words)] |= random.sparse();
                }
                let same = codec.opcode(&command)? == opcode;
                let ids = viommu_plugin::HostIds { tag: 1, streams: &[], domains: &[] };
                let done = codec.rewrite(&command, Default::default(), ids, &mut vec![0; 8 * words])?;
                if same && kept < 32 && (done.stop != Stop::FAULT || random.index(16) == 0) {
                    kept += 1;
                    commands.push(command);
                }
            }
        }
    }
    commands.extend((0..64).map(|_| (0..words).map(|_| random.word()).collect::<Vec<_>>()));
    Ok(commands)
}
