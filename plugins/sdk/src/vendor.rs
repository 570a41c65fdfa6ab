//! What a vendor is made of.

use crate::{Codec, Driver, Frontend, Hardware, KernelAbi, Model, ModelConfig, ModelHost, Register};
use std::fmt;

/// A vendor's fixed facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VendorInfo {
    /// The plugin's name, as `--plugin` takes it: `arm-smmuv3`.
    pub name: &'static str,
    /// The plugin's own version.
    pub version: &'static str,
    /// Code of the vendor's recordings (trace header): 1 Arm SMMUv3, 2 AMD-Vi, 3 Intel VT-d; others from 0x8000.
    pub vendor: u32,
    /// Words of 8 bytes a command, at most.
    pub command_words: u32,
    /// Words of a guest table entry (STE, DTE, PASID entry).
    pub entry_words: u32,
    /// Words of an event record.
    pub event_words: u32,
    /// Bytes of the register frame.
    pub frame_bytes: u64,
    /// What the vendor calls a guest's stream ID, for messages: "StreamID".
    pub stream_name: &'static str,
}

/// Why a plugin cannot do what it was asked, in words for the person who asked, with the errno of the uAPI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Positive errno with the uAPI's meaning.
    pub errno: i32,
    /// Object, operation and cause in words.
    pub text: String,
}

impl Refusal {
    /// Understood but wrong.
    pub const EINVAL: i32 = 22;
    /// A value this implementation does not support.
    pub const EOPNOTSUPP: i32 = 95;
    /// No such address.
    pub const ENXIO: i32 = 6;
    /// An address that is not backed, or not as it must be.
    pub const EFAULT: i32 = 14;
    /// No memory.
    pub const ENOMEM: i32 = 12;
    /// No such ID.
    pub const ENOENT: i32 = 2;
    /// In use.
    pub const EBUSY: i32 = 16;
    /// Exists already.
    pub const EEXIST: i32 = 17;
    /// A pool is exhausted.
    pub const ENOSPC: i32 = 28;
    /// The hardware did not answer in time.
    pub const ETIMEDOUT: i32 = 110;
    /// The hardware refused.
    pub const EIO: i32 = 5;

    /// A refusal with this errno and text.
    pub fn new(errno: i32, text: impl Into<String>) -> Self {
        Self { errno, text: text.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.text)
    }
}

impl std::error::Error for Refusal {}

/// A vendor: the type a plugin exports. All parts share the ID registers they were created with.
pub trait Vendor: 'static {
    /// Fixed facts.
    const INFO: VendorInfo;
    /// What this vendor's guests are in the words of Linux's iommufd; `None` if they cannot be served on `/dev/iommu`.
    const KERNEL: Option<&'static dyn KernelAbi> = None;
    /// The register frame a guest sees.
    type Frontend: Frontend;
    /// Check and rewrite.
    type Codec: Codec;
    /// The physical IOMMU's driver.
    type Driver: Driver;
    /// The software IOMMU.
    type Model: Model;

    /// A frontend that shows these ID registers.
    ///
    /// # Errors
    /// If they promise a guest what a vIOMMU cannot be (Arm: IDR0.S1P = 0).
    fn frontend(registers: &[Register]) -> Result<Self::Frontend, Refusal>;
    /// A codec that accepts what these ID registers promise.
    ///
    /// # Errors
    /// As [`Vendor::frontend`].
    fn codec(registers: &[Register]) -> Result<Self::Codec, Refusal>;
    /// Takes over a physical IOMMU: allocates tables and queues, enables it with every stream aborting.
    ///
    /// # Errors
    /// If the hardware lacks what nesting needs, or does not answer.
    fn driver(hardware: Box<dyn Hardware>) -> Result<Self::Driver, Refusal>;
    /// A software IOMMU.
    ///
    /// # Errors
    /// If the ID registers ask for what it does not model.
    fn model(host: Box<dyn ModelHost>, config: ModelConfig<'_>) -> Result<Self::Model, Refusal>;
    /// Whether hardware that offers guests `offered` ([`Driver::guest_registers`]) serves one that was shown `shown`. Asked
    /// when a guest moves to another host. Without a vendor's answer, only equal registers will do.
    ///
    /// # Errors
    /// What the hardware lacks, by register and field: "IDR5.OAS: the guest was shown 48 bits, this host has 44"
    /// (`EOPNOTSUPP`).
    fn covers(offered: &[Register], shown: &[Register]) -> Result<(), Refusal> {
        let lacks = |register: &&Register| !offered.contains(register);
        let Some(Register { offset, value }) = shown.iter().find(lacks) else { return Ok(()) };
        let here = offered.iter().find(|register| register.offset == *offset).map(|register| register.value);
        let here = here.map_or_else(|| "nothing".to_owned(), |value| format!("{value:#x}"));
        let text = format!("register {offset:#x}: the guest was shown {value:#x}, this host has {here}");
        Err(Refusal::new(Refusal::EOPNOTSUPP, text))
    }
}

/// Text buffer lent across the plugin boundary. What does not fit is cut at a character boundary.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Message {
    len: u32,
    bytes: [u8; 2044],
}

impl Default for Message {
    fn default() -> Self {
        Self { len: 0, bytes: [0; 2044] }
    }
}

impl Message {
    /// The text so far. Bytes that are not UTF-8 are replaced.
    pub fn text(&self) -> String {
        let len = (self.len as usize).min(self.bytes.len());
        String::from_utf8_lossy(&self.bytes[..len]).into_owned()
    }
}

impl fmt::Write for Message {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let used = (self.len as usize).min(self.bytes.len());
        let mut fits = s.len().min(self.bytes.len() - used);
        while !s.is_char_boundary(fits) {
            fits -= 1;
        }
        self.bytes[used..used + fits].copy_from_slice(&s.as_bytes()[..fits]);
        self.len = (used + fits) as u32;
        Ok(())
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text(), f)
    }
}
