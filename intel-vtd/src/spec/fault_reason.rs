//! Fault reasons (chapter 7 and appendix A). An open set.

/// FRCD.FR, and [`viommu_plugin::Answer::fault`].
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FaultReason(pub u8);

macro_rules! reasons {
    ($($(#[$meta:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        impl FaultReason {
            $(#[doc = $text] pub const $name: Self = Self($value);)*

            /// What the reason means.
            pub const fn text(self) -> Option<&'static str> {
                Some(match self {
                    $(Self::$name => $text,)*
                    _ => return None,
                })
            }
        }
    };
}

reasons! {
    ROOT_NOT_PRESENT = 0x01, "Present bit of the root entry is 0";
    CONTEXT_NOT_PRESENT = 0x02, "Present bit of the context entry is 0";
    CONTEXT_INVALID = 0x03, "context entry has a field that hardware does not support";
    BEYOND_MGAW = 0x04, "address is beyond what the context entry's AW or CAP.MGAW allow";
    NO_WRITE = 0x05, "no write permission";
    NO_READ = 0x06, "no read permission";
    TABLE_UNREADABLE = 0x07, "paging entry cannot be read";
    ROOT_UNREADABLE = 0x08, "root entry cannot be read";
    CONTEXT_UNREADABLE = 0x09, "context entry cannot be read";
    ROOT_RESERVED = 0x0a, "root entry has a reserved bit set";
    CONTEXT_RESERVED = 0x0b, "context entry has a reserved bit set";
    PTE_RESERVED = 0x0c, "paging entry has a reserved bit set";
    TRANSLATION_BLOCKED = 0x0d, "context entry allows no translated or translation requests";
    SM_TTM_INVALID = 0x30, "RTADDR.TTM is not a supported mode";
    SM_PASID_IN_LEGACY_MODE = 0x31, "request with PASID while RTADDR.TTM is legacy";
    SM_PAGE_REQUEST_IN_LEGACY_MODE = 0x32, "page request while RTADDR.TTM is legacy";
    SM_ROOT_UNREADABLE = 0x38, "scalable-mode root entry cannot be read";
    SM_ROOT_NOT_PRESENT = 0x39, "LP or UP of the scalable-mode root entry is 0";
    SM_ROOT_RESERVED = 0x3a, "scalable-mode root entry has a reserved bit set";
    SM_CONTEXT_UNREADABLE = 0x40, "scalable-mode context entry cannot be read";
    SM_CONTEXT_NOT_PRESENT = 0x41, "Present bit of the scalable-mode context entry is 0";
    SM_CONTEXT_RESERVED = 0x42, "scalable-mode context entry has a reserved bit set";
    SM_CONTEXT_INVALID = 0x43, "scalable-mode context entry has a field that hardware does not support";
    SM_DEVICE_TLB_DISABLED = 0x44, "translation or translated request while DTE is 0";
    SM_PASID_DISABLED = 0x45, "request with PASID while PASIDE is 0";
    SM_PASID_TOO_LARGE = 0x46, "PASID is beyond the directory (PDTS)";
    SM_PAGE_REQUEST_DISABLED = 0x47, "page request while PRE is 0";
    SM_RID_PASID_INVALID = 0x48, "RID_PASID is beyond the directory (PDTS)";
    SM_DIRECTORY_UNREADABLE = 0x50, "PASID directory entry cannot be read";
    SM_DIRECTORY_NOT_PRESENT = 0x51, "Present bit of the PASID directory entry is 0";
    SM_DIRECTORY_RESERVED = 0x52, "PASID directory entry has a reserved bit set";
    SM_PASID_UNREADABLE = 0x58, "PASID table entry cannot be read";
    SM_PASID_NOT_PRESENT = 0x59, "Present bit of the PASID table entry is 0";
    SM_PASID_RESERVED = 0x5a, "PASID table entry has a reserved bit set";
    SM_PASID_INVALID = 0x5b, "PASID table entry has a field that hardware does not support";
    SM_EXECUTE_DISABLED = 0x5c, "execute request while ERE is 0";
    SM_SUPERVISOR_DISABLED = 0x5d, "privileged request while SRE is 0";
    SM_FS_UNREADABLE = 0x70, "first-stage paging entry cannot be read";
    SM_FS_NOT_PRESENT = 0x71, "Present bit of a first-stage paging entry is 0";
    SM_FS_RESERVED = 0x72, "first-stage paging entry has a reserved bit set";
    SM_FS_ROOT_UNREADABLE = 0x73, "top first-stage paging entry cannot be read";
    SM_FS_ADDRESS_BEYOND = 0x74, "first-stage entry's address is beyond the second stage (nested)";
    SM_FS_ROOT_NO_READ = 0x75, "second stage does not let the top first-stage entry be read (nested)";
    SM_FS_NO_READ = 0x76, "second stage does not let a first-stage entry be read (nested)";
    SM_FS_NO_WRITE = 0x77, "second stage does not let a first-stage entry's A or D be written (nested)";
    SM_SS_UNREADABLE = 0x78, "second-stage paging entry cannot be read";
    SM_SS_NO_PERMISSION = 0x79, "second-stage paging entry lacks R or W, or is not present (neither)";
    SM_SS_RESERVED = 0x7a, "second-stage paging entry has a reserved bit set";
    SM_SS_TABLE_UNREADABLE = 0x7b, "top second-stage paging entry cannot be read";
    SM_NOT_CANONICAL = 0x80, "address is not canonical for the first stage";
    SM_FS_SUPERVISOR_ONLY = 0x81, "U/S of a first-stage entry is 0";
    SM_FS_NO_EXECUTE = 0x82, "first stage does not let the request execute";
    SM_BEYOND_MGAW = 0x83, "address is beyond the second stage's width";
    SM_SS_BEYOND = 0x84, "output of the first stage is beyond the second stage's width (nested)";
    SM_NO_WRITE = 0x85, "first stage gives no write permission";
    SM_NO_READ = 0x86, "first stage gives no read permission";
    SM_INTERRUPT_ADDRESS = 0x87, "address lies in the interrupt range";
    SM_FS_AD_UPDATE = 0x90, "first-stage A or D has to be set in a table that is not snooped";
    SM_FS_AD_UPDATE_FAILED = 0x91, "first-stage A or D could not be set";
}
