//! The header of a trace: whose IOMMU, and where things are in the guest.

use crate::Problem;
use serde_json::{Map, Value, json};

pub(crate) const MAGIC: [u8; 8] = *b"GIOMMUTR";
pub(crate) const VERSION: u16 = 1;
/// Bytes of the header before its JSON.
pub(crate) const FIXED: usize = 56;
/// Most bytes of JSON accepted; recordings have a few thousand.
pub(crate) const MAX_JSON: u32 = 1 << 20;
/// Most devices taken from the JSON: one for each function of a PCI segment.
const MAX_DEVICES: usize = 1 << 16;

/// Whose IOMMU was recorded. An open set: codes from 0x8000 are private ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Vendor(pub u16);

impl Vendor {
    /// Arm SMMUv3.
    pub const ARM_SMMUV3: Self = Self(1);
    /// AMD-Vi.
    pub const AMD_VI: Self = Self(2);
    /// Intel VT-d.
    pub const INTEL_VTD: Self = Self(3);

    /// First of the codes that no format assigns but that are not refused: a plugin of one's own.
    const FIRST_PRIVATE: u16 = 0x8000;

    /// The name of the vendor's plugin, for the codes the format assigns.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::ARM_SMMUV3 => Some("arm-smmuv3"),
            Self::AMD_VI => Some("amd-vi"),
            Self::INTEL_VTD => Some("intel-vtd"),
            _ => None,
        }
    }

    fn is_known(self) -> bool {
        self.name().is_some() || self.0 >= Self::FIRST_PRIVATE
    }
}

/// A device that the guest was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// What it is, for people.
    pub name: String,
    /// Its PCI requester ID: StreamID, DeviceID or source-id.
    pub sid: u32,
}

/// What a trace says of itself before the first record.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// Whose IOMMU.
    pub vendor: Vendor,
    /// Guest physical address of RAM.
    pub ram_base: u64,
    /// Bytes of RAM.
    pub ram_size: u64,
    /// Guest physical address of the IOMMU's register frame.
    pub mmio_base: u64,
    /// Bytes of the register frame.
    pub mmio_size: u64,
    /// The recording's name; empty if it has none.
    pub name: String,
    /// The devices the guest was started with. Other streams occur in records too.
    pub devices: Vec<Device>,
    /// The whole description.
    pub json: Map<String, Value>,
}

impl Header {
    /// A header with no RAM, no register frame and no devices.
    pub fn new(vendor: Vendor) -> Self {
        let (name, devices) = (String::new(), Vec::new());
        Self { vendor, ram_base: 0, ram_size: 0, mmio_base: 0, mmio_size: 0, name, devices, json: Map::new() }
    }
    /// The same header with this RAM.
    #[must_use]
    pub fn ram(self, ram_base: u64, ram_size: u64) -> Self {
        Self { ram_base, ram_size, ..self }
    }
    /// The same header with this register frame.
    #[must_use]
    pub fn frame(self, mmio_base: u64, mmio_size: u64) -> Self {
        Self { mmio_base, mmio_size, ..self }
    }
    /// The same header with one more device.
    #[must_use]
    pub fn device(mut self, name: &str, sid: u32) -> Self {
        self.devices.push(Device { name: name.into(), sid });
        self
    }

    /// Whether `len` bytes at guest physical `gpa` are all RAM.
    pub fn in_ram(&self, gpa: u64, len: u64) -> bool {
        gpa >= self.ram_base && gpa - self.ram_base <= self.ram_size && len <= self.ram_size - (gpa - self.ram_base)
    }

    /// Whether the recorder cleared AMD's capability NpCache before the guest started: a guest that was not told to
    /// announce new mappings. The format's override `npcache_cleared`.
    pub fn npcache_cleared(&self) -> bool {
        self.json.get("npcache_cleared").and_then(Value::as_bool) == Some(true)
    }

    /// Whether the guest was shown that its IOMMU invalidates devices' caches (AMD's IotlbSup). Recordings do not say it;
    /// `iotlb_sup` is of guests that never ran.
    pub fn iotlb_sup(&self) -> bool {
        self.json.get("iotlb_sup").and_then(Value::as_bool) == Some(true)
    }

    /// Takes the fixed part apart; the second value is the length of the JSON that follows.
    pub(crate) fn parse_fixed(bytes: &[u8; FIXED]) -> Result<(Self, u32), Problem> {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if bytes[..8] != MAGIC {
            return Err(Problem::NotATrace);
        }
        if u16_at(8) != VERSION {
            return Err(Problem::Version(u16_at(8)));
        }
        let vendor = Vendor(u16_at(10));
        if !vendor.is_known() {
            return Err(Problem::UnknownVendor(vendor.0));
        }
        let (length, json) = (u32_at(12), u32_at(48));
        if json > MAX_JSON {
            return Err(Problem::Header("its description is longer than 1 MiB"));
        }
        if length != FIXED as u32 + json {
            return Err(Problem::Header("its length is not 56 plus that of its description"));
        }
        let header = Self::new(vendor).ram(u64_at(16), u64_at(24)).frame(u64_at(32), u64_at(40));
        if header.ram_base.checked_add(header.ram_size).is_none() {
            return Err(Problem::Header("its RAM ends beyond the address space"));
        }
        Ok((header, json))
    }

    /// Adds the description.
    pub(crate) fn parse_json(&mut self, text: &[u8]) -> Result<(), Problem> {
        if !text.trim_ascii().is_empty() {
            self.json = serde_json::from_slice(text).map_err(Problem::Json)?;
        }
        self.name = self.json.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let listed = match self.json.get("devices") {
            None => return Ok(()),
            Some(value) => value.as_array().ok_or(Problem::Header("`devices` is not a list"))?,
        };
        if listed.len() > MAX_DEVICES {
            return Err(Problem::Header("`devices` lists more than 65536"));
        }
        for device in listed {
            let sid = device.get("sid").and_then(Value::as_u64).and_then(|sid| u32::try_from(sid).ok());
            let sid = sid.ok_or(Problem::Header("a device has no `sid`, or not one of 32 bits"))?;
            let name = device.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            self.devices.push(Device { name, sid });
        }
        Ok(())
    }

    /// The header as bytes. `name` and `devices` replace what `json` says of them.
    pub(crate) fn emit(&self) -> Vec<u8> {
        let mut json = self.json.clone();
        if !self.name.is_empty() {
            json.insert("name".into(), json!(self.name));
        }
        if !self.devices.is_empty() {
            let listed = self.devices.iter().map(|device| json!({ "name": device.name, "sid": device.sid }));
            json.insert("devices".into(), listed.collect());
        }
        let mut text = Value::Object(json).to_string().into_bytes();
        text.resize(text.len().next_multiple_of(8), b' ');
        let mut bytes = Vec::with_capacity(FIXED + text.len());
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(self.vendor.0.to_le_bytes());
        bytes.extend((FIXED as u32 + text.len() as u32).to_le_bytes());
        for value in [self.ram_base, self.ram_size, self.mmio_base, self.mmio_size] {
            bytes.extend(value.to_le_bytes());
        }
        bytes.extend((text.len() as u32).to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(text);
        bytes
    }
}
