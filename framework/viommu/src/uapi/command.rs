//! The commands of an iommufd.

/// A command: an ioctl on `/dev/iommu`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Command {
    /// Destroys an object by its ID; EBUSY while something uses it.
    Destroy,
    /// Allocates an IOAS.
    IoasAlloc,
    /// Narrows where automatic IOVAs come from.
    IoasAllowIovas,
    /// Maps what another IOAS maps.
    IoasCopy,
    /// Which IOVAs can be used.
    IoasIovaRanges,
    /// Maps memory of this process.
    IoasMap,
    /// Unmaps whole mappings.
    IoasUnmap,
    /// Reads or sets an option.
    Option,
    /// Which IOAS the VFIO container calls mean.
    VfioIoas,
    /// Allocates a paging or nested HWPT.
    HwptAlloc,
    /// What a device's IOMMU can do.
    GetHwInfo,
    /// Turns dirty tracking on or off.
    HwptSetDirtyTracking,
    /// Reads, and clears, which pages were written.
    HwptGetDirtyBitmap,
    /// Invalidates what hardware cached of a guest's tables.
    HwptInvalidate,
    /// Allocates a queue of page requests.
    FaultQueueAlloc,
    /// Maps a memfd.
    IoasMapFile,
    /// Allocates a vIOMMU on a nesting parent.
    ViommuAlloc,
    /// Gives a device the guest's name for it.
    VdeviceAlloc,
    /// Accounts pinned memory to the calling process from now on.
    IoasChangeProcess,
    /// Allocates a queue of a vIOMMU's events.
    VeventqAlloc,
    /// Lets hardware read a queue in the guest's memory.
    HwQueueAlloc,
    /// Physical address behind an IOVA of a device without an IOMMU.
    IoasNoiommuGetPa,
    /// The selftest's own operations ([`crate::uapi::selftest`]).
    Test,
}

impl Command {
    /// All of them, by number.
    pub const ALL: [Self; 23] = [
        Self::Destroy,
        Self::IoasAlloc,
        Self::IoasAllowIovas,
        Self::IoasCopy,
        Self::IoasIovaRanges,
        Self::IoasMap,
        Self::IoasUnmap,
        Self::Option,
        Self::VfioIoas,
        Self::HwptAlloc,
        Self::GetHwInfo,
        Self::HwptSetDirtyTracking,
        Self::HwptGetDirtyBitmap,
        Self::HwptInvalidate,
        Self::FaultQueueAlloc,
        Self::IoasMapFile,
        Self::ViommuAlloc,
        Self::VdeviceAlloc,
        Self::IoasChangeProcess,
        Self::VeventqAlloc,
        Self::HwQueueAlloc,
        Self::IoasNoiommuGetPa,
        Self::Test,
    ];

    /// Of [`Command::code`], the number of the first command; codes have no size or direction in them.
    pub const FIRST: u32 = 0x3b80;

    /// The uAPI's name, without IOMMU.
    pub fn name(self) -> &'static str {
        self.facts().0
    }

    /// The ioctl's code.
    pub fn code(self) -> u32 {
        Self::FIRST + self.facts().1
    }

    /// Bytes of the shortest argument that the kernel takes (the struct as it was first published).
    pub fn minimum(self) -> usize {
        self.facts().2
    }

    /// Bytes of the argument as Linux 7.3 has it.
    pub fn size(self) -> usize {
        self.facts().3
    }

    /// Which command has this code.
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|command| command.code() == code)
    }

    /// Name, number, shortest and full size.
    fn facts(self) -> (&'static str, u32, usize, usize) {
        use super::layout as l;
        match self {
            Self::Destroy => ("DESTROY", 0x00, 8, size_of::<l::Destroy>()),
            Self::IoasAlloc => ("IOAS_ALLOC", 0x01, 12, size_of::<l::IoasAlloc>()),
            Self::IoasAllowIovas => ("IOAS_ALLOW_IOVAS", 0x02, 24, size_of::<l::IoasAllowIovas>()),
            Self::IoasCopy => ("IOAS_COPY", 0x03, 40, size_of::<l::IoasCopy>()),
            Self::IoasIovaRanges => ("IOAS_IOVA_RANGES", 0x04, 32, size_of::<l::IoasIovaRanges>()),
            Self::IoasMap => ("IOAS_MAP", 0x05, 40, size_of::<l::IoasMap>()),
            Self::IoasUnmap => ("IOAS_UNMAP", 0x06, 24, size_of::<l::IoasUnmap>()),
            Self::Option => ("OPTION", 0x07, 24, size_of::<l::OptionArgument>()),
            Self::VfioIoas => ("VFIO_IOAS", 0x08, 12, size_of::<l::VfioIoas>()),
            Self::HwptAlloc => ("HWPT_ALLOC", 0x09, 24, size_of::<l::HwptAlloc>()),
            Self::GetHwInfo => ("GET_HW_INFO", 0x0a, 32, size_of::<l::HwInfo>()),
            Self::HwptSetDirtyTracking => ("HWPT_SET_DIRTY_TRACKING", 0x0b, 16, size_of::<l::HwptSetDirtyTracking>()),
            Self::HwptGetDirtyBitmap => ("HWPT_GET_DIRTY_BITMAP", 0x0c, 48, size_of::<l::HwptGetDirtyBitmap>()),
            Self::HwptInvalidate => ("HWPT_INVALIDATE", 0x0d, 32, size_of::<l::HwptInvalidate>()),
            Self::FaultQueueAlloc => ("FAULT_QUEUE_ALLOC", 0x0e, 16, size_of::<l::FaultAlloc>()),
            Self::IoasMapFile => ("IOAS_MAP_FILE", 0x0f, 40, size_of::<l::IoasMapFile>()),
            Self::ViommuAlloc => ("VIOMMU_ALLOC", 0x10, 24, size_of::<l::ViommuAlloc>()),
            Self::VdeviceAlloc => ("VDEVICE_ALLOC", 0x11, 24, size_of::<l::VdeviceAlloc>()),
            Self::IoasChangeProcess => ("IOAS_CHANGE_PROCESS", 0x12, 8, size_of::<l::IoasChangeProcess>()),
            Self::VeventqAlloc => ("VEVENTQ_ALLOC", 0x13, 28, size_of::<l::VeventqAlloc>()),
            Self::HwQueueAlloc => ("HW_QUEUE_ALLOC", 0x14, 40, size_of::<l::HwQueueAlloc>()),
            Self::IoasNoiommuGetPa => ("IOAS_NOIOMMU_GET_PA", 0x15, 40, size_of::<l::IoasNoiommuGetPa>()),
            Self::Test => ("TEST_CMD", 0x20, 68, size_of::<super::selftest::TestCommand>()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_lead_back_and_sizes_are_the_kernels() {
        let sizes: Vec<_> = Command::ALL.iter().map(|command| command.size()).collect();
        assert_eq!(
            sizes,
            [8, 12, 24, 40, 32, 40, 24, 24, 12, 48, 40, 16, 48, 32, 16, 40, 40, 24, 8, 32, 40, 40, 72],
            "Linux 7.3, compiled"
        );
        for command in Command::ALL {
            assert_eq!(Command::from_code(command.code()), Some(command));
            assert!(command.minimum() <= command.size(), "{command:?}");
        }
        assert_eq!(Command::from_code(0x3b96), None);
        assert_eq!(Command::HwQueueAlloc.code(), 0x3b94);
    }
}
