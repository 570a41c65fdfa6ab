//! What a vendor's kernel driver decides: everything that the object rules leave to it.
//!
//! A [`Driver`] is asked after the rules that hold for every vendor. Its answers are errnos that reach the caller as they
//! are.

use crate::uapi::{Errno, UserMemory};
use std::any::Any;
use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::sync::Arc;
use zerocopy::{FromBytes, IntoBytes};

/// Bytes of a page of this process.
pub const PAGE_SIZE: u64 = 4096;

/// A device, as far as iommufd is concerned with it.
#[derive(Debug, Clone)]
pub struct DeviceConfig {
    /// The driver of its IOMMU.
    pub driver: Arc<dyn Driver>,
    /// Which instance of that IOMMU it is behind.
    pub iommu: u32,
    /// Devices of one group can only be attached together; `None` for a group of its own.
    pub group: Option<u32>,
    /// Its streams (requester IDs) there.
    pub streams: Vec<u32>,
    /// Width of its PASIDs; 0 without.
    pub pasid_log2: u8,
    /// Whether its IOMMU can track dirty pages.
    pub dirty_tracking: bool,
    /// IOVAs that must stay free for it (MSI windows), as first and last.
    pub reserved: Vec<(u64, u64)>,
    /// [`crate::uapi::flags::HW_CAP_PCI_ATS_NOT_SUPPORTED`] and its kind, beside dirty tracking.
    pub capabilities: u64,
    /// Whether the IOMMU keeps its DMA coherent with the CPU's caches; a device without cannot be bound.
    pub coherent: bool,
    /// Whether its interrupts are isolated; a device without cannot be bound.
    pub isolated_msi: bool,
    /// A PCI virtual function with page requests: cannot be attached to an HWPT with a fault queue.
    pub virtual_function_with_pri: bool,
}

impl DeviceConfig {
    /// A device with one stream behind the first instance of this driver's IOMMU.
    pub fn new(driver: Arc<dyn Driver>, stream: u32) -> Self {
        Self {
            driver,
            iommu: 0,
            group: None,
            streams: vec![stream],
            pasid_log2: 0,
            dirty_tracking: true,
            reserved: Vec::new(),
            capabilities: 0,
            coherent: true,
            isolated_msi: true,
            virtual_function_with_pri: false,
        }
    }
}

/// A bound device, as drivers see it.
#[derive(Debug, Clone)]
pub struct BoundDevice {
    /// Its object's ID.
    pub id: u32,
    /// What it is.
    pub config: Arc<DeviceConfig>,
    /// What [`Driver::device`] made for it.
    pub private: Arc<dyn Any + Send + Sync>,
}

/// A payload that the caller points at.
#[derive(Clone, Copy)]
pub struct UserData<'a> {
    /// Its type, as the command says.
    pub data_type: u32,
    /// Where it is.
    pub address: u64,
    /// Its bytes.
    pub length: u32,
    /// What pointers lead to.
    pub memory: &'a dyn UserMemory,
}

impl Debug for UserData<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes of type {:#x} at {:#x}", self.length, self.data_type, self.address)
    }
}

impl UserData<'_> {
    /// The payload, if it is of this type; what the caller's version lacks is zero.
    ///
    /// # Errors
    /// EINVAL for another type, or fewer bytes than the first version of the payload or more than this one; EFAULT.
    pub fn read<T: FromBytes + IntoBytes + Default>(&self, data_type: u32, minimum: usize) -> Result<T, Errno> {
        let length = self.length as usize;
        if self.data_type != data_type || length < minimum || length > size_of::<T>() {
            return Err(Errno::INVAL);
        }
        let mut payload = T::default();
        self.memory.read(self.address, &mut payload.as_mut_bytes()[..length])?;
        Ok(payload)
    }

    /// Gives the payload back, cut to the caller's bytes.
    ///
    /// # Errors
    /// EFAULT.
    pub fn write<T: IntoBytes + zerocopy::Immutable>(&self, payload: &T) -> Result<(), Errno> {
        let bytes = payload.as_bytes();
        self.memory.write(self.address, &bytes[..bytes.len().min(self.length as usize)])
    }
}

/// A paging HWPT's page table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PagingDomain {
    /// Bytes of its smallest page: at most [`PAGE_SIZE`].
    pub page_size: u64,
    /// IOVAs that it can translate.
    pub aperture: RangeInclusive<u64>,
    /// Whether a table of a parent of the vendor refuses mappings that devices may not write (VT-d's erratum).
    pub refuses_read_only: bool,
}

/// A nesting parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// The HWPT.
    pub hwpt: u32,
    /// The IOMMU's instance that it was made for.
    pub iommu: u32,
}

/// What GET_HW_INFO answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HwInformation {
    /// Type of the payload.
    pub data_type: u32,
    /// The payload.
    pub bytes: Vec<u8>,
}

/// What a device or one of its PASIDs is attached to.
#[derive(Debug)]
pub enum Target<'a> {
    /// A paging HWPT.
    Paging {
        /// Whether it tracks dirty pages.
        dirty_tracking: bool,
        /// The IOMMU's instance that it was made for.
        iommu: u32,
    },
    /// A nested HWPT.
    Nested {
        /// The vendor's part of it.
        hwpt: &'a dyn NestedHwpt,
        /// The IOMMU's instance that it was made for.
        iommu: u32,
        /// On a vIOMMU: the guest's name for the device there, `None` if it has none.
        virt_id: Option<Option<u64>>,
    },
    /// Nothing: DMA is blocked.
    Blocked,
}

/// The entries of an invalidation, where the caller points.
pub struct Entries<'a> {
    /// Their type.
    pub data_type: u32,
    /// The first one's address.
    pub address: u64,
    /// Bytes from one to the next.
    pub length: u32,
    /// How many there are: 2^19 at most.
    pub count: u32,
    /// How many the caller is told were handled. Starts as `count`, which is what a driver that fails before it begins
    /// leaves in it.
    pub handled: u32,
    /// What pointers lead to.
    pub memory: &'a dyn UserMemory,
}

impl Entries<'_> {
    /// One entry, by the rule for one payload: exactly the entry's bytes or a shorter older version.
    ///
    /// # Errors
    /// EINVAL for another type or length; EFAULT.
    pub fn one<T: FromBytes + IntoBytes + Default>(
        &self,
        data_type: u32,
        minimum: usize,
        index: u32,
    ) -> Result<T, Errno> {
        let address = self.address.wrapping_add(u64::from(self.length) * u64::from(index));
        UserData { data_type: self.data_type, address, length: self.length, memory: self.memory }
            .read(data_type, minimum)
    }

    /// All entries, by the rule for arrays: shorter entries are filled with zeros, the tail of longer ones must be zero.
    ///
    /// # Errors
    /// EINVAL for another type or no entry at all; E2BIG; EFAULT.
    pub fn all<T: FromBytes + IntoBytes + Clone + Default>(&self, data_type: u32) -> Result<Vec<T>, Errno> {
        if self.data_type != data_type || self.count == 0 {
            return Err(Errno::INVAL);
        }
        let (size, length) = (size_of::<T>(), self.length as usize);
        if length == size {
            let mut entries = vec![T::default(); self.count as usize];
            // One bulk copy, in pieces: T has no padding, but a slice of it cannot be borrowed as bytes without Immutable.
            let mut bytes = vec![0; size * entries.len()];
            self.memory.read(self.address, &mut bytes)?;
            for (entry, bytes) in entries.iter_mut().zip(bytes.chunks_exact(size)) {
                entry.as_mut_bytes().copy_from_slice(bytes);
            }
            return Ok(entries);
        }
        let mut entries = Vec::new();
        let mut bytes = vec![0; length];
        for index in 0..self.count {
            self.memory.read(self.address.wrapping_add(u64::from(self.length) * u64::from(index)), &mut bytes)?;
            let common = length.min(size);
            if bytes[common..].iter().any(|byte| *byte != 0) {
                return Err(Errno::TOOBIG);
            }
            let mut entry = T::default();
            entry.as_mut_bytes()[..common].copy_from_slice(&bytes[..common]);
            entries.push(entry);
        }
        Ok(entries)
    }
}

/// Finds a device of a vIOMMU by the guest's name for it.
pub type FindDevice<'a> = dyn Fn(u64) -> Option<BoundDevice> + 'a;

/// The vendor's part of a nested HWPT.
pub trait NestedHwpt: Debug + Send {
    /// Invalidates; says in [`Entries::handled`] how far it got.
    ///
    /// # Errors
    /// EOPNOTSUPP if the vendor has no such operation; what is wrong with an entry.
    fn invalidate(&mut self, entries: &mut Entries<'_>) -> Result<(), Errno> {
        entries.handled = 0;
        Err(Errno::OPNOTSUPP)
    }

    /// Itself, for a driver that knows its own.
    fn as_any(&self) -> &dyn Any;
}

/// A piece of a vIOMMU's registers that the caller may map.
#[derive(Debug, Clone)]
pub struct Registers {
    /// Bytes: whole pages.
    pub length: u64,
    /// What the first word reads as.
    pub first_word: u32,
}

/// Gives registers an mmap offset.
pub type MapRegisters<'a> = dyn FnMut(Registers) -> Result<u64, Errno> + 'a;

/// The vendor's part of a vIOMMU.
pub trait ViommuDriver: Debug + Send {
    /// A nested HWPT on it.
    ///
    /// # Errors
    /// What is wrong with the flags or the payload.
    fn nested(&mut self, flags: u32, data: UserData<'_>) -> Result<Box<dyn NestedHwpt>, Errno>;

    /// Invalidates; says in [`Entries::handled`] how far it got.
    ///
    /// # Errors
    /// EOPNOTSUPP if the vendor has no such operation; what is wrong with an entry.
    fn invalidate(&mut self, entries: &mut Entries<'_>, find: &FindDevice<'_>) -> Result<(), Errno>;

    /// A device gets its name.
    ///
    /// # Errors
    /// What is wrong with the device or the name.
    fn vdevice(&mut self, device: &BoundDevice, virt_id: u64) -> Result<(), Errno> {
        let _ = (device, virt_id);
        Ok(())
    }

    /// A device loses its name.
    fn vdevice_destroy(&mut self, virt_id: u64) {
        let _ = virt_id;
    }

    /// Whether there are hardware queues of this type.
    fn has_hw_queue(&self, queue_type: u32) -> bool {
        let _ = queue_type;
        false
    }

    /// A hardware queue, at a physical address.
    ///
    /// # Errors
    /// What is wrong with it. On success, the index of the queue that must not go before this one.
    fn hw_queue(&mut self, index: u32, physical: u64, length: u64) -> Result<Option<u32>, Errno> {
        let _ = (index, physical, length);
        Err(Errno::OPNOTSUPP)
    }

    /// The queue is gone.
    fn hw_queue_destroy(&mut self, index: u32) {
        let _ = index;
    }
}

/// A vendor's kernel driver.
pub trait Driver: Debug + Send + Sync {
    /// What the driver keeps of a device, looked into by the driver alone.
    fn device(&self) -> Arc<dyn Any + Send + Sync> {
        Arc::new(())
    }

    /// GET_HW_INFO of this type; 0 is whatever the driver has.
    ///
    /// # Errors
    /// EOPNOTSUPP for a type that it has not.
    fn hw_info(&self, device: &DeviceConfig, data_type: u32) -> Result<HwInformation, Errno>;

    /// A paging HWPT with these flags, the fault queue's left out.
    ///
    /// # Errors
    /// EOPNOTSUPP for flags or a payload that it does not take.
    fn paging(&self, device: &DeviceConfig, flags: u32, data: Option<UserData<'_>>) -> Result<PagingDomain, Errno>;

    /// A nested HWPT directly on a parent, the fault queue's flag left out.
    ///
    /// # Errors
    /// What is wrong with the flags or the payload.
    fn nested(&self, device: &DeviceConfig, flags: u32, data: UserData<'_>) -> Result<Box<dyn NestedHwpt>, Errno> {
        let _ = (device, flags, data);
        Err(Errno::OPNOTSUPP)
    }

    /// Whether the driver nests on a parent at all; others need a vIOMMU.
    fn nests_on_parent(&self) -> bool {
        false
    }

    /// Whether there are vIOMMUs of this type.
    fn has_viommu(&self, device: &DeviceConfig, viommu_type: u32) -> bool {
        let _ = (device, viommu_type);
        false
    }

    /// A vIOMMU on a nesting parent.
    ///
    /// # Errors
    /// What is wrong with the payload or the parent.
    fn viommu(
        &self,
        device: &BoundDevice,
        parent: Parent,
        viommu_type: u32,
        data: Option<UserData<'_>>,
        map: &mut MapRegisters<'_>,
    ) -> Result<Box<dyn ViommuDriver>, Errno> {
        let _ = (device, parent, viommu_type, data, map);
        Err(Errno::OPNOTSUPP)
    }

    /// A device, or one of its PASIDs (0: the device itself), is attached or replaced.
    ///
    /// # Errors
    /// Why it cannot be; it stays where it was.
    fn attach(&self, device: &BoundDevice, pasid: u32, target: &Target<'_>) -> Result<(), Errno> {
        let _ = (device, pasid, target);
        Ok(())
    }

    /// Whether a device that is attached to another nested HWPT of the same vIOMMU gets the name for its events anew.
    fn names_again(&self) -> bool {
        true
    }

    /// Whether page requests of PASIDs that are not attached go to the nested HWPT of the device itself, as the guest
    /// owns the PASID table.
    fn guest_owns_pasids(&self) -> bool {
        true
    }
}
