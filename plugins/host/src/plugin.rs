//! A plugin, linked or loaded, and its parts.
//!
//! UNSAFETY: calls the create slots, and the one that needs no instance.
#![expect(unsafe_code)]

use crate::callbacks::Loan;
use crate::instance::{Instance, outcome_with};
use crate::table::Table;
use crate::{CallError, Codec, Driver, Frontend, KernelAbi, LoadError, Model, SearchPath, library};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use viommu_plugin::abi::{ModelSetup, PluginEntry};
use viommu_plugin::{Hardware, ModelConfig, ModelHost, Register, Vendor};

/// A plugin's fixed facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginInfo {
    /// As `--plugin` takes it: `arm-smmuv3`.
    pub name: String,
    /// The plugin's own version.
    pub version: String,
    /// Code of the vendor's recordings: 1 Arm SMMUv3, 2 AMD-Vi, 3 Intel VT-d; others from 0x8000.
    pub vendor: u32,
    /// Major version of the ABI it was built with; the host's own, or it would not have been loaded.
    pub abi_major: u32,
    /// Minor version of the ABI it was built with; may be older or newer than the host's.
    pub abi_minor: u32,
    /// Where it was loaded from; `None` if linked.
    pub path: Option<PathBuf>,
    /// Words of 8 bytes a command, at most.
    pub command_words: usize,
    /// Words of a guest table entry.
    pub entry_words: usize,
    /// Words of an event record.
    pub event_words: usize,
    /// Bytes of the register frame.
    pub frame_bytes: u64,
    /// What the vendor calls a guest's stream ID, for messages.
    pub stream_name: String,
    /// The parts it offers, of `frontend`, `codec`, `driver`, `model`.
    pub parts: Vec<&'static str>,
}

/// A vendor's plugin. Cheap to clone; its library stays mapped for the life of the process.
#[derive(Debug, Clone)]
pub struct Plugin {
    table: Arc<Table>,
}

impl Plugin {
    /// A vendor linked into this program. It is called through the same table as one from a `.so`.
    ///
    /// # Panics
    /// If the name in [`Vendor::INFO`] is not made of a-z, 0-9 and '-', or a text there is empty or very long.
    pub fn linked<V: Vendor>() -> Self {
        let entry = const { &PluginEntry::of::<V>() };
        // SAFETY: a whole table of this version that lives for ever.
        let table = unsafe { Table::read(entry, None) };
        Self { table: Arc::new(table.unwrap_or_else(|error| panic!("{error}"))) }
    }

    /// A plugin whose C table is linked into this program, as one in C would be: the symbol `viommu_plugin_entry`.
    ///
    /// # Errors
    /// If the table is not one of this ABI.
    ///
    /// # Safety
    /// `entry` leads to at least 8 bytes. If the second number there is this ABI's major version, it leads to as many
    /// bytes as the first says, and they are a table of that version: each slot is null or a function of its type that
    /// keeps to the contract on memory, each text null or readable for as many of its bytes as a host may take (256), for
    /// as long as the program runs.
    pub unsafe fn at(entry: *const PluginEntry) -> Result<Self, LoadError> {
        // SAFETY: as this function requires.
        let table = unsafe { Table::read(entry, None) };
        table.map(|table| Self { table: Arc::new(table) })
    }

    /// Loads the `.so` at `path`. A plugin is trusted code: its constructors run at once.
    ///
    /// # Errors
    /// If the file is not there, not a shared library, or not a plugin of this ABI.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        library::load(path).map(|table| Self { table: Arc::new(table) })
    }

    /// Finds a plugin by name on the search path, where the first file counts. A value with '/' is a path.
    ///
    /// # Errors
    /// [`LoadError::NotFound`] lists every file that was looked for; otherwise as [`Plugin::load`].
    pub fn find(name_or_path: &str, search: &SearchPath) -> Result<Self, LoadError> {
        if name_or_path.contains('/') {
            return Self::load(Path::new(name_or_path));
        }
        let file = SearchPath::file_name(name_or_path);
        let looked: Vec<PathBuf> = search.folders().iter().map(|folder| folder.join(&file)).collect();
        match looked.iter().find(|path| path.exists()) {
            Some(path) => Self::load(path),
            None => Err(LoadError::NotFound { name: name_or_path.into(), looked }),
        }
    }

    /// Fixed facts.
    pub fn info(&self) -> &PluginInfo {
        &self.table.info
    }

    /// A frontend that shows these ID registers.
    ///
    /// # Errors
    /// [`CallError::Refused`] if they promise a guest what a vIOMMU cannot be.
    pub fn frontend(&self, registers: &[Register]) -> Result<Frontend, CallError> {
        const SLOT: &str = "frontend_create";
        let entry = &self.table.entry;
        let create = entry.frontend_create.ok_or(CallError::Missing { slot: SLOT })?;
        // SAFETY: the slots of one part; the registers outlive the call.
        let instance = unsafe {
            Instance::create(&self.table, SLOT, entry.frontend_destroy, |instance, why| {
                create(registers.as_ptr(), registers.len(), instance, why)
            })
        };
        instance.map(Frontend::new)
    }

    /// Whether hardware that offers guests `offered` serves one that was shown `shown`.
    ///
    /// # Errors
    /// [`CallError::Refused`] with what the hardware lacks, by register and field; [`CallError::Missing`] if the plugin
    /// is older than this slot.
    pub fn covers(&self, offered: &[Register], shown: &[Register]) -> Result<(), CallError> {
        const SLOT: &str = "frontend_covers";
        let covers = self.table.entry.frontend_covers.ok_or(CallError::Missing { slot: SLOT })?;
        let mut why = viommu_plugin::Message::default();
        // SAFETY: the registers and the text outlive the call; the slot needs no instance.
        let answer = unsafe { covers(offered.as_ptr(), offered.len(), shown.as_ptr(), shown.len(), &mut why) };
        outcome_with(SLOT, answer, &why).map(drop)
    }

    /// This vendor's payloads of Linux's iommufd; `None` if its guests cannot be served on `/dev/iommu`.
    pub fn kernel_abi(&self) -> Option<KernelAbi> {
        KernelAbi::of(&self.table)
    }

    /// A codec that accepts what these ID registers promise.
    ///
    /// # Errors
    /// As [`Plugin::frontend`].
    pub fn codec(&self, registers: &[Register]) -> Result<Codec, CallError> {
        const SLOT: &str = "codec_create";
        let entry = &self.table.entry;
        let create = entry.codec_create.ok_or(CallError::Missing { slot: SLOT })?;
        // SAFETY: as in `frontend`.
        let instance = unsafe {
            Instance::create(&self.table, SLOT, entry.codec_destroy, |instance, why| {
                create(registers.as_ptr(), registers.len(), instance, why)
            })
        };
        instance.map(Codec::new)
    }

    /// Takes over a physical IOMMU: allocates tables and queues, enables it with every stream aborting.
    ///
    /// # Errors
    /// [`CallError::Refused`] if the hardware lacks what nesting needs, or does not answer.
    pub fn driver(&self, hardware: Box<dyn Hardware>) -> Result<Driver, CallError> {
        const SLOT: &str = "driver_create";
        let entry = &self.table.entry;
        let create = entry.driver_create.ok_or(CallError::Missing { slot: SLOT })?;
        let loan = Loan::new(hardware);
        let calls = loan.calls();
        // SAFETY: the slots of one part; the loan is kept beside the instance and dropped after it.
        let instance = unsafe {
            Instance::create(&self.table, SLOT, entry.driver_destroy, |instance, why| create(&calls, instance, why))
        };
        loan.check(SLOT, instance).map(|instance| Driver::new(instance, loan))
    }

    /// A software IOMMU.
    ///
    /// # Errors
    /// [`CallError::Refused`] if the ID registers ask for what it does not model.
    pub fn model(&self, host: Box<dyn ModelHost>, config: ModelConfig<'_>) -> Result<Model, CallError> {
        const SLOT: &str = "model_create";
        let entry = &self.table.entry;
        let create = entry.model_create.ok_or(CallError::Missing { slot: SLOT })?;
        let loan = Loan::new(host);
        let calls = loan.calls();
        let setup = ModelSetup {
            size: size_of::<ModelSetup>() as u32,
            atc: config.atc.into(),
            tlb_capacity: config.tlb_capacity,
            reserved: 0,
            registers: config.registers.as_ptr(),
            register_count: config.registers.len(),
        };
        // SAFETY: as in `driver`; the setup outlives the call.
        let instance = unsafe {
            Instance::create(&self.table, SLOT, entry.model_destroy, |instance, why| {
                create(&calls, &setup, instance, why)
            })
        };
        loan.check(SLOT, instance).map(|instance| Model::new(instance, loan))
    }
}
